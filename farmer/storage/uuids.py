"""Which directory is which volume: two with one uuid are copies, and only one may be used."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from farmer.storage.directory import Paths, VolumeSetupError
from farmer.storage.files import Files


class Uuids:
    """The volumes that one farmer has opened, by uuid.  Safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._paths: dict[bytes, Path] = {}

    def claim(self, volume: bytes, path: Path, files: Files) -> None:
        """
        Note where a volume is; one that was elsewhere must be there no more.

        Raises:
            VolumeSetupError: a copy of it is in use; writing to both would make two pasts.

        """
        while (other := self._first(volume, path)) != path:
            # Not with the lock held: that disk may not answer, and others would wait for it.
            if files.exists(Paths(other).marker):
                raise VolumeSetupError(
                    f"{path} is a copy of {other}, with the same uuid: only that one is used;"
                    " take one of them out of the settings"
                )
            self._forget(volume, other)

    def _first(self, volume: bytes, path: Path) -> Path:
        """Return where the volume is known to be, which is *path* if it was nowhere."""
        with self._lock:
            return self._paths.setdefault(volume, path)

    def _forget(self, volume: bytes, path: Path) -> None:
        with self._lock:
            if self._paths.get(volume) == path:
                del self._paths[volume]
