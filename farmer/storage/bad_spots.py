"""Reading past what a disk cannot read: one bad spot says nothing of what lies behind it."""

from __future__ import annotations

import errno

from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.directory import Paths
from farmer.storage.files import Access, Files


class BadSpots:
    """The reading half of a volume's files, of which each block that cannot be read is noise."""

    def __init__(self, files: Files, paths: Paths) -> None:
        self.met = 0
        """How often a block could not be read."""
        self._files = files
        self._paths = paths

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """
        Read as `Files.pread` does; what stands for a bad block passes no checksum.

        It is not zeros, either, which would say that nothing had ever been there.

        Raises:
            OSError: the whole disk cannot be read, or it was something else than a bad spot.

        """
        data = self._try(fd, length, offset)
        if data is not None:
            return data
        length = min(length, self._files.size(fd) - offset)
        if length <= RECORD_ALIGNMENT_BYTES:
            # Once more: a disk that only stumbled has lost nothing.
            data = self._try(fd, length, offset)
            self.met += data is None
            return b"\xff" * length if data is None else data
        half = -(-length // 2 // RECORD_ALIGNMENT_BYTES) * RECORD_ALIGNMENT_BYTES
        return self.pread(fd, half, offset) + self.pread(fd, length - half, offset + half)

    def _try(self, fd: int, length: int, offset: int) -> bytes | None:
        try:
            return self._files.pread(fd, length, offset)
        except OSError as error:
            self.survive(error)
            return None

    def survive(self, error: OSError) -> None:
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
