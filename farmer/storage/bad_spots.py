"""Reading past what a disk cannot read: one bad spot says nothing of what lies behind it."""

from __future__ import annotations

import errno
from typing import Final

from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.directory import Paths
from farmer.storage.files import Access, Files

MET_MAX: Final = 64
"""Blocks passed over: a drive may try each for half a minute, and somebody waits for the end."""

_BLOCK_BYTES: Final = RECORD_ALIGNMENT_BYTES
"""Where the kernel reads by pages, and most drives by sectors of this size."""


class BadSpots:
    """The reading half of a volume's files, of which each block that cannot be read is noise."""

    def __init__(self, files: Files, paths: Paths, met_max: int | None = MET_MAX) -> None:
        self.found: list[tuple[int, int]] = []
        """Offset and length of what could not be read, each time that it was tried."""
        self._files = files
        self._paths = paths
        self._met_max = met_max

    @property
    def met(self) -> int:
        """How often a block could not be read."""
        return len(self.found)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """
        Read as `Files.pread` does; what stands for a bad block passes no checksum.

        It is not zeros, either, which would say that nothing had ever been there.

        Raises:
            OSError: the whole disk cannot be read, there are too many bad spots, or it was
                something else.

        """
        data = self._try(fd, length, offset)
        if data is not None:
            return data
        end = min(offset + length, self._files.size(fd))
        middle = (offset + end) // 2 // _BLOCK_BYTES * _BLOCK_BYTES
        if middle <= offset:
            middle += _BLOCK_BYTES
        if middle >= end:
            return self._again(fd, end - offset, offset)
        return self.pread(fd, middle - offset, offset) + self.pread(fd, end - middle, middle)

    def _again(self, fd: int, length: int, offset: int) -> bytes:
        """Read what lies in one block; a disk that only stumbled has lost nothing."""
        try:
            return self._files.pread_apart(fd, length, offset)
        except OSError as error:
            self.found.append((offset, length))
            if self._met_max is not None and self.met > self._met_max:
                raise
            self._survive(error)
            return b"\xff" * length

    def _try(self, fd: int, length: int, offset: int) -> bytes | None:
        try:
            return self._files.pread(fd, length, offset)
        except OSError as error:
            self._survive(error)
            return None

    def _survive(self, error: OSError) -> None:
        """Return if it was a bad spot on a disk that can be read elsewhere, else raise."""
        if error.errno != errno.EIO:
            raise error
        check_disk(self._files, self._paths)


def check_disk(files: Files, paths: Paths) -> None:
    """Raise `OSError` if the disk itself, not what memory remembers of it, cannot be read."""
    fd = files.open(paths.marker, Access.READ)
    try:
        files.uncache(fd, 0, 0)
        files.pread(fd, 1, 0)
    finally:
        files.close(fd)
