"""The real door from the reactor to blocking work: threads of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
R = TypeVar("R")

THREADS: Final = 8
"""Enough to keep one disk's queue filled and both cores hashing; each costs a malloc arena."""


class ThreadedDisk:
    """
    A thread pool apart from the reactor's, so that DNS never waits for disks.

    Deferreds of this door must not be cancelled: the thread would go on regardless.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int = THREADS) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name="disk")

    def start(self) -> None:
        """Open the door."""
        self._pool.start()

    def stop(self) -> None:
        """Close the door; blocks until the last piece of work is done."""
        self._pool.stop()

    @property
    def busy(self) -> int:
        """How many threads are at work."""
        return len(self._pool.working)

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """See `ports.Disk.run`."""
        return deferToThreadPool(self._reactor, self._pool, work, *args, **kwargs)

    def settle(self, future: Future[R]) -> Deferred[R]:
        """See `ports.Disk.settle`."""
        settled: Deferred[R] = Deferred()

        def pass_on(done: Future[R]) -> None:
            self._reactor.callFromThread(fire, done, settled)

        future.add_done_callback(pass_on)
        return settled


def fire(done: Future[R], settled: Deferred[R]) -> None:
    """Give a Deferred what a future that is done holds."""
    error = done.exception()
    if error is None:
        settled.callback(done.result())
    else:
        settled.errback(error)
