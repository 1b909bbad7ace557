"""
How far the contract database has come, kept on every volume as a witness against it.

A database that was lost, or put back from a backup, looks whole; but it would let spent
invites be redeemed again.  So it counts its changes, and each volume keeps the count in a
file of its own, `book`, written and synced before a redeem is answered.  A database that is
behind what any volume has seen, or has another past, is not the one that it should be.

    0   8  magic "FARMBOK", zero
    8   2  version, 1
   10   6  zeros
   16  16  the random id of the contract database
   32   8  its generation: how many changes it has seen
   40   8  the random stamp of that change: two pasts of one database differ in it
   48 204  zeros
  252   4  CRC32 of the bytes 0 to 251

Twice, at 0 and at 4096: the older copy is written over, so that a torn write leaves one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Final
from zlib import crc32

from farmer.storage.directory import Paths
from farmer.storage.errors import VolumeClosedError
from farmer.storage.files import Access, Files, sync_what_a_kill_left
from farmer.storage.records import NUMBER_BITS

BOOK_ID_BYTES: Final = 16
STAMP_BYTES: Final = 8
WITNESS_VERSION: Final = 1
PATIENCE_S: Final = 5.0
"""How long a note waits for the one before it: a disk that hangs is left out."""

_MAGIC: Final = b"FARMBOK\0"
_FRONT: Final = struct.Struct(">8sH6x16sQ8s")
_COPY_BYTES: Final = 256
_COPIES_AT: Final = (0, 4096)


@dataclass(frozen=True, slots=True)
class Generation:
    """One state of one contract database."""

    book: bytes
    counter: int
    stamp: bytes


class Witness:
    """One volume's memory of the contract database.  Safe from any thread."""

    def __init__(self, files: Files, paths: Paths) -> None:
        self._files = files
        self._paths = paths
        self._lock = Lock()
        self._fd: int | None = None
        self._is_closed = False
        self._is_named = False
        self._copies: list[Generation | None] = [None for _ in _COPIES_AT]
        self._newest = 0
        self._noted: Generation | None = None

    @property
    def seen(self) -> tuple[Generation, ...]:
        """What was noted last, here or by an earlier run; nothing before `recall`."""
        return tuple(copy for copy in self._copies if copy is not None)

    def recall(self) -> None:
        """Open the file and read what was noted before; raises `OSError`."""
        with self._held():
            self._open()

    def note(self, generation: Generation) -> None:
        """Keep a generation, durably; raises `OSError`, `VolumeClosedError` if it may not be."""
        with self._held():
            fd = self._open()
            if generation in self.seen or self._is_behind(generation):
                return
            # The newest copy is left alone: at any moment the file says what was durable last.
            slot = 1 - self._newest
            self._files.pwritev(fd, [_encoded(generation)], _COPIES_AT[slot])
            self._files.sync_data(fd)
            if not self._is_named:
                self._files.sync_directory(self._paths.root)
                self._is_named = True
            self._copies[slot] = self._noted = generation
            self._newest = slot

    def close(self) -> None:
        """
        Close the file, if it was opened, and open it no more: it is the next opening's.

        Not while a disk that hangs is noting in it.
        """
        self._is_closed = True
        with suppress(TimeoutError), self._held():
            if self._fd is not None:
                self._files.close(self._fd)
                self._fd = None

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise TimeoutError("the note before this one is not done")
        try:
            yield
        finally:
            self._lock.release()

    def _open(self) -> int:
        if self._fd is not None:
            return self._fd
        if self._is_closed:
            raise VolumeClosedError("the volume was closed")
        if not self._files.exists(self._paths.marker):
            raise FileNotFoundError(f"{self._paths.marker} is missing")
        if self._files.exists(self._paths.book):
            # Before a word of it is believed: whoever finds it noted does not note it again.
            sync_what_a_kill_left(self._files, self._paths.book)
            self._files.sync_directory(self._paths.root)
        fd = self._files.open(self._paths.book, Access.ENSURE)
        try:
            raw = self._files.pread(fd, _COPIES_AT[-1] + _COPY_BYTES, 0)
        except OSError:
            self._files.close(fd)
            raise
        self._copies = [_decoded(raw[at : at + _COPY_BYTES]) for at in _COPIES_AT]
        counters = [copy.counter if copy is not None else -1 for copy in self._copies]
        self._newest = counters.index(max(counters))
        self._is_named = bool(raw)
        self._fd = fd
        return fd

    def _is_behind(self, generation: Generation) -> bool:
        """Say whether another thread was faster with a later one."""
        noted = self._noted
        return (
            noted is not None
            and noted.book == generation.book
            and noted.counter > generation.counter
        )


def _encoded(generation: Generation) -> bytes:
    fields = (generation.book, generation.counter, generation.stamp)
    front = _FRONT.pack(_MAGIC, WITNESS_VERSION, *fields)
    front = front.ljust(_COPY_BYTES - 4, b"\0")
    return front + crc32(front).to_bytes(4, "big")


def _decoded(raw: bytes) -> Generation | None:
    """Return what a copy says; None if it is empty, torn, of a newer release, or none of ours."""
    if len(raw) < _COPY_BYTES or crc32(raw[:-4]).to_bytes(4, "big") != raw[-4:]:
        return None
    magic, version, book, counter, stamp = _FRONT.unpack_from(raw)
    # A larger counter is none that the database can have, or could be asked for.
    if magic != _MAGIC or version != WITNESS_VERSION or counter >> NUMBER_BITS:
        return None
    return Generation(book, counter, stamp)
