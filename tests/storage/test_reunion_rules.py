"""How volumes meet: what each has of one shard, and what is left of that afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import DeletionOutcome, ShardState
from farmer.storage import reunion as reunion_module
from farmer.storage.crossing import Crossing
from farmer.storage.errors import ShardNotFoundError
from farmer.storage.log import marks_bytes
from farmer.storage.met import read_met
from farmer.storage.places import Key, Row
from farmer.storage.reunion import HOLD_S, Met, Outlived
from farmer.storage.tombstones import Tombstone
from tests.storage.bench import Farm
from tests.storage.house import FIRST, KEY, ROW, House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House(Farm(tmp_path, volumes=3))
    with closing(house.engine):
        for number, volume in enumerate(house.volumes):

            def note(_sequence: int, _changes: int, number: int = number) -> None:
                house.met.append(number)

            monkeypatch.setattr(volume, "note_met", note)
        yield house


def test_the_sound_copy_stays_where_a_damaged_one_was_stored_alone(house: House) -> None:
    damaged = replace(ROW, alone_ms=5, is_damaged=True, state=ShardState.QUARANTINED)
    house.put(0, ROW)
    house.put(1, replace(damaged, stored_at_ms=2000))
    house.reunion().hold()
    assert house.rows() == [[ROW], [], []]


def test_sound_bytes_are_taken_out_of_the_trash_where_a_damaged_one_was_stored_since(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the damaged one goes, durably: else a kill in between would leave the trash alone."""
    trashed = replace(ROW, state=ShardState.TRASH, gone_at_ms=9000, observed_ms=3)
    damaged = replace(ROW, alone_ms=5, is_damaged=True, state=ShardState.QUARANTINED)
    house.put(0, trashed)
    house.put(1, damaged)
    seen: list[list[list[Row]]] = []
    leaves = Crossing.leaves
    crossing = Crossing()

    def look_and_leave() -> None:
        seen.append(house.rows())
        leaves(crossing)

    monkeypatch.setattr(crossing, "leaves", look_and_leave)
    house.reunion(crossing=crossing).hold()
    assert seen == [[[ROW], [damaged], []], [[ROW], [], []]]
    assert house.rows() == [[ROW], [], []]


def test_who_looks_while_tombstones_are_lifted_looks_again(house: House) -> None:
    """Of the older copy it may know already, and of the tombstone not any more."""
    house.put(0, ROW)
    house.bury(1, ROW, 5)
    page, reunion = house.volumes[0].page, house.engine._reunion

    def page_and_meet(*what: Any) -> list[Row]:
        rows = page(*what)
        house.volumes[0].page = page  # type: ignore[method-assign]
        reunion.hold()
        return rows

    house.volumes[0].page = page_and_meet  # type: ignore[method-assign]
    assert house.where.page(KEY[0], FIRST, 10) == []


def test_of_copies_that_were_stored_alone_the_last_one_stays_and_is_alone_no_more(
    house: House,
) -> None:
    house.put(0, replace(ROW, alone_ms=5), replace(ROW, shard=ShardId(b"o" * 32)))
    house.put(1, replace(ROW, alone_ms=7))
    house.put(2, ROW)
    house.reunion().hold()
    assert house.rows() == [[replace(ROW, shard=ShardId(b"o" * 32))], [ROW], []]
    assert house.met == [0, 1, 2]


@pytest.mark.parametrize(("alone_ms", "is_kept"), [(0, False), (4, False), (5, True)])
def test_what_was_buried_elsewhere_later_goes_with_the_tombstone(
    house: House, alone_ms: int, is_kept: bool
) -> None:
    house.put(0, replace(ROW, alone_ms=alone_ms))
    house.bury(1, ROW, 5)
    house.reunion().hold()
    assert house.rows() == [[ROW] if is_kept else [], [], []]
    assert not any(volume.ground.index.has_tombstones for volume in house.volumes)


def test_nobody_meets_while_a_volume_is_not_sure(house: House) -> None:
    house.put(0, ROW)
    house.put(1, replace(ROW, alone_ms=7))
    before = house.rows()
    house.reunion(is_certain=lambda: False).hold()
    assert house.rows() == before
    assert house.met == []


def test_no_meeting_is_noted_while_nobody_can_say_that_all_are_there(house: House) -> None:
    house.reunion(is_certain=lambda: False).hold()
    assert house.met == []
    house.reunion().hold()
    assert house.met == [0, 1, 2]


def test_one_alone_meets_nobody(house: House) -> None:
    house.put(0, replace(ROW, alone_ms=7))
    only = house.volumes[:1]
    house.reunion(volumes=lambda: only).hold()
    assert house.rows()[0][0].alone_ms == 7
    assert house.met == []


def test_a_tombstone_that_comes_during_a_meeting_is_noted_as_over_by_the_next(
    tmp_path: Path,
) -> None:
    """What was noted lies below it: with its marks gone from the log it would be there again."""
    house = House(Farm(tmp_path, volumes=2))
    with closing(house.engine):
        ground = house.volumes[0].ground
        house.engine._reunion.hold()
        buried: list[int] = []

        def bury_once() -> bool:
            if not buried:
                buried.append(ground.facts.sequencer.take())
                house.bury(0, replace(ROW, sequence=buried[0]), 5)
            return True

        house.bury(0, replace(ROW, sequence=ground.facts.sequencer.take()), 4)
        house.reunion(is_certain=bury_once).hold()
        assert not ground.index.has_tombstones
        house.engine._reunion.hold()
        assert read_met(ground.files, ground.paths.root) > buried[0]


def test_a_long_meeting_goes_on_with_the_next_look(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at the disks, and a start, wait for it only so long."""
    monkeypatch.setattr(reunion_module, "AT_ONCE", 2)
    shards = [ShardId(bytes([number]) * 32) for number in range(20)]
    house.put(0, *(replace(ROW, shard=shard, alone_ms=5) for shard in shards))
    reunion = house.engine._reunion

    def meet(keys: frozenset[Key]) -> None:
        house.clock.now_s += HOLD_S / 4
        meet_them(keys)

    meet_them = reunion._meet
    monkeypatch.setattr(reunion, "_meet", meet)
    left = []
    for _ in range(3):
        house.engine.look_after_disks()
        left.append(len(house.volumes[0].ground.index.stored_alone(99)))
    assert left == [10, 0, 0]
    assert house.met == [0, 1, 2, 0, 1, 2]


def test_volumes_that_came_or_went_meanwhile_are_not_met(house: House) -> None:
    house.put(0, ROW)
    house.put(1, replace(ROW, alone_ms=7))
    before, known = house.rows(), house.volumes
    answers = iter([known, known, known[:2]])
    house.reunion(volumes=lambda: next(answers, known[:2])).hold()
    assert house.rows() == before
    assert house.met == [0, 2], "not that of the one that has not met"


def test_two_are_enough_to_meet(house: House) -> None:
    house.put(0, ROW)
    house.put(1, replace(ROW, alone_ms=7))
    two = house.volumes[:2]
    house.reunion(volumes=lambda: two).hold()
    assert house.rows() == [[], [ROW], []]


def test_only_so_many_shards_meet_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Crossing):
        @contextmanager
        def crossing_if_free(self, keys: Iterable[Key]) -> Iterator[frozenset[Key]]:
            sizes.append(len(set(keys)))
            with super().crossing_if_free(keys) as free:
                yield free

    monkeypatch.setattr(reunion_module, "AT_ONCE", 3)
    sizes: list[int] = []
    rows = [replace(ROW, shard=ShardId(bytes([n]) * 32), sequence=n) for n in range(1, 9)]
    house.put(0, *(replace(row, alone_ms=7) for row in rows[:2]))
    for one in rows[2:]:
        house.bury(0, one, 5)
    house.reunion(crossing=Counting()).hold()
    assert sum(sizes) == len(rows)
    assert max(sizes) == 3
    assert house.rows()[0] == rows[:2]
    assert not house.volumes[0].ground.index.has_tombstones


@pytest.mark.parametrize("at_once", [2, 3, 256])
def test_shards_that_are_busy_keep_no_others_from_meeting(
    house: House, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Whoever deletes them and takes them back again and again holds up nobody else's."""
    monkeypatch.setattr(reunion_module, "AT_ONCE", at_once)
    rows = [replace(ROW, shard=ShardId(bytes([n]) * 32), sequence=n) for n in range(1, 9)]
    house.put(0, *(replace(row, alone_ms=7) for row in rows))
    house.bury(1, ROW, 5)
    busy = [rows[0], rows[4]] if at_once > 2 else rows[:1]
    crossing = Crossing()
    with ExitStack() as held:
        for row in busy:
            held.enter_context(crossing.passing((row.renter, row.shard)))
        house.reunion(crossing=crossing).hold()
        assert [row.shard for row in house.rows()[0] if row.alone_ms] == [
            row.shard for row in busy
        ]
        assert house.met == [1, 2]
        assert not house.volumes[1].ground.index.has_tombstones
    house.reunion(crossing=crossing).hold()
    assert house.rows()[0] == rows
    assert house.met == [1, 2, 0, 1, 2]


def test_what_was_replaced_since_it_was_outlived_stays(house: House) -> None:
    house.put(0, ROW)
    volume = house.volumes[0]
    gone = replace(ROW, shard=ShardId(b"g" * 32))
    older = replace(ROW, sequence=9)
    volume.writer.submit(Outlived([older, gone], 1)).result(20)
    assert house.rows()[0] == [ROW]
    volume.writer.submit(Outlived([], 1)).result(20)
    volume.writer.submit(Outlived([ROW], 1)).result(20)
    assert house.rows()[0] == []


def test_the_writer_is_told_how_much_a_meeting_may_write() -> None:
    """As much as marks of so many shards take, and nothing where there are none."""
    stone = Tombstone(*KEY, 1, 5)
    assert Outlived([], 1).log_bytes == Met([ROW], []).log_bytes == 0
    assert Outlived([ROW] * 3, 1).log_bytes == Met([], [stone] * 3).log_bytes == marks_bytes(3)
    assert Outlived([ROW] * 3, 1).rows == Met([ROW] * 2, [stone]).rows == 3


def test_a_tombstone_that_was_set_anew_since_stays(house: House) -> None:
    house.bury(0, ROW, 5)
    volume = house.volumes[0]
    stone = volume.tombstone(*KEY)
    assert stone == Tombstone(*KEY, ROW.sequence, 5)
    house.bury(0, ROW, 6)
    volume.writer.submit(Met([], [stone])).result(20)
    assert volume.tombstone(*KEY) == replace(stone, observed_ms=6)
    volume.writer.submit(Met([], [replace(stone, observed_ms=6)])).result(20)
    assert volume.tombstone(*KEY) is None


@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.parametrize("is_alone", [False, True])
def test_a_delete_outlives_a_copy_that_was_written_anew_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch, *, erase: bool, is_alone: bool
) -> None:
    """Compaction does that between the look and the removal, which then leaves it."""
    older = replace(ROW, alone_ms=house.farm.clocks.observed_ms if is_alone else 0)
    house.put(0, replace(older, stored_at_ms=2000))
    house.put(1, older)
    remove = house.volumes[1].remove

    def late(rows: list[Row], *, hurried: bool = False) -> int:
        house.put(1, replace(older, sequence=9))
        return remove(rows, hurried=hurried)

    def state() -> ShardState | None:
        try:
            return house.engine.stat(*KEY).state
        except ShardNotFoundError:
            return None

    monkeypatch.setattr(house.volumes[1], "remove", late)
    outcome = house.engine.delete(*KEY, erase=erase).result(20).outcome
    told = DeletionOutcome.ERASED_AT_COMPACTION if erase else DeletionOutcome.TRASHED
    after = None if erase else ShardState.TRASH
    assert (outcome, state()) == (told, after)
    house.engine.look_after_disks()
    assert (house.rows()[1], state()) == ([], after)
