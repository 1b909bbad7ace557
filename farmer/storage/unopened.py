"""
Files of a volume that the system does not let the farmer read, though its disk is well.

One that was copied back by another user, say.  That is no damage: nothing of it is put into
quarantine.  The owner is told which and what helps, until they can be opened again.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Final

from farmer.storage.files import Access, Files
from farmer.storage.health import Health
from farmer.storage.rights import NOT_LET, command_for

KNOWN_MAX: Final = 1024
"""So many are counted; a directory that was locked may have millions behind it."""

AT_ONCE: Final = 16
"""Tried again by one look at the disks, which come every few seconds and are waited for."""

ALERT: Final = "FilesUnreadable"


class Unopened:
    """One volume's, since it was opened; safe from any thread."""

    def __init__(self) -> None:
        self._why: dict[Path, str] = {}
        """What the system said of each, the one that is tried next first."""
        self._lock = Lock()

    def is_known(self, path: Path) -> bool:
        """Say whether a file was noted."""
        return path in self._why

    def note(self, path: Path, error: OSError) -> None:
        """Note one."""
        with self._lock:
            if len(self._why) < KNOWN_MAX:
                self._why.setdefault(path, error.strerror or str(error))

    def look_again(self, files: Files) -> None:
        """Try some of them, and forget those that can be opened, or are gone."""
        for path in list(self._why)[:AT_ONCE]:
            try:
                files.close(files.open(path, Access.READ))
            except OSError as error:
                is_over = error.errno not in NOT_LET
            else:
                is_over = True
            with self._lock:
                why = self._why.pop(path, "")
                if not is_over:
                    self._why[path] = why

    def tell(self, health: Health, root: Path) -> None:
        """Let the alert stand that tells of them, or end."""
        with self._lock:
            found = sorted(self._why.items())
        if not found:
            health.clear_alert(ALERT)
            return
        path, why = found[0]
        count = f"{len(found)}{' or more' if len(found) >= KNOWN_MAX else ''}"
        what = "A file" if len(found) == 1 else f"{count} files, the first of them {path},"
        named = f" ({path})" if len(found) == 1 else ""
        health.raise_alert(
            ALERT,
            f"{what} of {root} cannot be read{named}: {why}. The disk is well, the system refuses"
            " it: shards in there are neither served nor scrubbed, all others are. Let the user"
            " that the farmer runs as own them, with the right to read and to write; that is"
            " noticed within seconds.",
            command_for(path, root),
        )
