"""The system calls that Python lacks: giving part of a file back, early write-back, the cache."""

from __future__ import annotations

import ctypes
import errno
import os
from mmap import PAGESIZE
from typing import Final

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02

_UNSUPPORTED: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM}
)
"""EINVAL and ENODEV too: some network filesystems answer so instead of EOPNOTSUPP."""

_GIVING_BACK: Final = frozenset({0xEF53, 0x58465342, 0x01021994})
"""ext2, ext3 and ext4; XFS; tmpfs: their numbers in linux/magic.h."""

_STATFS_BYTES: Final = 256
"""More than a `struct statfs` has anywhere; its type stands first."""

_SYNC_FILE_RANGE_WRITE: Final = 0x02

_CACHESTAT: Final = 451
"""Its number, on all machines but these two: the C library has no function for it."""

_NUMBERED_OTHERWISE: Final = ("alpha", "mips")

_system = ctypes.CDLL(None, use_errno=True)
# What takes 2 us keeps Python's lock, which may be had back only after 5 ms.
_syscall = getattr(ctypes.PyDLL(None, use_errno=True), "syscall", None)
if os.uname().machine.startswith(_NUMBERED_OTHERWISE) or os.uname().sysname != "Linux":
    _syscall = None
# Where there are two, the one without number takes 32 bits (glibc on a 32-bit processor).
_fallocate = getattr(_system, "fallocate64", None) or getattr(_system, "fallocate", None)
_fstatfs = getattr(_system, "fstatfs64", None) or getattr(_system, "fstatfs", None)
_sync_file_range = getattr(_system, "sync_file_range", None)


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """
    Return the blocks of this range to the filesystem; the range then reads as zeros.

    Linux fallocate(2) with FALLOC_FL_PUNCH_HOLE.  The file keeps its size.

    Returns:
        False where the system or the filesystem cannot do it; nothing was changed then.

    Raises:
        OSError: the filesystem can, but failed.

    """
    if _fallocate is None:
        return False
    mode = ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE)
    while _fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in _UNSUPPORTED:
            return False
        raise OSError(number, os.strerror(number))
    return True


def gives_holes_back(fd: int, unit_bytes: int) -> bool:
    """
    Say whether a hole of *unit_bytes*, in a file on this filesystem, is space for others.

    Only where that is known.  Not where its blocks are larger (XFS may have blocks of 64 KiB), and
    not on btrfs, which keeps a whole extent, all that was written before one sync, as long as
    any part of it is used; what it says that a file takes shrinks all the same.  What lies before
    another filesystem (FUSE, overlay, a network share) does not tell which one that is.

    Raises:
        OSError: the filesystem cannot be asked.

    """
    return os.fstatvfs(fd).f_bsize <= unit_bytes and filesystem_number(fd) in _GIVING_BACK


def filesystem_number(fd: int) -> int:
    """Return the number of an open file's kind of filesystem (linux/magic.h); 0 if unknown."""
    raw = ctypes.create_string_buffer(_STATFS_BYTES)
    if _fstatfs is None or _fstatfs(fd, raw) != 0:
        return 0
    return ctypes.c_long.from_buffer(raw).value & 0xFFFFFFFF


def begin_write_back(fd: int, offset: int, length: int) -> None:
    """
    Let the disk begin to write this range of a file; nothing is durable by that.

    Linux sync_file_range(2) with SYNC_FILE_RANGE_WRITE alone, which does not wait for what it has
    begun.  What fails then is told by the next fdatasync, to each open file once: fsync(2), since
    Linux 4.13.  Does nothing where the system cannot do it.

    Raises:
        OSError: the filesystem can, but failed.

    """
    if _sync_file_range is None:
        return
    flags = ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
    while _sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), flags) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        if number in _UNSUPPORTED:
            return
        raise OSError(number, os.strerror(number))


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Pages(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "written_back", "evicted", "recently_evicted")
    )


def is_cached(fd: int, offset: int, length: int) -> bool:
    """
    Say whether memory holds all of this range, of at least a byte, of a file that is ours.

    Linux cachestat(2), since 6.5.  It reads nothing, waits for nothing, and raises nothing: False
    also where the system cannot say.
    """
    if _syscall is None:
        return False
    wanted = (offset + length - 1) // PAGESIZE - offset // PAGESIZE + 1
    asked, found = _Range(offset, length), _Pages()
    number, flags = ctypes.c_long(_CACHESTAT), ctypes.c_uint(0)
    done = _syscall(number, ctypes.c_uint(fd), ctypes.byref(asked), ctypes.byref(found), flags)
    return done == 0 and int(found.cached) == wanted
