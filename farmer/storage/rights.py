"""What the system does not let this user do with a file, and what an owner types then."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path
from shlex import quote
from typing import Final

NOT_LET: Final = frozenset({errno.EACCES, errno.EPERM})


def file_of(error: OSError, otherwise: Path) -> Path:
    """Return the file that an error speaks of, if it names one."""
    name = error.filename
    return Path(name) if isinstance(name, str) else otherwise


def user_name(user_id: int) -> str:
    """Return a user's name as sudo takes it: `#1234` for one that has none here."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"#{user_id}"


def our_name() -> str:
    """Return this user's name, or number, as chown takes it."""
    return user_name(os.geteuid()).removeprefix("#")


def command_for(path: Path, root: Path) -> str:
    """
    Return what to type so that this user may read and write *path*.

    Who has put back one file as another user has put back more: all below *root* is given to us.
    """
    if _is_ours(path):
        mode = "u+rwx" if path.is_dir() else "u+rw"
        return f"chmod {mode} {quote(str(path))}"
    return f"sudo chown -R {quote(our_name())} {quote(str(root))}"


def _is_ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        # In a directory that is not, it seems.
        return False
