"""How late the reactor runs its timers: the first sign that something blocks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

PERIOD_S: Final = 1.0


class LagSampler:
    """Once a second, tells *observe* by how many seconds its own timer was late."""

    def __init__(self, clock: IReactorTime, observe: Callable[[float], None]) -> None:
        self._clock = clock
        self._observe = observe
        self._due_s = 0.0
        self._ended: Deferred[LoopingCall] | None = None
        self._call = LoopingCall(self._sample)
        self._call.clock = clock

    def start(self) -> None:
        """Begin; the first sample comes after one period."""
        self._due_s = self._clock.seconds() + PERIOD_S
        self._ended = self._call.start(PERIOD_S, now=False)

    def stop(self) -> None:
        """End; safe when not started."""
        if self._call.running:
            self._call.stop()

    def _sample(self) -> None:
        now_s = self._clock.seconds()
        self._observe(max(0.0, now_s - self._due_s))
        # After a long stall the missed ticks are one stall, not many.
        self._due_s = now_s + PERIOD_S
