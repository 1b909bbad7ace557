"""
What a running farmer notes of itself, `run.json`: how it is asked, and that it has not ended.

Where the disk of the home is full, it lies beside the control socket, most often in memory, and
in the home there is a link to it: that takes no room.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from farmer.running.files import has_room, link_whole, sync_directory, write_json


def is_noted(run: Path) -> bool:
    """Say whether a farmer runs, or did not end in order; what a link leads to may be gone."""
    return os.path.lexists(run)


def note_run(run: Path, document: dict[str, Any], beside: Path) -> bool:
    """
    Write it, into the directory *beside* where the home has no room; say whether it was written.

    Raises `OSError`, but not for want of room.
    """

    def write_beside() -> None:
        elsewhere = beside / run.name
        link_whole(run, elsewhere)
        write_json(elsewhere, document)

    return has_room(lambda: write_json(run, document)) or has_room(write_beside)


def forget_run(run: Path, beside: Path) -> None:
    """Remove it, durably: the end was in order.  Raises `OSError`."""
    with suppress(OSError):
        (beside / run.name).unlink()
    run.unlink(missing_ok=True)
    sync_directory(run.parent)
