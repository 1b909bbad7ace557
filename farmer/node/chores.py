"""Periodic work in the background: never twice at once, never silently broken."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from farmer.node.tasks import Tasks

FAILING: Final = 3
"""Failures in a row from which on it is not an accident any more, and is told."""


class Chore:
    """
    One piece of work, done again *every_s* seconds after it was last finished.

    Its work is a coroutine and goes through the disk's door for whatever blocks.  An error is
    logged and counted, and the next turn comes all the same.  One that fails each time stands
    among what its *tasks* say is failing.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        every_s: float,
        work: Callable[[], Coroutine[Deferred[Any], Any, None]],
        clock: IReactorTime,
        tasks: Tasks,
    ) -> None:
        self.name = name
        self.every_s = every_s
        self.runs = 0
        """Times it was finished, well or not."""
        self.failures = 0
        """Times it ended with an exception."""
        self.running = False
        self._in_a_row = 0
        self._work = work
        self._clock = clock
        self._tasks = tasks
        self._next: IDelayedCall | None = None
        self._on = False

    def start(self, *, first_after_s: float | None = None) -> None:
        """Begin; the first turn comes after *every_s*, unless said otherwise."""
        self._on = True
        self._plan(self.every_s if first_after_s is None else first_after_s)

    def run_now(self) -> None:
        """Do it now, unless it is being done; the next turn is counted from its end."""
        if not self.running:
            self._unplan()
            self._tasks.start(self.name, self._run())

    def stop(self) -> None:
        """Begin no more turns; one that runs is among the tasks to drain."""
        self._on = False
        self._unplan()

    async def _run(self) -> None:
        self.running = True
        try:
            await self._work()
        except Exception as error:
            self._note_failure(error)
        else:
            self._in_a_row = 0
            self._tasks.failing.pop(self.name, None)
        finally:
            self.running = False
            self.runs += 1
            if self._on:
                self._plan(self.every_s)

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        self._in_a_row += 1
        self.log.failure("chore {name} failed", name=self.name)
        if self._in_a_row >= FAILING:
            self._tasks.failing[self.name] = str(error) or type(error).__name__

    def _plan(self, after_s: float) -> None:
        self._unplan()
        self._next = self._clock.callLater(after_s, self.run_now)

    def _unplan(self) -> None:
        planned, self._next = self._next, None
        if planned is not None and planned.active():
            planned.cancel()
