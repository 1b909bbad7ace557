"""The same ground for each cell: nothing left to be written, memory touched a moment ago."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

TOUCHED_BYTES_MAX: Final = 1024**3
"""
A virtual machine's first touch of memory that its host has taken back costs about a second per
GiB; without this, whoever comes first after a pause pays it.
"""

_SHARE: Final = 4
"""Of what is free, at most a fourth is touched."""


def level() -> None:
    """Write everything out, then touch memory and give it back."""
    os.sync()
    pages = min(TOUCHED_BYTES_MAX, _available_bytes() // _SHARE) // mmap.PAGESIZE
    if pages:
        with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
            memory[:: mmap.PAGESIZE] = b"\1" * pages


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
