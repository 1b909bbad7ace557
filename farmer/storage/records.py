"""
How a record and a segment look on the disk: the one place that knows the offsets.

Integers are big-endian.  A record begins at a multiple of 4096 bytes and is filled up with
zeros to the next one, so that a scan can find the next record behind a damaged one, and a
hole can give back exactly what a record takes.

    Record      0   8  magic "FARMREC", zero            } these three and the CRC
                8   2  version, 1                       } never move
               10   1  kind: 1 shard, 2 marks, 3 staging
               11   1  state of the shard when the record was written
               12   4  flags: bit 0, a copy, by a compaction or from another volume; bit 1,
                       found damaged before
               16  16  segment uuid: whose record this is, so that neither a stale one nor bytes
                       that a renter chose are mistaken for one (`segment_uuid`)
               32   8  sequence: rises with every record of the volume
               40   8  payload length n, bytes
               48   4  trailer length t, bytes
               52   4  CRC32 of the trailer
               56  32  shard id
               88  32  renter's node id
              120  16  contract id
              136   8  stored at, Unix ms
              144   8  gone at, Unix ms: end of the trash, or 0
              152   8  observed running time when it was trashed, ms, or 0
              160   8  staging: payload bytes known to be durable
              168   8  staging: last activity, Unix ms
              176   8  the contract's end, Unix ms: a hint, the contract book decides
              184   8  observed running time, ms, when it was stored while a volume that may hold
                       an older copy could not be asked, or 0
              192  60  zeros
              252   4  CRC32 of the bytes 0 to 251
              256   n  payload
          256 + n   t  trailer

    Trailer of a shard: 32 bytes of tree hash per 64 KiB block of the payload, then 4 bytes of
    CRC32 per block.  Trailer of marks: 4 bytes, CRC32 of the payload.

    Segment     0   8  magic "FARMSEG", zero
                8   2  version, 1
               10   6  zeros
               16  16  volume uuid
               32  16  segment uuid
               48   8  number
               56   8  first sequence
               64   8  where the segment before this one ends, bytes: what lies behind was
                       never acknowledged; 0 for the first
               72   8  created at, Unix ms
               80 172  zeros
              252   4  CRC32 of the bytes 0 to 251
              256   -  zeros up to 4096

A file of one large shard is one record at offset 0, and its uuid is its name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Final, NamedTuple
from zlib import crc32

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import (
    BLOCK_BYTES,
    BLOCK_CHECKSUM_BYTES,
    BLOCK_HASH_BYTES,
    RECORD_ALIGNMENT_BYTES,
    RECORD_HEADER_BYTES,
    ShardState,
    block_count,
)
from farmer.storage.errors import FormatTooNewError
from farmer.storage.files import Buffer

RECORD_MAGIC: Final = b"FARMREC\0"
SEGMENT_MAGIC: Final = b"FARMSEG\0"
RECORD_VERSION: Final = 1
SEGMENT_VERSION: Final = 1
NUMBER_BITS: Final = 62
"""No number on the disk has more: the index holds 63, also for one more or a sum of two."""
SEGMENT_HEADER_BYTES: Final = RECORD_ALIGNMENT_BYTES
UUID_BYTES: Final = 16
MOVED: Final = 1
"""Flag of a record that a compaction copied."""
DAMAGED: Final = 2
"""Flag of a copy whose bytes were known to be damaged when they were copied."""

_RECORD: Final = struct.Struct(">8sHBBI16sQQII32s32s16sQQQQQQQ")
_SEGMENT: Final = struct.Struct(">8sH6x16s16sQQQQ")
_CRC: Final = struct.Struct(">I")
_CRC_OFFSET: Final = RECORD_HEADER_BYTES - _CRC.size
_VERSION: Final = struct.Struct(">H")

NOBODY: Final = NodeId(bytes(32))
NO_SHARD: Final = ShardId(bytes(32))
NO_CONTRACT: Final = ContractId(bytes(16))


class Kind(IntEnum):
    """What a record is.  Disk values: never renumber."""

    SHARD = 1
    MARKS = 2
    STAGING = 3


_KINDS: Final = {int(kind): kind for kind in Kind}
_STATES: Final = {int(state): state for state in ShardState}
# A look-up in a dict: Enum's own takes longer than all the rest of a header.


class DamagedError(Exception):
    """These bytes are no header of this segment; the scan goes on behind them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHeader:
    """The fixed front of every record."""

    kind: Kind
    segment: bytes
    sequence: int
    payload_bytes: int
    trailer_bytes: int
    trailer_crc: int
    renter: NodeId = NOBODY
    shard: ShardId = NO_SHARD
    contract: ContractId = NO_CONTRACT
    state: ShardState = ShardState.LIVE
    flags: int = 0
    stored_at_ms: int = 0
    gone_at_ms: int = 0
    observed_ms: int = 0
    synced_bytes: int = 0
    active_at_ms: int = 0
    until_ms: int = 0
    alone_ms: int = 0

    @property
    def record_bytes(self) -> int:
        """What the whole record takes on the disk."""
        return aligned(RECORD_HEADER_BYTES + self.payload_bytes + self.trailer_bytes)

    def encode(self) -> bytes:
        """Return the 256 bytes."""
        front = _RECORD.pack(
            RECORD_MAGIC,
            RECORD_VERSION,
            self.kind,
            self.state,
            self.flags,
            self.segment,
            self.sequence,
            self.payload_bytes,
            self.trailer_bytes,
            self.trailer_crc,
            self.shard.raw,
            self.renter.raw,
            self.contract.raw,
            self.stored_at_ms,
            self.gone_at_ms,
            self.observed_ms,
            self.synced_bytes,
            self.active_at_ms,
            self.until_ms,
            self.alone_ms,
        )
        return _with_crc(front)


class RecordFields(NamedTuple):
    """What stands in a header, in the order of the disk: enough for who compares it."""

    magic: bytes
    version: int
    kind: int
    state: int
    flags: int
    segment: bytes
    sequence: int
    payload_bytes: int
    trailer_bytes: int
    trailer_crc: int
    shard: bytes
    renter: bytes
    contract: bytes
    stored_at_ms: int
    gone_at_ms: int
    observed_ms: int
    synced_bytes: int
    active_at_ms: int
    until_ms: int
    alone_ms: int


def record_fields(raw: bytes, segment: bytes, where: object) -> RecordFields:
    """
    Read the 256 bytes of a header that must belong to *segment*.

    Raises:
        DamagedError: not such a header.
        FormatTooNewError: a sound header of a newer release; *where* names the file.

    """
    _check(raw, RECORD_MAGIC, RECORD_VERSION, where)
    found = RecordFields._make(_RECORD.unpack_from(raw))
    if found.segment != segment:
        raise DamagedError("a record of another segment")
    times = found.stored_at_ms | found.gone_at_ms | found.observed_ms | found.active_at_ms
    times |= found.until_ms | found.alone_ms
    if (found.sequence | found.payload_bytes | found.synced_bytes | times) >> NUMBER_BITS:
        raise DamagedError("a number that no release has written")
    if found.kind not in _KINDS or found.state not in _STATES:
        raise DamagedError(f"no such kind or state: {found.kind}, {found.state}")
    return found


def decode_record(raw: bytes, segment: bytes, where: object) -> RecordHeader:
    """Return what `record_fields` finds, as it was written."""
    found = record_fields(raw, segment, where)
    return RecordHeader(
        kind=_KINDS[found.kind],
        segment=found.segment,
        sequence=found.sequence,
        payload_bytes=found.payload_bytes,
        trailer_bytes=found.trailer_bytes,
        trailer_crc=found.trailer_crc,
        renter=NodeId(found.renter),
        shard=ShardId(found.shard),
        contract=ContractId(found.contract),
        state=_STATES[found.state],
        flags=found.flags,
        stored_at_ms=found.stored_at_ms,
        gone_at_ms=found.gone_at_ms,
        observed_ms=found.observed_ms,
        synced_bytes=found.synced_bytes,
        active_at_ms=found.active_at_ms,
        until_ms=found.until_ms,
        alone_ms=found.alone_ms,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """The first 4096 bytes of a segment of the log."""

    volume: bytes
    segment: bytes
    number: int
    first_sequence: int
    previous_end: int
    created_at_ms: int

    def encode(self) -> bytes:
        """Return the 4096 bytes."""
        front = _SEGMENT.pack(
            SEGMENT_MAGIC,
            SEGMENT_VERSION,
            self.volume,
            self.segment,
            self.number,
            self.first_sequence,
            self.previous_end,
            self.created_at_ms,
        )
        return _with_crc(front).ljust(SEGMENT_HEADER_BYTES, b"\0")


def decode_segment(raw: bytes, where: str) -> SegmentHeader:
    """Read a segment's header; raises as `decode_record`."""
    _check(raw, SEGMENT_MAGIC, SEGMENT_VERSION, where)
    _magic, _version, volume, segment, number, first, previous_end, created = _SEGMENT.unpack_from(
        raw
    )
    if (number | first | previous_end | created) >> NUMBER_BITS:
        raise DamagedError("a number that no release has written")
    return SegmentHeader(
        volume=volume,
        segment=segment,
        number=number,
        first_sequence=first,
        previous_end=previous_end,
        created_at_ms=created,
    )


def segment_uuid(volume: bytes, number: int) -> bytes:
    """
    Return the uuid of a volume's segment, so that one whose header is lost can still be read.

    The volume's own uuid, which nobody is told, is the key: without it nobody can write a record
    into a shard that a scan would take for one.
    """
    raw = number.to_bytes(8, "big")
    return blake2b(raw, digest_size=UUID_BYTES, key=volume, person=b"farmer segment").digest()


def aligned(length: int) -> int:
    """Return *length* rounded up to whole record alignments."""
    return -(-length // RECORD_ALIGNMENT_BYTES) * RECORD_ALIGNMENT_BYTES


def padding(length: int) -> bytes:
    """Return the zeros between the end of a record's bytes and the next record."""
    return bytes(aligned(length) - length)


def tree_offset(size_bytes: int) -> int:
    """Return where the tree hashes of a shard stand, from the record's start."""
    return RECORD_HEADER_BYTES + size_bytes


def checksums_offset(size_bytes: int) -> int:
    """Return where the block checksums of a shard stand, from the record's start."""
    return tree_offset(size_bytes) + BLOCK_HASH_BYTES * block_count(size_bytes)


def trailer_length(size_bytes: int) -> int:
    """Return the length of a shard's trailer."""
    return (BLOCK_HASH_BYTES + BLOCK_CHECKSUM_BYTES) * block_count(size_bytes)


class BlockChecksums:
    """The CRC32 of each 64 KiB block of a shard, from any slicing of its bytes."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._crc = 0
        self._filled = 0

    def update(self, data: Buffer) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: BLOCK_BYTES - self._filled]
            self._crc = crc32(part, self._crc)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == BLOCK_BYTES:
                self._close()

    def finish(self) -> bytes:
        """Return 4 bytes per block; an empty shard has one empty block."""
        if self._filled or not self._done:
            self._close()
        return bytes(self._done)

    def _close(self) -> None:
        self._done += _CRC.pack(self._crc)
        self._crc = 0
        self._filled = 0


def checksum_at(checksums: bytes, block: int) -> int:
    """Return the CRC32 of one block."""
    value: int = _CRC.unpack_from(checksums, block * _CRC.size)[0]
    return value


def crc_bytes(data: Buffer) -> bytes:
    """Return the CRC32 of some bytes, as it is stored."""
    return _CRC.pack(crc32(data))


def _with_crc(front: bytes) -> bytes:
    front = front.ljust(_CRC_OFFSET, b"\0")
    return front + _CRC.pack(crc32(front))


def _check(raw: bytes, magic: bytes, version: int, where: object) -> None:
    if len(raw) < RECORD_HEADER_BYTES or raw[: len(magic)] != magic:
        raise DamagedError("no header")
    if crc32(raw[:_CRC_OFFSET]) != _CRC.unpack_from(raw, _CRC_OFFSET)[0]:
        raise DamagedError("a damaged header")
    (found,) = _VERSION.unpack_from(raw, len(magic))
    if found > version:
        raise FormatTooNewError(
            f"{where} has format {found}; this release reads up to {version}: use a newer one"
        )
    if not found:
        raise DamagedError("no release has written version 0")
