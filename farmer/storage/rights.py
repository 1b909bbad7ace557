"""What the system does not let this user do with a file, and what an owner types then."""

from __future__ import annotations

import errno
import os
import pwd
from contextlib import suppress
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
    Where a directory hides it, that one is told of.
    """
    seen, owner = _nearest_seen(path)
    if owner == os.geteuid():
        mode = "u+rwx" if seen.is_dir() else "u+rw"
        return f"chmod {mode} {quote(str(seen))}"
    return f"sudo chown -R {quote(our_name())} {quote(str(root))}"


def _nearest_seen(path: Path) -> tuple[Path, int | None]:
    """Return what shows itself of a path and what is above it, and whose that is."""
    for seen in (path, *path.parents):
        with suppress(OSError):
            return seen, seen.lstat().st_uid
    return path, None
