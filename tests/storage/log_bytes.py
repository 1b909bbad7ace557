"""Records made by hand, and a disk in memory from which a walk can read them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from zlib import crc32

from farmer.audit.tree import HASH_BYTES
from farmer.model.ids import ContractId
from farmer.model.shard import BLOCK_BYTES
from farmer.storage.marks import Action, Mark, encode_marks
from farmer.storage.records import BlockChecksums, Kind, RecordHeader, padding
from farmer.storage.scan import Source
from tests.storage.bench import ALICE, noise, shard_of

SEGMENT = bytes(range(16))
PAGE = 4096


@dataclass
class Memory:
    """A file whose reads are noted; some may fail."""

    data: bytes
    fails: Callable[[int, int], int] = lambda _offset, _length: 0
    """Says with which errno a read fails, 0 if it works."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each read."""

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self.asked.append((offset, length))
        number = self.fails(offset, length)
        if number:
            raise OSError(number, "the disk says no")
        return self.data[offset : offset + length]

    def source(self) -> Source:
        return Source(self, 3, SEGMENT, "segment")


def bad_spot(at: int) -> Callable[[int, int], int]:
    return lambda offset, length: errno.EIO if offset <= at < offset + length else 0


def header_of(size_bytes: int, sequence: int = 1) -> RecordHeader:
    """Return the header of the shard that `record` makes, but for its trailer's checksum."""
    blocks = max(1, -(-size_bytes // BLOCK_BYTES))
    return RecordHeader(
        kind=Kind.SHARD,
        segment=SEGMENT,
        sequence=sequence,
        payload_bytes=size_bytes,
        trailer_bytes=(HASH_BYTES + 4) * blocks,
        trailer_crc=0,
        renter=ALICE,
        shard=shard_of(noise(size_bytes, sequence)),
        contract=ContractId(b"c" * 16),
        stored_at_ms=5,
    )


def record(size_bytes: int, sequence: int = 1, **other: object) -> bytes:
    """Return a whole record of a shard; *other* says what its header says otherwise."""
    data, header = noise(size_bytes, sequence), header_of(size_bytes, sequence)
    checksums = BlockChecksums()
    checksums.update(data)
    hashes = noise(header.trailer_bytes // (HASH_BYTES + 4) * HASH_BYTES, "hashes")
    trailer = hashes + checksums.finish()
    header = replace(header, trailer_crc=crc32(trailer))
    return whole(replace(header, **other), data + trailer)  # type: ignore[arg-type]  # a test's shorthand


def whole(header: RecordHeader, body: bytes) -> bytes:
    """Return header and body, filled up to whole pages."""
    raw = header.encode() + body
    return raw + padding(len(raw))


def marks(sequence: int = 1) -> bytes:
    mark = Mark(
        action=Action.GONE,
        at_ms=1,
        observed_ms=2,
        renter=ALICE,
        shard=shard_of(b""),
        sequence=1,
    )
    header, parts = encode_marks([mark], SEGMENT, sequence)
    return whole(header, b"".join(map(bytes, parts)))


def spoilt(raw: bytes, at: int) -> bytes:
    """Change one bit."""
    return raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
