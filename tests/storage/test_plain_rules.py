"""Which records are plain, one respect after the other, and how many come at once."""

from __future__ import annotations

from typing import Any

import pytest

from farmer.model.shard import ShardState
from farmer.storage.bulk import pack, row_of_plain
from farmer.storage.plain import Plain, walk
from farmer.storage.records import DAMAGED, MOVED, Kind
from farmer.storage.scan import Damaged, Found, Hole, scan
from tests.storage.bench import ALICE, MIB, noise
from tests.storage.log_bytes import PAGE, Memory, header_of, marks, record, spoilt

LARGEST = 2**62 - 1


def told(raw: bytes, *, verify: bool = True, start: int = 0, end: int | None = None) -> list[str]:
    """Return what a walk says: of plain records the sequences, of others where they are."""
    said = []
    end = len(raw) if end is None else end
    for one in walk(Memory(raw).source(), 1, start, end, verify=verify):
        match one:
            case Plain(rows, to):
                said.append(f"plain {[row_of_plain(row).sequence for row in rows]} to {to}")
            case Found(at, to, header):
                said.append(f"{header.kind.name.lower()} {header.sequence} at {at} to {to}")
            case Damaged(at, _):
                said.append(f"damaged at {at}")
            case Hole(at, length):
                said.append(f"hole at {at} of {length}")
    return said


def between(odd: bytes, *, verify: bool = False) -> list[str]:
    """Return what is said of a record among plain ones."""
    raw = record(10, 1) + odd + record(10, 3) + record(10, 4)
    first, *said, last = told(raw, verify=verify)
    assert first == "plain [1] to 4096"
    third, end = PAGE + len(odd), len(raw)
    if last == f"plain [3, 4] to {end}":
        return said
    assert said.pop() == f"shard 3 at {third} to {third + PAGE}", "found behind no record"
    assert last == f"plain [4] to {end}"
    return said


@pytest.mark.parametrize("verify", [True, False])
def test_a_row_is_what_the_header_says(*, verify: bool) -> None:
    raw = record(10, 1) + record(5000, 2, flags=MOVED, stored_at_ms=LARGEST)
    (plain,) = walk(Memory(raw).source(), 7, 0, len(raw), verify=verify)
    assert isinstance(plain, Plain)
    first, second = header_of(10, 1), header_of(5000, 2)
    contract = first.contract.raw
    assert plain.rows == [
        pack(ALICE.raw, first.shard.raw, 7, 0, 10, contract, 5, 1, PAGE),
        pack(ALICE.raw, second.shard.raw, 7, PAGE, 5000, contract, LARGEST, 2, 2 * PAGE),
    ]
    assert plain.end == 3 * PAGE


@pytest.mark.parametrize(
    "other",
    [
        {"state": ShardState.TRASH},
        {"flags": DAMAGED},
        {"flags": DAMAGED | MOVED},
        {"flags": 4},
        {"gone_at_ms": 1},
        {"observed_ms": 1},
        {"alone_ms": 1},
    ],
    ids=str,
)
def test_a_record_of_which_more_is_to_be_said_is_not_plain(other: dict[str, Any]) -> None:
    assert between(record(10, 2, **other)) == ["shard 2 at 4096 to 8192"]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": Kind.STAGING},
        {"kind": Kind.MARKS},
        {"segment": bytes(16)},
        {"trailer_bytes": 35},
        {"trailer_bytes": 72},
        {"payload_bytes": 65_537},
        *({name: LARGEST + 1} for name in ("stored_at_ms", "synced_bytes")),
        *({name: LARGEST + 1} for name in ("active_at_ms", "until_ms")),
    ],
    ids=str,
)
def test_what_is_no_sound_record_is_not_plain(other: dict[str, Any]) -> None:
    assert between(record(10, 2, **other)) == ["damaged at 4096"]


@pytest.mark.parametrize("name", ["synced_bytes", "active_at_ms", "until_ms"])
def test_what_no_row_holds_may_be_any_number_that_a_release_can_have_written(name: str) -> None:
    assert told(record(10, 1, **{name: LARGEST})) == ["plain [1] to 4096"]


def test_a_sequence_is_no_larger_than_a_release_can_have_written() -> None:
    assert told(record(10, LARGEST)) == [f"plain [{LARGEST}] to 4096"]
    assert told(record(10, LARGEST + 1)) == ["damaged at 0"]


@pytest.mark.parametrize("at", [0, 9, 10, 60, 200, 251, 252, 255])
def test_a_damaged_header_is_not_plain(at: int) -> None:
    assert between(spoilt(record(10, 2), at)) == ["damaged at 4096"]


def test_marks_and_holes_are_told_between_plain_records() -> None:
    assert between(marks(2)) == ["marks 2 at 4096 to 8192"]
    assert between(bytes(2 * PAGE)) == ["hole at 4096 of 8192"]


def test_only_small_shards_are_plain() -> None:
    small, large = record(MIB, 1), record(MIB + 1, 2)
    assert told(small, verify=False) == [f"plain [1] to {len(small)}"]
    assert told(large, verify=False) == [f"shard 2 at 0 to {len(large)}"]


@pytest.mark.parametrize("size", [0, 1, 3804, 3805, 65_536])
def test_a_shard_of_one_block_is_plain_also_when_it_is_verified(size: int) -> None:
    raw = record(size, 1)
    for verify in (True, False):
        assert told(raw, verify=verify) == [f"plain [1] to {len(raw)}"]


def test_a_shard_of_two_blocks_is_left_to_the_scan_when_it_is_verified() -> None:
    raw = record(65_537, 2)
    assert told(raw, verify=False) == [f"plain [2] to {len(raw)}"]
    assert told(raw) == [f"shard 2 at 0 to {len(raw)}"]


@pytest.mark.parametrize("at", [256, 256 + 2999, 256 + 3000, 256 + 3031, 256 + 3032, 256 + 3035])
def test_a_bit_in_payload_or_trailer_is_noticed_when_it_is_verified(at: int) -> None:
    broken = spoilt(record(3000, 2), at)
    assert between(broken, verify=True) == ["damaged at 4096"]
    raw = record(10, 1) + broken
    assert told(raw, verify=False) == ["plain [1, 2] to 8192"]
    assert told(spoilt(record(3000, 2), 256 + 3036)) == ["plain [2] to 4096"]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (PAGE, 3 * PAGE, ["plain [2, 3] to 12288"]),
        (PAGE, 3 * PAGE - 1, ["plain [2] to 8192", "damaged at 8192"]),
        (PAGE, 2 * PAGE + 256, ["plain [2] to 8192", "damaged at 8192"]),
        (PAGE, 2 * PAGE + 255, ["plain [2] to 8192"]),
        (PAGE, PAGE, []),
    ],
)
def test_a_walk_begins_and_ends_where_it_is_told(
    start: int, end: int, said: list[str], *, verify: bool
) -> None:
    raw = b"".join(record(10, number) for number in range(1, 5))
    assert told(raw, verify=verify, start=start, end=end) == said


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("left", [100, 256, 300, 256 + 3000 + 36, PAGE - 1])
def test_a_file_that_is_shorter_than_was_said_is_walked_as_by_the_scan(
    left: int, *, verify: bool
) -> None:
    raw = record(10, 1) + record(3000, 2)
    whole, cut = len(raw), raw[: PAGE + left]
    said = told(cut, verify=verify, end=whole)
    last = list(scan(Memory(cut).source(), PAGE, whole, verify=verify))
    assert said[0].startswith("plain [1")
    is_sound = [isinstance(one, Found) for one in last]
    assert (("2]" in said[0] or "shard 2" in said[-1]), "damaged" in said[-1]) == (
        is_sound == [True],
        is_sound == [False],
    )


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(("size", "number"), [(10, 600), (10_000, 200), (60_000, 40)])
def test_plain_records_come_together_and_are_read_a_mebibyte_at_once(
    size: int, number: int, *, verify: bool
) -> None:
    """Also those of which a window ends in the middle."""
    raw = b"".join(record(size, sequence) for sequence in range(1, number + 1))
    disk = Memory(raw)
    plains = list(walk(disk.source(), 1, 0, len(raw), verify=verify))
    assert [type(one) for one in plains] == [Plain]
    assert isinstance(plains[0], Plain)
    assert [row_of_plain(row).sequence for row in plains[0].rows] == list(range(1, number + 1))
    assert len(disk.asked) <= len(raw) // MIB + 3


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("odd", [bytes(PAGE), record(10, 9, alone_ms=1)], ids=["hole", "alone"])
def test_what_lies_among_plain_records_does_not_have_them_read_again(
    odd: bytes, *, verify: bool
) -> None:
    raw = (record(10, 1) + odd) * 300
    disk = Memory(raw)
    list(walk(disk.source(), 1, 0, len(raw), verify=verify))
    assert sum(length for _, length in disk.asked) <= 3 * len(raw)


def test_no_more_rows_come_at_once_than_a_few_thousand() -> None:
    one = record(0, 1)
    raw = one * 4097
    ends = [plain.end for plain in walk(Memory(raw).source(), 1, 0, len(raw), verify=True)
            if isinstance(plain, Plain)]  # fmt: skip
    assert ends == [4096 * PAGE, 4097 * PAGE]


def test_what_follows_a_stretch_that_is_no_record_is_found() -> None:
    raw = noise(3 * PAGE) + record(10, 2) + marks(3) + marks(4) + record(10, 5)
    assert told(raw) == [
        "damaged at 0",
        "shard 2 at 12288 to 16384",
        "marks 3 at 16384 to 20480",
        "marks 4 at 20480 to 24576",
        "plain [5] to 28672",
    ]
