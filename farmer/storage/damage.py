"""
What is wrong with one record: which blocks are damaged, and what can still be proved of it.

The shard id is the judge, not a checksum: a tree whose root gives the id is right, wherever
its hashes came from, and a block whose hash stands in that tree is right.  So a damaged
header costs nothing but itself, a damaged tree can be made again from sound blocks, and
damage reaches no further than the blocks that it struck.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass
from threading import Lock
from typing import Final
from zlib import crc32

from farmer.audit.tree import HASH_BYTES, ShardTree, hash_block
from farmer.model.shard import BLOCK_BYTES, RECORD_HEADER_BYTES, BadBlocks, block_count
from farmer.storage.files import Buffer
from farmer.storage.places import Row
from farmer.storage.records import (
    DamagedError,
    Kind,
    RecordFields,
    checksum_at,
    checksums_offset,
    record_fields,
    trailer_length,
    tree_offset,
)

STEP_BLOCKS: Final = 16
"""Blocks read at once: 1 MiB."""

ReadRecord = Callable[[int, int], bytes]
"""Returns bytes of a record by offset and length, fewer at the file's end; raises `OSError`."""

_BAD_SPOT: Final = errno.EIO


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found out about one record by reading all of it."""

    size_bytes: int
    bad_blocks: tuple[int, ...]
    """64 KiB blocks that are not the shard's, ascending."""
    is_record_sound: bool
    """Whether header, tree and checksums are as they were written."""
    hashes: bytes | None
    """Tree hashes that give the shard id; None if there is no telling right from wrong."""

    @classmethod
    def of_nothing(cls, size_bytes: int) -> Examination:
        """Return what is to be said of a record whose file is gone."""
        return cls(size_bytes, tuple(range(block_count(size_bytes))), False, None)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.is_record_sound and not self.bad_blocks

    @property
    def named(self) -> BadBlocks:
        """Return what others may know of it."""
        return BadBlocks(self.size_bytes, self.bad_blocks)

    @property
    def first_bad(self) -> tuple[int, int]:
        """Offset and length of the first bad block, in bytes of the shard."""
        return span_of(self.bad_blocks[0], self.size_bytes) if self.bad_blocks else (0, 0)


@dataclass(frozen=True, slots=True)
class Trust:
    """What the blocks of a shard are compared with: right tree hashes, and checksums if sound."""

    tree: ShardTree | None
    """None where it was let go; then there are checksums."""
    checksums: bytes | None

    @property
    def kept_bytes(self) -> int:
        """How much memory it takes."""
        hashes = b"" if self.tree is None else self.tree.block_hashes
        return len(hashes) + len(self.checksums or b"")

    def for_blocks(self) -> Trust:
        """Return what is enough to compare blocks with: a ninth of it, if checksums are sound."""
        return self if self.checksums is None else Trust(None, self.checksums)

    def is_block(self, block: int, data: bytes | memoryview) -> bool:
        """Say whether these are the bytes of a block."""
        if self.checksums is not None:
            return crc32(data) == checksum_at(self.checksums, block)
        assert self.tree is not None, "neither hashes nor checksums"
        return hash_block(data) == self.tree.block_hash(block)

    def wrong_block(self, data: Buffer, first: int) -> int | None:
        """Return the first of some neighbouring blocks, from *first* on, that is none of these."""
        view = memoryview(data)
        for at in range(0, len(view), BLOCK_BYTES):
            block = first + at // BLOCK_BYTES
            if not self.is_block(block, view[at : at + BLOCK_BYTES]):
                return block
        return None


class Examined:
    """The last examinations of one volume, the newest kept; safe from any thread."""

    KEPT_MAX: Final = 64
    HASHES_KEPT_MAX: Final = 2048 * HASH_BYTES
    """Of a larger shard (128 MiB) the tree is made again when it is needed: bounds memory."""

    TOLD_MAX: Final = 4096
    """Damaged records of which it is known that they were counted."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[int, Examination] = OrderedDict()
        self._told: OrderedDict[int, None] = OrderedDict()

    def is_news(self, sequence: int) -> bool:
        """Say whether a record is found damaged for the first time; it is told by that."""
        with self._lock:
            if sequence in self._told:
                return False
            self._told[sequence] = None
            if len(self._told) > self.TOLD_MAX:
                self._told.popitem(last=False)
            return True

    def find(self, sequence: int) -> Examination | None:
        """Return what is known of a record."""
        with self._lock:
            return self._known.get(sequence)

    def keep(self, sequence: int, found: Examination) -> None:
        """Remember damage; a sound record is forgotten."""
        with self._lock:
            self._known.pop(sequence, None)
            if found.is_sound or len(found.hashes or b"") > self.HASHES_KEPT_MAX:
                return
            self._known[sequence] = found
            while len(self._known) > self.KEPT_MAX:
                self._known.popitem(last=False)


def span_of(block: int, size_bytes: int) -> tuple[int, int]:
    """Return offset and length of a block in its shard."""
    offset = block * BLOCK_BYTES
    return offset, min(BLOCK_BYTES, size_bytes - offset)


def read_header(raw: bytes, row: Row) -> RecordFields | None:
    """Return the header of a row's record, or None if it is damaged or somebody else's."""
    try:
        header = record_fields(raw, row.place.file or raw[16:32], row.place)
    except DamagedError:
        return None
    expected = (Kind.SHARD, row.sequence, row.renter.raw, row.shard.raw, row.size_bytes)
    found = (header.kind, header.sequence, header.renter, header.shard, header.payload_bytes)
    return header if found == expected else None


def split_trailer(trailer: bytes, size_bytes: int) -> tuple[bytes, bytes]:
    """Return tree hashes and checksums; what is missing at the end is filled with zeros."""
    whole = trailer.ljust(trailer_length(size_bytes), b"\0")
    cut = checksums_offset(size_bytes) - tree_offset(size_bytes)
    return whole[:cut], whole[cut:]


def trust(header: RecordFields | None, trailer: bytes, row: Row) -> Trust | None:
    """Return what to compare blocks with, if header or trailer allow it without the blocks."""
    hashes, checksums = split_trailer(trailer, row.size_bytes)
    tree = ShardTree(row.size_bytes, hashes)
    if header is not None and crc32(trailer) == header.trailer_crc:
        return Trust(tree, checksums)
    return Trust(tree, None) if tree.shard_id() == row.shard else None


def examine(read: ReadRecord, row: Row) -> Examination:
    """Read a whole record and say what is wrong with it; raises `OSError` but for bad spots."""
    steps = examining(read, row)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Examination = end.value
            return found


def examining(read: ReadRecord, row: Row) -> Generator[int, None, Examination]:
    """Do what `examine` does in steps of at most 1 MiB; yield the bytes read by each."""
    size = row.size_bytes
    raw = _read(read, 0, RECORD_HEADER_BYTES) or b""
    header = read_header(raw, row)
    trailer = _read(read, tree_offset(size), trailer_length(size)) or b""
    stored, checksums = split_trailer(trailer, size)
    yield len(raw) + len(trailer)
    made, fitting = bytearray(), bytearray()
    is_crc_sound = True
    for first in range(0, block_count(size), STEP_BLOCKS):
        end = min(first + STEP_BLOCKS, block_count(size))
        for block, data in enumerate(_blocks(read, size, first, end), first):
            hashed = bytes(HASH_BYTES) if data is None else hash_block(data)
            kept = stored[block * HASH_BYTES : (block + 1) * HASH_BYTES]
            has_crc = data is not None and crc32(data) == checksum_at(checksums, block)
            is_crc_sound = is_crc_sound and (has_crc or hashed != kept)
            made += hashed
            fitting += hashed if has_crc else kept
        yield (end - first) * BLOCK_BYTES
    hashes = _proved(row, stored, bytes(fitting), bytes(made))
    is_record_sound = (
        header is not None and crc32(trailer) == header.trailer_crc and hashes == stored
    ) and is_crc_sound
    return Examination(size, _differing(bytes(made), hashes), is_record_sound, hashes)


def _proved(row: Row, *candidates: bytes) -> bytes | None:
    """Return the first tree that gives the shard id."""
    for hashes in dict.fromkeys(candidates):
        if ShardTree(row.size_bytes, hashes).shard_id() == row.shard:
            return hashes
    return None


def _differing(made: bytes, hashes: bytes | None) -> tuple[int, ...]:
    """Return the blocks whose hash is not the one in the tree; without a tree, all."""
    starts = range(0, len(made), HASH_BYTES)
    return tuple(
        at // HASH_BYTES
        for at in starts
        if hashes is None or made[at : at + HASH_BYTES] != hashes[at : at + HASH_BYTES]
    )


def _blocks(read: ReadRecord, size: int, first: int, end: int) -> list[bytes | None]:
    """Return some blocks; None for those with a bad spot, or cut off by the file's end."""
    start = RECORD_HEADER_BYTES + first * BLOCK_BYTES
    stop = RECORD_HEADER_BYTES + min(end * BLOCK_BYTES, size)
    data = _read(read, start, stop - start)
    if data is None and end - first > 1:
        each = (_blocks(read, size, block, block + 1) for block in range(first, end))
        return [one for (one,) in each]
    view = memoryview(data or b"")
    found: list[bytes | None] = []
    for block in range(first, end):
        offset, length = span_of(block, size)
        part = view[offset - first * BLOCK_BYTES :][:length]
        is_whole = data is not None and len(part) == length
        found.append(bytes(part) if is_whole else None)
    return found


def _read(read: ReadRecord, offset: int, length: int) -> bytes | None:
    """Read; None for a bad spot of the disk."""
    try:
        return read(offset, length)
    except OSError as error:
        if error.errno != _BAD_SPOT:
            raise
        return None
