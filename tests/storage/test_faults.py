"""Failing disks: whatever call fails, nothing is acknowledged that is not there afterwards."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.model.status import VolumeState
from farmer.storage.errors import (
    CorruptShardError,
    NoSpaceError,
    ShardNotFoundError,
    StorageError,
    VolumeUnavailableError,
    WrongHashError,
)
from farmer.storage.index import Index
from farmer.storage.operations import Upkeep
from tests.storage import recording
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of
from tests.storage.recording import Call, Fault, RecordingFiles

ERRORS = [errno.EIO, errno.ENOSPC]


def sync_of_log(call: Call) -> bool:
    return call.name == "sync_data" and call.path.endswith(".seg")


def write_of_log(call: Call) -> bool:
    return call.name == "pwritev" and call.path.endswith(".seg")


class BadCloses(RecordingFiles):
    """Each close fails, having closed the file: as where a network share writes back then."""

    is_bad = False

    def close(self, fd: int) -> None:
        super().close(fd)
        if self.is_bad and self._names.get(fd, "").endswith((".part", ".seg")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def check_after(farm: Farm, files: RecordingFiles, kept: dict[ShardId, bytes]) -> None:
    """After a restart on a healthy disk: all that was acknowledged is there, nothing leaks."""
    assert farm.engine.volumes()[0].reserved_bytes == sum(
        lease.reservation.charge_bytes
        for slot in farm.engine._slots
        if slot.volume is not None
        for lease in slot.volume.leases.of()
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


def test_an_empty_mount_point_is_left_empty(tmp_path: Path) -> None:
    """The system's disk shows through where the volume's is not mounted."""
    farm = Farm(tmp_path)
    shard = farm.store(noise(100)).shard
    farm.engine.close()
    hidden = farm.path.with_name("hidden")
    farm.path.rename(hidden)
    farm.path.mkdir()
    farm.open()
    assert farm.engine.volumes()[0].state is VolumeState.GONE
    with pytest.raises(VolumeUnavailableError):
        farm.begin(noise(10))
    farm.sweep()
    assert not list(farm.path.iterdir())
    farm.path.rmdir()
    hidden.rename(farm.path)
    farm.sweep()
    assert farm.read(shard) == noise(100)
    farm.engine.close()


def test_what_a_failed_sync_left_behind_is_not_read_after_the_loss_of_the_index(
    tmp_path: Path,
) -> None:
    """The bytes cannot even be cut off: the next segment says that they do not count."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    kept = {farm.store(noise(100)).shard}
    files.fault = Always(
        0, errno.EIO, lambda call: call.path == "00000001.seg" and call.name != "open"
    )
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200))
    files.fault = None
    kept.add(farm.store(noise(300)).shard)
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()
    assert {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 9)} == kept
    farm.engine.close()


class Always(Fault):
    """From now on every such call is done, and fails all the same."""

    after = True

    def strikes(self, call: Call) -> bool:
        return call.name != "pwritev" and self.matches(call)


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


def index_of(farm: Farm) -> Index:
    volume = farm.engine._slots[0].volume
    assert volume is not None
    return volume.ground.index


def test_an_index_without_room_refuses_and_recovers(farm: Farm) -> None:
    writer = index_of(farm)._writer
    writer.execute("PRAGMA max_page_count = 1")
    stored = []
    with pytest.raises(NoSpaceError):
        stored += (farm.store(noise(10, number)).shard for number in range(1000))
    assert farm.engine.volumes()[0].state is VolumeState.FULL
    assert farm.engine.volumes()[0].reserved_bytes == 0
    writer.execute("PRAGMA max_page_count = 1000000")
    farm.store(noise(11))
    farm.reopen()
    held = {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 5000)}
    assert held == {*stored, shard_of(noise(11))}


def test_a_large_store_that_the_index_refused_leaves_nothing_and_does_not_come_back(
    farm: Farm,
) -> None:
    writer = index_of(farm)._writer
    writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(NoSpaceError):
        for number in range(1000):
            farm.store(noise(10, number))
    data = noise(2 * MIB)
    with pytest.raises(NoSpaceError):
        farm.store(data)
    assert farm.engine.volumes()[0].reserved_bytes == 0
    assert not list((farm.path / "staging").iterdir())
    writer.execute("PRAGMA max_page_count = 1000000")
    farm.store(data)
    farm.delete(shard_of(data), erase=True)
    farm.reopen()
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(data))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EFBIG, errno.EACCES])
def test_what_is_no_fault_of_the_disk_does_not_close_the_volume(tmp_path: Path, code: int) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    for number in range(3):
        files.fault = Fault(0, code, lambda call: call.name == "preallocate")
        with pytest.raises(VolumeUnavailableError):
            farm.begin(noise(2 * MIB, number))
    files.fault = None
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert farm.store(noise(2 * MIB)).state is ShardState.LIVE
    farm.engine.close()


def test_a_list_is_refused_while_a_volume_is_away(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    farm.store(noise(100))
    (farm.settings[1].path / "farmer-volume.json").unlink()
    farm.engine.look_after_disks()
    with pytest.raises(VolumeUnavailableError):
        farm.engine.page(ALICE, ShardId(bytes(32)), 10)
    farm.engine.close()


def test_an_index_that_cannot_be_written_closes_the_volume_and_loses_nothing(farm: Farm) -> None:
    shard = farm.store(noise(10)).shard
    index_of(farm)._writer.execute("PRAGMA query_only = 1")
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(11))
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    assert farm.read(shard) == noise(10)
    farm.reopen()
    assert farm.read(shard) == noise(10)
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(noise(11)))
    farm.store(noise(11))


def test_an_index_that_cannot_be_written_back_is_no_loss(farm: Farm) -> None:
    first = farm.store(noise(2 * MIB)).shard
    index = index_of(farm)
    held = sqlite3.connect(farm.path / "index.sqlite")
    held.execute("BEGIN")
    held.execute("SELECT count(*) FROM shards").fetchone()
    index._writer.execute("PRAGMA busy_timeout = 1")
    farm.store(noise(20))
    with pytest.raises(StorageError):
        farm.engine._slots[0].volume.reclaimer._compactor.compact(99)  # type: ignore[union-attr]  # open
    held.close()
    farm.reopen()
    assert farm.read(first) == noise(2 * MIB)
    assert farm.read(shard_of(noise(20))) == noise(20)


def test_damage_found_on_a_closed_volume_is_still_not_served(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(100)).shard
    for size in (200, 300):
        files.fault = Fault(0, errno.EIO, sync_of_log)
        with pytest.raises(VolumeUnavailableError):
            farm.store(noise(size))
    files.fault = None
    with (farm.path / "log/00000001.seg").open("r+b") as file:
        file.seek(4096 + 300)
        file.write(b"\0\0\0\0\0\0")
    with pytest.raises(CorruptShardError):
        farm.read(shard)
    assert dict(farm.engine.volumes()[0].errors)["quarantine"] == 1
    hidden = farm.path.with_name("hidden")
    farm.path.rename(hidden)
    farm.sweep()
    hidden.rename(farm.path)
    farm.sweep()
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    farm.engine.close()


def test_a_lease_that_cannot_be_read_again_is_given_up(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    data = noise(3 * MIB)
    for fault in (Fault(0, errno.EIO, lambda call: call.name == "pread"), None):
        upload = farm.begin(data)
        upload.write(data[:MIB])
        upload.abandon()
        files.fault = fault
        if fault is None:
            part = next((farm.path / "staging").iterdir())
            with part.open("r+b") as file:
                file.truncate(1000)
        with pytest.raises(VolumeUnavailableError):
            farm.begin(data)
        files.fault = None
        assert farm.engine.volumes()[0].reserved_bytes == 0
        assert not list((farm.path / "staging").iterdir())
    farm.store(data)
    farm.engine.close()


@pytest.mark.parametrize(
    ("error", "name"), [(errno.EMFILE, "open"), (errno.ENOMEM, "pread"), (errno.EACCES, "open")]
)
def test_a_lease_stays_where_the_system_refuses_to_read_it_again(
    tmp_path: Path, error: int, name: str
) -> None:
    """Nothing is known of the disk then, and what was sent is not sent again."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    data = noise(3 * MIB)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    reserved = farm.engine.volumes()[0].reserved_bytes
    files.fault = Fault(0, error, lambda call: call.name == name and call.path.endswith(".part"))
    with pytest.raises(VolumeUnavailableError):
        farm.begin(data)
    assert files.fault.struck
    files.fault = None
    assert farm.engine.volumes()[0].reserved_bytes == reserved
    upload = farm.begin(data)
    assert upload.offset == MIB
    upload.write(data[MIB:])
    upload.commit().result(10)
    farm.engine.close()


def test_an_upload_that_cannot_be_parked_gives_its_space_back(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    upload = farm.begin(noise(3 * MIB))
    upload.write(noise(3 * MIB)[:MIB])
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "sync_data")
    upload.abandon()
    with pytest.raises(VolumeUnavailableError):
        upload.write(b"x")
    assert farm.engine.volumes()[0].reserved_bytes == 0
    upload = farm.begin(noise(3 * MIB))
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "unlink")
    upload.write(noise(3 * MIB, "wrong"))
    with pytest.raises(WrongHashError):
        upload.commit()
    assert dict(farm.engine.volumes()[0].errors)["unlink"] == 1
    files.fault = None
    farm.engine.close()


@pytest.mark.parametrize("name", ["punch", "unlink", "open"])
def test_a_sweep_that_fails_is_made_up_for_by_the_next(tmp_path: Path, name: str) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    for size in (5000, 2 * MIB):
        farm.delete(farm.store(noise(size)).shard)
    farm.clocks.pass_days(8)
    files.fault = Fault(0, errno.EIO, lambda call: call.name == name)
    farm.sweep()
    files.fault = None
    farm.sweep()
    farm.engine.compare_with_disk()
    status = farm.engine.volumes()[0]
    assert (status.trash_bytes, status.shards) == (0, 0)
    assert status.drift_bytes in {0, 4096}, "but for one block of the map of extents"
    assert not list(farm.path.glob("shards/*/*")) + list(farm.path.glob("staging/*"))
    farm.engine.close()


def test_a_failed_rename_is_tried_again(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(2 * MIB)).shard
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "rename")
    farm.reopen()
    assert farm.read(shard) == noise(2 * MIB)
    assert list((farm.path / "staging").iterdir())
    files.fault = None
    farm.reopen()
    assert not list((farm.path / "staging").iterdir())
    assert farm.read(shard) == noise(2 * MIB)
    farm.engine.close()


def test_what_a_failed_truncate_leaves_behind_is_never_read(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    farm.store(noise(100))
    strikes = iter([True, True])

    def at_sync_and_truncate(call: Call) -> bool:
        return call.name in {"sync_data", "truncate"} and next(strikes, False)

    files.fault = Fault(0, errno.EIO, at_sync_and_truncate)
    files.fault.strikes = at_sync_and_truncate  # type: ignore[method-assign]  # both calls fail
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200))
    files.fault = None
    farm.store(noise(300))
    farm.engine.close()
    assert noise(200) in (farm.path / "log/00000001.seg").read_bytes()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()
    held = {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 10)}
    assert held == {shard_of(noise(100)), shard_of(noise(300))}
    farm.engine.close()


def test_an_internal_error_fails_its_batch_and_not_the_thread(farm: Farm) -> None:
    volume = farm.engine._slots[0].volume
    assert volume is not None

    def broken(_transaction: object) -> None:
        raise KeyError("a bug")

    with pytest.raises(VolumeUnavailableError, match="a bug"):
        volume.writer.submit(Upkeep(broken)).result(5)
    assert farm.engine.volumes()[0].state is VolumeState.FAILING


def test_a_measurement_that_fails_is_counted(farm: Farm) -> None:
    (farm.path / "shards").rmdir()
    farm.engine.compare_with_disk()
    assert dict(farm.engine.volumes()[0].errors) == {"measure": 1}
    (farm.path / "shards").mkdir()


def test_a_large_store_whose_file_closes_badly_is_stored(tmp_path: Path) -> None:
    """All of it is on the disk by then: it is entered, answered and read as any other."""
    files = BadCloses()
    farm = Farm(tmp_path, files=files)
    files.is_bad = True
    shard = farm.store(noise(2 * MIB)).shard
    assert farm.engine.volumes()[0].reserved_bytes == 0
    assert farm.read(shard) == noise(2 * MIB)
    farm.delete(shard, erase=True)
    assert not farm.engine.trouble()
    files.is_bad = False
    check_after(farm, files, {})


def test_a_large_store_that_breaks_off_and_closes_badly_leaves_its_lease(tmp_path: Path) -> None:
    files = BadCloses()
    farm = Farm(tmp_path, files=files)
    files.is_bad = True
    upload = farm.begin(noise(3 * MIB))
    upload.write(noise(3 * MIB)[:MIB])
    upload.abandon()
    again = farm.begin(noise(3 * MIB))
    assert again.offset == MIB
    again.write(noise(3 * MIB)[MIB:])
    shard = again.commit().result(20).shard
    files.is_bad = False
    check_after(farm, files, {shard: noise(3 * MIB)})


@pytest.mark.parametrize("error", ERRORS)
def test_a_segment_that_closes_badly_after_a_failed_sync_is_only_sealed(
    tmp_path: Path, error: int
) -> None:
    """The next one is begun as ever; only the sync counts as a failure of the disk."""
    files = BadCloses()
    farm = Farm(tmp_path, files=files)
    kept = farm.store(noise(100)).shard
    files.is_bad = True
    files.fault = Fault(0, error, sync_of_log)
    with pytest.raises(StorageError):
        farm.store(noise(200))
    later = farm.store(noise(300)).shard
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert farm.engine.volumes()[0].reserved_bytes == 0
    files.is_bad = False
    check_after(farm, files, {kept: noise(100), later: noise(300)})


def test_a_segment_that_cannot_be_begun_leaves_no_file_though_it_closes_badly(
    tmp_path: Path,
) -> None:
    """Its number is free for the next try, and what is told is why it could not be begun."""
    files = BadCloses()
    farm = Farm(tmp_path, files=files)
    files.is_bad = True
    files.fault = Fault(0, errno.ENOSPC, write_of_log)
    with pytest.raises(NoSpaceError):
        farm.store(noise(200))
    assert not list(farm.path.glob("log/*"))
    kept = farm.store(noise(300)).shard
    files.is_bad = False
    check_after(farm, files, {kept: noise(300)})


def test_a_segment_that_could_not_be_begun_nor_removed_is_begun_by_the_next_store(
    tmp_path: Path,
) -> None:
    """Its file is in the way, but says nothing of the disk."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    bad = {("sync_directory", "log"), ("unlink", "00000001.seg")}
    files.fault = recording.Always(errno.EIO, lambda call: (call.name, call.path) in bad)
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200))
    files.fault = None
    kept = farm.store(noise(300)).shard
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    check_after(farm, files, {kept: noise(300)})


@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_a_volume_whose_files_close_badly_is_closed_in_order(tmp_path: Path, size: int) -> None:
    """Nothing is left to replay, and its lock is free."""
    files = BadCloses()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(size)).shard
    assert farm.read(shard) == noise(size)
    files.is_bad = True
    farm.engine.close()
    files.is_bad = False
    farm.open()
    assert farm.engine.opened()[0].ground.index.was_clean
    assert farm.read(shard) == noise(size)
    farm.engine.close()
