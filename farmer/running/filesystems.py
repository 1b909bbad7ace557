"""Kinds of filesystems of which an owner had better know something before shards lie there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from farmer.storage.syscalls import filesystem_number

_NO_JOURNAL: Final = (
    "has no journal: a power cut, or pulling the plug, can cost more than what was being written, "
    "also shards that were acknowledged; ext4, XFS and btrfs keep them"
)
_IN_MEMORY: Final = "is memory: all shards are lost when the machine restarts"
_UNTRIED: Final = (
    "was not tried with power cuts; what is acknowledged is as durable there as its syncs are"
)

WARNINGS: Final = {
    0x4D44: ("FAT", _NO_JOURNAL),
    0x2011BAB0: ("exFAT", _NO_JOURNAL),
    0x01021994: ("tmpfs", _IN_MEMORY),
    0x858458F6: ("ramfs", _IN_MEMORY),
    0x794C7630: ("an overlay", "may be a container's own: its shards go when that is removed"),
    0x65735546: ("FUSE", _UNTRIED),
    0x5346544E: ("NTFS", _UNTRIED),
    0x7366746E: ("NTFS", _UNTRIED),
    0x6969: ("NFS", _UNTRIED),
    0xFF534D42: ("CIFS", _UNTRIED),
    0xFE534D42: ("SMB", _UNTRIED),
    0x01021997: ("9p", _UNTRIED),
}
"""What is said of each, by its number in linux/magic.h."""


_ONLY_NAMED: Final = getattr(os, "O_PATH", os.O_RDONLY)
"""Enough to ask, also where we may not list what is in it."""


def warning_of(directory: Path) -> str:
    """Return what to know of the filesystem of a directory, or nothing; may never return."""
    fd = os.open(directory, _ONLY_NAMED | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        name, what = WARNINGS.get(filesystem_number(fd), ("", ""))
    finally:
        os.close(fd)
    return f"{name}, which {what}" if name else ""
