"""One shard mended by hand: which bytes go where, and what is let go at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from farmer.model.contract import Contract
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, ShardState, charge_bytes
from farmer.storage.errors import (
    CorruptShardError,
    NoSpaceError,
    VolumeUnavailableError,
    WrongHashError,
    WrongSizeError,
)
from farmer.storage.mending import Mending, begin_mending, house_contract, mend_alone, roomier
from farmer.storage.places import Row
from tests.storage.bench import ALICE, MIB, Farm, contract_of, noise
from tests.storage.rot import rot, row_of, volume_of

SIZE = 35 * BLOCK_BYTES + 100
"""More than two steps of a copy, and a last block that is not whole."""


class Bench:
    """One shard of a farm, and who counts how often its mending ended."""

    def __init__(self, farm: Farm, size: int = SIZE) -> None:
        self.farm = farm
        self.data = noise(size)
        self.shard: ShardId = farm.store(self.data).shard
        self.volume = volume_of(farm)
        self.ends = 0
        self.used = farm.engine.usage(ALICE)

    @property
    def row(self) -> Row:
        return row_of(self.farm, self.shard)

    def rot(self, *blocks: int, where: str = "payload") -> None:
        for block in blocks:
            rot(self.farm, self.row, where, block)

    def block(self, number: int) -> bytes:
        return self.data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]

    def ended(self) -> None:
        self.ends += 1

    def begin(self, contract: Contract | None = None) -> Mending:
        mending = begin_mending(self.volume, self.row, contract or contract_of(ALICE), self.ended)
        assert mending is not None
        return mending

    def begun(self) -> Mending:
        mending = self.begin()
        mending.start()
        return mending

    def check_all_is_let_go(self, ends: int) -> None:
        assert self.ends == ends
        assert self.volume.readers == 0
        assert self.volume.handles.pinned == 0
        assert self.farm.engine.usage(ALICE) == self.used


@pytest.fixture
def bench(farm: Farm) -> Iterator[Bench]:
    yield Bench(farm)


@pytest.mark.parametrize(
    ("bad", "step"),
    [
        ((0,), 1 << 30),
        ((15,), BLOCK_BYTES - 1),
        ((16, 17), BLOCK_BYTES),
        ((3, 20, 35), 30_000),
        (tuple(range(36)), 50_001),
    ],
    ids=str,
)
def test_bad_blocks_are_taken_and_all_others_are_copied(
    bench: Bench, bad: tuple[int, ...], step: int
) -> None:
    bench.rot(*bad)
    mending = bench.begun()
    assert (mending.bad.blocks, mending.found.bad_blocks) == (bad, bad)
    wanted = b"".join(map(bench.block, bad))
    assert mending.wanted_bytes == len(wanted)
    for at in range(0, len(wanted), step):
        mending.write(wanted[at : at + step])
    assert bench.ends == 0
    stored = mending.commit().result(20)
    assert (stored.shard, stored.size_bytes, stored.state) == (bench.shard, SIZE, ShardState.LIVE)
    assert bench.farm.read(bench.shard) == bench.data
    bench.check_all_is_let_go(ends=1)
    mending.abandon()
    assert bench.ends == 1
    assert bench.farm.engine.examine(ALICE, bench.shard).blocks == ()


@pytest.mark.parametrize("more", [1, 1000])
def test_more_bytes_than_were_wanted_end_it(bench: Bench, more: int) -> None:
    bench.rot(3, 35)
    mending = bench.begun()
    mending.write(bench.block(3))
    with pytest.raises(WrongSizeError) as told:
        mending.write(bench.block(35) + bytes(more))
    wanted = BLOCK_BYTES + 100
    assert (told.value.declared_bytes, told.value.received_bytes) == (wanted, wanted + more)
    bench.check_all_is_let_go(ends=1)
    with pytest.raises(VolumeUnavailableError):
        mending.write(b"")


@pytest.mark.parametrize("given", [0, 99])
def test_fewer_bytes_than_were_wanted_are_noticed_at_the_end(bench: Bench, given: int) -> None:
    bench.rot(35)
    mending = bench.begun()
    mending.write(bench.block(35)[:given])
    with pytest.raises(WrongSizeError) as told:
        mending.commit()
    assert (told.value.declared_bytes, told.value.received_bytes) == (100, given)
    bench.check_all_is_let_go(ends=1)


def test_bytes_that_are_not_those_of_their_block_end_it_before_the_next_one(
    bench: Bench,
) -> None:
    bench.rot(2, 5)
    mending = bench.begun()
    mending.write(bench.block(2)[:-1])
    with pytest.raises(WrongHashError):
        mending.write(b"\0" + bench.block(5)[:1])
    bench.check_all_is_let_go(ends=1)


def test_where_nothing_is_known_the_whole_is_judged_at_the_end(bench: Bench) -> None:
    bench.rot(2)
    bench.rot(2, where="tree")
    mending = bench.begun()
    assert mending.bad.blocks == tuple(range(36))
    mending.write(bench.data)
    mending.commit().result(20)
    assert bench.farm.read(bench.shard) == bench.data
    bench.rot(2)
    bench.rot(2, where="tree")
    mending = bench.begun()
    mending.write(b"\0" + bench.data[1:])
    with pytest.raises(WrongHashError):
        mending.commit()
    bench.check_all_is_let_go(ends=2)


def test_what_rots_before_the_copy_ends_it(bench: Bench) -> None:
    bench.rot(20)
    mending = bench.begin()
    bench.rot(4)
    with pytest.raises(CorruptShardError):
        mending.start()
    bench.check_all_is_let_go(ends=1)


def test_one_that_is_given_up_leaves_all_as_it_was(bench: Bench) -> None:
    bench.rot(20)
    before = bench.row
    mending = bench.begun()
    assert bench.farm.engine.usage(ALICE).reserved_bytes == charge_bytes(SIZE)
    mending.abandon()
    mending.abandon()
    bench.check_all_is_let_go(ends=1)
    assert bench.row.sequence == before.sequence


def test_a_sound_shard_is_not_mended(bench: Bench) -> None:
    assert begin_mending(bench.volume, bench.row, contract_of(ALICE), bench.ended) is None
    bench.check_all_is_let_go(ends=0)


def test_a_sound_record_in_quarantine_is_written_anew(bench: Bench) -> None:
    bench.volume.quarantine(bench.row)
    mending = bench.begun()
    assert mending.found.is_sound
    mending.commit().result(20)
    assert bench.farm.engine.stat(ALICE, bench.shard).state is ShardState.LIVE
    bench.check_all_is_let_go(ends=1)


def test_what_cannot_be_begun_holds_nothing_and_has_no_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> Any:
        raise NoSpaceError(1, 0)

    bench.rot(3)
    monkeypatch.setattr(bench.volume.uploads, "begin_anew", full)
    with pytest.raises(NoSpaceError):
        bench.begin()
    bench.check_all_is_let_go(ends=0)


def test_a_contract_makes_room_for_the_record_that_goes(bench: Bench) -> None:
    contract = contract_of(ALICE)
    room = roomier(contract, bench.row).space_bytes - contract.space_bytes
    assert room == bench.row.charge_bytes == charge_bytes(SIZE)


def test_the_house_mends_by_no_contract_s_limits(bench: Bench) -> None:
    contract = house_contract(bench.row)
    assert (contract.contract, contract.renter) == (bench.row.contract, ALICE)
    assert contract.space_bytes > 1 << 60
    assert (contract.from_ms, contract.issued_at_ms) == (0, 0)
    assert contract.until_ms == (1 << 62) - 1, "the largest number that a header may hold"


def alone(bench: Bench) -> Mending:
    row = bench.row
    mending = begin_mending(
        bench.volume, row, house_contract(row), bench.ended, is_asked_for=False
    )
    assert mending is not None
    return mending


def test_the_house_mends_what_needs_no_bytes(bench: Bench) -> None:
    bench.rot(2, where="tree")
    before = bench.row
    assert mend_alone(alone(bench))
    assert bench.row.sequence > before.sequence
    assert bench.row.contract == before.contract
    assert bench.farm.read(bench.shard) == bench.data
    bench.check_all_is_let_go(ends=1)


def test_what_the_house_has_mended_is_known_to_an_index_that_is_made_anew(bench: Bench) -> None:
    bench.rot(2, where="tree")
    assert mend_alone(alone(bench))
    bench.farm.engine.close()
    for path in bench.farm.path.glob("index.sqlite*"):
        path.unlink()
    bench.farm.open()
    assert bench.farm.read(bench.shard) == bench.data


def test_what_the_house_cannot_mend_stays_as_it_was(bench: Bench) -> None:
    bench.rot(2, where="tree")
    mending = alone(bench)
    bench.rot(4)
    assert not mend_alone(mending)
    bench.check_all_is_let_go(ends=1)
    assert len(bench.farm.engine.examine(ALICE, bench.shard).blocks) == 1


def test_a_shard_that_is_deleted_meanwhile_comes_back_only_if_its_renter_repairs_it(
    farm: Farm,
) -> None:
    for is_asked_for in (True, False):
        bench = Bench(farm, MIB // 2)
        bench.rot(2, where="tree")
        mending = bench.begin() if is_asked_for else alone(bench)
        farm.delete(bench.shard)
        mend_alone(mending)
        if is_asked_for:
            assert farm.read(bench.shard) == bench.data
        else:
            assert farm.engine.stat(ALICE, bench.shard).state is ShardState.TRASH
