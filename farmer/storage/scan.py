"""Walking over a segment of the log, from record to record, also behind damaged ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from farmer.model.shard import (
    BLOCK_BYTES,
    RECORD_ALIGNMENT_BYTES,
    RECORD_HEADER_BYTES,
    block_count,
)
from farmer.storage.files import Files
from farmer.storage.records import (
    RECORD_MAGIC,
    DamagedError,
    Kind,
    RecordHeader,
    checksum_at,
    checksums_offset,
    decode_record,
    tree_offset,
)

_WINDOW_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A sound record."""

    offset: int
    header: RecordHeader
    payload: bytes = b""
    """Of a marks record; a shard's is not kept."""

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + self.header.record_bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """Some bytes, not all zero, that are no sound record."""

    offset: int


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch whose records were given back to the filesystem."""

    length: int


@dataclass(frozen=True, slots=True)
class Source:
    """An open file and the segment that it should be."""

    files: Files
    fd: int
    uuid: bytes
    where: str
    """The file's name, for messages."""

    def header(self, offset: int) -> RecordHeader:
        """Return the header of the record at an offset; raises as `decode_record`."""
        raw = self.files.pread(self.fd, RECORD_HEADER_BYTES, offset)
        return decode_record(raw, self.uuid, self.where)


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
        try:
            found = _record(source, at, end, verify=verify)
        except DamagedError:
            following = _next_header(source, at + RECORD_ALIGNMENT_BYTES, end)
            if any(source.files.pread(source.fd, RECORD_HEADER_BYTES, at)):
                yield Damaged(at)
            else:
                yield Hole((end if following is None else following) - at)
            at = following
        else:
            yield found
            at = found.end


def _record(source: Source, at: int, end: int, *, verify: bool) -> Found:
    header = source.header(at)
    if at + header.record_bytes > end:
        raise DamagedError("cut off")
    if header.kind is Kind.MARKS:
        return Found(at, header, read_marks(source, at, header))
    if header.kind is not Kind.SHARD:
        raise DamagedError("not a kind for the log")
    if verify:
        verify_shard(source, at, header)
    return Found(at, header)


def read_marks(source: Source, at: int, header: RecordHeader) -> bytes:
    """Return the payload of a marks record; raises `DamagedError`."""
    payload = source.files.pread(source.fd, header.payload_bytes, at + RECORD_HEADER_BYTES)
    trailer = source.files.pread(
        source.fd, header.trailer_bytes, at + tree_offset(header.payload_bytes)
    )
    if crc32(trailer) != header.trailer_crc or crc32(payload).to_bytes(4, "big") != trailer:
        raise DamagedError("damaged marks")
    return payload


def verify_shard(source: Source, at: int, header: RecordHeader) -> None:
    """Read a whole shard and compare all checksums; raises `DamagedError`."""
    size = header.payload_bytes
    trailer = source.files.pread(source.fd, header.trailer_bytes, at + tree_offset(size))
    if crc32(trailer) != header.trailer_crc:
        raise DamagedError("a damaged trailer")
    checksums = trailer[checksums_offset(size) - tree_offset(size) :]
    for block in range(block_count(size)):
        offset = block * BLOCK_BYTES
        data = source.files.pread(
            source.fd, min(BLOCK_BYTES, size - offset), at + RECORD_HEADER_BYTES + offset
        )
        if crc32(data) != checksum_at(checksums, block):
            raise DamagedError("a damaged block")


def _next_header(source: Source, start: int, end: int) -> int | None:
    """Return the offset of the next sound header, or None."""
    for window_start in range(start, end, _WINDOW_BYTES):
        window = source.files.pread(source.fd, _WINDOW_BYTES, window_start)
        for at in range(0, len(window), RECORD_ALIGNMENT_BYTES):
            if window.startswith(RECORD_MAGIC, at):
                try:
                    decode_record(window[at : at + RECORD_HEADER_BYTES], source.uuid, source.where)
                except DamagedError:
                    continue
                return window_start + at
    return None
