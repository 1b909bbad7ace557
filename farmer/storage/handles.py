"""Open files for reading, a few at a time, and which records are being read right now."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from farmer.storage.directory import Paths
from farmer.storage.files import Access, Files
from farmer.storage.places import Place

OPEN_FILES_MAX: Final = 64
"""Descriptors kept open without a reader: enough for the segments in use."""


@dataclass(slots=True)
class _Handle:
    fd: int
    users: int = 0
    is_stale: bool = False


class Handles:
    """
    The files of one volume, open for reading.

    A pinned record is never punched, moved away or unlinked, or its reader would report rot
    where there is none.
    """

    def __init__(self, files: Files, paths: Paths) -> None:
        self._files = files
        self._paths = paths
        self._lock = Lock()
        self._open: OrderedDict[tuple[int, bytes], _Handle] = OrderedDict()
        self._pins: Counter[Place] = Counter()

    def pin(self, place: Place) -> None:
        """Keep a record where it is."""
        with self._lock:
            self._pins[place] += 1

    def unpin(self, place: Place) -> None:
        """Let it go."""
        with self._lock:
            self._pins[place] -= 1
            if not self._pins[place]:
                del self._pins[place]

    def is_pinned(self, place: Place) -> bool:
        """Say whether somebody reads this record."""
        with self._lock:
            return place in self._pins

    @property
    def pinned(self) -> int:
        """How many records are being read."""
        with self._lock:
            return len(self._pins)

    def is_segment_pinned(self, number: int) -> bool:
        """Say whether somebody reads any record of this segment."""
        with self._lock:
            return any(place.segment == number for place in self._pins)

    @contextmanager
    def borrow(self, place: Place) -> Iterator[int]:
        """Lend the descriptor of a record's file; raises `OSError`."""
        key = (place.segment, place.file)
        handle = self._take(key, place)
        try:
            yield handle.fd
        finally:
            self._return(handle)

    def forget(self, place: Place) -> None:
        """Close a file that is about to go."""
        with self._lock:
            handle = self._open.pop((place.segment, place.file), None)
            if handle is not None:
                self._retire(handle)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._retire(self._open.popitem()[1])

    def path_of(self, place: Place) -> Path:
        """Return where a record's file is; a large shard's may still be in staging."""
        if place.segment:
            return self._paths.segment(place.segment)
        part = self._paths.part(place.file)
        return part if self._files.exists(part) else self._paths.shard(place.file)

    def _take(self, key: tuple[int, bytes], place: Place) -> _Handle:
        with self._lock:
            handle = self._open.get(key)
            if handle is None:
                handle = self._open[key] = _Handle(self._open_file(place))
            self._open.move_to_end(key)
            handle.users += 1
            while len(self._open) > OPEN_FILES_MAX:
                self._retire(self._open.popitem(last=False)[1])
            return handle

    def _open_file(self, place: Place) -> int:
        try:
            return self._files.open(self.path_of(place), Access.READ)
        except FileNotFoundError:
            # Between looking and opening, a large shard may have moved out of staging.
            return self._files.open(self.path_of(place), Access.READ)

    def _return(self, handle: _Handle) -> None:
        with self._lock:
            handle.users -= 1
            if handle.is_stale and not handle.users:
                self._files.close(handle.fd)

    def _retire(self, handle: _Handle) -> None:
        handle.is_stale = True
        if not handle.users:
            self._files.close(handle.fd)
