"""
Which shards may be on two volumes: a small file in both of them, written before the crossing.

    moving    0   8  magic "FARMMOV", zero
              8   2  version, 1
             10   2  zeros
             12   4  count of shards n
             16  16  uuid of the volume that they leave
             32  16  uuid of the volume that they go to
             48 64n  renter's node id and shard id of each
       48 + 64n   4  CRC32 of all bytes before

It is written in place and synced before the first of its shards is entered at the target;
one that was torn by a crash names a crossing that never began.  It is not cleared after each
crossing: what it still names then is on one volume only, and that is seen at the next start.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final
from zlib import crc32

from farmer.model.ids import NodeId, ShardId
from farmer.storage.directory import Paths, replace_small
from farmer.storage.files import Access, Files, read_head
from farmer.storage.places import Key

CROSSING_MAX: Final = 256
"""Shards that cross together: what one change of the index may hold, and what a crash with a
missing disk behind it may keep from being deleted."""

_BUSY: Final = "other shards are on their way there, or from there"
_MAGIC: Final = b"FARMMOV\0"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">8sH2xI16s16s")
_KEY_BYTES: Final = 64
_CRC: Final = struct.Struct(">I")
_BYTES_MAX: Final = _HEAD.size + CROSSING_MAX * _KEY_BYTES + _CRC.size


@dataclass(frozen=True, slots=True)
class Crossers:
    """Shards that may be on two volumes."""

    source: bytes
    """The uuid of the volume that they leave."""
    target: bytes
    keys: frozenset[Key]


NOTHING: Final = Crossers(bytes(16), bytes(16), frozenset())


def _at_once(work: Callable[[], None]) -> None:
    work()


class Journal:
    """One volume's.  Safe from any thread; it knows of one crossing at a time."""

    def __init__(
        self, files: Files, root: Path, in_need: Callable[[Callable[[], None]], None] = _at_once
    ) -> None:
        """
        Read what the last run left; raises `OSError`.

        *in_need* does what has to be done on a full disk, too.
        """
        self._files = files
        self._root = root
        self._in_need = in_need
        self._path = Paths(root).journal
        self._writing = Lock()
        self.open = self._read()
        """What may be on two volumes now."""

    def write(self, crossers: Crossers) -> None:
        """
        Let them, durably, be known; raises `OSError`, and then knows what it knew before.

        That is also raised while another crossing is not settled, or is being written: the
        thread that does it may wait for a disk.
        """
        if not self._writing.acquire(blocking=False):
            raise OSError(errno.EBUSY, _BUSY)
        try:
            if self.open.keys:
                raise OSError(errno.EBUSY, _BUSY)
            raw = _encode(crossers)
            self._in_need(lambda: self._put(raw))
            self.open = crossers
        finally:
            self._writing.release()

    def _put(self, raw: bytes) -> None:
        if self._files.exists(self._path):
            self._overwrite(raw)
        else:
            replace_small(self._files, self._path, raw, drafts=Paths(self._root).staging)

    def _overwrite(self, raw: bytes) -> None:
        fd = self._files.open(self._path, Access.ENSURE)
        try:
            self._files.pwritev(fd, [raw], 0)
            self._files.sync_data(fd)
        finally:
            self._files.close(fd)

    def settle(self) -> None:
        """Note that each of them is on one volume again; in memory, see above."""
        self.open = NOTHING

    def _read(self) -> Crossers:
        try:
            return _decode(read_head(self._files, self._path, _BYTES_MAX))
        except FileNotFoundError:
            return NOTHING


def _encode(crossers: Crossers) -> bytes:
    keys: Iterable[Key] = sorted(crossers.keys)
    front = _HEAD.pack(_MAGIC, _VERSION, len(crossers.keys), crossers.source, crossers.target)
    front += b"".join(renter.raw + shard.raw for renter, shard in keys)
    return front + _CRC.pack(crc32(front))


def _decode(raw: bytes) -> Crossers:
    if len(raw) < _HEAD.size:
        return NOTHING
    magic, version, count, source, target = _HEAD.unpack_from(raw)
    end = _HEAD.size + count * _KEY_BYTES
    if magic != _MAGIC or version != _VERSION or len(raw) < end + _CRC.size:
        return NOTHING
    if crc32(raw[:end]) != _CRC.unpack_from(raw, end)[0]:
        return NOTHING
    keys = (raw[at : at + _KEY_BYTES] for at in range(_HEAD.size, end, _KEY_BYTES))
    return Crossers(
        source, target, frozenset((NodeId(key[:32]), ShardId(key[32:])) for key in keys)
    )
