"""A shard that was stored again while the volume that held it was away."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import RECORD_HEADER_BYTES, DeletionOutcome, ShardState
from farmer.storage.directory import MARKER_NAME
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.mending import Mending
from farmer.storage.records import decode_record
from tests.storage.bench import ALICE, MIB, Farm, contract_of, finished, noise
from tests.storage.rot import flip

ALL = ShardId(bytes(32))


def go_away(farm: Farm, place: Path) -> None:
    (place / MARKER_NAME).rename(place / "aside")
    farm.engine.look_after_disks()


def come_back(farm: Farm, place: Path) -> None:
    (place / "aside").rename(place / MARKER_NAME)
    for _ in range(3):
        farm.engine.look_after_disks()


def place_of_the_only_shard(farm: Farm) -> Path:
    volumes = zip(farm.settings, farm.engine.volumes(), strict=True)
    return next(settings.path for settings, status in volumes if status.shards)


def lose_indexes(farm: Farm) -> None:
    for settings in farm.settings:
        for path in settings.path.glob("index.sqlite*"):
            path.unlink()


def away_and_stored_again(farm: Farm, data: bytes) -> ShardId:
    """Let a volume go with a shard in its trash; store the shard; let the volume come back."""
    shard = farm.store(data).shard
    farm.delete(shard)
    place = place_of_the_only_shard(farm)
    go_away(farm, place)
    farm.store(data)
    come_back(farm, place)
    return shard


def test_what_was_stored_last_counts_when_the_volume_is_back(tmp_path: Path) -> None:
    """The older copy in the trash does not hide the one that was acknowledged later."""
    farm = Farm(tmp_path, volumes=2)
    data = noise(5000)
    shard = away_and_stored_again(farm, data)
    page = farm.engine.page(ALICE, ShardId(bytes(32)), 10)
    assert [one.state for one in page] == [ShardState.LIVE]
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    assert farm.read(shard) == data
    farm.engine.close()


def test_while_a_volume_is_away_nothing_is_called_erased_from_the_disk(tmp_path: Path) -> None:
    """It may have moved from there, and its bytes may not be given back yet."""
    farm = Farm(tmp_path, volumes=2)
    away = farm.store(noise(5000)).shard
    place = place_of_the_only_shard(farm)
    go_away(farm, place)
    here = farm.store(noise(5001)).shard
    assert farm.delete(here, erase=True).outcome is DeletionOutcome.ERASED_AT_COMPACTION
    come_back(farm, place)
    assert farm.delete(away, erase=True).outcome is DeletionOutcome.ERASED
    farm.engine.close()


@pytest.mark.parametrize("erase", [True, False])
def test_a_delete_reaches_every_copy(tmp_path: Path, erase: bool) -> None:
    """No older copy comes back from another volume."""
    farm = Farm(tmp_path, volumes=2)
    data = noise(5000)
    shard = away_and_stored_again(farm, data)
    told = farm.delete(shard, erase=erase).outcome
    if erase:
        assert told is DeletionOutcome.ERASED_AT_COMPACTION, "the older copy waits for the sweep"
        with pytest.raises(ShardNotFoundError):
            farm.engine.stat(ALICE, shard)
    else:
        assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
        assert farm.engine.usage(ALICE).shards == 1
    farm.engine.close()


def deleted_while_the_older_copy_was_away(
    farm: Farm, data: bytes, how: str
) -> tuple[ShardId, Path]:
    """Store a shard, let its volume go, store it again elsewhere, and give it up there."""
    shard = farm.store(data).shard
    place = place_of_the_only_shard(farm)
    go_away(farm, place)
    farm.store(data)
    if how == "purge":
        (other,) = [one for one in farm.engine.opened() if one.settings.path != place]
        other.purge(ALICE, None)
    else:
        farm.delete(shard, erase=how == "erase")
    if how == "trash and sweep":
        farm.clocks.pass_days(8)
        farm.sweep()
    return shard, place


@pytest.mark.parametrize("size_bytes", [5000, 2 * MIB])
@pytest.mark.parametrize("how", ["erase", "trash and sweep", "purge"])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_is_gone_stays_gone_when_an_older_copy_comes_back(
    tmp_path: Path, size_bytes: int, how: str, rebuilt: bool
) -> None:
    """Also where the index was lost in between, and for good once both have met."""
    farm = Farm(tmp_path, volumes=2)
    shard, place = deleted_while_the_older_copy_was_away(farm, noise(size_bytes), how)
    for _ in range(3):
        farm.sweep()
    if rebuilt:
        (place / "aside").rename(place / MARKER_NAME)
        farm.engine.close()
        lose_indexes(farm)
        farm.open()
    else:
        come_back(farm, place)
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard)
    assert farm.engine.page(ALICE, ALL, 10) == []
    assert not farm.engine.usage(ALICE).shards
    assert not any(volume.ground.index.has_tombstones for volume in farm.engine.opened())
    farm.engine.close()
    lose_indexes(farm)
    farm.open()
    assert not farm.engine.usage(ALICE).shards
    farm.engine.close()


def test_an_older_copy_does_not_count_while_the_newer_one_is_in_the_trash(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    shard, place = deleted_while_the_older_copy_was_away(farm, noise(5000), "trash")
    come_back(farm, place)
    assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    assert farm.engine.usage(ALICE).shards == 1
    farm.engine.undelete(ALICE, shard).result(20)
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


def test_an_older_copy_is_not_seen_before_the_volumes_have_met(tmp_path: Path) -> None:
    """A read may come between the return of a volume and the look that removes what is older."""
    farm = Farm(tmp_path, volumes=2)
    shard, place = deleted_while_the_older_copy_was_away(farm, noise(5000), "erase")
    kept = farm.store(noise(6000)).shard
    farm.engine._reunion.hold = lambda: None  # type: ignore[method-assign]  # it comes later
    come_back(farm, place)
    assert len(farm.engine.opened()) == 2
    for ask in (farm.engine.stat, farm.engine.open):
        with pytest.raises(ShardNotFoundError):
            ask(ALICE, shard)
    for limit in (1, 10):
        assert [row.shard for row in farm.engine.page(ALICE, ALL, limit)] == [kept]
    farm.engine.close()


def test_a_store_after_a_tombstone_counts(tmp_path: Path) -> None:
    """Neither the tombstone hides it, nor does the meeting of the volumes remove it."""
    farm = Farm(tmp_path, volumes=2)
    hold, farm.engine._reunion.hold = farm.engine._reunion.hold, lambda: None  # type: ignore[method-assign]  # it comes later
    shard, place = deleted_while_the_older_copy_was_away(farm, noise(5000), "erase")
    come_back(farm, place)
    (older,) = [one for one in farm.engine.opened() if one.settings.path == place]
    upload = farm.begin(noise(5000))
    upload.write(noise(5000))
    upload.commit().result(20)
    assert farm.read(shard) == noise(5000)
    hold()
    assert farm.read(shard) == noise(5000)
    assert farm.engine.usage(ALICE).shards == 1
    assert not any(volume.ground.index.has_tombstones for volume in farm.engine.opened())
    assert older.ground.index.stored_alone(1) == []
    farm.engine.close()
    lose_indexes(farm)
    farm.open()
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


def test_a_record_says_that_it_was_stored_alone(tmp_path: Path) -> None:
    """Only one that was: the others are what a rebuild reads fastest."""
    farm = Farm(tmp_path, volumes=2)
    farm.store(noise(5000))
    place = place_of_the_only_shard(farm)
    go_away(farm, place)
    farm.store(noise(6000))
    for volume in farm.settings:
        raw = (volume.path / "log/00000001.seg").read_bytes()
        header = decode_record(raw[4096:4352], raw[32:48], "")
        assert bool(header.alone_ms) is (volume.path != place)
    come_back(farm, place)
    assert not any(one.ground.index.stored_alone(1) for one in farm.engine.opened())
    farm.engine.close()


def test_a_volume_with_tombstones_is_not_emptied_yet(tmp_path: Path) -> None:
    """What it knows must be told to the volume that is away, before it may go."""
    farm = Farm(tmp_path, volumes=2)
    _shard, place = deleted_while_the_older_copy_was_away(farm, noise(5000), "erase")
    (other,) = [one for one in farm.engine.opened() if one.settings.path != place]
    farm.engine.mover.begin(other, Duty(verb=Leaving.RETIRE, since_ms=1))
    while farm.engine.mover.step() is not None:
        pass
    assert finished(farm.engine.mover) == []
    come_back(farm, place)
    while farm.engine.mover.step() is not None:
        pass
    assert finished(farm.engine.mover) == [other]
    farm.engine.close()


def test_a_store_after_the_meeting_outlives_the_indexes(tmp_path: Path) -> None:
    """A tombstone that was lifted does not come back and take it for an older copy."""
    farm = Farm(tmp_path, volumes=2)
    shard, place = deleted_while_the_older_copy_was_away(farm, noise(5000), "erase")
    come_back(farm, place)
    (other,) = [one for one in farm.engine.opened() if one.settings.path != place]
    farm.engine.mover.begin(other, Duty(verb=Leaving.DRAIN, since_ms=1))
    farm.store(noise(5000))
    assert place_of_the_only_shard(farm) == place
    farm.engine.close()
    # The log says it, and so does what is noted beside it; here the log alone.
    other.ground.paths.met.unlink()
    lose_indexes(farm)
    farm.open()
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


def rot_newer(farm: Farm, shard: ShardId, away: Path) -> None:
    """Let the copy that was stored while a volume is away be found damaged."""
    (other,) = [one for one in farm.engine.opened() if one.settings.path != away]
    row = other.find(ALICE, shard)
    assert row is not None
    flip(other.handles.path_of(row.place), row.place.offset + RECORD_HEADER_BYTES)
    other.quarantine(row)


@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_was_stored_again_and_is_damaged_lives_on_by_the_sound_copy_in_the_trash(
    tmp_path: Path, rebuilt: bool
) -> None:
    """It was acknowledged after it had been deleted."""
    farm = Farm(tmp_path, volumes=2)
    shard = farm.store(noise(5000)).shard
    farm.delete(shard)
    place = place_of_the_only_shard(farm)
    go_away(farm, place)
    farm.clocks.pass_days(6)
    farm.store(noise(5000))
    rot_newer(farm, shard, place)
    come_back(farm, place)
    assert farm.read(shard) == noise(5000)
    assert place_of_the_only_shard(farm) == place
    farm.clocks.pass_days(2)
    assert farm.sweep() == 0
    if rebuilt:
        farm.engine.close()
        lose_indexes(farm)
        farm.open()
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


def test_a_journal_of_long_ago_brings_nothing_back_that_was_deleted_since(tmp_path: Path) -> None:
    """Also where the copy that was deleted is damaged, and the one that was away is not."""
    farm = Farm(tmp_path, volumes=2)
    source, target = farm.engine.opened()
    target.duty = Duty(verb=Leaving.DRAIN, since_ms=1)
    shard = farm.store(noise(5000)).shard
    target.duty = None
    farm.engine.mover.begin(source, Duty(verb=Leaving.DRAIN, since_ms=1))
    while farm.engine.mover.step() is not None:
        pass
    farm.engine.mover.cancel(source)
    place = place_of_the_only_shard(farm)
    assert place == target.settings.path
    go_away(farm, place)
    farm.clocks.pass_days(0.01)
    farm.store(noise(5000))
    rot_newer(farm, shard, place)
    farm.clocks.pass_days(0.01)
    farm.delete(shard)
    farm.reopen()
    assert farm.engine.opened()[0].journal.open.keys == {(ALICE, shard)}
    come_back(farm, place)
    assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    farm.engine.close()


def test_a_read_calls_nothing_deleted_that_a_volume_may_hold_that_is_away(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    shard = farm.store(noise(5000)).shard
    farm.delete(shard)
    place = place_of_the_only_shard(farm)
    go_away(farm, place)
    farm.store(noise(5000))
    (other,) = [one.path for one in farm.settings if one.path != place]
    (other / MARKER_NAME).rename(other / "aside")
    farm.engine.look_after_disks()
    come_back(farm, place)
    with pytest.raises(VolumeUnavailableError, match="stored again"):
        farm.engine.open(ALICE, shard)
    come_back(farm, other)
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


def test_a_delete_before_the_meeting_of_a_sound_copy_and_a_newer_damaged_one_stays_in_the_trash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left where the newer one was must not speak against the copy that was deleted."""
    farm = Farm(tmp_path, volumes=2)
    shard = farm.store(noise(5000)).shard
    place = place_of_the_only_shard(farm)
    go_away(farm, place)
    farm.clocks.pass_days(0.01)
    farm.store(noise(5000))
    rot_newer(farm, shard, place)
    with monkeypatch.context() as patch:
        patch.setattr(farm.engine._reunion, "hold", lambda: None)
        come_back(farm, place)
        assert farm.delete(shard).outcome is DeletionOutcome.TRASHED
        assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    farm.engine.look_after_disks()
    assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    farm.engine.undelete(ALICE, shard).result(20)
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


@pytest.mark.parametrize("is_away_first", [False, True])
@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.parametrize("size", [5000, 3 * MIB])
def test_what_was_deleted_while_its_bytes_came_is_there_when_they_are_confirmed(
    tmp_path: Path, size: int, erase: bool, is_away_first: bool
) -> None:
    """Also while the volume that was away for the deletion is so still, and when it is back."""
    farm = Farm(tmp_path, volumes=2)
    data = noise(size)
    shard = farm.store(data).shard
    place = place_of_the_only_shard(farm)
    there = next(one for one in farm.engine.opened() if one.settings.path == place)
    row = there.find(ALICE, shard)
    assert row is not None
    there.quarantine(row)
    (other,) = (one.path for one in farm.settings if one.path != place)
    if is_away_first:
        go_away(farm, other)
    upload = farm.begin(data)
    upload.write(data)
    if not is_away_first:
        go_away(farm, other)
    farm.delete(shard, erase=erase)
    assert upload.commit().result(20).state is ShardState.LIVE
    assert farm.read(shard) == data
    come_back(farm, other)
    assert farm.read(shard) == data
    assert [row.shard for row in farm.engine.page(ALICE, ALL, 10)] == [shard]
    farm.engine.close()


def test_what_was_deleted_while_it_was_repaired_is_there_when_that_is_confirmed(
    tmp_path: Path,
) -> None:
    farm = Farm(tmp_path, volumes=2)
    data = noise(5000)
    shard = farm.store(data).shard
    place = place_of_the_only_shard(farm)
    there = next(one for one in farm.engine.opened() if one.settings.path == place)
    row = there.find(ALICE, shard)
    assert row is not None
    flip(there.handles.path_of(row.place), row.place.offset + RECORD_HEADER_BYTES + 7)
    mending = farm.engine.repair(contract_of(ALICE), shard)
    assert isinstance(mending, Mending)
    (other,) = (one.path for one in farm.settings if one.path != place)
    go_away(farm, other)
    farm.delete(shard, erase=True)
    mending.write(data)
    mending.commit().result(20)
    assert farm.read(shard) == data
    come_back(farm, other)
    assert farm.read(shard) == data
    farm.engine.close()
