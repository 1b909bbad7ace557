"""The one door from the reactor to files and hashing: blocking work runs behind it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
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
        self._crew = Crew(threads)
        self._threads = 0
        self._unfinished = 0
        self._begun = 0
        """How much work was begun; by any thread, so that some may go uncounted."""
        self._begun_then = 0
        self._next_look: IDelayedCall | None = None
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_closed = False
        self._idle: Deferred[None] | None = None

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """Return a Deferred of the result; only on the reactor."""
        if self._is_closed:
            raise RuntimeError("this door is closed")
        result: Deferred[R] = Deferred()

        def do() -> None:
            self._begun += 1
            try:
                outcome = work(*args, **kwargs)
            except BaseException as error:
                self._reactor.callFromThread(self._finish, result, result.errback, error)
            else:
                self._reactor.callFromThread(self._finish, result, result.callback, outcome)

        self._unfinished += 1
        self._waiting.put(do)
        if not self._threads:
            self._begin_thread()
        if self._unfinished > self._threads and self._next_look is None:
            self._crew.begin()
            self._look_later()
        return result

    def _look_later(self) -> None:
        self._begun_then = self._begun
        self._next_look = self._reactor.callLater(LOOK_S, self._look)

    def _look(self) -> None:
        """See whether more threads would help with what waits, or fewer."""
        self._next_look = None
        if self._unfinished <= self._threads:
            return
        self._crew.look(moved=self._begun != self._begun_then)
        while self._threads < self._crew.size:
            self._begin_thread()
        while self._threads > self._crew.size:
            self._end_thread()
        self._look_later()

    async def close(self) -> None:
        """Take no more work; wait for what runs, but not long: it is left to finish by itself."""
        self._is_closed = True
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        while self._threads:
            self._end_thread()
        if self._unfinished:
            self._idle = Deferred()
            with suppress(defer.TimeoutError):
                await self._idle.addTimeout(_LET_GO_S, self._reactor)

    def _begin_thread(self) -> None:
        self._threads += 1
        name = f"renter {self._threads}"
        Thread(target=_serve, args=(self._waiting,), name=name, daemon=True).start()

    def _end_thread(self) -> None:
        """Let one end when it comes to that."""
        self._threads -= 1
        self._waiting.put(None)

    def _finish(
        self, result: Deferred[Any], settle: Callable[[Any], None], outcome: object
    ) -> None:
        self._unfinished -= 1
        # A Deferred that was cancelled has been called already.
        if not result.called:
            settle(outcome)
        if self._idle is not None and not self._unfinished and not self._idle.called:
            self._idle.callback(None)


def _serve(waiting: SimpleQueue[Callable[[], None] | None]) -> None:
    while (do := waiting.get()) is not None:
        do()
        # Else it would hold the last work, and what that read, until there is more.
        del do
