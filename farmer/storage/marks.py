"""
Marks: the records that say what became of earlier records.

The payload of a marks record is a row of entries of 96 bytes:

      0   1  action: 1 trash, 2 undelete, 3 gone, 4 quarantine, 5 tombstone,
         6 trash alone
      1   7  zeros
      8   8  when, Unix ms; for trash, when it was given up
     16   8  observed running time then, ms
     24  32  renter's node id
     56  32  shard id
     88   8  sequence of the record that is meant; older copies of the shard are meant too

A tombstone says gone, and that an older copy may lie on a volume that could not be asked: until
it can, that copy does not count.  *Gone* ends it.  Trash alone says the same of a shard that goes
into the trash.

All marks of one group commit share one record.  A mark may go only when the record that it
speaks of, and every older copy, is durably gone: else a rebuild would resurrect it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from farmer.model.ids import NodeId, ShardId
from farmer.storage.files import Buffer
from farmer.storage.records import NUMBER_BITS, Kind, RecordHeader, crc_bytes

_ENTRY: Final = struct.Struct(">B7xQQ32s32sQ")
MARK_BYTES: Final = _ENTRY.size


class Action(IntEnum):
    """What became of a record.  Disk values: never renumber."""

    TRASH = 1
    UNDELETE = 2
    GONE = 3
    QUARANTINE = 4
    TOMBSTONE = 5
    TRASH_ALONE = 6


_ACTIONS: Final = frozenset(map(int, Action))
_NUMBERS_AT: Final = (8, 16, 88)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One entry."""

    action: Action
    at_ms: int
    observed_ms: int
    renter: NodeId
    shard: ShardId
    sequence: int


def encode_marks(
    marks: Iterable[Mark], segment: bytes, sequence: int
) -> tuple[RecordHeader, list[Buffer]]:
    """Return a record of these marks: its header, and the parts behind it."""
    payload = b"".join(
        _ENTRY.pack(
            mark.action,
            mark.at_ms,
            mark.observed_ms,
            mark.renter.raw,
            mark.shard.raw,
            mark.sequence,
        )
        for mark in marks
    )
    trailer = crc_bytes(payload)
    header = RecordHeader(
        kind=Kind.MARKS,
        segment=segment,
        sequence=sequence,
        payload_bytes=len(payload),
        trailer_bytes=len(trailer),
        trailer_crc=int.from_bytes(crc_bytes(trailer), "big"),
    )
    return header, [payload, trailer]


def are_marks(payload: bytes) -> bool:
    """Say whether these can be marks: whole entries of known actions, numbers of their size."""
    if len(payload) % MARK_BYTES or not _ACTIONS.issuperset(payload[::MARK_BYTES]):
        return False
    return not any(
        byte >> (NUMBER_BITS - 56) for at in _NUMBERS_AT for byte in payload[at::MARK_BYTES]
    )


def decode_marks(payload: bytes) -> Iterator[Mark]:
    """Yield the entries of a payload of which `are_marks` is true."""
    for action, at_ms, observed_ms, renter, shard, sequence in _ENTRY.iter_unpack(payload):
        yield Mark(
            action=Action(action),
            at_ms=at_ms,
            observed_ms=observed_ms,
            renter=NodeId(renter),
            shard=ShardId(shard),
            sequence=sequence,
        )
