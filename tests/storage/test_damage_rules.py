"""What is said of one record by its bytes alone: in memory, blow by blow."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from zlib import crc32

import pytest

from farmer.audit.tree import hash_block
from farmer.model.ids import NodeId
from farmer.model.shard import BLOCK_BYTES, BadBlocks
from farmer.storage.damage import (
    Examination,
    Examined,
    Trust,
    examine,
    examining,
    read_header,
    span_of,
    split_trailer,
    trust,
)
from farmer.storage.places import Place
from farmer.storage.records import BlockChecksums, Kind
from tests.storage.bench import BOB, noise, row, shard_of
from tests.storage.log_bytes import SEGMENT, bad_spot, header_of, spoilt

SIZES = [0, 1, 5000, 65_536, 65_537, 200_000]
SEQUENCE = 7


class Record:
    """A sound record as it stands on the disk, and its row."""

    def __init__(self, size: int) -> None:
        self.data = noise(size, SEQUENCE)
        self.blocks = [self.data[at : at + BLOCK_BYTES] for at in range(0, size, BLOCK_BYTES)]
        self.blocks = self.blocks or [b""]
        self.hashes = b"".join(map(hash_block, self.blocks))
        checksums = BlockChecksums()
        checksums.update(self.data)
        self.checksums = checksums.finish()
        self.trailer = self.hashes + self.checksums
        self.header = replace(header_of(size, SEQUENCE), trailer_crc=crc32(self.trailer))
        self.raw = self.header.encode() + self.data + self.trailer
        self.row = row(shard=shard_of(self.data), size_bytes=size, sequence=SEQUENCE)
        self.tree_at = 256 + size
        self.checksums_at = self.tree_at + len(self.hashes)

    def examined(self, raw: bytes | None = None) -> Examination:
        return examine(reading(self.raw if raw is None else raw), self.row)


def reading(
    raw: bytes, fails: Callable[[int, int], int] = lambda _offset, _length: 0
) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        number = fails(offset, length)
        if number:
            raise OSError(number, "the disk says no")
        return raw[offset : offset + length]

    return read


@pytest.mark.parametrize("size", SIZES)
def test_a_sound_record_is_sound_and_its_tree_is_known(size: int) -> None:
    one = Record(size)
    found = one.examined()
    assert found == Examination(size, (), True, one.hashes)
    assert found.is_sound
    assert found.first_bad == (0, 0)


@pytest.mark.parametrize("size", SIZES)
def test_a_damaged_header_costs_nothing_but_itself(size: int) -> None:
    one = Record(size)
    assert one.examined(spoilt(one.raw, 40)) == Examination(size, (), False, one.hashes)


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_a_damaged_block_is_named_and_the_record_is_as_it_was_written(block: int) -> None:
    one = Record(200_000)
    found = one.examined(spoilt(one.raw, 256 + block * BLOCK_BYTES))
    assert found == Examination(200_000, (block,), True, one.hashes)
    assert not found.is_sound
    assert found.named == BadBlocks(200_000, (block,))
    assert found.first_bad == span_of(block, 200_000)


def test_a_damaged_tree_is_made_again_from_sound_blocks() -> None:
    one = Record(200_000)
    for block in range(4):
        found = one.examined(spoilt(one.raw, one.tree_at + 32 * block))
        assert found == Examination(200_000, (), False, one.hashes)
    gone = one.raw[: one.tree_at] + bytes(len(one.hashes)) + one.checksums
    assert one.examined(gone) == Examination(200_000, (), False, one.hashes)


def test_a_tree_is_made_of_what_is_left_of_it_and_of_blocks_whose_checksums_are_right() -> None:
    """One block is damaged, and the hash of another."""
    one = Record(200_000)
    raw = spoilt(spoilt(one.raw, 256 + BLOCK_BYTES), one.tree_at + 2 * 32)
    assert one.examined(raw) == Examination(200_000, (1,), False, one.hashes)


@pytest.mark.parametrize("block", [0, 3])
def test_a_damaged_checksum_costs_nothing_but_itself(block: int) -> None:
    one = Record(200_000)
    found = one.examined(spoilt(one.raw, one.checksums_at + 4 * block))
    assert found == Examination(200_000, (), False, one.hashes)


def test_a_checksum_that_was_wrong_when_it_was_written_is_found() -> None:
    """The trailer is as it was written; a read by it would refuse what is right."""
    one = Record(200_000)
    trailer = spoilt(one.trailer, len(one.hashes) + 9)
    header = replace(one.header, trailer_crc=crc32(trailer))
    found = one.examined(header.encode() + one.data + trailer)
    assert found == Examination(200_000, (), False, one.hashes)


def test_a_checksum_that_a_tree_was_written_with_must_be_that_of_the_shard() -> None:
    one = Record(200_000)
    trailer = spoilt(one.trailer, 9)
    header = replace(one.header, trailer_crc=crc32(trailer))
    found = one.examined(header.encode() + one.data + trailer)
    assert found == Examination(200_000, (), False, one.hashes)


def test_where_a_block_and_its_hash_are_damaged_there_is_no_telling_right_from_wrong() -> None:
    one = Record(200_000)
    raw = spoilt(spoilt(one.raw, 256), one.tree_at)
    assert one.examined(raw) == Examination(200_000, (0, 1, 2, 3), False, None)
    assert one.examined(b"") == Examination.of_nothing(200_000)
    assert Examination.of_nothing(0) == Examination(0, (0,), False, None)


def test_of_a_file_that_is_cut_off_whole_blocks_count() -> None:
    one = Record(200_000)
    found = one.examined(one.raw[: one.tree_at - 1])
    assert found == Examination(200_000, (0, 1, 2, 3), False, None)
    found = one.examined(one.raw[:-1])
    assert found == Examination(200_000, (), False, one.hashes)


@pytest.mark.parametrize("block", [0, 15, 16, 19])
def test_a_bad_spot_costs_its_block_alone(block: int) -> None:
    one = Record(19 * BLOCK_BYTES + 9)
    spot = 256 + block * BLOCK_BYTES + 8
    found = examine(reading(one.raw, bad_spot(spot)), one.row)
    assert found == Examination(one.row.size_bytes, (block,), True, one.hashes)


@pytest.mark.parametrize("block", [0, 1])
def test_of_two_blocks_a_bad_spot_costs_one(block: int) -> None:
    one = Record(BLOCK_BYTES + 9)
    found = examine(reading(one.raw, bad_spot(256 + block * BLOCK_BYTES)), one.row)
    assert found == Examination(one.row.size_bytes, (block,), True, one.hashes)


@pytest.mark.parametrize("at", [0, 255])
def test_a_bad_spot_in_the_header_is_a_damaged_header(at: int) -> None:
    one = Record(5000)
    found = examine(reading(one.raw, bad_spot(at)), one.row)
    assert found == Examination(5000, (), False, one.hashes)


def test_a_bad_spot_in_the_trailer_is_a_damaged_trailer() -> None:
    one = Record(200_000)
    found = examine(reading(one.raw, bad_spot(len(one.raw) - 1)), one.row)
    assert found == Examination(200_000, (), False, one.hashes)


def test_any_other_failure_of_the_disk_says_nothing_of_the_record() -> None:
    one = Record(5000)
    with pytest.raises(OSError, match="the disk says no"):
        examine(reading(one.raw, lambda _offset, _length: errno.ENODEV), one.row)


def test_a_large_record_is_read_a_mebibyte_at_once() -> None:
    one = Record(19 * BLOCK_BYTES + 9)
    asked: list[int] = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return one.raw[offset : offset + length]

    steps = list(examining(read, one.row))
    assert steps == [256 + 20 * 36, 16 * BLOCK_BYTES, 4 * BLOCK_BYTES]
    assert asked == [256, 20 * 36, 16 * BLOCK_BYTES, 3 * BLOCK_BYTES + 9]


def test_a_header_is_its_row_s_only_if_it_says_the_same() -> None:
    one = Record(5000)
    assert read_header(one.raw, one.row) is not None
    for other in (
        replace(one.row, sequence=8),
        replace(one.row, renter=BOB),
        replace(one.row, shard=shard_of(b"another")),
        replace(one.row, size_bytes=5001),
    ):
        assert read_header(one.raw, other) is None
    assert read_header(replace(one.header, kind=Kind.STAGING).encode(), one.row) is None
    assert read_header(spoilt(one.raw, 20), one.row) is None
    assert read_header(b"", one.row) is None


def test_a_file_of_its_own_names_the_segment_of_its_record() -> None:
    one = Record(5000)
    assert read_header(one.raw, replace(one.row, place=Place(0, 0, SEGMENT))) is not None
    assert read_header(one.raw, replace(one.row, place=Place(0, 0, bytes(16)))) is None


def test_what_is_missing_of_a_trailer_is_taken_for_zeros() -> None:
    one = Record(65_537)
    assert split_trailer(one.trailer, 65_537) == (one.hashes, one.checksums)
    cut = one.trailer[:-6]
    assert split_trailer(cut, 65_537) == (one.hashes, one.checksums[:2] + bytes(6))
    assert split_trailer(b"", 0) == (bytes(32), bytes(4))


def trusting(one: Record, trailer: bytes, *, is_header_known: bool) -> Trust | None:
    header = read_header(one.raw, one.row) if is_header_known else None
    return trust(header, trailer, one.row)


def test_blocks_are_compared_with_checksums_if_those_are_sound_else_with_the_tree() -> None:
    one = Record(200_000)
    sound = trusting(one, one.trailer, is_header_known=True)
    without = trusting(one, one.trailer, is_header_known=False)
    crooked = trusting(one, spoilt(one.trailer, len(one.trailer) - 1), is_header_known=True)
    assert sound is not None
    assert sound.checksums == one.checksums
    for by_tree in (without, crooked):
        assert by_tree is not None
        assert by_tree.checksums is None
    for judge in (sound, without, crooked):
        assert judge is not None
        assert [judge.is_block(n, data) for n, data in enumerate(one.blocks)] == [True] * 4
        assert not judge.is_block(0, one.blocks[1])
        assert not judge.is_block(3, spoilt(one.blocks[3], 0))


def test_a_damaged_tree_is_trusted_by_nobody() -> None:
    one = Record(200_000)
    wrong = spoilt(one.trailer, 0)
    assert trusting(one, wrong, is_header_known=True) is None
    assert trusting(one, wrong, is_header_known=False) is None


@pytest.mark.parametrize(
    ("block", "size", "span"),
    [
        (0, 10, (0, 10)),
        (0, 65_537, (0, 65_536)),
        (1, 65_537, (65_536, 1)),
        (2, 200_000, (131_072, 65_536)),
    ],
)
def test_a_block_ends_with_its_shard(block: int, size: int, span: tuple[int, int]) -> None:
    assert span_of(block, size) == span


def bad(hashes_bytes: int = 32) -> Examination:
    return Examination(1, (0,), True, bytes(hashes_bytes))


def test_what_was_found_last_is_kept_longest() -> None:
    known = Examined()
    for sequence in range(Examined.KEPT_MAX):
        known.keep(sequence, bad())
    again = bad()
    known.keep(0, again)
    assert known.find(0) is again
    known.keep(1000, Examination.of_nothing(5))
    assert [known.find(sequence) is None for sequence in (0, 1, 2, 1000)] == [
        *(False, True, False, False)
    ]


def test_the_tree_of_a_shard_of_128_mib_is_kept_and_of_none_larger() -> None:
    known = Examined()
    known.keep(1, bad(2048 * 32))
    known.keep(2, bad(2049 * 32))
    assert known.find(1) is not None
    assert known.find(2) is None
    known.keep(1, bad(2049 * 32))
    assert known.find(1) is None, "what was known before does not hold any more"


def test_a_renter_s_record_is_not_another_renter_s() -> None:
    one = Record(5000)
    stranger = replace(one.header, renter=NodeId(b"x" * 32))
    found = one.examined(stranger.encode() + one.raw[256:])
    assert found == Examination(5000, (), False, one.hashes)
