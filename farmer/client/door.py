"""The one door from the reactor to files and hashing: blocking work runs behind it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from farmer.crew import LOOK_S, Crew

P = ParamSpec("P")
R = TypeVar("R")

_LET_GO_S: Final = 1.0
"""For work that nobody waits for any more: a disk that answers has kept what it brought."""


class Door(Protocol):
    """Runs blocking work somewhere else."""

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """Return a Deferred, fired on the reactor, of the work's result or exception."""


class ThreadDoor:
    """
    A few threads of its own; the reactor's pool serves name look-ups and stays free for them.

    There is one as long as that is busy hashing: a second would only take the processor from
    it.  Where it waits for disks, there are as many as help (`farmer.crew`).

    Work that was begun is finished even if nobody waits for its result any more, unless the
    program ends before: the threads are daemons, since one that reads a silent disk or a pipe
    may wait for ever.  (Those of `concurrent.futures` are joined at the end in any case.)
    """

    def __init__(self, reactor: Any, threads: int = 4) -> None:  # noqa: ANN401 - a reactor is many interfaces at once
        self._reactor = reactor
        self._most = threads
        self._crew = Crew(threads)
        self._threads = 0
        """Of those that live; with the lock."""
        self._lock = Lock()
        self._unfinished = 0
        self._next_look: IDelayedCall | None = None
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_closed = False
        self._idle: Deferred[None] | None = None

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """
        Return a Deferred of the result; only on the reactor.

        Raises:
            RuntimeError: the door is closed, or there is no thread, and none to be had.

        """
        if self._is_closed:
            raise RuntimeError("this door is closed")
        if not self._threads:
            self._begin_thread()
        result: Deferred[R] = Deferred()

        def do() -> None:
            try:
                outcome = work(*args, **kwargs)
            except BaseException as error:
                self._reactor.callFromThread(self._finish, result, result.errback, error)
            else:
                self._reactor.callFromThread(self._finish, result, result.callback, outcome)

        self._unfinished += 1
        self._waiting.put(do)
        if self._unfinished > self._threads and self._next_look is None:
            self._crew.begin()
            self._next_look = self._reactor.callLater(LOOK_S, self._look)
        return result

    def _look(self) -> None:
        """See whether more threads would help with what waits, or fewer do."""
        self._next_look = None
        is_behind = self._unfinished > self._threads
        if not is_behind and (self._threads < 2 or not self._unfinished):
            return
        before = self._crew.size
        # A piece of work may be a large file to be hashed: that none was begun says nothing.
        self._crew.look(moved=True)
        if not is_behind:
            self._crew.size = min(before, self._crew.size)
        self._begin_threads(self._crew.size)
        self._next_look = self._reactor.callLater(LOOK_S, self._look)

    async def close(self) -> None:
        """Take no more work; wait for what runs, but not long: it is left to finish by itself."""
        self._is_closed = True
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        # Behind one that hangs there may be work that was asked for.
        self._begin_threads(min(self._most, self._unfinished))
        for _ in range(self._threads):
            self._waiting.put(None)
        if self._unfinished:
            self._idle = Deferred()
            with suppress(defer.TimeoutError):
                await self._idle.addTimeout(_LET_GO_S, self._reactor)

    def _begin_threads(self, wanted: int) -> None:
        """Let there be so many, if the system has them: if not, fewer do it."""
        with suppress(RuntimeError):
            while self._threads < wanted:
                self._begin_thread()

    def _begin_thread(self) -> None:
        name = f"renter {self._threads + 1}"
        Thread(target=self._serve, name=name, daemon=True).start()
        with self._lock:
            self._threads += 1

    def _serve(self) -> None:
        while (do := self._waiting.get()) is not None:
            do()
            # Else it would hold the last work, and what that read, until there is more.
            del do
            if self._is_one_too_many():
                return

    def _is_one_too_many(self) -> bool:
        """Say whether this thread is to end."""
        with self._lock:
            if self._is_closed or self._threads <= self._crew.size:
                return False
            self._threads -= 1
            return True

    def _finish(
        self, result: Deferred[Any], settle: Callable[[Any], None], outcome: object
    ) -> None:
        self._unfinished -= 1
        # A Deferred that was cancelled has been called already.
        if not result.called:
            settle(outcome)
        if self._idle is not None and not self._unfinished and not self._idle.called:
            self._idle.callback(None)
