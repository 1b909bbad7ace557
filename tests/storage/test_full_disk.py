"""A disk that others have filled: it refuses, can be emptied, and recovers by itself."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from farmer.model.shard import DeletionOutcome, ShardState
from farmer.model.status import VolumeState
from farmer.storage.errors import NoSpaceError, VolumeUnavailableError
from farmer.storage.files import Access, Buffer, Filesystem, OsFiles
from farmer.storage.fill import Fill
from farmer.storage.operations import Upkeep
from farmer.storage.quota import RESERVE_BYTES
from farmer.storage.reserve import Reserve
from farmer.storage.transaction import Transaction
from tests.crash.disks import make_image, mounted, need
from tests.needs import lack
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of
from tests.storage.recording import Fault, RecordingFiles
from tests.storage.test_moving import DRAIN

MOUNTED = 'mount -t tmpfs -o size=60m none "$1" && exec "$2" -m tests.storage.crowded "$1"'


class SharedDisk(RecordingFiles):
    """A disk of which so much is free; what the index takes is not counted."""

    room: int = 1 << 40

    def _take(self, length: int) -> None:
        if length > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= length

    def open(self, path: Path, access: Access) -> int:
        if access is Access.CREATE:
            self._take(4096)
        return super().open(path, access)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        self._take(max(0, offset + sum(map(len, buffers)) - os.fstat(fd).st_size))
        super().pwritev(fd, buffers, offset)

    def preallocate(self, fd: int, length: int) -> None:
        self._take(max(0, length - os.fstat(fd).st_size))
        super().preallocate(fd, length)

    def truncate(self, fd: int, length: int) -> None:
        before = os.fstat(fd).st_size
        super().truncate(fd, length)
        self.room += before - os.fstat(fd).st_size

    def filesystem(self, path: Path) -> Filesystem:
        return Filesystem(OsFiles().filesystem(path).size_bytes, self.room)


@pytest.mark.tool("unshare")
def test_a_volume_on_a_full_filesystem_can_be_emptied(tmp_path: Path) -> None:
    """A real one, of 60 MiB, in a namespace of its own."""
    try:
        subprocess.run(["unshare", "-rm", "true"], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        lack("to be let mount a filesystem in a namespace of its own")
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", MOUNTED, "sh", str(tmp_path), sys.executable],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_volume_on_a_full_copy_on_write_filesystem_can_be_emptied(tmp_path: Path) -> None:
    """A page of a mapped file cannot be made there, and ends the process: nothing is mapped."""
    need("btrfs")
    image, folder = tmp_path / "image", tmp_path / "disk"
    make_image(image, "btrfs", 200 * MIB)
    folder.mkdir()
    with mounted(image, folder, "btrfs"):
        ended = subprocess.run(
            [sys.executable, "-m", "tests.storage.crowded", str(folder)],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert ended.returncode == 0, ended.stderr


def test_marks_get_the_reserve_where_stores_are_refused(tmp_path: Path) -> None:
    files = SharedDisk()
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(5000, number)).shard for number in range(40)]
    files.room = 0
    outcomes = []
    for shard in shards:
        with pytest.raises(NoSpaceError):
            farm.store(noise(5001))
        try:
            outcomes.append(farm.delete(shard).outcome)
        except NoSpaceError:
            break
        files.room = 0
    assert outcomes == [DeletionOutcome.TRASHED] * (RESERVE_BYTES // (256 * 1024))
    assert farm.engine.volumes()[0].state is VolumeState.FULL
    assert told(farm) == {"VolumeTooFull"}
    assert (farm.path / "reserve").stat().st_size == 0
    farm.engine.close()


def test_the_reserve_is_taken_again_before_anything_is_promised(tmp_path: Path) -> None:
    files = SharedDisk()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    files.room = 0
    farm.delete(shard)
    files.room = 200 * 1024
    with pytest.raises(NoSpaceError):
        farm.store(noise(5001))
    farm.reopen()
    with pytest.raises(NoSpaceError):
        farm.store(noise(5001))
    assert (farm.path / "reserve").stat().st_size == RESERVE_BYTES - 256 * 1024
    files.room = MIB
    farm.store(noise(5001))
    assert (farm.path / "reserve").stat().st_size == RESERVE_BYTES
    assert files.room == MIB - 256 * 1024 - 8192
    farm.engine.close()


class TakenDisk(SharedDisk):
    """What comes free there goes to whoever has filled it."""

    def truncate(self, fd: int, length: int) -> None:
        room = self.room
        super().truncate(fd, length)
        self.room = room


def told(farm: Farm) -> set[str]:
    return {alert.name for alert in farm.engine.trouble()}


def test_where_others_get_what_is_given_up_it_is_kept_and_the_owner_told(tmp_path: Path) -> None:
    """As on an ext4 into whose root's own part somebody has written: the rest may yet help."""
    files = TakenDisk()
    farm = Farm(tmp_path, files=files, volumes=2)
    farm.engine.fill = Fill.FIRST
    shard = farm.store(noise(5000)).shard
    source, mover = farm.engine.opened()[0], farm.engine.mover
    files.room = 0
    for _ in range(3):
        with pytest.raises(NoSpaceError):
            farm.delete(shard)
        with pytest.raises(OSError, match="No space"):
            mover.begin(source, DRAIN)
    reserve = source.ground.paths.reserve
    assert reserve.stat().st_size == RESERVE_BYTES - 256 * 1024
    assert told(farm) == {"VolumeTooFull"}
    assert farm.read(shard) == noise(5000)
    farm.engine.look_after_disks()
    assert told(farm) == {"VolumeTooFull"}

    files.room = 8 * MIB
    farm.engine.look_after_disks()
    assert not told(farm)
    assert farm.delete(shard).outcome is DeletionOutcome.TRASHED
    assert reserve.stat().st_size == RESERVE_BYTES
    farm.engine.close()


def test_stores_of_a_batch_that_found_the_disk_full_do_not_get_the_reserve(
    tmp_path: Path,
) -> None:
    files = SharedDisk()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    volume = farm.engine._slots[0].volume
    assert volume is not None
    waiting = []

    def arrive_together(_transaction: Transaction) -> None:
        upload.write(noise(5001))
        waiting.append(upload.commit())
        waiting.append(farm.engine.delete(ALICE, shard, erase=False))
        files.room = 0

    upload = farm.begin(noise(5001))
    volume.writer.submit(Upkeep(arrive_together)).result(20)
    with pytest.raises(NoSpaceError):
        waiting[0].result(20)
    assert waiting[1].result(20).outcome is DeletionOutcome.TRASHED  # type: ignore[union-attr]
    assert farm.engine.volumes()[0].reserved_bytes == 0
    farm.engine.close()


@pytest.mark.parametrize("name", ["open", "truncate"])
def test_a_reserve_that_cannot_be_given_up_is_no_hindrance(tmp_path: Path, name: str) -> None:
    files = SharedDisk()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    files.room = 0
    files.fault = Fault(0, errno.EIO, lambda call: (call.name, call.path) == (name, "reserve"))
    with pytest.raises(NoSpaceError):
        farm.delete(shard)
    files.fault = None
    files.room = 8 * MIB
    farm.delete(shard)
    farm.engine.close()


def test_a_volume_without_room_for_a_reserve_is_opened_all_the_same(tmp_path: Path) -> None:
    files = SharedDisk()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    farm.engine.close()
    (farm.path / "reserve").unlink()
    files.fault = Fault(0, errno.EIO, lambda call: call.path == "reserve")
    files.room = 0
    farm.open()
    assert farm.read(shard) == noise(5000)
    with pytest.raises(NoSpaceError):
        farm.delete(shard)
    files.room = 8 * MIB
    assert farm.delete(shard).outcome is DeletionOutcome.TRASHED
    farm.engine.close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE])
def test_an_index_that_fails_on_a_full_disk_is_not_to_blame(tmp_path: Path, code: int) -> None:
    """SQLite calls it an I/O error when its shared memory cannot grow."""
    files = SharedDisk()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    volume = farm.engine._slots[0].volume
    assert volume is not None

    faults = iter([True])

    def fails(_transaction: object) -> None:
        if next(faults, False):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = code
            raise error

    if code != sqlite3.SQLITE_IOERR_SHMSIZE:
        with pytest.raises(VolumeUnavailableError):
            volume.writer.submit(Upkeep(fails)).result(20)
    else:
        volume.writer.submit(Upkeep(fails)).result(20)
        assert dict(farm.engine.volumes()[0].errors) == {"no_space": 1}
        faults = iter([True])
        with pytest.raises(VolumeUnavailableError), volume._index_errors():
            fails(None)
    assert (farm.engine.volumes()[0].state is VolumeState.FAILING) is (
        code != sqlite3.SQLITE_IOERR_SHMSIZE
    )
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    farm.engine.close()


@pytest.mark.parametrize(
    ("number", "spends"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["broken", "full"]
)
def test_only_for_want_of_room_an_opening_spends_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, spends: bool
) -> None:
    """A broken disk would not get well by it, and the deletions to come would lack it."""
    farm = Farm(tmp_path)
    shard = farm.store(noise(5000)).shard
    farm.engine.close()
    faults = iter([True])

    class Fails(SharedDisk):
        room = 0 if spends else 1 << 40

        def sync_directory(self, path: Path) -> None:
            if path.name == "log" and next(faults, False):
                raise OSError(number, os.strerror(number), str(path))
            super().sync_directory(path)

    spent: list[int] = []

    def spend(_: Reserve, size_bytes: int) -> bool:
        spent.append(size_bytes)
        return True

    monkeypatch.setattr(Reserve, "spend", spend)
    farm.files = Fails()
    farm.open()
    assert spent == ([RESERVE_BYTES] if spends else [])
    assert next(faults, None) is None, "it happened"
    state = farm.engine.volumes()[0].state
    assert (state is VolumeState.FULL) is spends, state
    if spends:
        assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE
    farm.engine.close()


def test_an_overdue_tidying_that_fails_does_not_keep_a_shard_from_being_deleted(
    tmp_path: Path,
) -> None:
    files = SharedDisk()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    other = farm.store(noise(10)).shard
    volume = farm.engine._slots[0].volume
    assert volume is not None
    for _ in range(150):
        farm.delete(other)
        farm.engine.undelete(ALICE, other).result(20)
        if volume.reclaimer.is_due:
            break
    assert volume.reclaimer.is_due
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "punch")
    assert farm.delete(shard).outcome is DeletionOutcome.TRASHED
    farm.engine.close()


class OneFullDisk(SharedDisk):
    """Of two disks the one with the first volume is shared."""

    def is_shared(self, path: Path) -> bool:
        return "volume0" in path.parts

    def open(self, path: Path, access: Access) -> int:
        base = super() if self.is_shared(path) else super(SharedDisk, self)
        return base.open(path, access)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        base = super() if self.is_shared(_place_of(fd)) else super(SharedDisk, self)
        base.pwritev(fd, buffers, offset)

    def preallocate(self, fd: int, length: int) -> None:
        base = super() if self.is_shared(_place_of(fd)) else super(SharedDisk, self)
        base.preallocate(fd, length)

    def truncate(self, fd: int, length: int) -> None:
        base = super() if self.is_shared(_place_of(fd)) else super(SharedDisk, self)
        base.truncate(fd, length)

    def filesystem(self, path: Path) -> Filesystem:
        base = super() if self.is_shared(path) else super(SharedDisk, self)
        return base.filesystem(path)


def _place_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def test_a_volume_on_a_disk_that_others_have_filled_is_emptied(tmp_path: Path) -> None:
    """Also with nothing at all left for the note that it is to be, and for what crosses."""
    files = OneFullDisk()
    farm = Farm(tmp_path, volumes=2, files=files)
    farm.engine.fill = Fill.FIRST
    data = [noise(5000, number) for number in range(5)]
    for one in data:
        farm.store(one)
    files.room = 0
    source, mover = farm.engine.opened()[0], farm.engine.mover
    mover.begin(source, DRAIN)
    files.room = 0
    while mover.step() is not None:
        files.room = 0
    assert [volume.shards for volume in farm.engine.volumes()] == [0, 5]
    for one in data:
        assert farm.read(shard_of(one)) == one
    farm.engine.close()
