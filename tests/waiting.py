"""Waiting for what threads and other processes do soon: with an end, and with a word about it."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 40.0
"""For a busy machine; what has not come true by then is waited for in vain."""

PAUSE_S_MIN, PAUSE_S_MAX = 0.001, 0.1


def wait_until(
    is_so: Callable[[], object],
    within_s: float = PATIENCE_S,
    shown: Callable[[], object] = lambda: "it never came true",
) -> float:
    """Return after how many seconds it is so; fail with what is *shown* when that is too long."""
    began_s, pause_s = time.monotonic(), PAUSE_S_MIN
    while not is_so():
        assert time.monotonic() < began_s + within_s, f"not so after {within_s} s: {shown()}"
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_S_MAX)
    return time.monotonic() - began_s
