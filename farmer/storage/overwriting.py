"""
Writing over what a disk cannot read: then it is damage like any other, and the rest is back.

An index is made from a whole log or not at all (`docs/decisions/scrub.md`); so one sector keeps a
volume shut whose index is lost as well.  A drive puts another sector in the place of one that is
written.  What was there is gone for good, though the drive might have read it once more: this is
the owner's decision, never ours.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.bad_spots import BadSpots
from farmer.storage.directory import Paths
from farmer.storage.files import Access, Files

Overwritten = Callable[[Path, int, int], None]
"""Told of each stretch, in bytes, that has been written over."""

_WINDOW_BYTES: Final = 1024 * 1024


def overwrite_unreadable(files: Files, paths: Paths, overwritten: Overwritten) -> None:
    """
    Write over what cannot be read of all that an index is made from.

    That is the whole log, and the headers of large shards and unfinished uploads.  Whatever can
    be read stays as it is; how far it has come matters to nobody, so it may be broken off.

    Raises:
        OSError: the whole disk cannot be read, or does not take what is written.

    """
    for path, until in _read_for_an_index(files, paths):
        fd = files.open(path, Access.READ)
        try:
            size = files.size(fd)
            end = size if until is None else min(size, until)
            for at in range(0, end, _WINDOW_BYTES):
                spots = BadSpots(files, paths, met_max=None)
                spots.pread(fd, min(_WINDOW_BYTES, end - at), at)
                for offset, length in spots.found:
                    _overwrite(files, path, offset, length)
                    overwritten(path, offset, length)
        finally:
            files.close(fd)


def _read_for_an_index(files: Files, paths: Paths) -> Iterator[tuple[Path, int | None]]:
    """Yield files, and how many bytes of each are read; None is all."""
    for name in files.list(paths.log):
        yield paths.log / name, None
    shelves = [paths.shards / shelf for shelf in files.list(paths.shards)]
    for directory in (paths.staging, *shelves):
        for name in files.list(directory):
            # A whole block: a part of one that cannot be read cannot be written, either.
            yield directory / name, RECORD_ALIGNMENT_BYTES


def _overwrite(files: Files, path: Path, offset: int, length: int) -> None:
    noise = b"\xff" * length
    fd = files.open(path, Access.WRITE)
    try:
        files.pwritev(fd, [noise], offset)
        files.sync_data(fd)
        files.uncache(fd, offset, length)
        if files.pread(fd, length, offset) != noise:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
    finally:
        files.close(fd)
