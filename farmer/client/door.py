"""The one door from the reactor to files and hashing: blocking work runs behind it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

P = ParamSpec("P")
R = TypeVar("R")


class Door(Protocol):
    """Runs blocking work somewhere else."""

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """Return a Deferred, fired on the reactor, of the work's result or exception."""


class ThreadDoor:
    """
    A few threads of its own; the reactor's pool serves name look-ups and stays free for them.

    Work that was begun is finished even if nobody waits for its result any more.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: int = 4) -> None:
        self._reactor = reactor
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="renter")

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """Return a Deferred of the result."""
        result: Deferred[R] = Deferred()

        def settle(done: Future[R]) -> None:
            # A Deferred that was cancelled has been called already.
            error = done.exception()
            if result.called:
                return
            if error is None:
                result.callback(done.result())
            else:
                result.errback(error)

        future = self._pool.submit(work, *args, **kwargs)
        future.add_done_callback(lambda done: self._reactor.callFromThread(settle, done))
        return result

    def close(self) -> None:
        """Take no more work; what runs is left to finish by itself."""
        self._pool.shutdown(wait=False)
