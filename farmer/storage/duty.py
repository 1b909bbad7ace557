"""
What the owner wants done with a volume: a small file in it, so that a restart goes on with it.

    leaving.json   {"format": 1, "verb": "drain", "to": "", "to_path": "", "rate_bytes": 0,
                    "force": false, "remove": false, "since_ms": 0}
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from farmer.storage.directory import Paths, replace_small
from farmer.storage.files import Files, read_head
from farmer.storage.records import NUMBER_BITS

DUTY_VERSION: Final = 1
_BYTES_MAX: Final = 64 * 1024


class Leaving(Enum):
    """Why the shards of a volume go elsewhere, and what comes then."""

    DRAIN = "drain"
    """The volume stays, empty."""
    RETIRE = "retire"
    """It is taken out of the settings."""
    MOVE = "move"
    """So it is, and another directory has taken its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What is to be done with a volume."""

    verb: Leaving
    since_ms: int
    to: str = ""
    """The uuid, in hex, of the one volume that the shards go to; empty for any."""
    to_path: str = ""
    rate_bytes: int = 0
    """Bytes a second at most; 0 for as fast as the foreground allows."""
    force: bool = False
    """Give up, in the end, what is damaged and what renters have not finished."""
    remove: bool = False
    """Remove the directory's files in the end."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no command would have written; a file may say anything."""
        numbers = self.since_ms, self.rate_bytes
        for kind, values in (
            (int, numbers),
            (bool, (self.force, self.remove)),
            (str, (self.to, self.to_path)),
        ):
            if any(type(value) is not kind for value in values):
                raise ValueError(f"something else stands where {kind.__name__} should")
        if any(not 0 <= number < 1 << NUMBER_BITS for number in numbers):
            raise ValueError("a number that is too large, or below zero")
        if b"\0" in os.fsencode(self.to_path):
            raise ValueError(f"{self.to_path!r} is no path")


def read_duty(files: Files, root: Path) -> Duty | None:
    """Return what was written; None if nothing, or nothing that this release understands."""
    try:
        raw = read_head(files, Paths(root).duty, _BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        fields: Any = json.loads(raw)
        if not isinstance(fields, dict) or fields.pop("format") != DUTY_VERSION:
            return None
        return Duty(**(fields | {"verb": Leaving(fields["verb"])}))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def write_duty(files: Files, root: Path, duty: Duty) -> None:
    """Write it, durably: the old content or the new one.  Raises `OSError`."""
    text = json.dumps({"format": DUTY_VERSION} | asdict(duty) | {"verb": duty.verb.value})
    raw = text.encode() + b"\n"
    paths = Paths(root)
    replace_small(files, paths.duty, raw, drafts=paths.staging)


def clear_duty(files: Files, root: Path) -> None:
    """Forget it, durably; raises `OSError`."""
    files.unlink(Paths(root).duty)
    files.sync_directory(root)
