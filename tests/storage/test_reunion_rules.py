"""What is known of one shard by several volumes, and how they come to agree on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from farmer.model.ids import ContractId, ShardId
from farmer.model.shard import ShardState
from farmer.model.status import VolumeState
from farmer.storage import reunion as reunion_module
from farmer.storage import slots as slots_module
from farmer.storage.crossing import Crossing
from farmer.storage.directory import MARKER_NAME, VolumeSettings, create_volume
from farmer.storage.doubts import InDoubtError
from farmer.storage.engine import Engine
from farmer.storage.errors import FormatTooNewError, ShardNotFoundError, VolumeUnavailableError
from farmer.storage.files import OsFiles
from farmer.storage.log import marks_bytes
from farmer.storage.marks import Action
from farmer.storage.opening import Spawn, at_once, in_a_thread
from farmer.storage.operations import Upkeep, mark_of
from farmer.storage.places import Key, Place, Row
from farmer.storage.reunion import Met, Outlived, Reunion
from farmer.storage.slots import Slots
from farmer.storage.tombstones import Tombstone
from farmer.storage.transaction import Transaction
from farmer.storage.volume import Volume
from farmer.storage.whereabouts import Copies, Copy, Whereabouts
from tests.storage.bench import ALICE, BOB, LIMITS, MIB, NODE, Farm

FIRST = ShardId(bytes(32))
ROW = Row(
    renter=ALICE,
    shard=ShardId(b"s" * 32),
    place=Place(1, 4096),
    size_bytes=100,
    contract=ContractId(bytes(16)),
    stored_at_ms=1000,
    sequence=1,
)
KEY = (ROW.renter, ROW.shard)


@dataclass
class Clock:
    """Monotonic time, moved by hand."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class House:
    """An engine of several volumes, whose rows are made by hand."""

    farm: Farm
    clock: Clock = field(default_factory=Clock)
    spawn: Spawn = at_once
    met: list[int] = field(default_factory=list)
    """The volumes of which it was noted that they have met all others."""

    def __post_init__(self) -> None:
        self.farm.engine.close()
        self.farm.engine = Engine(
            self.farm.settings,
            NODE,
            self.farm.files,
            clock_ms=lambda: self.farm.clocks.now_ms,
            observed_ms=lambda: self.farm.clocks.observed_ms,
            limits=LIMITS,
            monotonic_s=self.clock,
            spawn=self._spawn,
            annexes=self.farm.annexes,
        )

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        self.spawn(name, work)

    @property
    def engine(self) -> Engine:
        return self.farm.engine

    @property
    def volumes(self) -> list[Volume]:
        return self.engine.opened()

    @property
    def slots(self) -> Slots:
        return self.engine._slots

    @property
    def where(self) -> Whereabouts:
        return self.engine._where

    def put(self, number: int, *rows: Row) -> None:
        """Enter rows as one volume's."""

        def enter(transaction: Transaction) -> None:
            for row in rows:
                transaction.correct(row)

        self.volumes[number].writer.submit(Upkeep(enter)).result(20)

    def bury(self, number: int, row: Row, observed_ms: int) -> None:
        """Let one volume have a tombstone."""
        stone = mark_of(row, Action.TOMBSTONE, 0, observed_ms)
        work = Upkeep(lambda transaction: transaction.apply(stone))
        self.volumes[number].writer.submit(work).result(20)

    def rows(self, renter: Key = KEY) -> list[list[Row]]:
        return [volume.ground.index.page(renter[0], FIRST, 99) for volume in self.volumes]

    def go(self, number: int) -> Path:
        """Let one volume's disk be unmounted."""
        marker = self.farm.settings[number].path / MARKER_NAME
        marker.rename(marker.with_name("aside"))
        self.slots.look_after()
        return marker

    def reunion(
        self,
        *,
        volumes: Callable[[], Sequence[Volume]] | None = None,
        is_certain: Callable[[], bool] = lambda: True,
        crossing: Crossing | None = None,
    ) -> Reunion:
        return Reunion(volumes or self.engine.opened, is_certain, crossing or Crossing())


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    house = House(Farm(tmp_path, volumes=3))
    with closing(house.engine):
        for number, volume in enumerate(house.volumes):

            def note(_sequence: int, number: int = number) -> None:
                house.met.append(number)

            monkeypatch.setattr(volume, "note_met", note)
        yield house


# Meeting.


def test_the_sound_copy_stays_where_a_damaged_one_was_stored_alone(house: House) -> None:
    damaged = replace(ROW, alone_ms=5, is_damaged=True, state=ShardState.QUARANTINED)
    house.put(0, ROW)
    house.put(1, replace(damaged, stored_at_ms=2000))
    house.reunion().hold()
    assert house.rows() == [[ROW], [], []]


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


def test_nobody_meets_without_a_volume_that_is_not_sure(house: House) -> None:
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
        def crossing(self, keys: Iterable[Key]) -> Iterator[None]:
            sizes.append(len(set(keys)))
            with super().crossing(keys):
                yield

    monkeypatch.setattr(reunion_module, "AT_ONCE", 3)
    sizes: list[int] = []
    rows = [replace(ROW, shard=ShardId(bytes([n]) * 32), sequence=n) for n in range(1, 9)]
    house.put(0, *(replace(row, alone_ms=7) for row in rows[:2]))
    for row in rows[2:]:
        house.bury(0, row, 5)
    house.reunion(crossing=Counting()).hold()
    assert sum(sizes) == len(rows)
    assert max(sizes) == 3
    assert house.rows()[0] == rows[:2]
    assert not house.volumes[0].ground.index.has_tombstones


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


# Finding.


def known(*, is_certain: bool = True, buried_ms: int = 0, rest: Sequence[int] = ()) -> Copies:
    """Return what is known of a shard with copies that were stored alone at these times."""
    copies = tuple(Copy(None, replace(ROW, alone_ms=one)) for one in rest)  # type: ignore[arg-type]  # nobody asks where
    return Copies(copies, copies, buried_ms, is_certain)


def test_a_store_is_alone_where_something_may_outlive_it() -> None:
    assert known().alone_ms(50) == 0
    assert known(rest=[9]).alone_ms(50) == 0
    assert known(is_certain=False).alone_ms(50) == 50
    assert known(is_certain=False).alone_ms(0) == 1
    assert known(buried_ms=7).alone_ms(5) == 8
    assert known(buried_ms=7).alone_ms(50) == 50
    assert known(is_certain=False, rest=[60, 70]).alone_ms(50) == 71
    outlived = known(rest=[3])
    assert replace(outlived, counting=()).alone_ms(2) == 4


def test_the_best_is_the_first_that_counts() -> None:
    assert known().best is None
    one = known(rest=[3, 4])
    assert one.best == one.counting[0]


def test_a_copy_is_the_same_whenever_it_was_looked_up(house: House) -> None:
    volume, other = house.volumes[:2]
    assert Copy(volume, ROW, 1) == Copy(volume, ROW, 2) != Copy(other, ROW, 1)


def test_a_shard_is_found_if_need_be_only_of_one_size(house: House) -> None:
    house.put(1, ROW)
    assert house.where.find(*KEY).row == ROW
    assert house.where.find(*KEY).volume is house.volumes[1]
    assert house.where.find(*KEY, 100).row == ROW
    for asked in ((*KEY, 99), (BOB, ROW.shard), (ALICE, FIRST)):
        with pytest.raises(ShardNotFoundError):
            house.where.find(*asked)


def test_what_is_not_found_may_be_where_nobody_can_look(house: House) -> None:
    house.put(1, ROW)
    house.go(0)
    assert house.where.find(*KEY).row == ROW
    for asked in ((*KEY, 99), (ALICE, FIRST)):
        with pytest.raises(VolumeUnavailableError, match="a volume is missing"):
            house.where.find(*asked)


def test_of_a_shard_in_doubt_nothing_is_said_unless_another_volume_has_it(house: House) -> None:
    house.volumes[0].ground.doubts.log_not_cut([KEY])
    with pytest.raises(InDoubtError):
        house.where.find(*KEY)
    copies = house.where.copies(KEY)
    assert (copies.is_certain, copies.in_doubt, copies.best) == (False, True, None)
    with pytest.raises(ShardNotFoundError):
        house.where.find(BOB, ROW.shard)
    house.put(1, ROW)
    assert house.where.find(*KEY).row == ROW


def test_a_volume_that_fails_is_no_volume_that_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_key: object) -> Row:
        raise VolumeUnavailableError("the index cannot be read")

    first = house.volumes[0]
    monkeypatch.setattr(first, "find", find)
    with pytest.raises(VolumeUnavailableError, match="the index"):
        house.where.copies(KEY)

    def find_and_go(*_key: object) -> Row:
        first.ground.health.go("unmounted")
        raise VolumeUnavailableError("the index cannot be read")

    monkeypatch.setattr(first, "find", find_and_go)
    copies = house.where.copies(KEY)
    assert (copies.is_certain, copies.in_doubt) == (False, False)


def test_all_that_is_known_of_a_shard_is_told_with_its_latest_tombstone(house: House) -> None:
    assert house.where.copies(KEY) == Copies((), (), 0, True)
    house.bury(1, replace(ROW, shard=ShardId(b"o" * 32)), 9)
    assert house.where.copies(KEY) == Copies((), (), 0, True), "that is another's"
    house.bury(1, ROW, 5)
    assert house.where.copies(KEY).buried_ms == 5
    house.bury(2, ROW, 8)
    assert house.where.copies(KEY).buried_ms == 8
    house.put(0, replace(ROW, alone_ms=7))
    copies = house.where.copies(KEY)
    assert [copy.row.alone_ms for copy in copies.every] == [7]
    assert copies.counting == ()
    house.put(2, replace(ROW, alone_ms=6))
    copies = house.where.copies(KEY)
    assert copies.buried_ms == 5, "a volume's own tombstone does not speak against its shard"
    assert [copy.row.alone_ms for copy in copies.counting] == [7]


def test_what_is_not_there_while_a_volume_is_opened_anew_is_looked_for_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, answers = house.slots[0], iter([None, ROW])

    def find(*_key: object) -> Row | None:
        slot.reopenings += 2
        return next(answers)

    monkeypatch.setattr(house.volumes[0], "find", find)
    assert house.where.find(*KEY).row == ROW


def stalled(house: House, *numbers: int) -> list[AbstractContextManager[object]]:
    """Return calls into volumes, which stall by them."""
    calls = [house.volumes[number].ground.watch.call("read", holds_up=True) for number in numbers]
    return list(calls)


def test_a_volume_that_stalls_is_left_out_unless_it_is_needed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put(0, ROW)
    asked: list[int] = []
    for number, volume in enumerate(house.volumes):

        def find(
            *key: object, number: int = number, real: Callable[..., Row | None] = volume.find
        ) -> Row | None:
            asked.append(number)
            return real(*key) if number else ROW

        monkeypatch.setattr(volume, "find", find)
    (call,) = stalled(house, 0)
    with call:
        house.clock.now_s += 2
        assert not house.where.copies(KEY, stalled=False).is_certain
        assert asked == [1, 2]
        assert house.where.copies(KEY).is_certain
        assert asked == [1, 2, 0, 1, 2]
        asked.clear()
        assert house.where.look_up(KEY, for_store=True).best is None
        assert 0 not in asked
        assert house.where.look_up(KEY).best is not None
        assert 0 in asked
        asked.clear()
        house.put(1, ROW)
        best = house.where.look_up(KEY).best
        assert best is not None
        assert best.volume is house.volumes[1]
        assert 0 not in asked, "its bytes are the same"
        house.put(1, replace(ROW, is_damaged=True))
        best = house.where.look_up(KEY).best
        assert best is not None
        assert best.volume is house.volumes[0]


def test_where_all_stall_all_are_asked(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for volume in house.volumes:
        monkeypatch.setattr(volume, "find", lambda *_key: None)
    first, second, third = stalled(house, 0, 1, 2)
    with first, second, third:
        house.clock.now_s += 2
        assert house.where.copies(KEY, stalled=False).is_certain
        assert house.slots.readable() == house.volumes


# Pages.


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 50])
def test_a_page_has_each_shard_that_counts_once_in_order(house: House, limit: int) -> None:
    rows = [
        replace(ROW, shard=ShardId(bytes([number]) * 32), sequence=number)
        for number in range(1, 13)
    ]
    house.put(0, *rows[:4], *rows[9:])
    house.put(1, *rows[3:8], replace(rows[0], renter=BOB))
    house.put(2, *rows[7:10], rows[1])
    for buried in (rows[2], rows[5]):
        house.bury(2, buried, 5)
    counting = [row for row in rows if row not in {rows[2], rows[5]}]
    seen, after = list[Row](), FIRST
    while page := house.where.page(ALICE, after, limit):
        assert len(page) <= limit
        seen += page
        after = page[-1].shard
    assert seen == counting
    assert [row.renter for row in house.where.page(BOB, FIRST, limit)] == [BOB]


def test_of_a_shard_on_two_volumes_the_better_copy_is_listed(house: House) -> None:
    house.put(0, replace(ROW, state=ShardState.TRASH))
    house.put(1, replace(ROW, stored_at_ms=500))
    assert house.where.page(ALICE, FIRST, 9) == [replace(ROW, stored_at_ms=500)]


def test_a_tombstone_of_its_own_volume_does_not_hide_a_listed_shard(house: House) -> None:
    house.bury(0, ROW, 5)
    house.put(0, replace(ROW, sequence=2))
    assert house.where.page(ALICE, FIRST, 9) == [replace(ROW, sequence=2)]
    house.bury(1, ROW, 6)
    assert house.where.page(ALICE, FIRST, 9) == []
    house.put(2, replace(ROW, alone_ms=6))
    assert house.where.page(ALICE, FIRST, 9) == [replace(ROW, alone_ms=6)]


def test_nothing_is_listed_while_a_volume_is_missing(house: House) -> None:
    house.put(1, ROW)
    house.go(0)
    with pytest.raises(VolumeUnavailableError, match="a volume is missing"):
        house.where.page(ALICE, FIRST, 9)


# The volumes of the settings.


def test_volumes_stand_in_the_order_of_the_settings(house: House) -> None:
    paths = [settings.path for settings in house.farm.settings]
    assert [slot.settings.path for slot in house.slots] == paths
    assert len(house.slots) == 3
    assert house.slots[1].settings.path == paths[1]
    assert house.slots.find(paths[2]) is house.slots[2]
    assert house.slots.find(paths[2] / "other") is None
    assert house.slots.opened() == [slot.volume for slot in house.slots]


def test_one_more_is_opened_and_one_is_closed(house: House, tmp_path: Path) -> None:
    path = tmp_path / "more"
    create_volume(path, NODE, OsFiles(), 0)
    house.slots.add(VolumeSettings(path, 64 * MIB))
    assert [volume.settings.path for volume in house.volumes][3:] == [path]
    slot = house.slots[1]
    volume = slot.volume
    house.slots.remove(slot)
    assert len(house.slots) == 3
    assert volume not in house.volumes
    assert slot.volume is None
    house.slots.add(VolumeSettings(path.with_name("volume1"), 64 * MIB))
    assert len(house.volumes) == 4, "it could be locked again"


def test_what_is_away_can_neither_be_asked_nor_written(house: House) -> None:
    slots, all_three = house.slots, house.volumes
    assert slots.look_after() == all_three
    assert slots.is_complete()
    assert slots.is_certain()
    slots.check_complete()
    all_three[2].ground.health.read_only("by its owner")
    assert slots.look_after() == all_three[:2]
    assert slots.readable() == all_three
    house.go(0)
    assert slots.look_after() == all_three[1:2]
    assert slots.readable() == all_three[1:]
    assert slots.opened() == all_three
    assert slots.is_complete()
    assert not slots.is_certain()
    with pytest.raises(VolumeUnavailableError, match="a volume is missing"):
        slots.check_complete()
    slots.remove(slots[0])
    slots.check_complete()
    assert slots.is_certain()


def test_a_volume_in_doubt_is_not_certain(house: House) -> None:
    house.volumes[1].ground.doubts.log_not_cut([KEY])
    assert not house.slots.is_certain()
    assert house.slots.is_complete()


def test_a_volume_that_is_not_open_makes_them_incomplete(house: House) -> None:
    slot = house.slots[1]
    slot.close_soon()
    assert slot.volume is None
    assert not house.slots.is_complete()
    assert not house.slots.is_certain()
    with pytest.raises(VolumeUnavailableError):
        house.slots.check_complete()
    assert len(house.slots.readable()) == 2


def test_one_that_stalls_is_asked_last(house: House) -> None:
    first, second, third = house.volumes
    (call,) = stalled(house, 0)
    with call:
        house.clock.now_s += 2
        assert house.slots.readable() == [second, third, first]
        assert list(house.slots.stalled_threads().values()) == [False]
    assert house.slots.stalled_threads() == {}


def test_calls_that_do_not_return_are_noticed(house: House) -> None:
    (call,) = stalled(house, 1)
    with call:
        house.clock.now_s += 60
        house.slots.watch()
        assert [status.state for status in house.engine.volumes()] == [
            *(VolumeState.HEALTHY, VolumeState.GONE, VolumeState.HEALTHY)
        ]
        assert list(house.slots.stalled_threads().values()) == [True]
        assert house.slots[1].is_hung
        assert len(house.slots.readable()) == 2
    house.slots.watch()
    assert not house.slots[1].is_hung


class Looks:
    """What is seen at each look, and what happens meanwhile."""

    def __init__(self, house: House, *reopenings: int, fail: bool = False) -> None:
        self.count = 0
        self._slot = house.slots[0]
        self._reopenings = reopenings
        self._fail = fail

    def __call__(self) -> int:
        self.count += 1
        if self.count <= len(self._reopenings):
            self._slot.reopenings += self._reopenings[self.count - 1]
            if self._fail:
                raise VolumeUnavailableError("closed")
        return self.count


def test_a_look_is_repeated_only_while_a_volume_is_opened_anew(house: House) -> None:
    steadily = house.slots.steadily
    assert steadily(Looks(house)) == 1
    assert steadily(Looks(house, 0)) == 1
    assert steadily(Looks(house, 2)) == 2
    assert steadily(Looks(house, 2, 2, 2)) == 4
    assert steadily(Looks(house, 2, 2), lambda seen: seen == 2) == 2
    assert steadily(Looks(house, 2), lambda seen: seen == 1) == 1
    assert steadily(Looks(house, 2, 2, fail=True)) == 3
    with pytest.raises(VolumeUnavailableError, match="closed"):
        steadily(Looks(house, 0, fail=True))


def test_a_look_while_a_volume_is_closed_is_repeated_when_it_is_open(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = house.slots[0]
    waited: list[int] = []

    def wait(jobs: Sequence[object], left_s: float) -> None:
        assert 0 < left_s <= slots_module.REOPENED_S
        waited.append(len(jobs))
        slot.reopenings += 1

    monkeypatch.setattr(slots_module, "wait", wait)
    slot.reopenings += 1
    assert house.slots.steadily(Looks(house)) == 2
    assert waited == [1]
    slot.reopenings += 1
    assert house.slots.steadily(Looks(house, 0, fail=True)) == 2
    assert waited == [1, 1]


def test_nobody_looks_for_ever(house: House) -> None:
    looks = Looks(house, *[2] * 99)
    house.slots.steadily(looks)
    assert looks.count == slots_module.REOPENED_LOOKS + 1
    assert looks.count < 99


def test_nobody_looks_for_longer_than_an_opening_takes(house: House) -> None:
    class Slow(Looks):
        def __call__(self) -> int:
            house.clock.now_s += slots_module.REOPENED_S / 2
            return super().__call__()

    looks = Slow(house, *[2] * 99)
    house.slots.steadily(looks)
    assert looks.count == 3, "the last one counts whatever happens"


def test_whoever_changes_the_volumes_waits_until_it_is_done(tmp_path: Path) -> None:
    house = House(Farm(tmp_path, volumes=2, annexes=tmp_path / "annexes"), spawn=in_a_thread)
    with closing(house.engine):
        assert len(house.volumes) == 2
        path = tmp_path / "more"
        create_volume(path, NODE, OsFiles(), 0)
        house.slots.add(VolumeSettings(path, 64 * MIB))
        assert len(house.volumes) == 3
        slot = house.slots[2]
        house.slots.remove(slot)
        assert slot.volume is None
        first = house.slots[0]
        house.volumes[0].ground.health.read_only("by its owner")
        apart = house.slots.part(first)
        assert apart is not None
        assert apart is first.volume
        assert apart.ground.is_apart
        slots = list(house.slots)
    assert [slot.volume for slot in slots] == [None, None]


def test_what_is_not_there_cannot_be_parted(house: House) -> None:
    assert house.slots.part(house.slots[1]) is house.volumes[1]
    house.go(0)
    assert house.slots.part(house.slots[0]) is None


def make_too_new(path: Path) -> None:
    marker = path / MARKER_NAME
    marker.write_text(marker.read_text().replace('"format": 1', '"format": 99'))


def test_a_volume_of_a_newer_release_is_refused_and_all_others_are_closed(
    tmp_path: Path,
) -> None:
    farm = Farm(tmp_path, volumes=2)
    farm.engine.close()
    marker = farm.settings[1].path / MARKER_NAME
    before = marker.read_text()
    make_too_new(farm.settings[1].path)
    with pytest.raises(FormatTooNewError):
        farm.open()
    marker.write_text(before)
    with closing(farm.open()) as engine:
        assert len(engine.opened()) == 2, "each could be locked again"


def test_one_of_a_newer_release_is_not_added(house: House, tmp_path: Path) -> None:
    path = tmp_path / "more"
    create_volume(path, NODE, OsFiles(), 0)
    make_too_new(path)
    with pytest.raises(FormatTooNewError):
        house.slots.add(VolumeSettings(path, 64 * MIB))
    assert len(house.slots) == 3


def test_what_goes_wrong_within_a_look_or_a_closing_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patched:
        patched.setattr(house.slots[1], "_look", fail)
        with pytest.raises(RuntimeError, match="of ours"):
            house.slots.look_after()
    with monkeypatch.context() as patched:
        patched.setattr(house.slots[1], "_close", fail)
        with pytest.raises(RuntimeError, match="of ours"):
            house.slots.close()


def test_nobody_waits_for_a_volume_that_hangs(house: House) -> None:
    slot = house.slots[1]
    volume = slot.volume
    assert volume is not None
    house.spawn = lambda _name, _work: None
    calls = stalled(house, 0, 1, 2)
    try:
        with calls[0], calls[1], calls[2]:
            house.clock.now_s += 60
            house.slots.remove(slot)
            assert len(house.slots) == 2
    finally:
        house.spawn = at_once
        slot.watch_calls()
        volume.close()


def test_each_is_compared_with_all_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[list[object]] = []
    for slot in house.slots:
        monkeypatch.setattr(slot.tempo, "judge", lambda others, _now_s: judged.append(others))
    house.slots.watch()
    one, two, three = (slot.watch.meters for slot in house.slots)
    assert judged == [[two, three], [one, three], [one, two]]


def test_all_are_closed_with_a_clean_mark(house: House) -> None:
    volumes = house.volumes
    house.slots.close()
    assert house.slots.opened() == []
    assert not any(volume.ground.health.errors() for volume in volumes)
    for volume in volumes:
        with closing(sqlite3.connect(volume.ground.paths.index)) as rows:
            assert rows.execute("SELECT clean FROM state").fetchone() == (1,)
    with closing(house.farm.open()) as engine:
        assert len(engine.opened()) == 3
