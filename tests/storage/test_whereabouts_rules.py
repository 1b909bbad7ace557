"""Where a shard is: what is known of it by several volumes, and which of them are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.storage.doubts import InDoubtError
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.places import Row
from farmer.storage.stamps import Stamps
from farmer.storage.whereabouts import Copies, Copy
from tests.storage.bench import ALICE, BOB, Farm
from tests.storage.house import FIRST, KEY, ROW, House, stalled


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(Farm(tmp_path, volumes=3))
    with closing(house.engine):
        yield house


# Finding.


def known(*, is_certain: bool = True, buried_ms: int = 0, rest: Sequence[int] = ()) -> Copies:
    """Return what is known of a shard with copies that were stored alone at these times."""
    copies = tuple(Copy(None, replace(ROW, alone_ms=one)) for one in rest)  # type: ignore[arg-type]  # nobody asks where
    return Copies(copies, copies, buried_ms, is_certain)


def at(observed_ms: int) -> Stamps:
    return Stamps(lambda: observed_ms)


def test_a_store_is_alone_where_something_may_outlive_it() -> None:
    assert known().alone_ms(at(50)) == 0
    assert known(rest=[9]).alone_ms(at(50)) == 0
    assert known(is_certain=False).alone_ms(at(50)) == 50
    assert known(is_certain=False).alone_ms(at(0)) == 1
    assert known(buried_ms=7).alone_ms(at(5)) == 8
    assert known(buried_ms=7).alone_ms(at(50)) == 50
    assert known(is_certain=False, rest=[60, 70]).alone_ms(at(50)) == 71
    outlived = known(rest=[3])
    assert replace(outlived, counting=()).alone_ms(at(2)) == 4


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
        house.where.find(*KEY)

    def find_and_go(*_key: object) -> Row:
        first.ground.health.go("unmounted")
        raise VolumeUnavailableError("the index cannot be read")

    monkeypatch.setattr(first, "find", find_and_go)
    copies = house.where.copies(KEY)
    assert (copies.is_certain, copies.in_doubt, copies.failure) == (False, False, None)


def test_a_volume_that_fails_keeps_nobody_from_what_another_one_has(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_key: object) -> Row:
        raise VolumeUnavailableError("the index cannot be read")

    monkeypatch.setattr(house.volumes[0], "find", find)
    house.put(1, ROW)
    assert house.where.find(*KEY).volume is house.volumes[1]
    copies = house.where.look_up(KEY)
    assert not copies.is_certain, "it may be there too"
    assert copies.alone_ms(at(50)) == 50
    assert house.where.look_up((BOB, ROW.shard), for_store=True).best is None
    with pytest.raises(VolumeUnavailableError, match="the index"):
        house.where.find(*KEY, ROW.size_bytes + 1)


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


def many(first: int, last: int) -> list[Row]:
    """Return rows whose shards are in this order."""
    numbers = range(first, last)
    return [
        replace(ROW, shard=ShardId(number.to_bytes(32, "big")), sequence=number)
        for number in numbers
    ]


@pytest.mark.parametrize(("spread", "most"), [(1, 400), (2, 600), (8, 850)])
def test_a_page_is_full_wherever_its_shards_lie_and_little_is_read_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spread: int, most: int
) -> None:
    """Were each of eight volumes asked for the whole page, 2,400 rows would be read."""
    house, rows, read = House(Farm(tmp_path, volumes=8)), many(1, 3000), list[Row]()
    for number in range(spread):
        house.put(7 - number, *rows[number::spread])
    for volume in house.volumes:
        page = volume.page
        monkeypatch.setattr(
            volume, "page", lambda *at, page=page: (read.extend(found := page(*at)), found)[1]
        )
    with closing(house.engine):
        assert house.where.page(ALICE, FIRST, 300) == rows[:300]
        assert len(read) <= most
        assert house.where.page(ALICE, rows[2899].shard, 300) == rows[2900:]


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
