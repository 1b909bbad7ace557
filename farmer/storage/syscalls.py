"""The one system call that Python lacks: giving part of a file back to the filesystem."""

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

_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)


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
