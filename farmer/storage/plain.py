"""
Reading the records that nearly all are, many at once: sound, live, small shards.

A rebuild reads millions of them.  Here each costs one unpacking and a few comparisons, and
no object of its own; whatever is not plain in every respect is left to
`farmer.storage.scan`, which knows all cases.  Both take the same records for sound.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from farmer.model.shard import (
    BLOCK_BYTES,
    BLOCK_CHECKSUM_BYTES,
    BLOCK_HASH_BYTES,
    RECORD_ALIGNMENT_BYTES,
    RECORD_HEADER_BYTES,
)
from farmer.storage.bulk import PlainRow, pack
from farmer.storage.quota import SMALL_BYTES_MAX
from farmer.storage.records import MOVED, NUMBER_BITS
from farmer.storage.scan import Damaged, Found, Hole, Source, scan

_WINDOW_BYTES: Final = 1024 * 1024
"""Read at once: 256 of the smallest records."""

_ROWS_MAX: Final = 4096
"""Rows that are handed over together."""

_HEADER: Final = struct.Struct(">12sI16sQQII32s32s16sQQQQQQQ60xI")
"""The layout of `farmer.storage.records`, with magic, version, kind and state as one."""

_PLAIN: Final = b"FARMREC\0\0\1\1\0"
"""Version 1, a shard, live."""

_CRC_AT: Final = RECORD_HEADER_BYTES - 4
_BLOCK_EXTRA: Final = BLOCK_HASH_BYTES + BLOCK_CHECKSUM_BYTES
_ALIGN: Final = RECORD_ALIGNMENT_BYTES


@dataclass(frozen=True, slots=True)
class Plain:
    """Plain records, one behind the other."""

    rows: list[PlainRow]
    end: int
    """Where the next record begins."""


@dataclass(frozen=True, slots=True)
class _Window:
    """What was read last, and from where on: records that are not plain may be in it, too."""

    data: memoryview
    at: int


def walk(
    source: Source, number: int, start: int, end: int, *, verify: bool
) -> Iterator[Plain | Found | Damaged | Hole]:
    """Yield what `farmer.storage.scan.scan` yields of a segment, plain shards taken together."""
    at, window = start, _Window(memoryview(b""), start)
    while True:
        plain, window = _plain(source, number, at, end, window, verify=verify)
        if plain.rows:
            yield plain
            at = plain.end
            continue
        for one in scan(source, at, end, verify=verify):
            yield one
            if isinstance(one, Found):
                at = one.end
                break
        else:
            return


def _plain(
    source: Source, number: int, start: int, end: int, read: _Window, *, verify: bool
) -> tuple[Plain, _Window]:
    """Return the plain records from an offset on, up to the first that is not."""
    rows: list[PlainRow] = []
    segment, unpack = source.uuid, _HEADER.unpack_from
    at, window, window_at, window_end = start, read.data, read.at, read.at + len(read.data)
    while at + RECORD_HEADER_BYTES <= end and len(rows) < _ROWS_MAX:
        if at + RECORD_HEADER_BYTES > window_end:
            window, window_at = _read(source, at, end), at
            window_end = at + len(window)
            if at + RECORD_HEADER_BYTES > window_end:
                break
        here = at - window_at
        (
            front, flags, uuid, sequence, size, trailer, trailer_crc,
            shard, renter, contract, stored, gone, observed, synced, active, until, alone, crc,
        ) = unpack(window, here)  # fmt: skip
        blocks = -(-size // BLOCK_BYTES) or 1
        charge = -(-(RECORD_HEADER_BYTES + size + trailer) // _ALIGN) * _ALIGN
        if (
            front != _PLAIN
            or uuid != segment
            or size > SMALL_BYTES_MAX
            or trailer != _BLOCK_EXTRA * blocks
            or flags & ~MOVED
            or gone
            or observed
            or alone
            or (sequence | stored | synced | active | until) >> NUMBER_BITS
            or at + charge > end
            or crc32(window[here : here + _CRC_AT]) != crc
        ):
            break
        if verify:
            if blocks > 1:
                break
            if at + charge > window_end:
                if here == 0:
                    break
                window_end = at
                continue
            body = here + RECORD_HEADER_BYTES
            if not _is_sound(window[body : body + size + trailer], size, trailer_crc):
                break
        rows.append(pack(renter, shard, number, at, size, contract, stored, sequence, charge))
        at += charge
    return Plain(rows, at), _Window(window, window_at)


def _read(source: Source, at: int, end: int) -> memoryview:
    return memoryview(source.files.pread(source.fd, min(_WINDOW_BYTES, end - at), at))


def _is_sound(body: memoryview, size: int, trailer_crc: int) -> bool:
    """Compare a shard of one block, and its trailer, with their checksums."""
    if crc32(body[size:]) != trailer_crc:
        return False
    return crc32(body[:size]) == int.from_bytes(body[-BLOCK_CHECKSUM_BYTES:], "big")
