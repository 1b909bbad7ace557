"""A disk that says that it has synced, has other bytes, and a memory that hides it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from farmer.storage.files import FOLIO_BYTES_MAX, Buffer, OsFiles, whole_folios

LOST_BYTES = 16
"""What becomes zeros of all that is to be lost."""


class LosingFiles(OsFiles):
    """
    Of the records that are written below *folder* some lose bytes when they have been synced.

    Memory shows it until it must forget its whole folio, which is as large as there are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._doomed: Counter[bytes] = Counter()
        self._unsynced: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        self._remembered: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        self.lost = 0

    def lose(self, whole: bytes, times: int = 1) -> None:
        """Lose the beginning of these bytes the first times that they are written."""
        self._doomed[whole[:LOST_BYTES]] += times

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        super().pwritev(fd, buffers, offset)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_relative_to(self._folder) and path.suffix in {".seg", ".part"}:
            self._unsynced.setdefault(self.inode(fd), []).append((offset, b"".join(buffers)))

    def sync_data(self, fd: int) -> None:
        super().sync_data(fd)
        for offset, raw in self._unsynced.pop(self.inode(fd), []):
            for doomed in [one for one in +self._doomed if one in raw]:
                at = offset + raw.index(doomed)
                super().pwritev(fd, [bytes(LOST_BYTES)], at)
                self._remembered.setdefault(self.inode(fd), []).append((at, doomed))
                self._doomed[doomed] -= 1
                self.lost += 1

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        raw = bytearray(super().pread(fd, length, offset))
        for at, doomed in self._remembered.get(self.inode(fd), []):
            for place, byte in enumerate(doomed, at - offset):
                if 0 <= place < len(raw):
                    raw[place] = byte
        return bytes(raw)

    def pread_cached(self, fd: int, length: int, offset: int) -> None:
        """Whoever asks has to read."""

    def uncache(self, fd: int, offset: int, length: int) -> None:
        start, length = whole_folios(offset, length)
        self._remembered[self.inode(fd)] = [
            (at, doomed)
            for at, doomed in self._remembered.get(self.inode(fd), [])
            if at < start
            or (length and (at // FOLIO_BYTES_MAX + 1) * FOLIO_BYTES_MAX > start + length)
            or self._unsynced.get(self.inode(fd))
        ]
