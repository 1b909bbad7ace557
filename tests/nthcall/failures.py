"""
In which ways a call of the file port fails, and which calls can, by their man pages.

What the farmer does depends on the kind of an error, not on its number: no room, not the disk's
fault, read-only, gone, or a bad disk.  So each kind is tried at each call that can have it.
Those that last in the world last here: a descriptor is free again at some later time, not at
the very next call.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import Enum

MAKING = frozenset({"create", "make_directory"})
WRITING = frozenset({"pwritev"})
OPENING = frozenset({"create", "open", "open_read", "list", "sync_directory"})
"""Calls that need a descriptor."""
CHANGING = frozenset(
    {"create", "open", "pwritev", "begin_write_back", "sync_data", "sync_directory",
     "preallocate", "punch", "truncate", "rename", "unlink", "make_directory"}
)  # fmt: skip
ROOMY = frozenset({"create", "pwritev", "sync_data", "preallocate", "make_directory", "rename"})
COPYING = ROOMY | {"punch", "truncate", "unlink", "sync_directory"}
"""A filesystem that never overwrites needs room also where space is given back."""
EVERY = CHANGING | {"open_read", "pread", "exists", "list", "stat", "statvfs"}


class Failure(Enum):
    """How a call fails."""

    EIO = "EIO"
    ENOSPC = "ENOSPC"
    SHORT = "short"
    """Half of the bytes are written, then there is no room."""
    LATE = "late"
    """It is done, and reported as failed."""
    DEAD = "dead"
    """It fails, and every call after it."""
    EDQUOT = "EDQUOT"
    """A quota of the filesystem's own, on a filesystem that never overwrites."""
    NO_INODES = "no inodes"
    """From here on no file can be made, although there is room."""
    EROFS = "EROFS"
    """From here on the filesystem is read-only, as after an error of its own."""
    ESTALE = "ESTALE"
    """From here on the server does not know our files any more."""
    EMFILE = "EMFILE"
    """From here on no file can be opened."""
    ENOMEM = "ENOMEM"
    """The kernel has no memory for this call."""
    MEMORY = "MemoryError"
    """Python has no memory for what the call returns."""

    def error(self, path: object) -> Exception:
        """Return what is raised."""
        number = RULES[self].number
        return OSError(number, os.strerror(number), str(path)) if number else MemoryError()


@dataclass(frozen=True)
class Rule:
    """What a failure is to a call."""

    number: int
    calls: frozenset[str]
    lasts: bool = False


RULES = {
    Failure.EIO: Rule(errno.EIO, EVERY),
    Failure.ENOSPC: Rule(errno.ENOSPC, ROOMY),
    Failure.SHORT: Rule(errno.ENOSPC, WRITING),
    Failure.LATE: Rule(errno.EIO, CHANGING - {"create", "open"}),
    Failure.DEAD: Rule(errno.EIO, EVERY, lasts=True),
    Failure.EDQUOT: Rule(errno.EDQUOT, COPYING),
    Failure.NO_INODES: Rule(errno.ENOSPC, MAKING, lasts=True),
    Failure.EROFS: Rule(errno.EROFS, CHANGING, lasts=True),
    Failure.ESTALE: Rule(errno.ESTALE, EVERY, lasts=True),
    Failure.EMFILE: Rule(errno.EMFILE, OPENING, lasts=True),
    Failure.ENOMEM: Rule(errno.ENOMEM, EVERY),
    Failure.MEMORY: Rule(0, EVERY),
}

PASSING = frozenset(
    {Failure.ENOSPC, Failure.SHORT, Failure.EDQUOT, Failure.NO_INODES, Failure.EMFILE,
     Failure.ENOMEM, Failure.MEMORY}
)  # fmt: skip
"""No fault of the disk's: once it is over, the farmer that met it goes on without a restart."""
