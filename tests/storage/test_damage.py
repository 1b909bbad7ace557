"""Damage reaches no further than the blocks that it struck, and never leaves the farmer."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from farmer.audit.ranges import RangeVerifier, whole_leaves
from farmer.model.audit import AuditEntry
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, ShardState
from farmer.storage.damage import Examination, Examined, examine
from farmer.storage.errors import CorruptShardError
from tests.storage.bench import ALICE, MIB, Farm, noise
from tests.storage.rot import WHERE, file_of, overwrite, rot, row_of, volume_of

SIZES = [5000, 400_000, 2 * MIB + 77]


def spans(size: int) -> list[tuple[int, int]]:
    return [(at, min(BLOCK_BYTES, size - at)) for at in range(0, size, BLOCK_BYTES)]


def served(farm: Farm, shard: ShardId, data: bytes) -> set[int]:
    """Return the blocks that are served, each found equal to what was stored, and proved."""
    good = set()
    for block, (offset, length) in enumerate(spans(len(data))):
        try:
            reader = farm.engine.open(ALICE, shard)
        except CorruptShardError:
            continue
        try:
            got = reader.read(offset, length)
            start, whole = whole_leaves(len(data), offset, length)
            nodes = reader.prove_range(start, whole)
        except CorruptShardError as error:
            assert (error.offset, error.length) in {(offset, length), (0, len(data))}
            continue
        finally:
            reader.close()
        assert got == data[offset : offset + length], "wrong bytes were served"
        verifier = RangeVerifier(shard, len(data), start, whole, nodes)
        verifier.update(got)
        verifier.finish()
        good.add(block)
    return good


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("where", WHERE)
def test_one_flipped_bit_costs_one_block_at_most(farm: Farm, size: int, where: str) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    row, blocks = row_of(farm, shard), len(spans(size))
    struck = blocks // 2
    rot(farm, row, where, struck)
    expected = set(range(blocks)) - ({struck} if where == "payload" else set())
    for _ in range(2):
        assert served(farm, shard, data) == expected
        assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
        farm.reopen()


def test_a_read_across_a_bad_block_names_the_first_one(farm: Farm) -> None:
    data = noise(800_000)
    shard = farm.store(data).shard
    row = row_of(farm, shard)
    rot(farm, row, "payload", 5)
    rot(farm, row, "payload", 9)
    for _ in range(2):
        reader = farm.engine.open(ALICE, shard)
        with pytest.raises(CorruptShardError) as error:
            reader.read(0, len(data))
        assert (error.value.offset, error.value.length) == (5 * BLOCK_BYTES, BLOCK_BYTES)
        assert reader.read(0, 5 * BLOCK_BYTES) == data[: 5 * BLOCK_BYTES]
        reader.close()


def test_an_audit_of_a_shard_known_to_be_damaged_is_refused_whatever_it_asks_for(
    farm: Farm,
) -> None:
    data = noise(800_000)
    shard = farm.store(data).shard
    rot(farm, row_of(farm, shard), "payload", 5)
    reader = farm.engine.open(ALICE, shard)
    found = reader.examine()
    reader.close()
    assert found.bad_blocks == (5,)
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
    for number in range(50):
        with pytest.raises(CorruptShardError) as error:
            farm.engine.prove_sample(ALICE, bytes([number]) * 32, AuditEntry(shard, len(data), 1))
        assert (error.value.offset, error.value.length) == (5 * BLOCK_BYTES, BLOCK_BYTES)
    with pytest.raises(CorruptShardError):
        farm.engine.prove_full(ALICE, bytes(32), AuditEntry(shard, len(data), 0))


def examined(farm: Farm, shard: ShardId) -> Examination:
    reader = farm.engine.open(ALICE, shard)
    try:
        return reader.examine()
    finally:
        reader.close()


@pytest.mark.parametrize("size", SIZES)
def test_an_examination_names_what_is_wrong(farm: Farm, size: int) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    assert examined(farm, shard).is_sound
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    last = len(spans(size)) - 1
    rot(farm, row_of(farm, shard), "payload", last)
    found = examined(farm, shard)
    assert (found.bad_blocks, found.is_record_sound) == ((last,), True)
    if last:
        rot(farm, row_of(farm, shard), "tree", 0)
        found = examined(farm, shard)
        assert (found.bad_blocks, found.is_record_sound) == ((last,), False)
        assert len(served(farm, shard, data)) == last


def test_where_a_block_its_hash_and_its_checksum_are_gone_nothing_is_served(farm: Farm) -> None:
    data = noise(400_000)
    shard = farm.store(data).shard
    row = row_of(farm, shard)
    for where in ("payload", "tree"):
        rot(farm, row, where, 2)
    found = examined(farm, shard)
    assert found.hashes is None
    assert found.bad_blocks == tuple(range(len(spans(len(data)))))
    assert served(farm, shard, data) == set()


def test_a_misdirected_record_is_all_bad_and_never_served(farm: Farm) -> None:
    one, other = noise(5000, 1), noise(5000, 2)
    shard, there = farm.store(one).shard, farm.store(other).shard
    mine, foreign = row_of(farm, shard), row_of(farm, there)
    path = file_of(farm, mine)
    raw = path.read_bytes()[foreign.place.offset : foreign.place.offset + foreign.charge_bytes]
    overwrite(path, mine.place.offset, raw)
    assert served(farm, shard, one) == set()
    assert served(farm, there, other) == {0}


def test_a_cut_off_file_still_gives_what_is_left(farm: Farm) -> None:
    data = noise(3 * MIB)
    shard = farm.store(data).shard
    path = file_of(farm, row_of(farm, shard))
    with path.open("r+b") as file:
        file.truncate(256 + 2 * MIB)
    found = examined(farm, shard)
    assert found.hashes is None, "the tree stood at the end"
    assert served(farm, shard, data) == set()


def test_a_bad_spot_of_the_disk_is_a_bad_block(farm: Farm) -> None:
    data = noise(400_000)
    row = row_of(farm, farm.store(data).shard)
    raw = file_of(farm, row).read_bytes()[row.place.offset :]
    spot = 256 + 3 * BLOCK_BYTES + 99

    def read(offset: int, length: int) -> bytes:
        if offset <= spot < offset + length:
            raise OSError(errno.EIO, "a bad spot")
        return raw[offset : offset + length]

    found = examine(read, row)
    assert (found.bad_blocks, found.is_record_sound) == ((3,), True)

    def gone(offset: int, length: int) -> bytes:
        raise OSError(errno.ENODEV, "no disk")

    with pytest.raises(OSError, match="no disk"):
        examine(gone, row)


def test_only_so_much_is_remembered() -> None:
    known = Examined()
    for sequence in range(Examined.KEPT_MAX + 1):
        known.keep(sequence, Examination(1, (0,), True, bytes(32)))
    assert known.find(0) is None
    assert known.find(1) is not None
    known.keep(1, Examination(1, (), True, bytes(32)))
    assert known.find(1) is None
    known.keep(2, Examination(1, (0,), True, bytes(Examined.HASHES_KEPT_MAX + 1)))
    assert known.find(2) is None


def test_a_reader_of_known_damage_marks_nothing_again(farm: Farm, tmp_path: Path) -> None:
    shard = farm.store(noise(5000)).shard
    rot(farm, row_of(farm, shard), "payload")
    examined(farm, shard)
    marks = len(volume_of(farm).ground.index.marks())
    for _ in range(3):
        examined(farm, shard)
    assert len(volume_of(farm).ground.index.marks()) == marks
    assert dict(farm.engine.volumes()[0].errors) == {"corrupt": 1}
