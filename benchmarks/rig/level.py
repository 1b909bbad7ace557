"""The same ground for each cell: nothing left to be written, memory there a moment ago."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

TOUCHED_BYTES_MAX: Final = 1024**3
"""
A virtual machine's first touch of memory that its host has taken back costs about a second per
GiB; without this, whoever comes first after a pause pays it.
"""

_SHARE: Final = 4
"""Of what is free, at most a fourth is touched."""

_PIECE_BYTES: Final = 1024**2


def level() -> None:
    """Write everything out, then touch memory and give it back."""
    os.sync()
    pages = min(TOUCHED_BYTES_MAX, _available_bytes() // _SHARE) // mmap.PAGESIZE
    if pages:
        with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
            memory[:: mmap.PAGESIZE] = b"\1" * pages


def supply(folder: Path, size_bytes: int) -> int:
    """
    Let the host supply the memory for so many bytes of files; return how many were written.

    To a guest whose memory its host has taken back, a write of 68 KiB into the page cache takes
    175 us of processor, and 18 where the memory is there: as much as a server's own work.  The
    kernel gives free memory back all the time, so whoever is measured after a pause, or stores
    more than the one before, would pay for all of it.
    """
    pieces = min(size_bytes, _available_bytes() // 2) // _PIECE_BYTES
    piece = b"\1" * _PIECE_BYTES
    # Its name is gone from the start, and at the end it is: nothing of it is left to be written.
    with TemporaryFile(dir=folder, buffering=0) as file:
        return sum(file.write(piece) or 0 for _ in range(pieces))


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
