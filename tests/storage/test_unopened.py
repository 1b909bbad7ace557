"""What the system does not let us read is named and left as it is; all else is read and served."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.model.status import Alert
from farmer.storage.directory import MARKER_NAME
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.rights import file_of
from farmer.storage.unopened import KNOWN_MAX, Unopened
from tests.storage.bench import ALICE, MIB, Farm, noise
from tests.storage.rot import file_of as shard_file
from tests.storage.rot import row_of, volume_of
from tests.storage.test_scrub import found, scrub
from tests.storage.test_stored_already import Locked, lock, seal, unlock

SIZES = pytest.mark.parametrize("size", [5000, 3 * MIB])


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path, files=Locked())
    yield farm
    farm.engine.close()


def told(farm: Farm) -> Alert | None:
    (alert,) = farm.engine.trouble() or (None,)
    assert alert is None or alert.name == "FilesUnreadable"
    return alert


def stored(farm: Farm, size: int) -> ShardId:
    """Store a shard among others; nothing is written to its file any more."""
    shard = farm.store(noise(size)).shard
    farm.delete(farm.store(noise(5000, "marks")).shard, erase=True)
    seal(farm)
    farm.store(noise(3 * MIB, "another"))
    farm.reopen()
    return shard


@SIZES
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_scrub_reads_all_the_rest_and_blames_nothing(farm: Farm, size: int, number: int) -> None:
    shard = stored(farm, size)
    every = farm.engine.volumes()[0].shards
    path = shard_file(farm, row_of(farm, shard))
    left = [
        row for row in volume_of(farm).ground.index.some(None, 99) if shard_file(farm, row) == path
    ]
    lock(farm, shard, number)
    status = scrub(farm)
    assert (status.state, status.checked, found(status)) == ("idle", every - len(left), (0, 0, 0))
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    assert dict(farm.engine.volumes()[0].errors) == {"read": 1}
    unlock(farm)
    assert scrub(farm).checked == every


@SIZES
def test_the_owner_is_told_of_it_until_it_can_be_read(farm: Farm, size: int) -> None:
    shard = stored(farm, size)
    path = shard_file(farm, row_of(farm, shard))
    lock(farm, shard)
    scrub(farm)
    alert = told(farm)
    assert alert is not None
    assert f"cannot be read ({path}): Permission denied" in alert.message
    assert alert.command == f"chmod u+rw {path}"
    farm.engine.look_after_disks()
    assert told(farm) == alert
    unlock(farm)
    farm.engine.look_after_disks()
    assert told(farm) is None


@SIZES
def test_who_wants_to_read_it_is_turned_away_and_the_owner_told(farm: Farm, size: int) -> None:
    shard = stored(farm, size)
    lock(farm, shard)
    with pytest.raises(VolumeUnavailableError):
        farm.read(shard)
    assert told(farm) is not None
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    unlock(farm)
    assert farm.read(shard) == noise(size)


def test_a_volume_that_cannot_be_read_at_all_ends_the_pass(farm: Farm) -> None:
    """Then it is no matter of one file."""
    shard = stored(farm, 3 * MIB)
    lock(farm, shard)
    assert isinstance(farm.files, Locked)
    farm.files.names.add(MARKER_NAME)
    with pytest.raises(VolumeUnavailableError, match="the disk could not be read"):
        scrub(farm)
    assert told(farm) is None
    unlock(farm)


def test_an_opening_anew_forgets_what_is_not_so_any_more(farm: Farm) -> None:
    shard = stored(farm, 5000)
    lock(farm, shard)
    with pytest.raises(VolumeUnavailableError):
        farm.read(shard)
    unlock(farm)
    (slot,) = farm.engine._slots
    volume = volume_of(farm)
    slot._open_anew(volume)
    farm.engine.look_after_disks()
    assert told(farm) is None


REFUSED = OSError(errno.EACCES, os.strerror(errno.EACCES))


def test_several_are_counted_and_what_is_gone_is_over(farm: Farm, tmp_path: Path) -> None:
    health, unopened = volume_of(farm).ground.health, Unopened()
    files = Locked()
    paths = [tmp_path / f"{number}.seg" for number in range(3)]
    for path in paths:
        path.touch()
        unopened.note(path, REFUSED)
        unopened.note(path, REFUSED)
    unopened.tell(health, tmp_path)
    (alert,) = health.alerts()
    assert f"3 files, the first of them {paths[0]}, of {tmp_path} cannot be read" in alert.message
    files.names = {paths[1].name}
    paths[2].unlink()
    unopened.look_again(files)
    unopened.tell(health, tmp_path)
    (alert,) = health.alerts()
    assert f"A file of {tmp_path} cannot be read ({paths[1]})" in alert.message


def test_what_is_known_is_bounded_and_all_of_it_is_tried_in_turn(
    farm: Farm, tmp_path: Path
) -> None:
    """Whatever is over is found by so many looks, also behind some that are not."""
    health, unopened = volume_of(farm).ground.health, Unopened()
    files = Locked()
    for number in range(KNOWN_MAX + 9):
        unopened.note(tmp_path / f"{number}.seg", REFUSED)
    files.names = {f"{number}.seg" for number in range(40)}
    unopened.tell(health, tmp_path)
    (alert,) = health.alerts()
    assert f"{KNOWN_MAX} or more files" in alert.message
    for _ in range(KNOWN_MAX // 16):
        unopened.look_again(files)
    unopened.tell(health, tmp_path)
    (alert,) = health.alerts()
    assert "40 files" in alert.message


def test_an_error_that_names_no_file_is_of_the_one_that_was_asked_for() -> None:
    asked = Path("/volume/log/00000001.seg")
    assert file_of(REFUSED, asked) == asked
    assert file_of(OSError(errno.EACCES, "no", 7), asked) == asked
    assert file_of(OSError(errno.EACCES, "no", "/other"), asked) == Path("/other")
