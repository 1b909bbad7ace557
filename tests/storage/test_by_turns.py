"""Volumes that are away by turns: what is confirmed while one cannot be asked stays so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from farmer.model.audit import NONCE_BYTES, AuditEntry
from farmer.model.shard import Deletion, ShardState
from farmer.storage import ferry
from farmer.storage.clock import START_COUNTS_MS
from farmer.storage.directory import MARKER_NAME, Paths
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.fill import Fill
from farmer.storage.marks import Action
from farmer.storage.operations import Operation, Upkeep, mark_of
from farmer.storage.places import Row
from farmer.storage.reunion import Met
from farmer.storage.volume import Volume
from farmer.storage.whereabouts import Copy
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of
from tests.storage.test_stored_twice import ALL, come_back, go_away, lose_indexes

DATA = noise(5000)
SHARD = shard_of(DATA)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """Two volumes, of which the first gets what both could have."""
    farm = Farm(tmp_path, volumes=2)
    farm.engine.fill = Fill.FIRST
    yield farm
    farm.engine.close()


def places(farm: Farm) -> list[Path]:
    return [settings.path for settings in farm.settings]


def volume_at(farm: Farm, place: Path) -> Volume:
    return next(one for one in farm.engine.opened() if one.settings.path == place)


def stored_on_both(farm: Farm) -> None:
    """Store it on the first; while that is away, on the second, which then goes away instead."""
    first, second = places(farm)
    farm.store(DATA)
    go_away(farm, first)
    farm.store(DATA)
    # In one step, so that both are never there together.
    (second / MARKER_NAME).rename(second / "aside")
    farm.engine.look_after_disks()
    come_back(farm, first)
    farm.clocks.pass_days(0.01)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("how", ["erased", "trashed"])
def test_a_store_that_is_confirmed_while_the_other_is_away_is_there_afterwards(
    farm: Farm, how: str, restarted: bool
) -> None:
    """
    The old copy that answers may have been given up on the volume that does not.

    Memory knows of that until a restart.
    """
    first, second = places(farm)
    farm.store(DATA)
    go_away(farm, first)
    farm.store(DATA)
    farm.delete(SHARD, erase=how == "erased")
    (second / MARKER_NAME).rename(second / "aside")
    farm.engine.look_after_disks()
    come_back(farm, first)
    if restarted:
        farm.engine.close()
        farm.clocks.observed_ms += START_COUNTS_MS
        farm.open()
    farm.store(DATA)
    come_back(farm, second)
    assert farm.engine.stat(ALICE, SHARD).state is ShardState.LIVE
    assert farm.read(SHARD) == DATA
    assert farm.engine.usage(ALICE).shards == 1


def go_away_by_turns(farm: Farm) -> None:
    """Store it on the second volume alone, then on the first alone, within one minute."""
    first, second = places(farm)
    go_away(farm, first)
    farm.store(DATA)
    (second / MARKER_NAME).rename(second / "aside")
    farm.engine.look_after_disks()
    come_back(farm, first)
    farm.store(DATA)


@pytest.mark.parametrize("erase", [False, True])
def test_a_delete_reaches_what_was_stored_in_the_same_minute(farm: Farm, erase: bool) -> None:
    """The observed time is looked at once a minute, and stands still in between."""
    go_away_by_turns(farm)
    farm.delete(SHARD, erase=erase)
    come_back(farm, places(farm)[1])
    if erase:
        with pytest.raises(ShardNotFoundError):
            farm.engine.stat(ALICE, SHARD)
    else:
        assert farm.engine.stat(ALICE, SHARD).state is ShardState.TRASH


@pytest.mark.parametrize("erase", [False, True])
def test_what_is_deleted_is_not_seen_again_while_who_knows_of_it_is_away(
    farm: Farm, erase: bool
) -> None:
    first, second = places(farm)
    go_away_by_turns(farm)
    farm.delete(SHARD, erase=erase)
    (first / MARKER_NAME).rename(first / "aside")
    farm.engine.look_after_disks()
    come_back(farm, second)
    with pytest.raises(VolumeUnavailableError):
        farm.read(SHARD)
    come_back(farm, first)
    farm.store(DATA)
    assert farm.read(SHARD) == DATA
    farm.delete(SHARD, erase=True)
    farm.store(DATA)
    assert farm.engine.stat(ALICE, SHARD).state is ShardState.LIVE


def test_what_is_in_the_trash_is_seen_after_a_meeting_whose_end_was_not_heard_of(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk hung amid it, and did what it was asked for when it answered again."""
    first, second = places(farm)
    go_away_by_turns(farm)
    farm.delete(SHARD)
    writer = volume_at(farm, first).writer
    submit = writer.submit

    def submit_and_hang(operation: Operation[Any]) -> Future[Any]:
        done = submit(operation)
        if isinstance(operation, Met):
            done.result(20)
            done = Future()
            done.set_exception(VolumeUnavailableError("it sleeps"))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(writer, "submit", submit_and_hang)
        come_back(farm, second)
    farm.engine.look_after_disks()
    assert farm.engine.stat(ALICE, SHARD).state is ShardState.TRASH
    assert farm.engine.undelete(ALICE, SHARD).result(20).state is ShardState.LIVE
    assert farm.read(SHARD) == DATA


def test_a_delete_that_failed_buries_nothing(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _second = places(farm)
    go_away_by_turns(farm)
    failed: Future[Deletion] = Future()
    failed.set_exception(VolumeUnavailableError("the disk failed"))
    with monkeypatch.context() as patch:
        patch.setattr(volume_at(farm, first), "delete", lambda *_words, **_named: failed)
        with pytest.raises(VolumeUnavailableError):
            farm.delete(SHARD, erase=True)
    assert farm.read(SHARD) == DATA


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("erase", [False, True])
def test_a_delete_that_is_confirmed_while_the_other_is_away_reaches_it(
    farm: Farm, erase: bool, rebuilt: bool
) -> None:
    _first, second = places(farm)
    stored_on_both(farm)
    farm.delete(SHARD, erase=erase)
    if rebuilt:
        (second / "aside").rename(second / MARKER_NAME)
        farm.engine.close()
        lose_indexes(farm)
        farm.open()
    else:
        come_back(farm, second)
    if erase:
        with pytest.raises(ShardNotFoundError):
            farm.engine.stat(ALICE, SHARD)
    else:
        assert farm.engine.stat(ALICE, SHARD).state is ShardState.TRASH
    assert farm.engine.usage(ALICE).shards == (not erase)


def test_a_shard_in_the_trash_is_put_there_anew_while_the_other_is_away(farm: Farm) -> None:
    """It keeps its first date; a copy that was stored since counts no more."""
    first, second = places(farm)
    farm.store(DATA)
    first_date = farm.delete(SHARD).gone_at_ms
    go_away(farm, first)
    farm.store(DATA)
    (second / MARKER_NAME).rename(second / "aside")
    farm.engine.look_after_disks()
    come_back(farm, first)
    farm.clocks.pass_days(1)
    assert farm.delete(SHARD).gone_at_ms == first_date
    come_back(farm, second)
    assert farm.engine.stat(ALICE, SHARD).state is ShardState.TRASH


def test_what_waits_in_the_trash_for_a_volume_that_is_away_leaves_a_tombstone(farm: Farm) -> None:
    _first, second = places(farm)
    stored_on_both(farm)
    farm.delete(SHARD)
    for _ in range(3):
        farm.sweep()
    farm.clocks.pass_days(8)
    assert farm.sweep() == 1
    come_back(farm, second)
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, SHARD)


def test_nothing_is_taken_out_of_the_trash_while_another_may_have_erased_it(farm: Farm) -> None:
    first, second = places(farm)
    farm.store(DATA)
    farm.delete(SHARD)
    go_away(farm, second)
    with pytest.raises(VolumeUnavailableError):
        farm.engine.undelete(ALICE, SHARD)
    come_back(farm, second)
    assert farm.engine.undelete(ALICE, SHARD).result(20).state is ShardState.LIVE
    assert volume_at(farm, first).status().shards == 1


def test_an_unfinished_store_says_nothing_of_a_shard_on_a_volume_that_is_away(farm: Farm) -> None:
    first, _second = places(farm)
    data = noise(10 * MIB)
    farm.store(data)
    go_away(farm, first)
    upload = farm.begin(data)
    upload.write(data[: 9 * MIB])
    upload.abandon()
    with pytest.raises(VolumeUnavailableError):
        farm.delete(shard_of(data), erase=True)


@pytest.mark.parametrize("noted", [True, False])
def test_a_tombstone_whose_end_left_the_log_is_over_all_the_same(farm: Farm, noted: bool) -> None:
    """What lifts it may be condensed away before its own mark: it is noted beside the log."""
    first, second = places(farm)
    farm.store(DATA)
    go_away(farm, first)
    farm.store(DATA)
    farm.delete(SHARD, erase=True)
    come_back(farm, first)
    assert not volume_at(farm, second).ground.index.has_tombstones
    farm.store(DATA)
    farm.engine.close()
    log = second / "log" / "00000001.seg"
    os.truncate(log, log.stat().st_size - 4096)
    if not noted:
        Paths(second).met.unlink()
    lose_indexes(farm)
    farm.open()
    held = {row.shard for row in farm.engine.page(ALICE, ALL, 10)}
    assert held == ({SHARD} if noted else set())


def test_what_the_target_knows_to_be_deleted_is_not_carried_there(tmp_path: Path) -> None:
    """Three volumes: one that is away keeps the others from meeting."""
    farm = Farm(tmp_path, volumes=3)
    farm.engine.fill = Fill.FIRST
    first, second, third = places(farm)
    farm.store(DATA)
    go_away(farm, first)
    farm.store(DATA)
    farm.delete(SHARD, erase=True)
    go_away(farm, third)
    come_back(farm, first)
    duty = Duty(verb=Leaving.DRAIN, since_ms=1, to=volume_at(farm, second).ground.volume.hex())
    farm.engine.mover.begin(volume_at(farm, first), duty)
    for _ in range(10):
        farm.engine.mover.step()
    assert volume_at(farm, second).status().shards == 0
    come_back(farm, third)
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, SHARD)
    farm.engine.close()


def test_volumes_do_not_meet_without_one_that_went_meanwhile(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places(farm)
    farm.store(DATA)
    go_away(farm, first)
    farm.store(DATA)
    farm.delete(SHARD, erase=True)
    reunion = farm.engine._reunion
    with monkeypatch.context() as patch:
        patch.setattr(reunion, "hold", lambda: None)
        come_back(farm, first)
    with monkeypatch.context() as patch:
        patch.setattr(reunion, "_is_certain", lambda: False)
        reunion._meet(frozenset({(ALICE, SHARD)}))
        assert volume_at(farm, second).ground.index.has_tombstones
    reunion.hold()
    assert not volume_at(farm, second).ground.index.has_tombstones


def test_a_purge_that_missed_a_volume_is_not_called_done(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = places(farm)
    farm.store(DATA)
    go_away(farm, first)
    purge = Volume.purge

    def purge_and_come_back(volume: Volume, *what: object) -> int:
        removed = purge(volume, *what)  # type: ignore[arg-type]
        if volume.settings.path == second:
            come_back(farm, first)
        return removed

    monkeypatch.setattr(Volume, "purge", purge_and_come_back)
    with pytest.raises(VolumeUnavailableError):
        farm.engine.purge(ALICE)
    monkeypatch.undo()
    assert farm.engine.purge(ALICE) == 1


@pytest.mark.parametrize("how", ["open", "examine", "prove_sample"])
def test_a_shard_that_crosses_between_the_look_and_the_opening_is_found(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Also where the look came after the moment from which it was to be looked for anew."""
    first, _second = places(farm)
    farm.store(DATA)
    engine, find = farm.engine, farm.engine._where.find

    def find_and_move(*key: Any) -> Copy:
        there = find(*key)
        monkeypatch.setattr(engine._where, "find", find)
        engine.mover.begin(volume_at(farm, first), Duty(verb=Leaving.DRAIN, since_ms=1))
        while engine.mover.step() is not None:
            pass
        engine._crossing.crossed = crossed
        return there

    crossed = engine._crossing.crossed
    monkeypatch.setattr(engine._where, "find", find_and_move)
    if how == "open":
        engine.open(ALICE, SHARD).close()
    elif how == "examine":
        assert not engine.examine(ALICE, SHARD).blocks
    else:
        engine.prove_sample(ALICE, bytes(NONCE_BYTES), AuditEntry(SHARD, len(DATA), 1))
    assert volume_at(farm, first).status().shards == 0


def test_a_shard_in_the_trash_is_not_looked_for_again_and_again(farm: Farm) -> None:
    farm.store(DATA)
    farm.delete(SHARD)
    with pytest.raises(ShardNotFoundError):
        farm.engine.open(ALICE, SHARD)


class Crossing:
    """A shard in the trash of one volume, about to go to another, while a third one is away."""

    def __init__(self, farm: Farm, *, is_buried: bool) -> None:
        """*is_buried*: the one that is away knows of a deletion since the shard was stored."""
        self.farm = farm
        farm.engine.fill = Fill.FIRST
        self.first, self.second, self.third = places(farm)
        farm.store(DATA)
        farm.delete(SHARD)
        if is_buried:
            (row,) = volume_at(farm, self.first).ground.index.some(None, 9)
            stone = mark_of(row, Action.TOMBSTONE, 0, 1)
            work = Upkeep(lambda transaction: transaction.apply(stone))
            volume_at(farm, self.third).writer.submit(work).result(20)
        go_away(farm, self.third)
        farm.clocks.pass_days(0.01)
        self.upload = farm.begin(DATA)
        self.upload.write(DATA)

    def drain(self, place: Path, to: Path) -> None:
        to_uuid = volume_at(self.farm, to).ground.volume.hex()
        duty = Duty(verb=Leaving.DRAIN, since_ms=1, to=to_uuid)
        self.farm.engine.mover.begin(volume_at(self.farm, place), duty)
        self.farm.engine.mover.step()

    def commit(self) -> None:
        assert self.upload.commit().result(20).state is ShardState.LIVE

    def check(self) -> None:
        assert self.farm.engine.stat(ALICE, SHARD).state is ShardState.LIVE
        come_back(self.farm, self.third)
        for _ in range(4):
            self.farm.engine.mover.step()
        self.farm.clocks.pass_days(8)
        self.farm.sweep()
        assert self.farm.read(SHARD) == DATA
        assert self.farm.engine.usage(ALICE).shards == 1


@pytest.fixture(params=[False, True], ids=["", "buried"])
def crossing(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crossing]:
    farm = Farm(tmp_path, volumes=3)
    yield Crossing(farm, is_buried=request.param)
    farm.engine.close()


def test_what_is_stored_at_the_source_while_the_shard_crosses_is_not_given_up(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the moved copy taken for it, which a tombstone of the missing volume outlives."""
    read_back = ferry._read_back

    def commit_and_read_back(*what: Any) -> list[Row]:
        monkeypatch.setattr(ferry, "_read_back", read_back)
        crossing.commit()
        return read_back(*what)

    monkeypatch.setattr(ferry, "_read_back", commit_and_read_back)
    crossing.drain(crossing.first, crossing.second)
    crossing.check()


def test_what_is_stored_at_the_target_while_the_shard_crosses_is_not_given_up(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came after the target had said that it has nothing of it."""
    send = ferry._send

    def commit_and_send(*what: Any) -> None:
        monkeypatch.setattr(ferry, "_send", send)
        crossing.commit()
        send(*what)

    crossing.upload.abandon()
    go_away(crossing.farm, crossing.first)
    crossing.upload = crossing.farm.begin(DATA)
    crossing.upload.write(DATA)
    come_back(crossing.farm, crossing.first)
    monkeypatch.setattr(ferry, "_send", commit_and_send)
    crossing.drain(crossing.first, crossing.second)
    crossing.check()
