"""Damage, once found, is never forgotten: not in the trash, not by a restart, not by a rebuild."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState, StoredShard
from farmer.storage.claims import EngineUpload
from farmer.storage.errors import CorruptShardError
from farmer.storage.places import Key
from tests.storage.bench import ALICE, MIB, Farm, contract_of, noise, shard_of
from tests.storage.recording import RecordingFiles

SIZES = [5000, 2 * MIB]


def damage(farm: Farm, data: bytes) -> ShardId:
    """Store a shard and change one of its bytes on the disk."""
    shard = farm.store(data).shard
    for path in (
        *farm.path.glob("*/*.seg"),
        *farm.path.glob("*/*.part"),
        *farm.path.glob("*/*/*.seg"),
    ):
        raw = path.read_bytes()
        at = raw.find(data[:64])
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at + 10)
                file.write(bytes([raw[at + 10] ^ 1]))
            return shard
    raise AssertionError("not on the disk")


def quarantine(farm: Farm, data: bytes) -> ShardId:
    shard = damage(farm, data)
    with pytest.raises(CorruptShardError):
        farm.read(shard)
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
    return shard


def restart(farm: Farm) -> None:
    farm.reopen()


def rebuild(farm: Farm) -> None:
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()


def nothing(_farm: Farm) -> None:
    """Neither."""


TIMES = pytest.mark.parametrize("meanwhile", [nothing, restart, rebuild])


def undelete(farm: Farm, shard: ShardId) -> StoredShard:
    return farm.engine.undelete(ALICE, shard).result(20)


@TIMES
@pytest.mark.parametrize("size", SIZES)
def test_a_quarantined_shard_comes_out_of_the_trash_into_quarantine(
    farm: Farm, size: int, meanwhile: Callable[[Farm], None]
) -> None:
    shard = quarantine(farm, noise(size))
    farm.delete(shard)
    assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    meanwhile(farm)
    assert undelete(farm, shard).state is ShardState.QUARANTINED
    meanwhile(farm)
    assert undelete(farm, shard).state is ShardState.QUARANTINED
    with pytest.raises(CorruptShardError):
        farm.read(shard)
    assert farm.engine.volumes()[0].quarantined == 1


@TIMES
@pytest.mark.parametrize("trashed", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_of_a_damaged_shard_are_asked_for_again(
    farm: Farm, size: int, trashed: bool, meanwhile: Callable[[Farm], None]
) -> None:
    data = noise(size)
    shard = quarantine(farm, data)
    if trashed:
        farm.delete(shard)
    meanwhile(farm)
    upload = farm.begin(data)
    assert (upload.offset, len(data)) == (0, size)
    upload.write(data)
    assert upload.commit().result(20).state is ShardState.LIVE
    meanwhile(farm)
    assert farm.read(shard) == data
    status = farm.engine.volumes()[0]
    assert (status.quarantined, status.trash_bytes, status.shards) == (0, 0, 1)
    farm.delete(shard)
    assert farm.store(data).state is ShardState.LIVE
    assert farm.read(shard) == data


@TIMES
def test_damage_found_by_a_reader_of_a_shard_that_was_trashed_meanwhile_is_kept(
    farm: Farm, meanwhile: Callable[[Farm], None]
) -> None:
    data = noise(200_000)
    shard = damage(farm, data)
    reader = farm.engine.open(ALICE, shard)
    deletion = farm.delete(shard)
    with pytest.raises(CorruptShardError):
        reader.read(0, len(data))
    with pytest.raises(CorruptShardError):
        reader.read(0, 1)
    reader.close()
    meanwhile(farm)
    trashed = farm.engine.stat(ALICE, shard)
    assert (trashed.state, trashed.gone_at_ms) == (ShardState.TRASH, deletion.gone_at_ms)
    assert undelete(farm, shard).state is ShardState.QUARANTINED


@pytest.mark.parametrize("trashed", [False, True])
def test_condensed_marks_still_say_that_a_shard_is_damaged(farm: Farm, trashed: bool) -> None:
    shard = quarantine(farm, noise(5000))
    other = farm.store(noise(10)).shard
    if trashed:
        deletion = farm.delete(shard)
    for _ in range(150):
        farm.delete(other)
        undelete(farm, other)
    farm.sweep()
    volume = farm.engine._slots[0].volume
    assert volume is not None
    assert len(volume.ground.index.marks()) < 100, "condensed"
    rebuild(farm)
    stored = farm.engine.stat(ALICE, shard)
    if trashed:
        assert (stored.state, stored.gone_at_ms) == (ShardState.TRASH, deletion.gone_at_ms)
    assert undelete(farm, shard).state is ShardState.QUARANTINED
    assert farm.engine.stat(ALICE, other).state is ShardState.LIVE


@pytest.mark.parametrize("trashed", [False, True])
def test_a_compaction_carries_the_damage_along(tmp_path: Path, trashed: bool) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False))
    shard = quarantine(farm, noise(5000))
    if trashed:
        farm.delete(shard)
    for number in range(8):
        farm.delete(farm.store(noise(900_000, number)).shard, erase=True)
    farm.sweep()
    assert not (farm.path / "log/00000001.seg").exists(), "compacted"
    rebuild(farm)
    assert undelete(farm, shard).state is ShardState.QUARANTINED
    begun = farm.engine.begin(contract_of(ALICE), shard_of(noise(5000)), 5000)
    assert isinstance(begun, EngineUpload)
    begun.abandon()
    farm.engine.close()


@pytest.mark.parametrize("punch", [True, False])
def test_a_shard_that_the_sweep_takes_while_it_is_asked_for_is_stored_anew(
    tmp_path: Path, punch: bool
) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=punch))
    data = noise(5000)
    farm.delete(farm.store(data).shard)
    farm.clocks.pass_days(8)
    look_up = farm.engine._where.look_up

    def then_sweep(key: Key, *, for_store: bool = False) -> object:
        found = look_up(key, for_store=for_store)
        assert farm.sweep() in {0, 1}
        return found

    farm.engine._where.look_up = then_sweep  # type: ignore[method-assign,assignment]  # the race
    upload = farm.begin(data)
    upload.write(data)
    assert upload.commit().result(20).state is ShardState.LIVE
    farm.engine._where.look_up = look_up  # type: ignore[method-assign]
    assert farm.read(shard_of(data)) == data
    farm.engine.close()


def test_damage_found_while_a_trashed_shard_is_stored_again_asks_for_its_bytes(
    farm: Farm,
) -> None:
    data = noise(5000)
    shard = damage(farm, data)
    reader = farm.engine.open(ALICE, shard)
    farm.delete(shard)
    look_up = farm.engine._where.look_up

    def then_read(key: Key, *, for_store: bool = False) -> object:
        found = look_up(key, for_store=for_store)
        with pytest.raises(CorruptShardError):
            reader.read(0, 1)
        return found

    farm.engine._where.look_up = then_read  # type: ignore[method-assign,assignment]  # the race
    upload = farm.begin(data)
    reader.close()
    upload.write(data)
    upload.commit().result(20)
    farm.engine._where.look_up = look_up  # type: ignore[method-assign]
    assert farm.read(shard) == data
