"""Records and whole logs made by hand, and a disk in memory from which a walk can read them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from farmer.audit.tree import TreeHasher
from farmer.model.ids import ContractId, ShardId
from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.bulk import PlainRow, pack
from farmer.storage.directory import Paths
from farmer.storage.files import Access
from farmer.storage.index import Index, create_index
from farmer.storage.marks import Action, Mark, encode_marks
from farmer.storage.places import Place, Row
from farmer.storage.records import (
    BlockChecksums,
    Kind,
    RecordHeader,
    SegmentHeader,
    padding,
    segment_uuid,
)
from farmer.storage.recovery import Part, Recovered, Recovery
from farmer.storage.scan import Source
from tests.storage.bench import ALICE, noise, shard_of
from tests.storage.recording import RecordingFiles

SEGMENT = bytes(range(16))
VOLUME = b"v" * 16
PAGE = 4096
SIZE = 100
"""Of the shards in a log."""

BAD = b"x" * PAGE
"""A page that is no record."""

HOLE = bytes(PAGE)


def plain_of(row: Row) -> PlainRow:
    """Return a live small shard as reading many at once finds it."""
    return pack(
        *(row.renter.raw, row.shard.raw, row.place.segment, row.place.offset, row.size_bytes),
        *(row.contract.raw, row.stored_at_ms, row.sequence, row.charge_bytes),
    )


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


def trailer_of(data: bytes) -> bytes:
    """Return what stands behind a shard's bytes: its tree's leaves and its checksums."""
    tree, checksums = TreeHasher(), BlockChecksums()
    tree.update(data)
    checksums.update(data)
    return tree.finish().block_hashes + checksums.finish()


def header_of(size_bytes: int, sequence: int = 1, segment: bytes = SEGMENT) -> RecordHeader:
    """Return the header of the shard that `record` makes."""
    data = noise(size_bytes, sequence)
    trailer = trailer_of(data)
    return RecordHeader(
        kind=Kind.SHARD,
        segment=segment,
        sequence=sequence,
        payload_bytes=size_bytes,
        trailer_bytes=len(trailer),
        trailer_crc=crc32(trailer),
        renter=ALICE,
        shard=shard_of(data),
        contract=ContractId(b"c" * 16),
        stored_at_ms=5,
    )


def record(size_bytes: int, sequence: int = 1, **other: object) -> bytes:
    """Return a whole record of a shard; *other* says what its header says otherwise."""
    data, header = noise(size_bytes, sequence), header_of(size_bytes, sequence)
    return whole(replace(header, **other), data + trailer_of(data))  # type: ignore[arg-type]  # a test's shorthand


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


@dataclass(frozen=True)
class Marks:
    """A marks record under a sequence."""

    sequence: int
    marks: Sequence[Mark]


Written = int | bytes | Marks
"""A shard under this sequence, some other bytes, or marks."""


class Log:
    """The log of one volume and its index."""

    def __init__(self, root: Path) -> None:
        self.files = RecordingFiles()
        self.paths = Paths(root)
        for path in (self.paths.log, self.paths.shards, self.paths.staging):
            path.mkdir()
        self.paths.marker.touch()
        self.index = self._new_index()
        self.told: list[tuple[int, int]] = []

    def _new_index(self) -> Index:
        index = create_index(self.paths.index, VOLUME)
        index.finish()
        return index

    def lose_index(self) -> None:
        """Go on with an empty one."""
        self.index.close(clean=False)
        for path in self.paths.root.glob("index.sqlite*"):
            path.unlink()
        self.index = self._new_index()

    def punch(self, number: int) -> None:
        """Let the pages of zeros in a segment take no space."""
        path = self.paths.segment(number)
        fd = self.files.open(path, Access.WRITE)
        for at in range(0, path.stat().st_size, PAGE):
            if self.files.pread(fd, PAGE, at) == HOLE:
                self.files.punch(fd, at, PAGE)
        self.files.close(fd)

    def write(self, number: int, *records: Written, **header: int) -> None:
        uuid = segment_uuid(VOLUME, number)
        fields = {"first_sequence": 0, "previous_end": 0, "created_at_ms": 0} | header
        raw = SegmentHeader(volume=VOLUME, segment=uuid, number=number, **fields).encode()
        for one in records:
            match one:
                case int():
                    raw += record(SIZE, one, segment=uuid)
                case bytes():
                    raw += one
                case Marks():
                    said, parts = encode_marks(one.marks, uuid, one.sequence)
                    raw += whole(said, b"".join(map(bytes, parts)))
        self.paths.segment(number).write_bytes(raw)

    def replay(self) -> Recovered:
        return Recovery(self.files, self.paths, VOLUME, self.index).replay()

    def rebuild(self) -> Recovered:
        recovery = Recovery(self.files, self.paths, VOLUME, self.index)
        return recovery.rebuild(lambda number, last: self.told.append((number, last)))

    def known(self) -> dict[int, Place]:
        """Return where the index has which record."""
        rows = self.index.page(ALICE, ShardId(bytes(32)), 999)
        return {row.sequence: row.place for row in rows}

    def size(self, number: int) -> int:
        return self.paths.segment(number).stat().st_size


def part_of(log: Log, sequence: int, path: Path | None = None, **fields: Any) -> Part:
    """Let a large shard stand in a file of its own: in staging, unless it is told where."""
    uuid = bytes([sequence]) * 16
    header = replace(header_of(SIZE, sequence, uuid), **fields)
    path = path or log.paths.part(uuid)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(header.encode() + record(SIZE, sequence)[RECORD_HEADER_BYTES:])
    return Part(header, path)
