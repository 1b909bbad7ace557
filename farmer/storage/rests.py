"""
Giving way: work that nobody waits for rests after each step.

A store waits for the step before it, so steps are short; that few stores meet one is what the
rests are for (docs/decisions/giving-way.md has the figures).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Final

REST_FACTOR: Final = 2.0
"""So many times as long as the step took: a slow disk, or one in use, is left alone longer."""

REST_S_MAX: Final = 10.0
"""A step that took longer hung, and there is nothing to make good."""


class Rests:
    """One volume's; any number of threads take theirs."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._over = Event()

    @contextmanager
    def after(self, *, hurried: bool = False) -> Iterator[None]:
        """Do one step in the block, and rest; not if it failed, or is *hurried*."""
        began_s = self._monotonic_s()
        yield
        rest_s = min(REST_FACTOR * (self._monotonic_s() - began_s), REST_S_MAX)
        if rest_s > 0 and not hurried:
            self._over.wait(rest_s)

    def end(self) -> None:
        """Rest no more: the farmer stops, or the volume goes."""
        self._over.set()
