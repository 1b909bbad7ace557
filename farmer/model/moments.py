"""Moments of a running farmer, told by a wall clock that may have been wrong then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

SET_MS: Final = 10_000
"""A wall clock that is so far off what was lived through was set; less is how clocks run."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Wall time for people, monotonic time for what was lived through."""

    now_ms: Callable[[], int]
    monotonic_s: Callable[[], float]


class Moment:
    """
    The moment at which it was made, or some time before.

    A machine without a clock of its own learns the time soon after the start, by the network;
    without this the farmer would have been up for as long as the machine was off.
    """

    __slots__ = ("_at_ms", "_clocks", "_monotonic_s")

    def __init__(self, clocks: Clocks, ago_ms: int = 0) -> None:
        self._clocks = clocks
        self._monotonic_s = clocks.monotonic_s() - ago_ms / 1000
        self._at_ms = clocks.now_ms() - ago_ms

    def at_ms(self) -> int:
        """Return it by the wall clock as that is now: the same until somebody sets it."""
        lived_ms = round((self._clocks.monotonic_s() - self._monotonic_s) * 1000)
        at_ms = self._clocks.now_ms() - lived_ms
        if abs(at_ms - self._at_ms) > SET_MS:
            self._at_ms = at_ms
        return self._at_ms
