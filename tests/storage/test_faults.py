"""Failing disks: whatever call fails, nothing is acknowledged that is not there afterwards."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.model.status import VolumeState
from farmer.storage.errors import NoSpaceError, StorageError, VolumeUnavailableError
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of
from tests.storage.recording import Call, Fault, RecordingFiles

ERRORS = [errno.EIO, errno.ENOSPC]


def sync_of_log(call: Call) -> bool:
    return call.name == "sync_data" and call.path.endswith(".seg")


def write_of_log(call: Call) -> bool:
    return call.name == "pwritev" and call.path.endswith(".seg")


def check_after(farm: Farm, files: RecordingFiles, kept: dict[ShardId, bytes]) -> None:
    """After a restart on a healthy disk: all that was acknowledged is there, nothing leaks."""
    assert farm.engine.volumes()[0].reserved_bytes == sum(
        lease.reservation.charge_bytes
        for slot in farm.engine._slots
        if slot.volume is not None
        for lease in slot.volume._leases.values()
    )
    files.fault = None
    farm.reopen()
    for shard, data in kept.items():
        assert farm.read(shard) == data
    farm.store(noise(7777, "after"))
    farm.engine.close()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_every_failing_call_of_a_store(tmp_path: Path, error: int, after: bool, size: int) -> None:
    for number in range(30):
        files = RecordingFiles()
        farm = Farm(tmp_path / str(number), files=files)
        kept = {farm.store(noise(100)).shard: noise(100)}
        files.fault = fault = Fault(number, error, after=after)
        data = noise(size)
        try:
            upload = farm.begin(data)
        except StorageError:
            pass
        else:
            try:
                upload.write(data)
                upload.commit().result(10)
            except StorageError:
                upload.abandon()
            else:
                kept[shard_of(data)] = data
        check_after(farm, files, kept)
        if not fault.struck:
            return
    pytest.fail("the sweep did not come to its end")


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("erase", [False, True])
@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_every_failing_call_of_a_delete(
    tmp_path: Path, error: int, erase: bool, size: int
) -> None:
    for number in range(30):
        files = RecordingFiles()
        farm = Farm(tmp_path / str(number), files=files)
        kept = {farm.store(noise(100)).shard: noise(100)}
        shard = farm.store(noise(size)).shard
        files.fault = fault = Fault(number, error)
        try:
            farm.delete(shard, erase=erase)
        except StorageError:
            kept[shard] = noise(size)
        check_after(farm, files, kept)
        farm.open()
        states = {row.shard: row.state for row in farm.engine.page(ALICE, ShardId(bytes(32)), 9)}
        expected = ShardState.LIVE if shard in kept else None if erase else ShardState.TRASH
        assert states.get(shard) == expected
        farm.engine.close()
        if not fault.struck:
            return
    pytest.fail("the sweep did not come to its end")


def test_a_failed_sync_is_never_repeated_on_the_same_segment(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    farm.store(noise(100))
    files.forget()
    files.fault = Fault(0, errno.EIO, sync_of_log)
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200))
    assert [alert.name for alert in farm.engine.trouble()] == ["VolumeSyncFailed"]
    farm.store(noise(300))
    synced = [call.path for call in files.calls if call.name == "sync_data"]
    assert synced == ["00000001.seg", "00000002.seg", "00000002.seg"]
    farm.reopen()
    assert farm.read(shard_of(noise(300))) == noise(300)
    assert farm.read(shard_of(noise(100))) == noise(100)
    farm.engine.close()


def test_a_second_failed_sync_makes_the_volume_read_only(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(100)).shard
    for size in (200, 300):
        files.fault = Fault(0, errno.EIO, sync_of_log)
        with pytest.raises(VolumeUnavailableError):
            farm.store(noise(size))
    files.fault = None
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    assert farm.engine.free_bytes() == 0
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(400))
    with pytest.raises(VolumeUnavailableError):
        farm.delete(shard)
    assert farm.read(shard) == noise(100)
    assert dict(farm.engine.volumes()[0].errors)["sync"] == 2
    farm.engine.close()


@pytest.mark.parametrize("where", [write_of_log, sync_of_log])
def test_a_full_filesystem_refuses_with_no_space_and_recovers(tmp_path: Path, where) -> None:  # type: ignore[no-untyped-def]  # a predicate
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    farm.store(noise(100))
    files.fault = Fault(0, errno.ENOSPC, where)
    with pytest.raises(NoSpaceError):
        farm.store(noise(200))
    farm.store(noise(200))
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert not farm.engine.trouble()
    farm.engine.close()


def test_a_vanished_directory_makes_the_volume_gone_until_it_is_back(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(100)).shard
    hidden = farm.path.with_name("hidden")
    farm.path.rename(hidden)
    with pytest.raises(VolumeUnavailableError):
        farm.begin(noise(2 * MIB))
    farm.sweep()
    assert farm.engine.volumes()[0].state is VolumeState.GONE
    assert [alert.name for alert in farm.engine.trouble()] == ["VolumeGone"]
    with pytest.raises(VolumeUnavailableError):
        farm.read(shard)
    assert not farm.path.exists()
    hidden.rename(farm.path)
    farm.sweep()
    assert farm.read(shard) == noise(100)
    farm.engine.close()


def test_a_read_error_is_counted_and_is_no_corruption(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(100)).shard
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "pread")
    with pytest.raises(VolumeUnavailableError):
        farm.read(shard)
    assert dict(farm.engine.volumes()[0].errors)["read"] == 1
    assert farm.read(shard) == noise(100)
    farm.engine.close()
