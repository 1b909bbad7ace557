"""The port through which the engine touches files, and the real files behind it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from mmap import PAGESIZE
from pathlib import Path
from typing import Final, Protocol

from farmer.model.shard import RECORD_ALIGNMENT_BYTES
from farmer.storage.syscalls import begin_write_back, gives_holes_back, is_cached, punch_hole

Buffer = bytes | bytearray | memoryview

_IOV_MAX: Final = 512
"""Buffers in one pwritev; Linux allows 1024."""

_NOWAIT: Final = getattr(os, "RWF_NOWAIT", None)
"""Linux's: what memory does not hold is not waited for."""

_COMMON: Final = os.O_CLOEXEC | os.O_NOFOLLOW

FOLIO_BYTES_MAX: Final = PAGESIZE * min(PAGESIZE // 8, 2048)
"""
What memory forgets of a file at once: 2 MiB, where pages have 4 KiB.

One write or one read makes a folio of at most as many pages as a table of them has entries, of 8
bytes each, and never of more than 2048 (Linux 6.18, `MAX_PAGECACHE_ORDER`); it begins at a
multiple of its size.
"""


class Access(Enum):
    """How a file is opened; a path that is a symbolic link never is."""

    READ = os.O_RDONLY
    WRITE = os.O_RDWR
    CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL
    """It must not exist yet."""
    ENSURE = os.O_RDWR | os.O_CREAT
    """It is made if it does not exist."""


@dataclass(frozen=True, slots=True)
class Filesystem:
    """How large the filesystem is and what an unprivileged user may still take, in bytes."""

    size_bytes: int
    free_bytes: int


class Files(Protocol):
    """Every file operation of the engine; each may block and raise `OSError`."""

    def open(self, path: Path, access: Access) -> int:
        """Return a descriptor; new files are readable by their owner alone."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Return *length* bytes, fewer only at the end of the file."""

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        """
        Return what `pread` would if memory holds all of it, else None; wait for no disk.

        It tells of no failure: who gets None reads.
        """

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        """
        Return what `pread` would, from the disk and without anything around it, if that can be.

        The kernel reads many blocks at once, and if one of them is bad none counts as read.
        """

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all of the buffers, one after the other."""

    def sync_data(self, fd: int) -> None:
        """Make the file's bytes and size durable (fdatasync)."""

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        """
        Let the disk begin with a written range, so that the next sync has less to wait for.

        Nothing is durable by that.  What the disk refuses is told by that sync, at the latest.
        """

    def uncache(self, fd: int, offset: int, length: int) -> None:
        """
        Forget what memory holds of a synced range: the next read asks the disk, if it can.

        A length of 0 means to the end.  What lies around it may be forgotten as well; and
        where something around it is not synced, memory may keep all.  See `whole_folios`.
        """

    def preallocate(self, fd: int, length: int) -> None:
        """Take the space for the first *length* bytes now; raises ENOSPC if it is not there."""

    def punch(self, fd: int, offset: int, length: int) -> bool:
        """Give the space of a range of records back; False where that is impossible."""

    def is_hole(self, fd: int, offset: int, length: int) -> bool:
        """Say whether a range is known to take no space at all."""

    def truncate(self, fd: int, length: int) -> None:
        """Cut the file off."""

    def size(self, fd: int) -> int:
        """Return the file's length in bytes."""

    def allocated(self, path: Path) -> int:
        """Return the bytes that a file or directory takes on the disk (st_blocks)."""

    def exists(self, path: Path) -> bool:
        """Say whether there is something of this name."""

    def inode(self, place: Path | int) -> tuple[int, int]:
        """
        Return device and inode of what a path names now, or of what a descriptor holds.

        They are equal as long as the name stands for the open file.
        """

    def list(self, path: Path) -> list[str]:
        """Return the names in a directory, sorted."""

    def make_directory(self, path: Path) -> None:
        """Make a directory for its owner alone; fine if it exists; its parent must."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename within the volume."""

    def unlink(self, path: Path) -> None:
        """Remove a name; fine if it is gone already."""

    def filesystem(self, path: Path) -> Filesystem:
        """Return the size and the free space around a path."""

    def lock(self, fd: int) -> bool:
        """Take the exclusive lock of an open file; False if another process holds it."""


class OsFiles:
    """The operating system's files."""

    def open(self, path: Path, access: Access) -> int:
        """See `Files.open`."""
        return os.open(path, access.value | _COMMON, 0o600)

    def close(self, fd: int) -> None:
        """See `Files.close`."""
        os.close(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """See `Files.pread`."""
        data = os.pread(fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        have = len(data)
        while have < length and (data := os.pread(fd, length - have, offset + have)):
            parts.append(data)
            have += len(data)
        return b"".join(parts)

    def pread_cached(self, fd: int, length: int, offset: int) -> Buffer | None:
        """
        See `Files.pread_cached`; by Linux's cachestat and RWF_NOWAIT.

        Neither would do alone.  RWF_NOWAIT begins to read what is missing (Linux 6.18; some
        releases before did not), which may wait for the map of the file; and a page may go, or
        be on its way, after cachestat has counted it.
        """
        if _NOWAIT is None or not is_cached(fd, offset, length):
            return None
        try:
            data = bytearray(length)
            have = os.preadv(fd, [data], offset, _NOWAIT)
        except (OSError, MemoryError):
            return None
        return data if have == length else None

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        """
        See `Files.pread_apart`.

        Of what memory has of the file all must go: pages that were read together go together.
        """
        if not hasattr(os, "posix_fadvise"):
            return self.pread(fd, length, offset)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        try:
            return self.pread(fd, length, offset)
        finally:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NORMAL)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """See `Files.pwritev`."""
        rest = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        while rest:
            written = os.pwritev(fd, rest[:_IOV_MAX], offset)
            offset += written
            rest = _after(rest, written)

    def sync_data(self, fd: int) -> None:
        """See `Files.sync_data`."""
        os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """See `Files.sync_directory`."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _COMMON)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        """See `Files.begin_write_back`."""
        begin_write_back(fd, offset, length)

    def uncache(self, fd: int, offset: int, length: int) -> None:
        """See `Files.uncache`."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, *whole_folios(offset, length), os.POSIX_FADV_DONTNEED)

    def preallocate(self, fd: int, length: int) -> None:
        """See `Files.preallocate`."""
        os.posix_fallocate(fd, 0, length)

    def punch(self, fd: int, offset: int, length: int) -> bool:
        """See `Files.punch`."""
        return gives_holes_back(fd, RECORD_ALIGNMENT_BYTES) and punch_hole(fd, offset, length)

    def is_hole(self, fd: int, offset: int, length: int) -> bool:
        """See `Files.is_hole`."""
        try:
            return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            if error.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
                return False
            raise

    def truncate(self, fd: int, length: int) -> None:
        """See `Files.truncate`."""
        os.ftruncate(fd, length)

    def size(self, fd: int) -> int:
        """See `Files.size`."""
        return os.fstat(fd).st_size

    def allocated(self, path: Path) -> int:
        """See `Files.allocated`."""
        return path.lstat().st_blocks * 512

    def exists(self, path: Path) -> bool:
        """See `Files.exists`."""
        try:
            path.lstat()
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                return False
            raise
        return True

    def inode(self, place: Path | int) -> tuple[int, int]:
        """See `Files.inode`."""
        found = os.fstat(place) if isinstance(place, int) else place.lstat()
        return found.st_dev, found.st_ino

    def list(self, path: Path) -> list[str]:
        """See `Files.list`."""
        return sorted(entry.name for entry in path.iterdir())

    def make_directory(self, path: Path) -> None:
        """See `Files.make_directory`."""
        path.mkdir(mode=0o700, exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        """See `Files.rename`."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """See `Files.unlink`."""
        path.unlink(missing_ok=True)

    def filesystem(self, path: Path) -> Filesystem:
        """See `Files.filesystem`."""
        answer = os.statvfs(path)
        return Filesystem(answer.f_blocks * answer.f_frsize, answer.f_bavail * answer.f_frsize)

    def lock(self, fd: int) -> bool:
        """See `Files.lock`."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _after(buffers: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of the buffers after so many bytes were written."""
    for index, buffer in enumerate(buffers):
        if written < len(buffer):
            return [buffer[written:], *buffers[index + 1 :]]
        written -= len(buffer)
    return []


def whole_folios(offset: int, length: int) -> tuple[int, int]:
    """
    Return the least range that memory has nothing of once it was told to forget it.

    It forgets whole folios only, and none that reaches beyond the range.  A length of 0 means to
    the end.
    """
    start = offset // FOLIO_BYTES_MAX * FOLIO_BYTES_MAX
    if not length:
        return start, 0
    return start, -(-(offset + length) // FOLIO_BYTES_MAX) * FOLIO_BYTES_MAX - start


def read_head(files: Files, path: Path, length: int) -> bytes:
    """Return a file's first bytes, all if it has no more; raises `OSError`."""
    fd = files.open(path, Access.READ)
    try:
        return files.pread(fd, length, 0)
    finally:
        files.close(fd)


def sync_what_a_kill_left(files: Files, path: Path, start: int = 0) -> None:
    """
    Make durable what a start is about to believe, and have it read from the disk.

    The page cache outlives a process that was killed before its last sync: what a start reads
    from it, and from then on shows and confirms, would be lost in a power cut.  And it keeps what
    a sync could not write, of which a later sync says nothing any more.  So from *start* on the
    cache is given up, whether this sync fails or not.  Raises `OSError`.
    """
    fd = files.open(path, Access.WRITE)
    try:
        try:
            files.sync_data(fd)
        except OSError:
            with suppress(OSError):
                files.uncache(fd, 0, 0)
            raise
        files.uncache(fd, start, 0)
    finally:
        files.close(fd)
