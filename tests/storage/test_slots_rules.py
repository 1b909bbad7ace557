"""The volumes of the settings: which can be asked, how they come, go and are looked through."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farmer.model.status import VolumeState
from farmer.storage import keeper
from farmer.storage import slots as slots_module
from farmer.storage.directory import MARKER_NAME, VolumeSettings, create_volume
from farmer.storage.errors import FormatTooNewError, VolumeUnavailableError
from farmer.storage.files import OsFiles
from farmer.storage.opening import at_once, in_a_thread
from farmer.storage.upload import Wanted
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, NODE, Farm, contract_of, noise, shard_of
from tests.storage.house import KEY, House, stalled


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(Farm(tmp_path, volumes=3))
    with closing(house.engine):
        yield house


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


def test_sizes_that_change_while_a_volume_is_opened_count(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes them finds no volume then; those of a disk that was silent are guesses."""
    path, open_volume = house.farm.settings[1].path, keeper.open_volume

    def opened(*words: Any) -> Volume:
        volume = open_volume(*words)
        house.engine.change_quota(path, 200 * MIB, 5)
        return volume

    marker = house.go(1)
    monkeypatch.setattr(keeper, "open_volume", opened)
    marker.with_name("aside").rename(marker)
    house.slots.look_after()
    (account,) = (one.ground.account for one in house.volumes if one.settings.path == path)
    assert (account.quota_bytes, account.keep_free_bytes) == (200 * MIB, 5)
    assert house.volumes[1].settings.quota_bytes == 200 * MIB


def test_what_is_away_can_neither_be_asked_nor_written(house: House) -> None:
    slots, all_three = house.slots, house.volumes
    assert slots.look_after() == all_three
    assert slots.every() == all_three
    assert slots.is_certain()
    slots.check_complete()
    all_three[2].ground.health.read_only("by its owner")
    assert slots.look_after() == all_three[:2]
    assert slots.readable() == all_three
    house.go(0)
    assert slots.look_after() == all_three[1:2]
    assert slots.readable() == all_three[1:]
    assert slots.opened() == slots.every() == all_three
    assert not slots.is_certain()
    with pytest.raises(VolumeUnavailableError, match="a volume is missing"):
        slots.check_complete()
    slots.remove(slots[0])
    slots.check_complete()
    assert slots.is_certain()


def test_a_volume_in_doubt_is_not_certain(house: House) -> None:
    house.volumes[1].ground.doubts.log_not_cut([KEY])
    assert not house.slots.is_certain()
    assert house.slots.every() == house.volumes


def test_a_volume_that_is_not_open_makes_them_incomplete(house: House) -> None:
    slot, (first, _second, third) = house.slots[1], house.volumes
    slot.close_soon()
    assert slot.volume is None
    assert house.slots.every() == [first, None, third]
    assert house.slots.opened() == [first, third]
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


def test_nobody_waits_for_one_that_hangs_where_an_opening_has_failed_meanwhile(
    house: House,
) -> None:
    """It is gone by that, and the call that does not return is noticed once only."""
    slot = house.slots[1]
    (call,) = stalled(house, 1)
    with call:
        slot.close_soon()
        house.clock.now_s += 60
        house.slots.watch()
        slot.health.go("cannot be used")
        house.slots.watch()
        assert slot.is_hung
        assert house.engine.silent() == {slot.settings.path}
        house.spawn = lambda _name, _work: None
        house.slots.remove(slot)
    house.spawn = at_once
    slot.watch_calls()
    assert not slot.is_hung


def test_those_whose_disks_do_not_answer_are_named(house: House) -> None:
    engine = house.farm.engine
    assert engine.silent() == frozenset()
    (call,) = stalled(house, 1)
    with call:
        house.clock.now_s += 60
        house.slots.watch()
        assert engine.silent() == {house.farm.settings[1].path}
    house.slots.watch()
    assert engine.silent() == frozenset()


def test_each_is_compared_with_all_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[list[object]] = []
    for slot in house.slots:
        monkeypatch.setattr(slot.tempo, "judge", lambda others, _now_s: judged.append(others))
    house.slots.watch()
    one, two, three = (slot.watch.meters for slot in house.slots)
    assert judged == [[two, three], [one, three], [one, two]]


def test_all_are_closed_with_a_clean_mark(house: House) -> None:
    volumes = house.volumes
    for number, volume in enumerate(volumes):
        data = noise(100, number)
        upload = volume.uploads.begin(Wanted(contract_of(ALICE), shard_of(data), len(data)))
        upload.write(data)
        upload.commit().result(20)
    house.slots.close()
    assert house.slots.opened() == []
    assert not any(volume.ground.health.errors() for volume in volumes)
    for volume in volumes:
        with closing(sqlite3.connect(volume.ground.paths.index)) as rows:
            assert rows.execute("SELECT clean FROM state").fetchone() == (1,)
    with closing(house.farm.open()) as engine:
        assert len(engine.opened()) == 3
