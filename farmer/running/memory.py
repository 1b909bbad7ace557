"""How the process deals with its memory: Python's collector, and the C library's heaps."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

HEAPS: Final = 2
"""Heaps of the C library: one a thread, as is usual, each keep what it once needed."""

FULL_AFTER: Final = 250
"""Collections of the middle generation before a full one: hundreds of times what is usual."""

_M_ARENA_MAX: Final = -8
"""From malloc.h of glibc."""


def share_heaps() -> bool:
    """Let all threads share few heaps; say whether the C library can.  Before any thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, HEAPS))


def collect_seldom() -> None:
    """
    Let full collections be rare; once all that stays is there.

    A full one looks at every object while nobody is served: 0.1 s with two thousand sessions,
    and Python makes one whenever a quarter has come in addition.  What ends in cycles here (a
    few exceptions for each lost connection) is young, and found by the small collections.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_AFTER)
