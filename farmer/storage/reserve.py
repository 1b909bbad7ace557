"""
A little space kept back on the disk, so that a full one can still be emptied.

Others may fill the filesystem too, whatever the quota says.  Then a delete has no room for
its mark and its change of the index, although it is what would make room: it gets this, step
by step, since whoever filled the disk takes what is left over.  Where others get all of what is
given up, as root does whose own part of the disk is in use, the rest is kept.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Final

from farmer.storage.files import Access, Files
from farmer.storage.quota import RESERVE_BYTES

SPEND_BYTES: Final = 256 * 1024
"""Given up at once: a lone delete writes about 40 KiB, a sweep's 64 may need more steps."""


class Reserve:
    """One volume's: a file of zeros, as long as what is held.  Safe from any thread."""

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._lock = Lock()
        self._held_bytes = 0
        self._goes_to_others = False
        """Whether nothing came of what was given up last, for want of room as before."""

    @property
    def missing_bytes(self) -> int:
        """What was given up and is still to be taken again."""
        return RESERVE_BYTES - self._held_bytes

    def take(self) -> None:
        """Set aside as much of it as the disk has."""
        with self._lock:
            try:
                self._held_bytes = self._grow()
            except OSError:
                self._held_bytes = 0

    def ask_for_more(self) -> None:
        """Try whether the disk would give a step more; it is returned.  Raises `OSError`."""
        with self._lock:
            fd = self._files.open(self._path, Access.ENSURE)
            try:
                held = self._files.size(fd)
                self._files.preallocate(fd, held + SPEND_BYTES)
                self._files.truncate(fd, held)
            finally:
                self._files.close(fd)

    def spend(self, length: int = SPEND_BYTES) -> bool:
        """Return some of it to the disk; say whether there was any."""
        with self._lock:
            left = max(0, self._held_bytes - length)
            self._goes_to_others = self._goes_to_others and self._is_disk_full()
            if not self._held_bytes or self._goes_to_others:
                return False
            self._held_bytes = left
            try:
                self._cut(left)
            except OSError:
                self._held_bytes = 0
                return self._remove()
            return True

    def was_in_vain(self) -> None:
        """Note that there was no room after `spend` either: without any, no more is given up."""
        with self._lock:
            self._goes_to_others = self._is_disk_full()

    def _is_disk_full(self) -> bool:
        try:
            return not self._files.filesystem(self._path.parent).free_bytes
        except OSError:
            return False

    def _grow(self) -> int:
        fd = self._files.open(self._path, Access.ENSURE)
        try:
            held = min(self._files.size(fd), RESERVE_BYTES)
            while held < RESERVE_BYTES:
                wanted = min(held + SPEND_BYTES, RESERVE_BYTES)
                try:
                    self._files.preallocate(fd, wanted)
                except OSError:
                    self._files.truncate(fd, held)
                    break
                held = wanted
            return held
        finally:
            self._files.close(fd)

    def _remove(self) -> bool:
        """Give up all of it: a full copy-on-write filesystem may have no room for cutting."""
        try:
            self._files.unlink(self._path)
        except OSError:
            return False
        return True

    def _cut(self, length: int) -> None:
        fd = self._files.open(self._path, Access.WRITE)
        try:
            self._files.truncate(fd, length)
        finally:
            self._files.close(fd)
