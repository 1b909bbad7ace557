"""The machine's clocks: the time of day, and one that goes on whatever happens to that."""

from __future__ import annotations

import time


def wall_clock_ms() -> int:
    """Return the wall clock, Unix ms."""
    return time.time_ns() // 1_000_000


def awake_or_asleep_s() -> float:
    """Return seconds that also go on while the machine sleeps, where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
