"""What a walk over a segment takes for a record, record by record, and how it reads."""

from __future__ import annotations

import errno
from zlib import crc32

import pytest

from farmer.storage.errors import FormatTooNewError
from farmer.storage.records import DAMAGED, MOVED, Kind, RecordHeader, crc_bytes
from farmer.storage.scan import Damaged, Found, Hole, scan
from tests.storage.bench import noise
from tests.storage.log_bytes import (
    PAGE,
    SEGMENT,
    Memory,
    bad_spot,
    header_of,
    marks,
    record,
    spoilt,
    whole,
)

AHEAD = 128 * 1024


def told(raw: bytes, *, verify: bool = True, start: int = 0, end: int | None = None) -> list[str]:
    """Return what a walk says, in words."""
    said = []
    end = len(raw) if end is None else end
    for one in scan(Memory(raw).source(), start, end, verify=verify):
        match one:
            case Found(at, to, header):
                said.append(f"{header.kind.name.lower()} {header.sequence} at {at} to {to}")
            case Damaged(at, None):
                said.append(f"damaged at {at}")
            case Damaged(at, known):
                assert known is not None
                said.append(f"damaged {known.sequence} at {at}")
            case Hole(at, length):
                said.append(f"hole at {at} of {length}")
    return said


def zeros(pages: int) -> bytes:
    return bytes(pages * PAGE)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("size", [0, 1, 3804, 3805, 65_536, 65_537, 200_000])
def test_sound_shards_of_every_size_follow_each_other(size: int, *, verify: bool) -> None:
    raw = record(size, 1)
    to = len(raw)
    assert told(raw + record(10, 2), verify=verify) == [
        f"shard 1 at 0 to {to}",
        f"shard 2 at {to} to {to + PAGE}",
    ]


def test_a_walk_begins_and_ends_where_it_is_told() -> None:
    raw = record(10, 1) + record(10, 2) + record(10, 3)
    assert told(raw, start=PAGE, end=2 * PAGE) == ["shard 2 at 4096 to 8192"]
    assert told(raw, start=PAGE, end=PAGE) == []
    assert told(raw, start=PAGE, end=PAGE + 255) == []
    assert told(raw, start=PAGE, end=PAGE + 256) == ["damaged at 4096"]
    assert told(zeros(1), end=256) == ["hole at 0 of 256"]


def test_marks_come_with_their_payload() -> None:
    (found,) = scan(Memory(marks(7)).source(), 0, PAGE, verify=False)
    assert isinstance(found, Found)
    assert (found.header.kind, found.header.sequence) == (Kind.MARKS, 7)
    assert len(found.payload) == 96


@pytest.mark.parametrize("at", [256, 300, 256 + 95, 256 + 96, 256 + 99])
def test_marks_are_verified_whoever_asks(at: int) -> None:
    raw = spoilt(marks(1), at) + record(10, 2)
    for verify in (True, False):
        assert told(raw, verify=verify) == ["damaged at 0", "shard 2 at 4096 to 8192"]


def test_what_is_sound_and_yet_no_marks_is_damage() -> None:
    payload = b"\x09" + bytes(95)
    trailer = crc_bytes(payload)
    header = RecordHeader(
        kind=Kind.MARKS,
        segment=SEGMENT,
        sequence=1,
        payload_bytes=96,
        trailer_bytes=4,
        trailer_crc=crc32(trailer),
    )
    assert told(whole(header, payload + trailer)) == ["damaged at 0"]


@pytest.mark.parametrize(
    "at", [256, 256 + 65_535, 256 + 65_536, 256 + 149_999, 256 + 150_000, 256 + 150_000 + 107]
)
def test_a_bit_in_any_block_or_in_the_trailer_is_noticed_when_it_is_verified(at: int) -> None:
    """The record is known all the same: what can be saved of it is another's question."""
    raw = record(150_000, 1)
    broken = spoilt(raw, at) + record(10, 2)
    behind = f"shard 2 at {len(raw)} to {len(broken)}"
    assert told(broken) == ["damaged 1 at 0", behind]
    assert told(broken, verify=False) == [f"shard 1 at 0 to {len(raw)}", behind]


def test_what_stands_behind_the_trailer_does_not_matter() -> None:
    assert told(spoilt(record(10, 1), 4000)) == ["shard 1 at 0 to 4096"]


def test_one_that_was_known_to_be_damaged_when_it_was_copied_is_not_verified() -> None:
    raw = spoilt(record(10, 1, flags=DAMAGED | MOVED), 256)
    assert told(raw) == ["shard 1 at 0 to 4096"]
    assert told(spoilt(record(10, 1, flags=MOVED), 256)) == ["damaged 1 at 0"]


def test_a_trailer_of_the_wrong_length_or_a_kind_that_is_not_for_the_log_is_damage() -> None:
    behind = record(10, 2)
    expected = ["damaged at 0", "shard 2 at 4096 to 8192"]
    for wrong in (32, 35, 37, 72):
        assert told(record(10, 1, trailer_bytes=wrong) + behind) == expected
    assert told(record(10, 1, kind=Kind.STAGING) + behind, verify=False) == expected


def test_a_record_that_is_cut_off_is_damage_of_which_nothing_is_known() -> None:
    raw = record(20_000, 1)
    for end in (256, PAGE, len(raw) - PAGE, len(raw) - 1):
        assert told(raw, verify=False, end=end) == ["damaged at 0"]
    assert told(raw, end=len(raw)) == [f"shard 1 at 0 to {len(raw)}"]


def test_a_record_into_which_another_was_written_is_not_known() -> None:
    raw = record(20_000, 1)
    inside = raw[: 2 * PAGE] + record(10, 2) + raw[3 * PAGE :]
    assert told(inside) == ["damaged at 0", "shard 2 at 8192 to 12288", "damaged at 12288"]


def test_a_file_that_is_shorter_than_was_said_is_no_sound_record() -> None:
    raw = record(20_000, 1)
    cut = 256 + 20_000 + 36
    assert told(raw[:cut], end=len(raw)) == [f"shard 1 at 0 to {len(raw)}"]
    assert told(raw[: cut - 1], end=len(raw)) == ["damaged 1 at 0"]
    assert told(marks(1)[: 256 + 100], end=PAGE) == ["marks 1 at 0 to 4096"]
    assert told(marks(1)[: 256 + 99], end=PAGE) == ["damaged at 0"]


def test_the_next_sound_header_ends_a_damaged_stretch_and_no_other_does() -> None:
    broken = spoilt(record(10, 1), 20)
    raw = broken + noise(PAGE) + broken + record(10, 2)
    assert told(raw) == ["damaged at 0", "shard 2 at 12288 to 16384"]
    assert told(broken + noise(PAGE)) == ["damaged at 0"]


def test_a_hole_reaches_to_the_next_sound_header_or_to_the_end() -> None:
    raw = zeros(2) + record(10, 1) + zeros(3)
    assert told(raw) == ["hole at 0 of 8192", "shard 1 at 8192 to 12288", "hole at 12288 of 12288"]
    assert told(zeros(1) + noise(PAGE)) == ["hole at 0 of 8192"]


def test_what_is_zero_behind_a_known_damaged_record_is_a_hole() -> None:
    broken = spoilt(record(10, 1), 256)
    assert told(broken) == ["damaged 1 at 0"]
    assert told(broken + record(10, 2)) == ["damaged 1 at 0", "shard 2 at 4096 to 8192"]
    assert told(broken + zeros(2)) == ["damaged 1 at 0", "hole at 4096 of 8192"]
    assert told(broken + noise(PAGE)) == ["damaged 1 at 0"]
    assert told(broken + zeros(1) + record(10, 2)) == [
        *("damaged 1 at 0", "hole at 4096 of 4096", "shard 2 at 8192 to 12288")
    ]


def test_a_stretch_is_a_hole_only_if_a_whole_header_is_zero() -> None:
    raw = spoilt(zeros(1), 255)
    assert told(raw) == ["damaged at 0"]
    assert told(spoilt(zeros(1), 256)) == ["hole at 0 of 4096"]


def test_a_newer_release_s_record_ends_the_walk() -> None:
    raw = record(10, 1)
    front = raw[:9] + b"\2" + raw[10:252]
    newer = front + crc32(front).to_bytes(4, "big") + raw[256:]
    with pytest.raises(FormatTooNewError, match="segment"):
        told(newer)


def test_what_comes_in_order_is_read_ahead() -> None:
    disk = Memory(noise(3 * AHEAD))
    source = disk.source()
    for at in range(0, AHEAD, PAGE):
        assert source.read(at, PAGE) == disk.data[at : at + PAGE]
    assert source.read(0, PAGE) == disk.data[:PAGE]
    assert disk.asked == [(0, AHEAD)]
    assert source.read(AHEAD - 10, 20) == disk.data[AHEAD - 10 : AHEAD + 10]
    assert source.read(5, 20) == disk.data[5:25]
    assert source.read(AHEAD, 2 * AHEAD) == disk.data[AHEAD:]
    assert len(disk.asked) == 4
    assert source.read(3 * AHEAD - 5, 20) == disk.data[-5:]
    assert source.read(4 * AHEAD, 20) == b""


def test_a_bad_spot_in_what_is_only_read_ahead_does_not_count() -> None:
    disk = Memory(noise(AHEAD), fails=bad_spot(5000))
    source = disk.source()
    assert source.read(0, 5000) == disk.data[:5000]
    assert source.read(5001, 100) == disk.data[5001:5101]
    with pytest.raises(OSError, match="the disk says no"):
        source.read(4990, 11)


@pytest.mark.parametrize(
    ("number", "length", "calls"),
    [(errno.EIO, AHEAD, 1), (errno.EIO, 10, 2), (errno.ENODEV, 10, 1)],
)
def test_a_disk_is_not_asked_again_for_what_it_cannot_give(
    number: int, length: int, calls: int
) -> None:
    disk = Memory(noise(PAGE), fails=lambda _offset, _length: number)
    with pytest.raises(OSError, match="the disk says no") as error:
        disk.source().read(0, length)
    assert (error.value.errno, len(disk.asked)) == (number, calls)


def test_the_header_at_an_offset_is_the_one_that_stands_there() -> None:
    disk = Memory(record(10, 1) + record(10, 2))
    found = disk.source().header(PAGE)
    assert (found.sequence, found.shard) == (2, header_of(10, 2).shard)
