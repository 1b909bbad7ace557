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
from farmer.storage.recovery import part_uuid, segment_numbers, shelves

Overwritten = Callable[[Path, int, int], None]
"""Told of each stretch, in bytes, before it is written over."""

_WINDOW_BYTES: Final = 1024 * 1024


def overwrite_unreadable(files: Files, paths: Paths, overwritten: Overwritten) -> None:
    """
    Write over what cannot be read of all records that an index is made from.

    That is the whole log, and the headers of large shards and unfinished uploads.  Whatever can
    be read stays as it is; how far it has come matters to nobody, so it may be broken off.

    Raises:
        OSError: the whole disk cannot be read, or does not take what is written; with the file.

    """
    for path, until in _read_for_an_index(files, paths):
        try:
            _go_over(files, paths, path, until, overwritten)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def _read_for_an_index(files: Files, paths: Paths) -> Iterator[tuple[Path, int | None]]:
    """Yield files, and how many bytes of each are read; None is all."""
    for number in segment_numbers(files, paths):
        yield paths.segment(number), None
    for directory in (paths.staging, *shelves(files, paths)):
        for name in files.list(directory):
            if part_uuid(directory / name) is not None:
                # A whole block: a part of one that cannot be read cannot be written, either.
                yield directory / name, RECORD_ALIGNMENT_BYTES


def _go_over(
    files: Files, paths: Paths, path: Path, until: int | None, overwritten: Overwritten
) -> None:
    fd = files.open(path, Access.READ)
    try:
        # What a write that failed has left in memory is not what the disk has.
        files.uncache(fd, 0, 0)
        size = files.size(fd)
        end = size if until is None else min(size, until)
        for at in range(0, end, _WINDOW_BYTES):
            spots = BadSpots(files, paths, met_max=None)
            spots.pread(fd, min(_WINDOW_BYTES, end - at), at)
            for offset, length in spots.found:
                _overwrite(files, path, fd, offset, length, overwritten)
    finally:
        files.close(fd)


def _overwrite(
    files: Files, path: Path, read_fd: int, offset: int, length: int, overwritten: Overwritten
) -> None:
    """Write over a block, if it is still the same file, and cannot be read there."""
    noise = b"\xff" * length
    fd = files.open(path, Access.WRITE)
    try:
        if files.inode(fd) != files.inode(read_fd):
            # The disk went, and came back: all that was read since has failed.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if _can_be_read(files, fd, offset, length):
            return
        overwritten(path, offset, length)
        try:
            files.pwritev(fd, [noise], offset)
            files.sync_data(fd)
        finally:
            files.uncache(fd, 0, 0)
        if files.pread_apart(fd, length, offset) != noise:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    finally:
        files.close(fd)


def _can_be_read(files: Files, fd: int, offset: int, length: int) -> bool:
    try:
        files.pread_apart(fd, length, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    return True
