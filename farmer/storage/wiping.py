"""Taking out of a segment, durably, what is no record or must not be one; for a start alone."""

from __future__ import annotations

from pathlib import Path

from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.files import Access, Files


def give_back(files: Files, path: Path, fd: int, offset: int, length: int) -> int:
    """
    Return how much of a stretch of a segment takes no space any more, all or nothing.

    What still takes space is given back, where the filesystem can do that.  Raises `OSError`.
    """
    if files.is_hole(fd, offset, length) or _punch(files, path, offset, length, instead=b""):
        return length
    return 0


def wipe(files: Files, path: Path, offset: int, length: int) -> int:
    """
    Let no later walk find the record at an offset.

    Returns how many bytes take no space any more: all, or none where the filesystem cannot do
    that and the header alone was written over.  Raises `OSError`: of a volume that can only be
    read, with `EROFS`.
    """
    zeros = bytes(RECORD_HEADER_BYTES)
    return length if _punch(files, path, offset, length, instead=zeros) else 0


def _punch(files: Files, path: Path, offset: int, length: int, *, instead: bytes) -> bool:
    """Make a hole, durably, and say so; or write other bytes there instead."""
    fd = files.open(path, Access.WRITE)
    try:
        is_punched = files.punch(fd, offset, length)
        if not is_punched and instead:
            files.pwritev(fd, [instead], offset)
        if is_punched or instead:
            files.sync_data(fd)
    finally:
        files.close(fd)
    return is_punched
