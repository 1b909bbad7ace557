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
    if files.is_hole(fd, offset, length):
        return length
    writing = files.open(path, Access.WRITE)
    try:
        if not files.punch(writing, offset, length):
            return 0
        files.sync_data(writing)
    finally:
        files.close(writing)
    return length


def wipe(files: Files, path: Path, offset: int, length: int) -> int:
    """
    Let no later walk find the record at an offset; return as `give_back`.

    Raises `OSError`: of a volume that can only be read, with `EROFS`.
    """
    writing = files.open(path, Access.WRITE)
    try:
        is_given_back = files.punch(writing, offset, length)
        if not is_given_back:
            files.pwritev(writing, [bytes(RECORD_HEADER_BYTES)], offset)
        files.sync_data(writing)
    finally:
        files.close(writing)
    return length if is_given_back else 0
