"""Open files for reading, a few at a time, and which records are being read right now."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
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
class Handle:
    """One open file."""

    fd: int
    users: int = 0
    is_stale: bool = False


@dataclass(slots=True, eq=False)
class Pin:
    """One reader's hold on a record."""

    place: Place
    gives_way: bool
    """Whether it ends when the shard is given up for good: its reader may be as slow as it likes,
    and would hold space for which nobody pays any more."""
    is_over: bool = False
    """Whether it has ended so: what is at the place is not the record any more."""


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
        self._open: OrderedDict[tuple[int, bytes], Handle] = OrderedDict()
        self._pins: dict[Place, set[Pin]] = {}
        """Of each record that is being read."""
        self._is_closed = False

    def pin(self, place: Place, *, gives_way: bool = False) -> Pin:
        """Keep a record where it is; see `Pin` for what *gives_way*."""
        pin = Pin(place, gives_way)
        with self._lock:
            self._pins.setdefault(place, set()).add(pin)
        return pin

    def unpin(self, pin: Pin) -> None:
        """Let it go."""
        with self._lock:
            if not pin.is_over:
                self._take_out(pin)
        if pin.is_over:
            # Its reader may have opened the file once more, just before that was unlinked.
            self.forget(pin.place)

    def end_readers(self, places: Iterable[Place]) -> None:
        """Keep these no longer for whoever gives way: no row speaks of them any more."""
        with self._lock:
            for place in places:
                for pin in [one for one in self._pins.get(place, ()) if one.gives_way]:
                    pin.is_over = True
                    self._take_out(pin)

    def _take_out(self, pin: Pin) -> None:
        pins = self._pins[pin.place]
        pins.remove(pin)
        if not pins:
            del self._pins[pin.place]

    def is_pinned(self, place: Place) -> bool:
        """Say whether somebody reads this record."""
        with self._lock:
            return place in self._pins

    @property
    def pinned(self) -> int:
        """How many records are being read."""
        with self._lock:
            return len(self._pins)

    @property
    def is_closed(self) -> bool:
        """Whether a pin keeps nothing where it is any more: see `close`."""
        return self._is_closed

    def is_segment_pinned(self, number: int) -> bool:
        """Say whether somebody reads any record of this segment."""
        with self._lock:
            return any(place.segment == number for place in self._pins)

    def borrow(self, place: Place) -> Loan:
        """Return a context with the descriptor of a record's file; entering raises `OSError`."""
        return Loan(self, place)

    def forget(self, place: Place) -> None:
        """Close a file that is about to go."""
        with self._lock:
            handle = self._open.pop((place.segment, place.file), None)
            unused = [] if handle is None else self._retired([handle])
        self._close_all(unused)

    def close(self) -> None:
        """
        Close all files, each when nobody reads it any more; from now on keep none open.

        Whoever opens the volume anew knows nothing of the pins.
        """
        with self._lock:
            self._is_closed = True
            unused = self._retired(self._open.values())
            self._open.clear()
        self._close_all(unused)

    def path_of(self, place: Place) -> Path:
        """Return where a record's file is; a large shard's may still be in staging."""
        if place.segment:
            return self.usual_path(place)
        part = self._paths.part(place.file)
        return part if self._files.exists(part) else self.usual_path(place)

    def usual_path(self, place: Place) -> Path:
        """Return where its file is to be found sooner or later; asks no disk."""
        paths = self._paths
        return paths.segment(place.segment) if place.segment else paths.shard(place.file)

    def take(self, place: Place) -> Handle:
        """Lend an open file; raises `OSError`."""
        key = (place.segment, place.file)
        # No call into the disk is made with the lock held: one that hangs would hold up all.
        with self._lock:
            handle = self._open.get(key)
            if handle is not None:
                self._open.move_to_end(key)
                handle.users += 1
                return handle
        fd = self._open_file(place)
        handle, unused = self._lend(key, fd)
        self._close_all(unused)
        return handle

    def take_open(self, place: Place) -> Handle | None:
        """Lend a file that is open already, without asking the disk for anything."""
        with self._lock:
            key = (place.segment, place.file)
            handle = self._open.get(key)
            if handle is not None:
                self._open.move_to_end(key)
                handle.users += 1
            return handle

    def _lend(self, key: tuple[int, bytes], fd: int) -> tuple[Handle, list[int]]:
        """Lend the file just opened, or the one that was; return what is to be closed, too."""
        with self._lock:
            handle = self._open.get(key)
            unused = [] if handle is None else [fd]
            if handle is None:
                if self._is_closed:
                    # Lent this once to whoever reads on.
                    return Handle(fd, users=1, is_stale=True), []
                handle = self._open[key] = Handle(fd)
            self._open.move_to_end(key)
            handle.users += 1
            more = len(self._open) - OPEN_FILES_MAX
            oldest = [self._open.popitem(last=False)[1] for _ in range(more)]
            return handle, unused + self._retired(oldest)

    def _open_file(self, place: Place) -> int:
        try:
            return self._files.open(self.path_of(place), Access.READ)
        except FileNotFoundError:
            # Between looking and opening, a large shard may have moved out of staging.
            return self._files.open(self.path_of(place), Access.READ)

    def give_back(self, handle: Handle) -> None:
        """End a loan."""
        with self._lock:
            handle.users -= 1
            is_last = handle.is_stale and not handle.users
        if is_last:
            self._close_all([handle.fd])

    def _retired(self, handles: Iterable[Handle]) -> list[int]:
        """Lend these no more; return the descriptors that nobody uses."""
        unused = []
        for handle in handles:
            handle.is_stale = True
            if not handle.users:
                unused.append(handle.fd)
        return unused

    def _close_all(self, unused: list[int]) -> None:
        for fd in unused:
            # They were only read from: what a close says means nothing.
            with suppress(OSError):
                self._files.close(fd)


class Loan:
    """A file of one volume, lent for the length of a block."""

    # Not by contextlib: each read goes through here, and a generator takes three times as long.

    __slots__ = ("_handle", "_handles", "_place")

    def __init__(self, handles: Handles, place: Place) -> None:
        self._handles = handles
        self._place = place

    def __enter__(self) -> int:
        self._handle = self._handles.take(self._place)
        return self._handle.fd

    def __exit__(self, *_exc: object) -> None:
        self._handles.give_back(self._handle)
