"""A file that is written beside another and gets its name: what it is called until then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 100
"""Of the other's name: with a tag it fits where names have the fewest bytes (eCryptfs: 143)."""


def beside(target: Path, tag: str) -> Path:
    """Return a name for the draft of a target: hidden, and short enough for any file system."""
    return target.with_name(f".{_beginning(target.name)}.{tag}.part")


def _beginning(name: str) -> str:
    """Cut a name to so many bytes, and no letter in two."""
    name = name[:_HEAD_BYTES]
    while len(os.fsencode(name)) > _HEAD_BYTES:
        name = name[:-1]
    return name
