"""The system calls that Python lacks: giving part of a file back, and early write-back."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02

_UNSUPPORTED: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM}
)
"""EINVAL and ENODEV too: some network filesystems answer so instead of EOPNOTSUPP."""

_SYNC_FILE_RANGE_WRITE: Final = 0x02

_system = ctypes.CDLL(None, use_errno=True)
# Where there are two, the one without number takes 32 bits (glibc on a 32-bit processor).
_fallocate = getattr(_system, "fallocate64", None) or getattr(_system, "fallocate", None)
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
