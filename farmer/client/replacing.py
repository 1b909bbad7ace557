"""A file that is written beside another and gets its name: what it is called, who may read it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 100
"""Of the other's name: with a tag it fits where names have the fewest bytes (eCryptfs: 143)."""

_OURS: Final = 0o600
"""What we need to write a draft, and to go on with it later."""


def beside(target: Path, tag: str) -> Path:
    """Return a name for the draft of a target: hidden, and short enough for any file system."""
    return target.with_name(f".{_beginning(target.name)}.{tag}.part")


def mode_of_new(target: Path) -> int:
    """Return the mode to make a draft with: with nobody's rights but ours where they are known."""
    return _OURS if target.exists() else 0o666


def guard(descriptor: int, target: Path) -> None:
    """Let nobody read a draft who may not read what it will replace."""
    before = _status(target)
    if before is not None:
        _set_mode(descriptor, _permissions(before) | _OURS)


def take_over(descriptor: int, target: Path) -> None:
    """
    Give a draft the mode of what it replaces, and its owner and group as far as we may.

    Who replaces nothing keeps the mode that the umask gave.
    """
    before = _status(target)
    if before is None:
        return
    if os.geteuid() == 0:
        with suppress(PermissionError):
            os.fchown(descriptor, before.st_uid, before.st_gid)
    else:
        with suppress(PermissionError):
            os.fchown(descriptor, -1, before.st_gid)
    _set_mode(descriptor, _permissions(before))


def _beginning(name: str) -> str:
    """Cut a name to so many bytes, and no letter in two."""
    name = name[:_HEAD_BYTES]
    while len(os.fsencode(name)) > _HEAD_BYTES:
        name = name[:-1]
    return name


def _status(target: Path) -> os.stat_result | None:
    try:
        return target.stat()
    except FileNotFoundError:
        return None


def _permissions(status: os.stat_result) -> int:
    """Return the permissions alone: other bytes are no longer what was made set-user-id."""
    return stat.S_IMODE(status.st_mode) & 0o777


def _set_mode(descriptor: int, mode: int) -> None:
    # A file system without modes has the right one already, and refuses any change.
    if _permissions(os.fstat(descriptor)) != mode:
        os.fchmod(descriptor, mode)
