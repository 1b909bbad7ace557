"""What the hints rule out: never a volume that has the shard, whenever it came there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from farmer.model.ids import NodeId, ShardId
from farmer.storage import hints, keyfilter
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.index import Index, create_index
from farmer.storage.index_questions import START, Listed, ListPlace, Table
from farmer.storage.places import Row, raw_key
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, BOB, Farm, noise, shard_of
from tests.storage.house import KEY, ROW, House, stalled

Pages = Callable[[Table, ListPlace, int], list[Listed]]
"""`Volume.listed`."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(Farm(tmp_path, volumes=3))
    with closing(house.engine):
        yield house


def another(number: int) -> Row:
    """Return a row whose shard has an id as real ones are."""
    return replace(ROW, shard=shard_of(noise(10, number)), sequence=number)


def asked(house: House, shard: ShardId = ROW.shard, renter: NodeId = ALICE) -> list[int]:
    """Return the numbers of the volumes that would be asked for a shard."""
    some = house.engine._hints.narrow(house.volumes, (renter, shard))
    return [house.volumes.index(volume) for volume in some]


def test_only_volumes_that_may_have_a_shard_are_asked(house: House) -> None:
    rows = [another(number) for number in range(1, 40)]
    for number, row in enumerate(rows):
        house.put(number % 3, row)
    assert asked(house, rows[0].shard) == [0, 1, 2], "nothing is learned yet"
    house.engine.learn()
    for number, row in enumerate(rows):
        assert number % 3 in asked(house, row.shard)
        assert house.where.find(ALICE, row.shard).volume is house.volumes[number % 3]
    assert sum(len(asked(house, row.shard)) for row in rows) < 50
    assert asked(house, another(99).shard) == []


def test_a_shard_of_another_renter_takes_no_longer_than_one_that_nobody_has(
    house: House,
) -> None:
    rows = [another(number) for number in range(1, 20)]
    house.put(1, *rows[:10])
    house.bury(2, ROW, 5)
    house.engine.learn()
    house.put(1, *rows[10:])
    for row in (*rows, ROW):
        assert asked(house, row.shard, BOB) == []


def test_what_is_buried_on_a_volume_is_asked_there(house: House) -> None:
    house.bury(1, ROW, 5)
    house.engine.learn()
    assert asked(house) == [1]
    house.bury(2, another(1), 5)
    assert asked(house, another(1).shard) == [2]
    assert house.where.copies(KEY).buried_ms == 5


def test_what_comes_later_is_heard_of(house: House) -> None:
    house.engine.learn()
    assert asked(house) == []
    house.put(2, ROW)
    assert asked(house) == [2]
    stored = house.farm.store(noise(3000))
    assert house.farm.read(stored.shard) == noise(3000)


def test_what_comes_while_a_volume_is_read_is_heard_of(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the place that the reading has reached nobody looks again."""
    monkeypatch.setattr(hints, "LEARN_AT_ONCE", 1)
    rows = sorted((another(number) for number in range(1, 5)), key=lambda row: row.shard)
    house.put(0, rows[1], rows[3])
    volume = house.volumes[0]
    monkeypatch.setattr(volume, "listed", _then(volume.listed, lambda: house.put(0, rows[0])))
    house.engine.learn()
    assert [asked(house, row.shard) for row in rows] == [[0], [0], [], [0]]


def _then(real: Pages, work: Callable[[], None]) -> Pages:
    """Return a reading of pages that does something after each first page of shards."""

    def listed(table: Table, after: ListPlace, limit: int) -> list[Listed]:
        page = real(table, after, limit)
        if table is Table.SHARDS and after == START:
            work()
        return page

    return listed


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = create_index(tmp_path / "index.sqlite", bytes(16))
    index.finish()
    with closing(_Closing(index)):
        yield index


class _Closing:
    def __init__(self, index: Index) -> None:
        self.close = lambda: index.close(clean=False)


def test_an_index_tells_before_others_can_see_it(index: Index) -> None:
    seen: list[tuple[list[bytes], Row | None]] = []

    def told(shards: Iterable[bytes]) -> None:
        seen.append((list(shards), index.find(*KEY)))

    index.tell(told)
    with index.transaction() as transaction:
        transaction.open_segment(1, bytes(16))
        transaction.put(ROW)
    assert seen == [([raw_key(*KEY)], None)]
    assert index.find(*KEY) == ROW


def test_what_was_entered_before_somebody_listens_and_committed_after_is_told(
    index: Index,
) -> None:
    heard: list[bytes] = []
    with index.transaction() as transaction:
        transaction.open_segment(1, bytes(16))
        transaction.put(ROW)
        index.tell(heard.extend)
    assert heard == [raw_key(*KEY)]
    index.tell(None)
    with index.transaction() as transaction:
        transaction.put(replace(ROW, shard=ShardId(b"o" * 32), sequence=2))
    assert heard == [raw_key(*KEY)]


def test_while_an_index_is_made_nothing_is_kept_to_be_told(tmp_path: Path) -> None:
    index = create_index(tmp_path / "index.sqlite", bytes(16))
    with closing(_Closing(index)):
        with index.transaction() as transaction:
            transaction.open_segment(1, bytes(16))
            transaction.put(ROW)
            assert transaction.entered == []
        index.finish()
        with index.transaction() as transaction:
            transaction.put(replace(ROW, renter=BOB, sequence=2))
            assert transaction.entered == [raw_key(BOB, ROW.shard)]


def test_a_volume_in_doubt_is_asked(house: House) -> None:
    house.engine.learn()
    house.volumes[1].ground.doubts.log_not_cut([KEY])
    assert asked(house) == [1]
    assert house.where.copies(KEY).in_doubt


def test_a_volume_that_was_opened_anew_is_asked_until_it_is_learned(house: House) -> None:
    house.put(1, ROW)
    house.engine.learn()
    for _ in range(10):
        _come_back(house, 1)
        assert asked(house, another(1).shard) == [1]
        house.engine.learn()
        assert asked(house, another(1).shard) == []
        assert asked(house) == [1]


def _come_back(house: House, number: int) -> None:
    """Let one volume's disk be unmounted, and mounted again."""
    aside = house.go(number)
    aside.with_name("aside").rename(aside)
    before = house.volumes[number]
    for _ in range(3):
        house.slots.look_after()
    assert house.volumes[number] is not before


def test_with_one_volume_nothing_is_kept(tmp_path: Path) -> None:
    house = House(Farm(tmp_path, volumes=2))
    with closing(house.engine):
        house.engine.learn()
        first, second = house.volumes
        assert first.ground.index._told is not None
        house.engine.remove_volume(second.settings.path)
        house.engine.learn()
        assert first.ground.index._told is None
        assert house.engine._hints._known is None


def test_a_filter_that_is_outgrown_is_made_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyfilter, "ROWS_MIN", 64)
    house.engine.learn()
    before = _filter(house)
    rows = [another(number) for number in range(1, 30)]
    house.put(0, *rows[:8])
    house.engine.learn()
    assert _filter(house) is before
    house.put(0, *rows[8:])
    house.engine.learn()
    assert _filter(house) is not before
    assert _filter(house).shards >= 2 * len(rows)
    assert all(0 in asked(house, row.shard) for row in rows)
    assert asked(house, another(99).shard) == []


def _filter(house: House) -> keyfilter.KeyFilter:
    known = house.engine._hints._known
    assert known is not None
    return known.filter


def test_a_volume_that_fails_is_learned_next_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_page: object) -> list[Listed]:
        raise VolumeUnavailableError("the index cannot be read")

    house.put(1, ROW)
    with monkeypatch.context() as patch:
        patch.setattr(house.volumes[1], "listed", fails)
        house.engine.learn()
        assert asked(house, another(1).shard) == [1]
        assert asked(house) == [1]
    house.engine.learn()
    assert asked(house, another(1).shard) == []
    assert asked(house) == [1]


def test_who_hangs_while_it_learns_brings_back_no_filter_that_others_have_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on when the disk does, and whoever waited for it is long gone."""
    monkeypatch.setattr(keyfilter, "ROWS_MIN", 64)
    hangs, answers, volume = Event(), Event(), house.volumes[1]
    listed = volume.listed

    def hanging(*page: Any) -> list[Listed]:
        hangs.set()
        assert answers.wait(20)
        return listed(*page)

    monkeypatch.setattr(volume, "listed", hanging)
    learning = Thread(target=house.engine.learn)
    learning.start()
    assert hangs.wait(20)
    rows = [another(number) for number in range(1, 30)]
    house.put(0, *rows[:20])
    house.engine.learn()
    house.put(0, *rows[20:])
    answers.set()
    learning.join(20)
    for _ in range(2):
        assert all(0 in asked(house, row.shard) for row in rows)
        house.engine.learn()
    assert _filter(house).shards >= 2 * len(rows)


def test_an_engine_that_closes_learns_no_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "LEARN_AT_ONCE", 1)
    pages: list[Volume] = []
    for volume in house.volumes:

        def listed(
            table: Table,
            after: ListPlace,
            limit: int,
            volume: Volume = volume,
            real: Pages = volume.listed,
        ) -> Sequence[Listed]:
            pages.append(volume)
            return real(table, after, limit)

        monkeypatch.setattr(volume, "listed", listed)
    house.put(0, *(another(number) for number in range(1, 9)))
    house.engine.begin_close()
    house.engine.learn()
    assert pages.count(house.volumes[0]) == 1
    assert 0 in asked(house)


def test_a_disk_that_stalls_is_not_waited_for_where_it_has_nothing(house: House) -> None:
    house.put(0, ROW)
    house.engine.learn()
    (call,) = stalled(house, 2)
    with call:
        house.clock.now_s += 2
        assert house.where.copies(KEY, stalled=False).is_certain
        assert house.where.copies((BOB, another(1).shard), stalled=False).is_certain
    (call,) = stalled(house, 0)
    with call:
        house.clock.now_s += 2
        assert not house.where.copies(KEY, stalled=False).is_certain


def test_a_volume_that_hangs_keeps_the_others_from_nothing(house: House) -> None:
    """Nor is the filter that it goes on telling taken for one that others use."""
    house.put(0, ROW)
    house.put(1, another(1))
    house.engine.learn()
    house.volumes[1].ground.watch.declare("the disk does not answer")
    first = _filter(house)
    house.engine._hints._forget(house.volumes)
    house.engine.learn()
    assert _filter(house) is not first
    assert asked(house) == [0, 1], "the second is not learned"
    house.volumes[1].ground.watch.declare("")
    house.put(1, another(2))
    house.engine.learn()
    assert asked(house) == [0]
    assert asked(house, another(2).shard) == [1]
