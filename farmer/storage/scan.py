"""Walking over a segment of the log, from record to record, also behind damaged ones."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol
from zlib import crc32

from farmer.model.shard import (
    BLOCK_BYTES,
    RECORD_ALIGNMENT_BYTES,
    RECORD_HEADER_BYTES,
    block_count,
)
from farmer.storage.marks import are_marks
from farmer.storage.records import (
    DAMAGED,
    RECORD_MAGIC,
    DamagedError,
    Kind,
    RecordHeader,
    checksum_at,
    checksums_offset,
    decode_record,
    trailer_length,
    tree_offset,
)

_READ_AHEAD_BYTES: Final = 128 * 1024
"""Read at once: many small records, and no more than Linux reads ahead for one large one."""


@dataclass(frozen=True, slots=True)
class Found:
    """A record whose header is sound; a walk that verifies yields only sound ones."""

    offset: int
    end: int
    """Where the next record begins."""
    header: RecordHeader
    payload: bytes = b""
    """Of a marks record; a shard's is not kept."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """Some bytes, not all zero, that are no sound record."""

    offset: int
    header: RecordHeader | None
    """Where that much of it is sound, and its lengths can be those of a shard."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch that begins with zeros and holds no record: some were given back there."""

    offset: int
    length: int


class Reads(Protocol):
    """What a walk needs of `farmer.storage.files.Files`."""

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Return bytes of a file, fewer only at its end; raises `OSError`."""


@dataclass(slots=True)
class Source:
    """An open file and the segment that it should be.  For one thread."""

    files: Reads
    fd: int
    uuid: bytes
    where: str
    """The file's name, for messages."""
    _ahead: bytes = field(default=b"", init=False)
    _ahead_at: int = field(default=0, init=False)

    def read(self, offset: int, length: int) -> bytes:
        """Return these bytes, fewer only at the end of the file; best asked in order."""
        at = offset - self._ahead_at
        if at < 0 or at + length > len(self._ahead):
            self._ahead = self._pread(max(length, _READ_AHEAD_BYTES), length, offset)
            self._ahead_at, at = offset, 0
        return self._ahead[at : at + length]

    def _pread(self, ahead_bytes: int, length: int, offset: int) -> bytes:
        """Read ahead, or only what is wanted if there is a bad spot in what follows."""
        try:
            return self.files.pread(self.fd, ahead_bytes, offset)
        except OSError as error:
            if error.errno != errno.EIO or ahead_bytes == length:
                raise
            return self.files.pread(self.fd, length, offset)

    def header(self, offset: int) -> RecordHeader:
        """Return the header of the record at an offset; raises as `decode_record`."""
        return decode_record(self.read(offset, RECORD_HEADER_BYTES), self.uuid, self.where)


def scan(
    source: Source, start: int, end: int, *, verify: bool
) -> Iterator[Found | Damaged | Hole]:
    """
    Yield what stands between two offsets.

    Headers and marks are always verified, the bytes of shards if *verify* says so.  Raises
    `FormatTooNewError`, `OSError`.
    """
    at: int | None = start
    while at is not None and at + RECORD_HEADER_BYTES <= end:
        header = None
        try:
            header = source.header(at)
            found = _record(source, at, header, end, verify=verify)
        except DamagedError:
            following = _next_header(source, at + RECORD_ALIGNMENT_BYTES, end)
            behind = end if following is None else following
            if _is_zero(source, at):
                yield Hole(at, behind - at)
            elif header is not None and _fits(header, at, behind):
                yield Damaged(at, header)
                # Its length is sound, so that it is known what does not belong to it.
                rest = at + header.record_bytes
                if rest < behind and _is_zero(source, rest):
                    yield Hole(rest, behind - rest)
            else:
                yield Damaged(at, None)
            at = following
        else:
            yield found
            at = found.end


def _is_zero(source: Source, at: int) -> bool:
    return not any(source.files.pread(source.fd, RECORD_HEADER_BYTES, at))


def _record(source: Source, at: int, header: RecordHeader, end: int, *, verify: bool) -> Found:
    following = at + header.record_bytes
    if following > end:
        raise DamagedError("cut off")
    if header.kind is Kind.MARKS:
        return Found(at, following, header, read_marks(source, at, header))
    if not _fits(header, at, end):
        raise DamagedError("not a kind for the log, or a trailer of the wrong length")
    if verify and not header.flags & DAMAGED:
        _verify_shard(source, at, header)
    return Found(at, following, header)


def _fits(header: RecordHeader, at: int, end: int) -> bool:
    """Say whether a shard's record of these lengths can stand there."""
    is_shard = header.kind is Kind.SHARD
    right_trailer = header.trailer_bytes == trailer_length(header.payload_bytes)
    return is_shard and right_trailer and at + header.record_bytes <= end


def read_marks(source: Source, at: int, header: RecordHeader) -> bytes:
    """Return the payload of a marks record; raises `DamagedError`."""
    payload = source.read(at + RECORD_HEADER_BYTES, header.payload_bytes)
    trailer = source.read(at + tree_offset(header.payload_bytes), header.trailer_bytes)
    if crc32(trailer) != header.trailer_crc or crc32(payload).to_bytes(4, "big") != trailer:
        raise DamagedError("damaged marks")
    if not are_marks(payload):
        raise DamagedError("no marks, though their checksum is right")
    return payload


def _verify_shard(source: Source, at: int, header: RecordHeader) -> None:
    """Read a whole shard and compare all checksums; raises `DamagedError`."""
    size = header.payload_bytes
    body = source.read(at + RECORD_HEADER_BYTES, size + header.trailer_bytes)
    trailer = body[size:]
    if len(trailer) != header.trailer_bytes or crc32(trailer) != header.trailer_crc:
        raise DamagedError("a damaged trailer")
    checksums = trailer[checksums_offset(size) - tree_offset(size) :]
    payload = memoryview(body)[:size]
    for block in range(block_count(size)):
        data = payload[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        if crc32(data) != checksum_at(checksums, block):
            raise DamagedError("a damaged block")


def _next_header(source: Source, start: int, end: int) -> int | None:
    """Return the offset of the next sound header, or None."""
    for at in range(start, end, RECORD_ALIGNMENT_BYTES):
        raw = source.read(at, RECORD_HEADER_BYTES)
        if not raw.startswith(RECORD_MAGIC):
            continue
        try:
            decode_record(raw, source.uuid, source.where)
        except DamagedError:
            continue
        return at
    return None
