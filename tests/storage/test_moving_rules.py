"""Emptying volumes: what is done in which step, what it says of itself, and when it is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.ids import NodeId
from farmer.model.shard import ShardState, Usage, charge_bytes
from farmer.model.status import VolumeState, VolumeWork
from farmer.storage import emptying as emptying_module
from farmer.storage import ferry
from farmer.storage.arriving import LargeCopy, SmallCopy, SpoiledCopyError
from farmer.storage.crossing import Crossing
from farmer.storage.duty import Duty, Leaving, read_duty
from farmer.storage.emptying import Emptying
from farmer.storage.engine import Engine
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.journal import Crossers
from farmer.storage.marks import Action
from farmer.storage.moving import Mover, Room
from farmer.storage.operations import Upkeep, mark_of
from farmer.storage.places import Key, Row
from farmer.storage.quota import Reservation, overhead_bytes, room_bytes
from farmer.storage.spoilers import AGAIN_S, TIMES_MAX, Spoilers
from farmer.storage.transaction import Transaction
from farmer.storage.upload import Wanted
from farmer.storage.volume import Volume
from farmer.storage.watch import HUNG_S
from tests.storage.bench import ALICE, MIB, Farm, contract_of, finished, noise
from tests.storage.house import Clock
from tests.storage.rot import flip

DRAIN = Duty(verb=Leaving.DRAIN, since_ms=5, rate_bytes=7)
FORCED = Duty(verb=Leaving.RETIRE, since_ms=6, force=True)
LARGE = 2 * MIB


class Street:
    """Three volumes, of which the first holds all shards."""

    def __init__(self, root: Path) -> None:
        self.farm = Farm(root, volumes=3)

    @property
    def engine(self) -> Engine:
        return self.farm.engine

    @property
    def mover(self) -> Mover:
        return self.farm.engine.mover

    @property
    def volumes(self) -> list[Volume]:
        return self.engine.opened()

    @property
    def source(self) -> Volume:
        return self.volumes[0]

    def store(self, *sizes: int, on: int = 0) -> list[Row]:
        """Store shards of these sizes on one volume."""
        for number, volume in enumerate(self.volumes):
            volume.duty = None if number == on else DRAIN
        shards = [
            self.farm.store(noise(size, (on, number))).shard for number, size in enumerate(sizes)
        ]
        for volume in self.volumes:
            volume.duty = None
        rows = [self.volumes[on].find(ALICE, shard) for shard in shards]
        return [row for row in rows if row is not None]

    def half(self, data: bytes) -> None:
        """Leave an upload to the first volume unfinished."""
        for volume in self.volumes[1:]:
            volume.duty = DRAIN
        upload = self.farm.begin(data)
        upload.write(data[:MIB])
        upload.abandon()
        for volume in self.volumes[1:]:
            volume.duty = None

    def rot(self, row: Row) -> None:
        """Change a bit of a shard's bytes on the first volume."""
        flip(self.source.handles.path_of(row.place), row.place.offset + 260)

    def steps(self) -> list[tuple[int, Duty]]:
        steps = []
        while (step := self.mover.step()) is not None:
            steps.append(step[:2])
        return steps

    def shards(self) -> list[int]:
        return [status.shards for status in self.engine.volumes()]

    def emptying(self, others: list[Volume] | None = None) -> Emptying:
        targets = self.volumes[1:] if others is None else others
        return Emptying(self.source, lambda: targets, Crossing())

    def journal(self, *numbers: int, between: tuple[int, int], row: Row) -> None:
        """Have some volumes' journals name a shard as on its way between two."""
        uuids = [self.volumes[number].ground.volume for number in between]
        crossers = Crossers(uuids[0], uuids[1], frozenset({(row.renter, row.shard)}))
        for number in numbers:
            self.volumes[number].journal.write(crossers)


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    street = Street(tmp_path)
    with closing(street.engine):
        yield street


def free_bytes(volume: Volume) -> int:
    return volume.ground.account.free_bytes


# Room.


def test_what_just_fits_has_room_enough() -> None:
    assert Room(5, 5).is_enough
    assert Room(5, 6).is_enough
    assert not Room(6, 5).is_enough


def test_the_room_that_is_wanted_is_that_of_all_shards_with_their_overhead(
    street: Street,
) -> None:
    sizes = (10, 5000, LARGE, LARGE + 1)
    rows = street.store(*sizes)
    street.farm.delete(rows[0].shard)
    room = street.mover.room(street.source)
    assert room.wanted_bytes == sum(charge_bytes(size) + overhead_bytes(size) for size in sizes)
    assert room.available_bytes == sum(map(free_bytes, street.volumes[1:]))


def test_room_is_only_where_shards_may_go(street: Street) -> None:
    (row,) = street.store(10)
    source, second, third = street.volumes
    assert street.mover.targets(source) == [second, third]
    assert street.mover.targets(source, third.ground.volume.hex()) == [third]
    assert street.mover.room(source, third.ground.volume.hex()).available_bytes == free_bytes(
        third
    )
    second.duty = DRAIN
    assert street.mover.targets(source) == [third]
    assert street.mover.targets(source, second.ground.volume.hex()) == []
    second.duty = None
    street.journal(1, between=(1, 0), row=row)
    assert street.mover.targets(source) == [third]
    both_bytes = free_bytes(second) + free_bytes(third)
    assert street.mover.room(source).available_bytes == both_bytes, "what crosses soon has crossed"
    for volume in (second, third):
        volume.ground.health.fail("it is old")
    assert street.mover.targets(source) == []
    assert street.mover.room(source).available_bytes == 0


# Steps.


def test_each_step_says_what_was_copied_for_which_duty(street: Street) -> None:
    street.store(10, LARGE, 5000)
    street.mover.begin(street.source, DRAIN)
    steps = street.steps()
    assert sum(copied for copied, _ in steps) == 10 + LARGE + 5000
    assert {duty.verb for _, duty in steps} == {Leaving.DRAIN}
    assert street.shards()[0] == 0, "all in one go, also where a step only reads back"
    assert finished(street.mover) == [street.source]


def test_shards_go_only_to_the_volume_that_was_named(street: Street) -> None:
    street.store(10, LARGE)
    for number in (2, 1):
        third = street.volumes[number].ground.volume.hex()
        street.mover.begin(street.source, Duty(verb=Leaving.MOVE, since_ms=1, to=third))
        street.steps()
        # The pass that had emptied it is over only now.
        street.steps()
        assert street.shards()[0] == 0
        assert street.shards()[number] == 2
        street.store(20, LARGE + 1)


def test_an_empty_volume_keeps_no_other_from_being_emptied(street: Street) -> None:
    street.store(10, on=1)
    for volume in street.volumes[:2]:
        street.mover.begin(volume, DRAIN)
    assert street.steps() == [(10, DRAIN)]
    assert street.shards() == [0, 0, 1]
    assert finished(street.mover) == street.volumes[:2]


def test_one_that_cannot_go_on_keeps_no_other_from_being_emptied(street: Street) -> None:
    (row,) = street.store(10)
    street.rot(row)
    street.store(20, on=1)
    for volume in street.volumes[:2]:
        street.mover.begin(volume, DRAIN)
    assert street.steps() == [(20, DRAIN)]
    assert street.shards() == [1, 0, 1]


def test_what_is_not_to_be_emptied_is_left_alone(street: Street) -> None:
    street.store(10)
    assert street.mover.is_idle
    assert street.mover.step() is None
    assert street.mover.work(street.source) is None
    assert finished(street.mover) == []
    street.mover.begin(street.source, DRAIN)
    assert not street.mover.is_idle
    root = street.source.settings.path
    assert read_duty(street.farm.files, root) == DRAIN
    street.mover.cancel(street.source)
    assert read_duty(street.farm.files, root) is None
    assert street.mover.is_idle
    assert street.mover.step() is None
    assert street.shards() == [1, 0, 0]


def test_a_large_copy_is_broken_off_when_its_volume_stays(street: Street) -> None:
    street.store(3 * LARGE, on=0)
    for volume in street.volumes[1:]:
        volume.change_quota(volume.settings.quota_bytes, 0)
    street.mover.begin(street.source, DRAIN)
    assert street.mover.step() is not None
    staging = [volume.ground.paths.staging for volume in street.volumes[1:]]
    assert sum(len(list(path.iterdir())) for path in staging) == 1
    street.mover.cancel(street.source)
    assert not street.mover.is_idle, "who asks first would never throw the copy away"
    assert street.mover.step() is None
    assert street.mover.is_idle
    assert sum(len(list(path.iterdir())) for path in staging) == 0
    assert sum(volume.ground.account.reserved_bytes for volume in street.volumes) == 0


@pytest.mark.parametrize("is_called_off", [False, True])
def test_a_large_copy_is_broken_off_when_its_volume_is_to_move_elsewhere(
    street: Street, is_called_off: bool
) -> None:
    """Also where both was asked for between two steps: the first target may be full by now."""
    street.store(3 * LARGE)
    first, second = (
        Duty(verb=Leaving.MOVE, since_ms=1, to=volume.ground.volume.hex())
        for volume in street.volumes[1:]
    )
    street.mover.begin(street.source, first)
    assert street.mover.step() is not None
    if is_called_off:
        street.mover.cancel(street.source)
    street.mover.begin(street.source, second)
    street.steps()
    assert street.shards() == [0, 0, 1]
    assert street.volumes[1].ground.account.reserved_bytes == 0
    assert not list(street.volumes[1].ground.paths.staging.iterdir())


def test_a_stop_breaks_off_and_a_later_step_begins_again(street: Street) -> None:
    street.store(3 * LARGE)
    street.mover.begin(street.source, DRAIN)
    assert street.mover.step() is not None
    street.mover.stop()
    work = street.mover.work(street.source)
    assert work is not None
    assert (work.left_shards, work.moved_shards) == (1, 0)
    assert sum(volume.ground.account.reserved_bytes for volume in street.volumes) == 0
    street.steps()
    assert street.shards()[0] == 0


def test_a_volume_that_was_opened_anew_is_emptied_as_it_is_now(street: Street) -> None:
    street.store(10)
    street.mover.begin(street.source, DRAIN)
    street.steps()
    moved = street.mover.work(street.source)
    street.farm.engine._slots[0]._open_anew(street.source)
    assert street.source.draining
    street.store(20)
    street.source.duty = DRAIN
    assert street.steps() == [(20, DRAIN)]
    assert street.shards()[0] == 0
    again = street.mover.work(street.source)
    assert moved is not None
    assert again is not None
    assert (moved.moved_shards, again.moved_shards) == (1, 1)


# What is shown.


def test_work_says_what_has_gone_and_what_is_left(street: Street) -> None:
    bad, *_ = rows = street.store(10, 5000, LARGE)
    street.farm.delete(rows[1].shard)
    street.rot(bad)
    street.half(noise(LARGE, "half"))
    street.mover.begin(street.source, DRAIN)
    street.mover.bytes_per_s[street.source.ground.volume] = 9.5
    before = street.mover.work(street.source)
    assert before == VolumeWork(
        verb="drain",
        to_path="",
        since_ms=5,
        rate_bytes=7,
        left_shards=3,
        left_bytes=charge_bytes(10) + charge_bytes(5000) + charge_bytes(LARGE),
        unfinished_bytes=charge_bytes(LARGE),
        bytes_per_s=9.5,
    )
    street.steps()
    after = street.mover.work(street.source)
    assert after is not None
    assert (after.moved_shards, after.left_shards, after.damaged) == (2, 1, 1)
    assert after.moved_bytes == charge_bytes(5000) + charge_bytes(LARGE)
    assert after.left_bytes == charge_bytes(10)
    assert after.problem == ""


def test_without_a_target_it_says_so_until_there_is_one(street: Street) -> None:
    street.store(10)
    for volume in street.volumes[1:]:
        volume.duty = DRAIN
    street.source.duty = DRAIN
    assert street.mover.step() is None
    work = street.mover.work(street.source)
    assert work is not None
    assert work.problem == "no other volume can take shards now"
    street.volumes[2].duty = None
    assert street.steps() == [(10, DRAIN)]
    work = street.mover.work(street.source)
    assert work is not None
    assert work.problem == ""


def test_for_want_of_room_it_says_how_much_is_wanted_until_there_is_some(street: Street) -> None:
    """And promises no end meanwhile, however fast it was before."""
    street.store(LARGE)
    street.source.duty = DRAIN
    for volume in street.volumes[1:]:
        leave_free(volume, 5000)
    street.mover.bytes_per_s[street.source.ground.volume] = 1e6
    assert street.mover.step() is None
    work = street.mover.work(street.source)
    assert work is not None
    assert (work.wanted_bytes, work.available_bytes, work.eta_s) == (room_bytes(LARGE), 5000, None)
    leave_free(street.volumes[1], 2 * room_bytes(LARGE))
    street.steps()
    work = street.mover.work(street.source)
    assert work is not None
    assert (work.wanted_bytes, work.available_bytes, work.problem) == (0, 0, "")


# When it is over.


def test_a_volume_is_not_done_while_something_is_left_of_it(street: Street) -> None:
    (row,) = street.store(10)
    street.half(noise(LARGE, "half"))
    mover, source = street.mover, street.source
    mover.begin(source, DRAIN)
    assert finished(mover) == []
    street.steps()
    assert street.shards()[0] == 0
    assert finished(mover) == [], "an upload may be finished yet"
    assert mover.give_up_rest(source) == 0
    assert finished(mover) == [source]
    street.journal(0, between=(0, 1), row=row)
    assert finished(mover) == []
    assert not mover.is_idle
    source.journal.settle()
    stone = mark_of(row, Action.TOMBSTONE, 0, 1)
    source.writer.submit(Upkeep(lambda transaction: transaction.apply(stone))).result(20)
    assert finished(mover) == []


def test_damaged_shards_are_given_up_only_when_told_and_when_nothing_else_is_left(
    street: Street,
) -> None:
    bad, good = street.store(10, 5000)
    street.rot(bad)
    street.half(noise(LARGE, "half"))
    mover, source = street.mover, street.source
    mover.begin(source, FORCED)
    assert finished(mover) == []
    assert street.shards()[0] == 2, "nobody has looked yet"
    street.steps()
    assert source.find(good.renter, good.shard) is None
    assert finished(mover) == [source]
    assert (street.shards()[0], source.ground.account.reserved_bytes) == (0, 0)
    assert street.farm.engine.usage(ALICE).shards == 1


def test_nothing_is_given_up_while_a_sound_shard_could_still_go(street: Street) -> None:
    bad, _good = street.store(10, 5000)
    street.rot(bad)
    mover, source = street.mover, street.source
    mover.begin(source, FORCED)
    street.steps()
    street.store(20)
    source.duty = FORCED
    assert finished(mover) == []
    assert street.shards()[0] == 2


def test_nothing_is_given_up_after_a_pass_that_failed(street: Street) -> None:
    (bad,) = street.store(10)
    street.rot(bad)
    mover, source = street.mover, street.source
    mover.begin(source, FORCED)
    street.steps()
    street.store(20)
    source.duty = FORCED
    for volume in street.volumes[1:]:
        volume.duty = DRAIN
    assert mover.step() is None
    street.farm.delete(street.store(20)[0].shard, erase=True)
    source.duty = FORCED
    assert finished(mover) == []
    assert street.shards()[0] == 1
    street.steps()
    assert finished(mover) == [source]


def test_all_that_is_damaged_is_given_up_and_counted(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farmer.storage.moving.ROWS", 2)
    rows = street.store(*range(10, 15))
    for row in rows[1:]:
        street.source.quarantine(row)
    assert street.mover.give_up_rest(street.source) == 4
    assert street.shards()[0] == 1
    assert street.mover.give_up_rest(street.source) == 0


# Shards that may be on two volumes.


def test_what_a_crash_left_on_its_way_is_settled_when_both_are_there(street: Street) -> None:
    (row,) = street.store(10)
    street.journal(0, 1, between=(0, 1), row=row)
    with pytest.raises(VolumeUnavailableError):
        street.farm.delete(row.shard)
    street.mover.resolve()
    assert street.mover.is_idle
    street.farm.delete(row.shard)


def test_one_that_is_on_both_after_a_crash_stays_where_it_went(street: Street) -> None:
    (row,) = street.store(10)
    data = noise(10, (0, 0))
    upload = street.volumes[1].uploads.begin(Wanted(contract_of(ALICE), row.shard, 10))
    upload.write(data)
    upload.commit().result(20)
    # Only the target's own says it: the source's was settled already.
    street.journal(1, between=(0, 1), row=row)
    assert street.shards() == [1, 1, 0]
    street.mover.resolve()
    assert street.shards() == [0, 1, 0]
    assert street.mover.is_idle
    assert street.farm.read(row.shard) == data


def test_one_that_was_spoiled_on_its_way_stays_where_it_was_and_is_told(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds it after a crash tells as whoever copied it would have."""
    (row,) = street.store(10)
    target = street.volumes[1]
    upload = target.uploads.begin(Wanted(contract_of(ALICE), row.shard, 10))
    upload.write(noise(10, (0, 0)))
    upload.commit().result(20)
    street.journal(0, 1, between=(0, 1), row=row)

    def read_back(volume: Volume, rows: Sequence[Row]) -> list[Row]:
        for copy in rows:
            volume.quarantine(copy)
        return list(rows)

    monkeypatch.setattr(ferry, "_read_back", read_back)
    street.mover.resolve()
    assert alerts_of(target) == ["VolumeSpoilsCopies"]
    assert street.shards()[0] == 1


@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.parametrize("number", [0, 1])
def test_one_that_may_be_on_two_volumes_is_given_up_on_neither_though_one_alone_says_so(
    street: Street, number: int, *, erase: bool
) -> None:
    (row,) = street.store(10)
    upload = street.volumes[1].uploads.begin(Wanted(contract_of(ALICE), row.shard, 10))
    upload.write(noise(10, (0, 0)))
    upload.commit().result(20)
    street.journal(number, between=(0, 1), row=row)
    with pytest.raises(VolumeUnavailableError, match="was being moved"):
        street.farm.delete(row.shard, erase=erase)
    assert street.shards() == [1, 1, 0]
    street.mover.resolve()
    street.farm.delete(row.shard, erase=erase)
    assert street.shards() == [0, 0 if erase else 1, 0]


def test_a_volume_with_a_crossing_that_is_not_settled_begins_no_other(street: Street) -> None:
    (row,) = street.store(10)
    street.journal(0, between=(0, 2), row=row)
    street.source.duty = DRAIN
    mover = Mover(lambda: [*street.volumes[:2], None], Crossing())
    assert mover.step() is None
    assert street.shards() == [1, 0, 0]
    work = mover.work(street.source)
    assert work is not None
    assert "some of its shards may be on a volume too that is not there" in work.problem


def test_who_hangs_at_one_volume_keeps_no_other_from_being_emptied(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.store(10)
    street.store(20, on=1)
    clock = Clock()
    monkeypatch.setattr(street.mover, "_monotonic_s", clock)
    for volume in street.volumes[:2]:
        street.mover.begin(volume, DRAIN)
    step, seen = Emptying.step, list[object]()

    def hanging(emptying: Emptying) -> int:
        if emptying.source is street.source and not seen:
            # What another thread does while this one waits for its disk.
            clock.now_s += HUNG_S + 1
            seen.extend([(street.mover.step() or ())[:2], street.mover.is_held_up])
            street.mover.resolve()
            work = street.mover.work(street.source)
            assert work is not None
            seen.append(work.problem)
        return step(emptying)

    monkeypatch.setattr(Emptying, "step", hanging)
    done = street.mover.step()
    assert done is not None
    assert done[:2] == (10, DRAIN)
    assert seen == [(20, DRAIN), True, "what was begun waits for a disk that does not answer"]
    assert street.steps() == []
    assert street.shards() == [0, 0, 2]
    work = street.mover.work(street.source)
    assert work is not None
    assert (work.problem, street.mover.is_held_up) == ("", False)
    for volume in street.volumes[:2]:
        street.mover.cancel(volume)
    assert street.mover.step() is None


def test_who_only_looks_at_a_volume_for_a_moment_is_no_disk_that_does_not_answer(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is passed over by one step, and nothing is put off for that."""
    street.store(10)
    clock = Clock()
    monkeypatch.setattr(street.mover, "_monotonic_s", clock)
    street.mover.begin(street.source, DRAIN)
    with street.mover._alone_at(street.source.ground.volume) as is_alone:
        assert is_alone
        clock.now_s += HUNG_S
        assert street.mover.step() is None
        work = street.mover.work(street.source)
        assert work is not None
        assert (work.problem, street.mover.is_held_up) == ("", False)
        clock.now_s += 1
        assert street.mover.step() is None
        assert street.mover.is_held_up
    with street.mover._alone_at(street.source.ground.volume):
        assert street.mover.step() is None, "that is another one, who has just begun"
    done = street.mover.step()
    assert done is not None
    assert done[:2] == (10, DRAIN)
    assert not street.mover.is_held_up


def test_an_empty_volume_says_what_it_is_still_needed_for(street: Street) -> None:
    (row,) = street.store(10)
    street.mover.begin(street.source, FORCED)
    handles = street.source.handles
    pin = handles.pin(row.place)
    street.steps()
    work = street.mover.work(street.source)
    assert work is not None
    assert (street.shards()[0], finished(street.mover)) == (0, [])
    assert work.problem == "something there is still being read"
    handles.unpin(pin)
    work = street.mover.work(street.source)
    assert work is not None
    assert (work.problem, finished(street.mover)) == ("", [street.source])
    street.source.ground.index.has_tombstones = True
    work = street.mover.work(street.source)
    assert work is not None
    assert "erased while another volume was away" in work.problem
    assert finished(street.mover) == []
    street.mover.begin(street.source, DRAIN)
    work = street.mover.work(street.source)
    assert work is not None
    assert work.problem == "", "one that stays waits for nothing"


@pytest.mark.parametrize("between", [(0, 2), (2, 0)])
def test_one_whose_partner_is_missing_waits_for_it(
    street: Street, between: tuple[int, int]
) -> None:
    (row,) = street.store(10)
    street.journal(0, between=between, row=row)
    every: list[Volume | None] = [*street.volumes[:2], None]
    mover = Mover(lambda: every, Crossing())
    mover.resolve()
    assert street.source.journal.open.keys
    every.pop()
    mover.resolve()
    assert not street.source.journal.open.keys


def test_one_whose_partner_opens_at_this_moment_waits_for_the_next_look(street: Street) -> None:
    """What was not seen yet is not taken for what is no volume of this farmer's."""
    (row,) = street.store(10)
    street.journal(0, 1, between=(0, 1), row=row)
    source, target, third = street.volumes
    looks = iter([[source, None, third]])
    mover = Mover(lambda: next(looks, [source, target, third]), Crossing())
    mover.resolve()
    assert source.journal.open.keys == target.journal.open.keys == {(ALICE, row.shard)}
    mover.resolve()
    assert not source.journal.open.keys | target.journal.open.keys


# One volume that is being emptied.


def test_a_pass_says_when_it_is_over_and_then_begins_again(street: Street) -> None:
    bad, _ = street.store(10, 5000)
    street.rot(bad)
    emptying = street.emptying()
    assert not emptying.has_passed
    assert (emptying.moved_shards, emptying.moved_bytes, emptying.problem) == (0, 0, "")
    assert emptying.step() == 5000
    assert not emptying.has_passed
    assert emptying.step() == -1
    assert emptying.has_passed
    assert (emptying.moved_shards, emptying.moved_bytes) == (1, charge_bytes(5000))
    assert emptying.step() == -1, "only what is damaged is left"
    street.store(70)
    assert emptying.step() == 70
    assert (emptying.moved_shards, emptying.moved_bytes) == (
        *(2, charge_bytes(5000) + charge_bytes(70)),
    )


def test_a_pass_that_fails_is_not_one_and_says_why(street: Street) -> None:
    street.store(10)
    emptying = street.emptying([])
    assert emptying.step() == -1
    assert not emptying.has_passed
    assert emptying.problem == "no other volume can take shards now"
    assert street.source.ground.health.state is VolumeState.HEALTHY


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (sqlite3.DatabaseError("malformed"), VolumeState.FAILING),
        (sqlite3.OperationalError("locked"), VolumeState.HEALTHY),
        (VolumeUnavailableError(), VolumeState.HEALTHY),
    ],
)
def test_only_an_index_that_makes_no_sense_fails_the_volume(
    street: Street, monkeypatch: pytest.MonkeyPatch, error: Exception, state: VolumeState
) -> None:
    def some(_after: object, _limit: int) -> list[Row]:
        raise error

    monkeypatch.setattr(street.source.ground.index, "some", some)
    emptying = street.emptying()
    assert emptying.step() == -1
    assert emptying.problem == (str(error) or "VolumeUnavailableError")
    assert street.source.ground.health.state is state


def test_it_is_empty_when_nothing_is_stored_or_promised(street: Street) -> None:
    emptying = street.emptying()
    assert emptying.is_empty
    (row,) = street.store(10)
    assert not emptying.is_empty
    street.farm.delete(row.shard, erase=True)
    assert emptying.is_empty
    street.half(noise(LARGE, "half"))
    assert not emptying.is_empty


def test_four_mib_of_small_shards_cross_together(street: Street) -> None:
    street.store(*[MIB] * 6)
    emptying = street.emptying()
    assert [emptying.step() for _ in range(3)] == [4 * MIB, 2 * MIB, -1]


def test_so_many_small_shards_cross_together_and_no_more(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emptying_module, "CROSSING_MAX", 3)
    street.store(*[100] * 7)
    emptying = street.emptying()
    assert [emptying.step() for _ in range(4)] == [300, 300, 100, -1]


def test_a_pass_goes_over_any_number_of_shards_of_several_renters(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emptying_module, "ROWS", 2)
    street.store(*[100] * 3)
    for volume in street.volumes[1:]:
        volume.duty = DRAIN
    for number in range(3):
        street.farm.store(noise(100, number), NodeId(bytes([number + 1]) * 32))
    for volume in street.volumes[1:]:
        volume.duty = None
    emptying = street.emptying()
    assert [emptying.step() for _ in range(4)] == [200, 200, 200, -1]
    assert street.shards()[0] == 0


def test_shards_go_in_the_order_in_which_they_lie_on_the_disk(street: Street) -> None:
    rows = street.store(*[100] * 12)
    target = street.volumes[1]
    emptying = street.emptying([target])
    while emptying.step() >= 0:
        pass
    there = sorted(
        target.page(ALICE, type(rows[0].shard)(bytes(32)), 99), key=lambda row: row.place.offset
    )
    assert [row.shard for row in there] == [row.shard for row in rows]
    assert rows != sorted(rows, key=lambda row: row.shard.raw)


def test_space_is_given_back_at_the_end_of_a_pass_or_when_much_has_gone(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = street.source.ground.index
    for few, is_given_back in ((4 * charge_bytes(100) + 1, False), (3 * charge_bytes(100), True)):
        monkeypatch.setattr(emptying_module, "RECLAIM_BYTES", few)
        monkeypatch.setattr(emptying_module, "CROSSING_MAX", 3)
        street.store(*[100] * 4)
        emptying = street.emptying([street.volumes[1]])
        assert emptying.step() == 300
        assert bool(index.doomed()) is not is_given_back
        assert emptying.step() == 100
        assert index.doomed()
        assert emptying.step() == -1
        assert index.doomed() == []
        for row in street.volumes[1].ground.index.some(None, 99):
            street.farm.delete(row.shard, erase=True)


def test_a_little_that_has_gone_is_not_given_back_at_once(street: Street) -> None:
    street.store(100)
    emptying = street.emptying()
    assert emptying.step() == 100
    assert street.source.ground.index.doomed()


def test_shards_go_to_the_roomiest_that_is_not_slow(street: Street) -> None:
    _, second, third = street.volumes
    second.ground.account.keep_free_bytes = 0
    third.change_quota(100 * MIB, 0)
    street.store(100, LARGE)
    emptying = street.emptying()
    while emptying.step() >= 0:
        pass
    assert street.shards() == [0, 0, 2]
    third.ground.health.slowed("tired")
    street.store(200, LARGE + 1)
    while emptying.step() >= 0:
        pass
    assert street.shards() == [0, 2, 2]


def test_without_room_anywhere_the_most_there_is_is_told(street: Street) -> None:
    street.store(LARGE)
    for kept, volume in enumerate(street.volumes[1:]):
        free = volume.ground.account.filesystem_free_bytes
        volume.change_quota(volume.settings.quota_bytes, free - 5000 - kept * 1000)
    emptying = street.emptying()
    assert emptying.step() == -1
    assert emptying.problem == f"{room_bytes(LARGE)} bytes wanted, 6000 available"
    assert emptying.lack is not None
    assert (emptying.lack.wanted_bytes, emptying.lack.available_bytes) == (room_bytes(LARGE), 6000)
    assert street.shards()[0] == 1


def leave_free(volume: Volume, left_bytes: int) -> None:
    """Let a volume have room for so many bytes, and no more."""
    account = volume.ground.account
    kept_bytes = account.filesystem_free_bytes - account.unallocated_bytes - left_bytes
    volume.change_quota(account.quota_bytes, kept_bytes)
    assert account.free_bytes == left_bytes


def passed(emptying: Emptying) -> None:
    while emptying.step() >= 0:
        pass


def test_a_shard_that_has_no_room_holds_up_no_other(street: Street) -> None:
    street.store(*[100] * 5, LARGE, LARGE, *[100] * 5)
    target = street.volumes[1]
    leave_free(target, 10 * room_bytes(100) + 100_000)
    emptying = street.emptying([target])
    passed(emptying)
    assert street.shards() == [2, 10, 0]
    assert emptying.problem.startswith(f"{room_bytes(LARGE)} bytes wanted")
    assert not emptying.has_passed
    leave_free(target, 2 * room_bytes(LARGE))
    passed(emptying)
    assert street.shards() == [0, 12, 0]
    assert (emptying.problem, emptying.lack, emptying.has_passed) == ("", None, True)


def test_a_page_of_shards_that_have_no_room_is_a_piece_of_work(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emptying_module, "ROWS", 1)
    street.store(*[LARGE] * 3)
    leave_free(street.volumes[1], 100_000)
    emptying = street.emptying([street.volumes[1]])
    assert [emptying.step() for _ in range(3)] == [0, 0, -1]


def test_no_more_cross_together_than_have_room(street: Street) -> None:
    street.store(*[100] * 6)
    leave_free(street.volumes[1], 3 * room_bytes(100) + 10)
    emptying = street.emptying([street.volumes[1]])
    # What has crossed takes no room that is noticed before the next look at the disk.
    assert [emptying.step() for _ in range(3)] == [300, 300, -1]


@pytest.mark.parametrize("size", [100, LARGE])
def test_where_the_overhead_has_no_room_nothing_is_copied_and_that_is_told(
    street: Street, size: int
) -> None:
    street.store(size)
    leave_free(street.volumes[1], room_bytes(size) - 1)
    emptying = street.emptying([street.volumes[1]])
    assert emptying.step() == -1
    assert emptying.problem == f"{room_bytes(size)} bytes wanted, {room_bytes(size) - 1} available"
    assert not street.source.ground.paths.journal.exists()


def test_what_the_target_does_not_take_is_told(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(_self: SmallCopy, _target: Volume) -> Reservation:
        raise VolumeUnavailableError("it is tired")

    street.store(100)
    monkeypatch.setattr(SmallCopy, "reserve", unable)
    emptying = street.emptying()
    assert [emptying.step(), emptying.step()] == [100, -1]
    assert (emptying.problem, emptying.has_passed) == ("it is tired", False)
    assert street.shards() == [1, 0, 0]


@contextmanager
def spoiling(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Volume]]:
    """Let one volume keep no copy of a large shard; returns where such copies were begun."""
    begun = []

    def read_back(copy: LargeCopy, _told: Callable[[int], object]) -> Iterator[int]:
        begun.append(copy._target)
        yield 0
        if copy._target is volume:
            raise SpoiledCopyError(volume.settings.label)

    with monkeypatch.context() as patched:
        patched.setattr(LargeCopy, "_read_back", read_back)
        yield begun


def test_a_large_shard_is_not_copied_again_where_its_copy_was_spoiled(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.store(LARGE, 100)
    bad, good = street.volumes[1:]
    with spoiling(bad, monkeypatch) as begun:
        emptying = street.emptying([bad])
        for _ in range(3):
            passed(emptying)
        assert begun == [bad]
        assert "volume1 and not read back" in emptying.problem
        assert not emptying.has_passed
        assert street.shards() == [1, 1, 0], "the small one has gone"
        emptying._others = lambda: [bad, good]
        passed(emptying)
        assert begun == [bad, good]
    assert street.shards() == [0, 1, 1]
    assert alerts_of(bad) == ["VolumeSpoilsCopies"]
    assert not alerts_of(good)


def test_a_spoiled_copy_is_tried_again_when_its_time_has_come(street: Street) -> None:
    (row, other), clock = street.store(LARGE, LARGE + 1), Clock()
    first, second = street.volumes[1:]
    spoilers = Spoilers(clock)
    assert spoilers.without([first, second], row) == [first, second]
    spoilers.note(first, [row])
    assert spoilers.without([first, second], row) == [second]
    assert spoilers.without([first, second], other) == [first, second]
    assert (spoilers.has_spoiled(first), spoilers.has_spoiled(second)) == (True, False)
    assert spoilers.without([], row) == [], "another problem than a bad disk"
    spoilers.note(second, [row])
    with pytest.raises(SpoiledCopyError, match="volume1"):
        spoilers.without([first, second], row)
    clock.now_s += AGAIN_S
    assert spoilers.without([first, second], row) == [first, second]
    assert not spoilers.has_spoiled(first)


def alerts_of(volume: Volume) -> list[str]:
    return [alert.name for alert in volume.ground.health.alerts()]


@contextmanager
def spoiling_small(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Volume]]:
    """Let one volume's disk change each small shard that arrives; returns where some did."""
    begun = []
    real = ferry._read_back

    def read_back(target: Volume, rows: Iterable[Row]) -> list[Row]:
        arrived = list(rows)
        begun.append(target)
        for row in arrived if target is volume else ():
            flip(target.handles.path_of(row.place), row.place.offset + 260)
        return real(target, arrived)

    with monkeypatch.context() as patched:
        patched.setattr(ferry, "_read_back", read_back)
        yield begun


def test_small_shards_are_not_copied_for_ever_to_a_disk_that_spoils_them(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.store(*[100] * 5)
    bad = street.volumes[1]
    with spoiling_small(bad, monkeypatch) as begun:
        emptying = street.emptying([bad])
        passed(emptying)
        assert "volume1 and not read back" in emptying.problem
        assert not emptying.has_passed
        assert alerts_of(bad) == ["VolumeSpoilsCopies"]
        for _ in range(3 * TIMES_MAX):
            passed(emptying)
        assert begun == [bad] * TIMES_MAX
        assert "volume1 and not read back" in emptying.problem
    assert street.shards() == [5, 0, 0]
    assert street.source.ground.account.total.quarantined == 0


def test_a_large_shard_is_not_copied_again_where_its_last_header_was_spoiled(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.store(LARGE)
    bad, good = street.volumes[1:]
    begun = []

    def read_back(target: Volume, rows: Iterable[Row]) -> list[Row]:
        begun.append(target)
        damaged = list(rows) if target is bad else []
        for row in damaged:
            target.quarantine(row)
        return damaged

    monkeypatch.setattr(ferry, "_read_back", read_back)
    emptying = street.emptying([bad])
    for _ in range(3):
        passed(emptying)
        assert "volume1 and not read back" in emptying.problem
    emptying._others = lambda: [bad, good]
    passed(emptying)
    assert begun == [bad, good]
    assert street.shards() == [0, 0, 1]


def test_what_a_crossing_spoiled_is_told_once_however_often_it_is_settled(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {(row.renter, row.shard): row for row in street.store(100, 200)}

    def settle_one(
        _source: Volume, _target: Volume, keys: frozenset[Key], _crossing: Crossing, to: list[Row]
    ) -> tuple[list[Row], frozenset[Key]]:
        to.append(rows[min(keys)])
        return [], keys - {min(keys)}

    told: list[Sequence[Row]] = []
    monkeypatch.setattr(ferry, "_settle", settle_one)
    ferry.settle(street.source, street.volumes[1], frozenset(rows), Crossing(), told.append)
    assert told == [[rows[key] for key in sorted(rows)]]


def test_a_volume_that_spoils_is_known_when_it_was_opened_anew(street: Street) -> None:
    [row] = street.store(LARGE)
    bad = street.volumes[1]
    spoilers = Spoilers(Clock())
    spoilers.note(bad, [row])
    street.engine.remove_volume(bad.settings.path)
    street.engine.add_volume(bad.settings)
    [anew] = [one for one in street.volumes if one.ground.volume == bad.ground.volume]
    assert anew is not bad
    assert spoilers.has_spoiled(anew)
    with pytest.raises(SpoiledCopyError):
        spoilers.without([anew], row)


def test_small_shards_that_were_spoiled_go_to_another_disk(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.store(*[100] * 5)
    bad, good = street.volumes[1:]
    leave_free(good, free_bytes(bad) // 2)
    with spoiling_small(bad, monkeypatch) as begun:
        emptying = street.emptying()
        passed(emptying)
        passed(emptying)
    assert begun == [bad, good]
    assert street.shards() == [0, 0, 5]


def test_a_disk_that_spoils_again_and_again_gets_nothing_until_its_time_has_come(
    street: Street,
) -> None:
    (row, small), clock = street.store(LARGE, 100), Clock()
    bad, good = street.volumes[1:]
    spoilers = Spoilers(clock)
    for _ in range(TIMES_MAX):
        assert spoilers.without([bad, good]) == [bad, good]
        clock.now_s += 1
        spoilers.note(bad, [small])
    assert spoilers.without([bad, good]) == [good]
    assert spoilers.without([bad, good], row) == [good]
    with pytest.raises(SpoiledCopyError, match="volume1"):
        spoilers.without([bad])
    clock.now_s += AGAIN_S - TIMES_MAX + 1
    assert spoilers.without([bad, good]) == [bad, good]
    spoilers.note(bad, [small])
    assert spoilers.without([bad, good]) == [good], "one more try, not eight"


@pytest.mark.parametrize("knows", ["tombstone", "newer"])
@pytest.mark.parametrize("size", [100, LARGE])
def test_what_only_all_volumes_together_can_tell_is_not_copied_and_that_is_told(
    street: Street, monkeypatch: pytest.MonkeyPatch, size: int, knows: str
) -> None:
    (row,) = street.store(size)
    target = street.volumes[1]

    def enter(transaction: Transaction) -> None:
        if knows == "tombstone":
            transaction.apply(mark_of(row, Action.TOMBSTONE, 0, 1))
        else:
            damaged = replace(row, state=ShardState.QUARANTINED, is_damaged=True, alone_ms=5)
            transaction.put(damaged)

    target.writer.submit(Upkeep(enter)).result(20)
    monkeypatch.setattr(LargeCopy, "copy", lambda _copy: pytest.fail("it is copied"))
    emptying = street.emptying([target])
    for _ in range(2):
        passed(emptying)
    assert "when all volumes are there" in emptying.problem
    assert not emptying.has_passed
    assert street.source.find(ALICE, row.shard) == row
    assert not street.source.journal.open.keys


def test_usage_is_the_same_after_all_of_it(street: Street) -> None:
    street.store(100, LARGE)
    street.mover.begin(street.source, DRAIN)
    street.steps()
    live = charge_bytes(100) + charge_bytes(LARGE)
    assert street.engine.usage(ALICE) == Usage(live_bytes=live, shards=2)
