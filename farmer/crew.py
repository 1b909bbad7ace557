"""How many threads should be at work at once: as few as keep the disks or the processor busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LOOK_S: Final = 0.005
"""Between two looks at what waits: a slow disk has all threads in some 40 ms."""

IDLE_BELOW: Final = 0.75
"""Processor used, of one core, below which waiting work waits for disks."""

FULL_ABOVE: Final = 0.95
"""And above which it waits for Python, which runs one thread at a time."""


class Crew:
    """
    The number of threads that are woken while work waits.

    Where they wait for disks, another one brings more done; where they share one processor,
    each only takes it from the others (and from the reactor) many times for each piece of
    work.  Which it is, is seen by how much processor the process used since the last look; and
    where nothing moves meanwhile, all who are at work wait for disks, however busy we are.
    """

    def __init__(
        self,
        most: int,
        used_s: Callable[[], float] = time.process_time,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.size = 1
        self._most = most
        self._used_s = used_s
        self._now_s = now_s
        self._since_s = self._used_then_s = 0.0

    def begin(self) -> None:
        """Note that from now on work waits."""
        self._since_s, self._used_then_s = self._now_s(), self._used_s()

    def look(self, *, moved: bool) -> None:
        """Judge the time since the last look, in which work was waiting; *moved*: some began."""
        lasted_s, used_s = self._now_s() - self._since_s, self._used_s() - self._used_then_s
        if used_s < IDLE_BELOW * lasted_s or not moved:
            self.size = min(self._most, self.size + 1)
        elif used_s > FULL_ABOVE * lasted_s:
            self.size = max(1, self.size - 1)
        self.begin()
