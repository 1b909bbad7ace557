"""The one place where work may be let go: named, logged, drained."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure


class Tasks:
    """
    Work under way that nobody awaits, but a shutdown does.

    Nothing is ever cancelled here: a thread may still be using what the work holds.
    Whoever wants an end makes the work want it, then drains.
    """

    log = Logger()

    def __init__(self) -> None:
        self._running: set[Deferred[None]] = set()
        self.failures = 0
        """Tasks that ended with an exception since the start."""
        self.failing: dict[str, str] = {}
        """The chores that fail each time, and why they did the last time."""

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run *work* now; a failure is logged under *name* and counted, never lost."""
        task = Deferred.fromCoroutine(work)
        self._running.add(task)
        ended = task.addErrback(self._failed, name)
        ended.addBoth(self._forget, task)  # type: ignore[unused-awaitable]  # it is in _running

    async def drain(self) -> None:
        """Wait for the end of all that runs, also of what is started meanwhile."""
        while self._running:
            await DeferredList([_end_of(task) for task in self._running])

    def _failed(self, failure: Failure, name: str) -> None:
        self.failures += 1
        self.log.failure("{name} failed", failure, name=name)

    def _forget(self, _result: None, task: Deferred[None]) -> None:
        self._running.discard(task)


async def within(
    clock: IReactorTime, seconds: float, work: Coroutine[Deferred[Any], Any, None]
) -> bool:
    """Wait for work, but not longer than that; say whether it was done.  It is not cancelled."""
    first: Deferred[bool] = Deferred()
    timer = clock.callLater(seconds, first.callback, False)

    async def run() -> None:
        await work
        if timer.active():
            timer.cancel()
            first.callback(True)

    ended = Deferred.fromCoroutine(run())
    ended.addErrback(first.errback)  # type: ignore[unused-awaitable]  # it fires *first*
    return await first


def next_turn(clock: IReactorTime) -> Deferred[None]:
    """Return a Deferred that fires when all others who are ready have had their turn."""
    turn: Deferred[None] = Deferred()
    clock.callLater(0, turn.callback, None)
    return turn


def _end_of(task: Deferred[None]) -> Deferred[None]:
    """Return a Deferred of its own that fires when *task* does."""
    ended: Deferred[None] = Deferred()
    task.addCallback(ended.callback)  # type: ignore[unused-awaitable]  # still in _running
    return ended
