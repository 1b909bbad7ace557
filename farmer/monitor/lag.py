"""How late the reactor runs its timers: the first sign that something blocks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

PERIOD_S: Final = 1.0


class LagSampler:
    """Once a second, tells *observe* by how many seconds its own timer was late."""

    def __init__(self, clock: IReactorTime, observe: Callable[[float], None]) -> None:
        self._clock = clock
        self._observe = observe
        self._due_s = 0.0
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin; the first sample comes after one period."""
        # Each period begins anew where the last one ended: after a long stall the missed
        # ones are one stall, not many, and who is late each time is so in each sample.
        self._due_s = self._clock.seconds() + PERIOD_S
        self._next = self._clock.callLater(PERIOD_S, self._sample)

    def stop(self) -> None:
        """End; safe when not started."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _sample(self) -> None:
        late_s = self._clock.seconds() - self._due_s
        self.start()
        self._observe(max(0.0, late_s))
