"""The layout of records, byte by byte, and what is no header."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import ShardState
from farmer.storage.errors import FormatTooNewError
from farmer.storage.records import (
    BlockChecksums,
    DamagedError,
    Kind,
    RecordHeader,
    SegmentHeader,
    aligned,
    checksum_at,
    checksums_offset,
    crc_bytes,
    decode_record,
    decode_segment,
    padding,
    segment_uuid,
    trailer_length,
    tree_offset,
)
from tests.storage.bench import noise

SEGMENT = bytes(range(16))
HEADER = RecordHeader(
    kind=Kind.STAGING,
    segment=SEGMENT,
    sequence=0x1011,
    payload_bytes=0x2021,
    trailer_bytes=0x3031,
    trailer_crc=0x40414243,
    renter=NodeId(b"r" * 32),
    shard=ShardId(b"s" * 32),
    contract=ContractId(b"c" * 16),
    state=ShardState.QUARANTINED,
    flags=0x50515253,
    stored_at_ms=0x61,
    gone_at_ms=0x62,
    observed_ms=0x63,
    synced_bytes=0x64,
    active_at_ms=0x65,
    until_ms=0x66,
    alone_ms=0x67,
)
SEGMENT_HEADER = SegmentHeader(
    volume=b"v" * 16,
    segment=SEGMENT,
    number=0x71,
    first_sequence=0x72,
    previous_end=0x73,
    created_at_ms=0x74,
)
LARGEST = 2**62 - 1
RECORD_NUMBERS = [
    *("sequence", "payload_bytes", "stored_at_ms", "gone_at_ms", "observed_ms"),
    *("synced_bytes", "active_at_ms", "until_ms", "alone_ms"),
]
SEGMENT_NUMBERS = ["number", "first_sequence", "previous_end", "created_at_ms"]


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def with_bytes(raw: bytes, at: int, data: bytes) -> bytes:
    """Change a header, and make its checksum right again."""
    front = (raw[:at] + data + raw[at + len(data) :])[:252]
    return front + crc32(front).to_bytes(4, "big") + raw[256:]


def test_a_record_header_stands_on_the_disk_as_it_is_drawn() -> None:
    front = b"".join(
        [
            *(b"FARMREC\0", b"\0\1", b"\3", b"\2", b"\x50\x51\x52\x53", SEGMENT),
            *(u64(0x1011), u64(0x2021), b"\0\0\x30\x31", b"\x40\x41\x42\x43"),
            *(b"s" * 32, b"r" * 32, b"c" * 16),
            *map(u64, (0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67)),
            bytes(60),
        ]
    )
    assert HEADER.encode() == front + crc32(front).to_bytes(4, "big")


def test_a_segment_header_stands_on_the_disk_as_it_is_drawn() -> None:
    front = b"".join(
        [
            *(b"FARMSEG\0", b"\0\1", bytes(6), b"v" * 16, SEGMENT),
            *map(u64, (0x71, 0x72, 0x73, 0x74)),
            bytes(172),
        ]
    )
    assert SEGMENT_HEADER.encode() == front + crc32(front).to_bytes(4, "big") + bytes(4096 - 256)


def test_kinds_keep_their_numbers() -> None:
    raw = HEADER.encode()
    kinds = [decode_record(with_bytes(raw, 10, bytes([n])), SEGMENT, "").kind for n in (1, 2, 3)]
    assert kinds == [Kind.SHARD, Kind.MARKS, Kind.STAGING]


def test_what_is_not_said_of_a_record_is_zero() -> None:
    header = RecordHeader(
        kind=Kind.MARKS,
        segment=SEGMENT,
        sequence=1,
        payload_bytes=2,
        trailer_bytes=4,
        trailer_crc=5,
    )
    raw = header.encode()
    assert raw[11:16] == bytes(5)
    assert raw[56:252] == bytes(196)


@pytest.mark.parametrize("name", RECORD_NUMBERS)
def test_a_number_that_no_release_has_written_is_no_record(name: str) -> None:
    fields: dict[str, Any] = {name: LARGEST}
    largest = replace(HEADER, **fields)
    assert decode_record(largest.encode(), SEGMENT, "") == largest
    fields[name] += 1
    with pytest.raises(DamagedError, match="number"):
        decode_record(replace(HEADER, **fields).encode(), SEGMENT, "")


@pytest.mark.parametrize("name", SEGMENT_NUMBERS)
def test_a_number_that_no_release_has_written_is_no_segment(name: str) -> None:
    fields: dict[str, Any] = {name: LARGEST}
    largest = replace(SEGMENT_HEADER, **fields)
    assert decode_segment(largest.encode(), "") == largest
    fields[name] += 1
    with pytest.raises(DamagedError, match="number"):
        decode_segment(replace(SEGMENT_HEADER, **fields).encode(), "")


@pytest.mark.parametrize(("at", "value"), [(10, 0), (10, 4), (11, 3), (11, 255)])
def test_a_kind_or_a_state_that_nobody_knows_is_damage(at: int, value: int) -> None:
    with pytest.raises(DamagedError, match="no such kind or state"):
        decode_record(with_bytes(HEADER.encode(), at, bytes([value])), SEGMENT, "")


def test_a_record_of_another_segment_is_none_of_this_one() -> None:
    with pytest.raises(DamagedError, match="another segment"):
        decode_record(HEADER.encode(), bytes(16), "")


def test_a_sound_header_of_a_newer_release_is_not_called_damaged() -> None:
    with pytest.raises(FormatTooNewError, match=r"the file has format 2; .* up to 1"):
        decode_record(with_bytes(HEADER.encode(), 8, b"\0\2"), SEGMENT, "the file")
    with pytest.raises(FormatTooNewError, match=r"the file has format 256; .* up to 1"):
        decode_segment(with_bytes(SEGMENT_HEADER.encode(), 8, b"\1\0"), "the file")


def test_version_zero_is_damage() -> None:
    with pytest.raises(DamagedError, match="version 0"):
        decode_record(with_bytes(HEADER.encode(), 8, b"\0\0"), SEGMENT, "")
    with pytest.raises(DamagedError, match="version 0"):
        decode_segment(with_bytes(SEGMENT_HEADER.encode(), 8, b"\0\0"), "")


def test_another_magic_a_wrong_checksum_and_too_few_bytes_are_no_header() -> None:
    """A newer version counts only where the checksum is right: it may be a flipped bit."""
    raw, segment = HEADER.encode(), SEGMENT_HEADER.encode()
    for wrong in (with_bytes(raw, 0, b"FARMSEG"), segment, raw[:255], b""):
        with pytest.raises(DamagedError, match="no header"):
            decode_record(wrong, SEGMENT, "")
    for wrong in (with_bytes(segment, 0, b"FARMREC"), raw, segment[:255], b""):
        with pytest.raises(DamagedError, match="no header"):
            decode_segment(wrong, "")
    with pytest.raises(DamagedError, match="a damaged header"):
        decode_record(raw[:9] + b"\2" + raw[10:], SEGMENT, "")
    with pytest.raises(DamagedError, match="a damaged header"):
        decode_segment(segment[:9] + b"\2" + segment[10:], "")


def test_a_header_is_read_whatever_stands_behind_it() -> None:
    assert decode_record(HEADER.encode() + b"payload", SEGMENT, "") == HEADER
    assert decode_segment(SEGMENT_HEADER.encode()[:256], "") == SEGMENT_HEADER


def test_the_uuid_of_a_segment_follows_from_its_volume_and_its_number() -> None:
    """Another release must come to the same, or a segment that lost its header is lost."""
    assert segment_uuid(b"v" * 16, 258).hex() == "ac4101c3ba25901852b3674fffb934a8"
    others = [segment_uuid(b"v" * 16, 259), segment_uuid(b"w" * 16, 258)]
    assert segment_uuid(b"v" * 16, 258) not in others


@pytest.mark.parametrize(
    ("length", "whole"), [(0, 0), (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192)]
)
def test_what_a_record_takes_is_rounded_up_to_whole_pages(length: int, whole: int) -> None:
    assert aligned(length) == whole
    assert padding(length) == bytes(whole - length)


@pytest.mark.parametrize(("payload", "takes"), [(0, 4096), (3804, 4096), (3805, 8192)])
def test_a_record_takes_header_payload_and_trailer(payload: int, takes: int) -> None:
    assert replace(HEADER, payload_bytes=payload, trailer_bytes=36).record_bytes == takes


@pytest.mark.parametrize(
    ("size", "checksums_at", "trailer"),
    [
        (0, 256 + 32, 36),
        (65_536, 256 + 65_536 + 32, 36),
        (65_537, 256 + 65_537 + 64, 72),
        (200_000, 256 + 200_000 + 128, 144),
    ],
)
def test_tree_and_checksums_stand_behind_the_payload(
    size: int, checksums_at: int, trailer: int
) -> None:
    assert tree_offset(size) == 256 + size
    assert checksums_offset(size) == checksums_at
    assert trailer_length(size) == trailer


@pytest.mark.parametrize("size", [200_000, 65_536, 65_537, 131_072, 1, 0])
def test_each_block_has_its_checksum_however_its_bytes_come(size: int) -> None:
    data = noise(size)
    blocks = [data[at : at + 65_536] for at in range(0, max(size, 1), 65_536)]
    for step in (1 << 30, 65_536, 40_000):
        checksums = BlockChecksums()
        for at in range(0, size, step):
            checksums.update(data[at : at + step])
        finished = checksums.finish()
        assert finished == b"".join(map(crc_bytes, blocks))
        found = [checksum_at(finished, block) for block in range(len(blocks))]
        assert found == list(map(crc32, blocks))
