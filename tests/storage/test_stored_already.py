"""Who stores what is there already is told so after a look at its record, not by the index."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState, StoredShard
from farmer.storage.claims import EngineUpload
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access, OsFiles
from farmer.storage.fill import Fill
from farmer.storage.operations import Upkeep
from farmer.storage.places import Key
from farmer.storage.quota import SMALL_BYTES_MAX
from farmer.storage.whereabouts import Copies
from tests.storage.bench import ALICE, MIB, Farm, contract_of, noise, shard_of
from tests.storage.rot import file_of, flip, rot, row_of

SIZES = pytest.mark.parametrize("size", [5000, 3 * MIB])


class Locked(OsFiles):
    """Files that cannot be opened for reading, by name."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.number = errno.EACCES

    def open(self, path: Path, access: Access) -> int:
        if access is Access.READ and path.name in self.names:
            raise OSError(self.number, os.strerror(self.number), str(path))
        return super().open(path, access)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path, files=Locked())
    yield farm
    farm.engine.close()


def lock(farm: Farm, shard: ShardId, number: int = errno.EACCES) -> None:
    """Let a shard's file be one that cannot be opened any more."""
    row = row_of(farm, shard)
    path = file_of(farm, row)
    farm.engine.opened()[0].handles.forget(row.place)
    assert isinstance(farm.files, Locked)
    farm.files.names, farm.files.number = {path.name}, number


def seal(farm: Farm) -> None:
    """Let what is stored next go to another segment."""
    volume = farm.engine.opened()[0]
    before, number = volume.writer.active_number, 0
    while volume.writer.active_number == before:
        farm.store(noise(SMALL_BYTES_MAX, number))
        number += 1


def unlock(farm: Farm) -> None:
    assert isinstance(farm.files, Locked)
    farm.files.names = set()


def begin(farm: Farm, data: bytes) -> object:
    begun = farm.engine.begin(contract_of(ALICE), shard_of(data), len(data))
    if not isinstance(begun, StoredShard):
        begun.abandon()
    return begun


@SIZES
def test_a_sound_shard_is_answered_at_once(farm: Farm, size: int) -> None:
    stored = farm.store(noise(size))
    assert begin(farm, noise(size)) == stored
    assert farm.engine.opened()[0].readers == 0


@SIZES
@pytest.mark.parametrize("trashed", [False, True])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO])
def test_the_bytes_are_asked_for_where_its_file_cannot_be_read(
    farm: Farm, size: int, trashed: bool, number: int
) -> None:
    """The new record can be read at once, and is the only one."""
    data = noise(size)
    shard = farm.store(data).shard
    seal(farm)
    if trashed:
        farm.delete(shard)
    lock(farm, shard, number)
    assert farm.store(data).state is ShardState.LIVE
    assert farm.read(shard) == data
    unlock(farm)
    farm.sweep()
    farm.reopen()
    assert farm.read(shard) == data
    status = farm.engine.volumes()[0]
    assert (status.quarantined, status.trash_bytes) == (0, 0)


@SIZES
def test_nothing_changes_where_they_do_not_come(farm: Farm, size: int) -> None:
    data = noise(size)
    stored = farm.store(data)
    seal(farm)
    lock(farm, stored.shard)
    upload = farm.begin(data)
    upload.write(data[:10])
    upload.abandon()
    unlock(farm)
    assert farm.read(stored.shard) == data
    assert farm.engine.stat(ALICE, stored.shard) == stored


@SIZES
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ENODEV])
def test_it_is_refused_where_nobody_can_say_now(farm: Farm, size: int, number: int) -> None:
    """What passes by itself is worth no second sending."""
    data = noise(size)
    shard = farm.store(data).shard
    lock(farm, shard, number)
    with pytest.raises(VolumeUnavailableError):
        begin(farm, data)
    unlock(farm)
    assert isinstance(begin(farm, data), StoredShard)


@SIZES
@pytest.mark.parametrize("how", ["header", "file"])
def test_a_record_that_does_not_begin_as_it_was_written_goes_into_quarantine(
    farm: Farm, size: int, how: str
) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    seal(farm)
    if how == "header":
        rot(farm, row_of(farm, shard), "header")
    else:
        lock(farm, shard, errno.ENOENT)
    assert isinstance(begin(farm, data), EngineUpload)
    assert farm.engine.stat(ALICE, shard).state is ShardState.QUARANTINED
    assert farm.store(data).state is ShardState.LIVE
    assert farm.read(shard) == data


def test_no_second_one_is_laid_elsewhere_where_the_damage_cannot_be_noted(tmp_path: Path) -> None:
    """The two would count alike, and which of them was the later one be forgotten."""
    farm = Farm(tmp_path, volumes=2)
    farm.engine.fill = Fill.FIRST
    data = noise(5000)
    shard = farm.store(data).shard
    first, second = farm.engine.opened()
    row = first.find(ALICE, shard)
    assert row is not None
    flip(first.handles.path_of(row.place), row.place.offset + 60)
    first.ground.health.read_only("it takes no writes")
    with pytest.raises(VolumeUnavailableError):
        begin(farm, data)
    assert second.find(ALICE, shard) is None
    farm.engine.close()


@SIZES
def test_one_that_moves_while_it_is_looked_at_is_found(farm: Farm, size: int) -> None:
    """Its row is another one then, and as good."""
    data = noise(size)
    stored = farm.store(data)
    look_up = farm.engine._where.look_up

    def then_change(key: Key, *, for_store: bool = False) -> Copies:
        found = look_up(key, for_store=for_store)
        volume = farm.engine.opened()[0]
        now = replace(row_of(farm, stored.shard), observed_ms=7)
        volume.writer.submit(Upkeep(lambda transaction: transaction.correct(now))).result(20)
        return found

    farm.engine._where.look_up = then_change  # type: ignore[method-assign]  # the race
    assert begin(farm, data) == stored
