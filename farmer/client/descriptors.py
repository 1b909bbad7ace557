"""Names that stand for a file that is open already: `/dev/stdout`, `/proc/self/fd/3`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

_LINKS_MAX: Final = 40
"""As many as Linux follows."""

_NUMBER: Final = re.compile("[0-9]{1,9}", re.ASCII)
"""Of an open file; more digits than the system's type has room for are none."""


def descriptor_of(name: Path | str) -> int | None:
    """
    Return the number of the open file that a name stands for, or None for any other name.

    To resolve such a name leads to the file itself: to rename over that would take it from
    whoever else writes to it, and to open it anew begins at its first byte.
    """
    path = Path(name)
    for _ in range(_LINKS_MAX):
        folder = os.path.realpath(path.parent)
        if _NUMBER.fullmatch(path.name) and _holds_ours(folder):
            return int(path.name)
        try:
            path = Path(folder, path.readlink())
        except (OSError, ValueError):
            return None
    return None


def is_inherited(descriptor: int) -> bool:
    """
    Return whether we were started with it.

    What was closed then is given to what we open next, the ledger say; Python lets no child
    inherit what it opens.  SQLite has nothing below 3, and fills that with the null device:
    but of these Python knows whether they were there.
    """
    standard = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    if descriptor < len(standard) and standard[descriptor] is None:
        return False
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def _holds_ours(folder: str) -> bool:
    ours = re.escape(os.path.realpath("/proc/self"))
    return folder == "/dev/fd" or re.fullmatch(rf"{ours}(/task/[0-9]+)?/fd", folder) is not None
