"""The note of a move beside a volume's log: which shards may be on two volumes."""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

from farmer.model.ids import NodeId, ShardId
from farmer.storage.directory import Paths
from farmer.storage.journal import CROSSING_MAX, Crossers, Journal
from tests.fuzz.disk import RENTER, VOLUME
from tests.fuzz.mutate import Picker
from tests.fuzz.notes import ROOT, Folder
from tests.fuzz.target import Target
from tests.vectors.cast import stream

FRONT: Final = b"FARMMOV\0\0\1"
HEAD_BYTES: Final = 48
KEY_BYTES: Final = 64
CRC_BYTES: Final = 4
OTHER: Final = stream("other volume", 16)
LATER: Final = Crossers(OTHER, VOLUME, frozenset({(RENTER, ShardId(stream("later", 32)))}))


def note(*numbers: int) -> bytes:
    """Return the whole note of a crossing of these shards."""
    head = FRONT + bytes(2) + len(numbers).to_bytes(4, "big") + VOLUME + OTHER
    keys = sorted(RENTER.raw + stream(f"crosses {number}", 32) for number in numbers)
    front = head + b"".join(keys)
    return front + crc32(front).to_bytes(CRC_BYTES, "big")


def end_of(raw: bytes | bytearray) -> int:
    """Return where the checksum is, by what the note says of itself."""
    return HEAD_BYTES + KEY_BYTES * int.from_bytes(raw[12:16], "big")


class MovingNote(Target):
    """What crossed last; one that was torn names a crossing that never began."""

    name = "moving-note"
    executions = 40_000

    def seeds(self) -> list[bytes]:
        short, long = note(1), note(*range(7))
        return [short, note(2, 3), long, short + long[len(short) :], note(*range(CROSSING_MAX))]

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        raw = bytearray(data + seed[len(data) : HEAD_BYTES])
        raw[:8] = FRONT[:8]
        if pick.chance() < 0.9:
            raw[8:10] = FRONT[8:]
        if pick.chance() < 0.8:
            most = max(0, len(raw) - HEAD_BYTES - CRC_BYTES) // KEY_BYTES
            raw[12:16] = min(most, 1 + pick.below(most + 1)).to_bytes(4, "big")
        end = end_of(raw)
        if end + CRC_BYTES <= len(raw):
            raw[end : end + CRC_BYTES] = crc32(raw[:end]).to_bytes(CRC_BYTES, "big")
        return bytes(raw)

    def run(self, data: bytes) -> bool:
        folder: Any = Folder(Paths(ROOT).journal, data)
        found = self._read(folder)
        if found.keys:
            self._stood_there(found, data)
        journal = Journal(folder, ROOT)
        journal.settle()
        journal.write(LATER)
        assert self._read(folder) == LATER, "what is noted over it is not what is read"
        return bool(found.keys)

    def _read(self, folder: Any) -> Crossers:
        found = Journal(folder, ROOT).open
        assert folder.is_closed, "a file was left open"
        return found

    def _stood_there(self, found: Crossers, data: bytes) -> None:
        end = end_of(data)
        assert data[:10] == FRONT, "what is no such note"
        right = crc32(data[:end]).to_bytes(CRC_BYTES, "big")
        assert data[end : end + CRC_BYTES] == right, "a torn note believed"
        assert (found.source, found.target) == (data[16:32], data[32:48])
        keys = [data[at : at + KEY_BYTES] for at in range(HEAD_BYTES, end, KEY_BYTES)]
        assert len(keys) <= CROSSING_MAX, "more than cross together"
        assert found.keys == {(NodeId(key[:32]), ShardId(key[32:])) for key in keys}


TARGETS: Final = (MovingNote,)
