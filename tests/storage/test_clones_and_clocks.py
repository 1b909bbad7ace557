"""A copy of a volume is not used beside it; a wrong clock removes nothing that it should not."""

from __future__ import annotations

import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.model.status import VolumeState
from farmer.storage.directory import MARKER_NAME, VolumeSettings, VolumeSetupError
from farmer.storage.errors import ShardNotFoundError, StorageError, VolumeUnavailableError
from farmer.storage.files import Access, OsFiles
from farmer.storage.uuids import Uuids
from farmer.storage.writer import Writer
from tests.storage.bench import ALICE, DAY_MS, MIB, Farm, crash_copy, noise, shard_of

YEAR_1970_MS, YEAR_2099_MS = 1000, 4_070_908_800_000


def test_a_copied_volume_is_refused_beside_the_first_and_used_without_it(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(100)).shard
    farm.engine.close()
    copy = tmp_path / "copy"
    crash_copy(farm.path, copy)
    before = sorted(path.name for path in copy.iterdir())
    farm.settings.append(VolumeSettings(copy, 64 * MIB))
    farm.open()
    first, second = farm.engine.volumes()
    states = {first.state, second.state}
    assert states == {VolumeState.HEALTHY, VolumeState.GONE}
    away = second if second.state is VolumeState.GONE else first
    assert "is a copy of" in away.reason
    assert farm.read(shard) == noise(100)
    farm.engine.close()
    if away is second:
        assert sorted(path.name for path in copy.iterdir()) == before, "it was not written to"
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    farm.open()
    assert farm.read(shard) == noise(100)
    farm.engine.close()


class Waiting(OsFiles):
    """A disk that does not answer whether something is there."""

    def __init__(self) -> None:
        self.is_asked, self.let_go = threading.Event(), threading.Event()

    def exists(self, path: Path) -> bool:
        self.is_asked.set()
        assert self.let_go.wait(60)
        return super().exists(path)


def test_where_a_copy_was_may_hang_and_only_the_copy_waits(tmp_path: Path) -> None:
    uuids, silent = Uuids(), Waiting()
    uuids.claim(b"one", tmp_path / "dead", OsFiles())
    moved = threading.Thread(target=uuids.claim, args=(b"one", tmp_path / "here", silent))
    moved.start()
    assert silent.is_asked.wait(20)
    other = threading.Thread(target=uuids.claim, args=(b"two", tmp_path / "b", OsFiles()))
    other.start()
    other.join(20)
    assert not other.is_alive()
    silent.let_go.set()
    moved.join(20)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / MARKER_NAME).touch()
    with pytest.raises(VolumeSetupError, match="is a copy of"):
        uuids.claim(b"one", tmp_path / "third", OsFiles())


def test_a_lease_from_the_future_lasts_a_day_from_when_it_is_seen(farm: Farm) -> None:
    """The clock was in 2099 when its renter was last heard of, and was then set right."""
    right_ms = farm.clocks.now_ms
    farm.clocks.now_ms = YEAR_2099_MS
    data = noise(3 * MIB)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    farm.reopen()
    farm.clocks.now_ms = right_ms
    farm.sweep()
    assert farm.begin(data).offset == MIB, "it is still there"
    farm.engine.close()
    farm.open()
    farm.sweep()
    farm.clocks.pass_days(2)
    farm.sweep()
    assert farm.engine.volumes()[0].reserved_bytes == 0
    assert not list((farm.path / "staging").iterdir())


@pytest.mark.parametrize("wrong_ms", [YEAR_1970_MS, YEAR_2099_MS])
def test_no_clock_empties_the_trash_before_seven_days_of_running(
    farm: Farm, wrong_ms: int
) -> None:
    """Deleted under a wrong clock, or swept under one: the running time decides as well."""
    right_ms = farm.clocks.now_ms
    shard = farm.store(noise(100)).shard
    farm.delete(shard)
    for now_ms in (wrong_ms, right_ms, wrong_ms, right_ms + 3650 * DAY_MS):
        farm.clocks.now_ms = now_ms
        farm.sweep()
        farm.reopen()
        assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    other = farm.store(noise(101)).shard
    farm.clocks.now_ms = wrong_ms
    farm.delete(other)
    farm.clocks.now_ms = right_ms
    farm.clocks.pass_days(6.9)
    farm.sweep()
    states = {row.state for row in farm.engine.page(ALICE, ShardId(bytes(32)), 9)}
    assert states == {ShardState.TRASH}


def test_a_limit_of_file_size_refuses_and_passes(farm: Farm) -> None:
    """RLIMIT_FSIZE: a write comes back short, the next one fails with EFBIG."""
    kept = farm.store(noise(100)).shard
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StorageError):
            farm.store(noise(500_000))
        with pytest.raises(StorageError):
            farm.store(noise(2 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert farm.store(noise(500_000)).state is ShardState.LIVE
    farm.reopen()
    assert farm.read(kept) == noise(100)
    assert farm.read(shard_of(noise(500_000))) == noise(500_000)
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(noise(2 * MIB)))


def test_a_write_that_comes_back_short_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: real(fd, [parts[0][:7]], at))
    files = OsFiles()
    fd = files.open(tmp_path / "file", Access.CREATE)
    files.pwritev(fd, [b"twenty and some bytes", b"", b" in pieces"], 3)
    assert files.pread(fd, 100, 3) == b"twenty and some bytes in pieces"
    files.close(fd)


def test_memory_that_runs_out_does_not_end_the_writer(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = farm.store(noise(100)).shard
    real = Writer._append
    left = [1]

    def append(self: Writer, *rest: object) -> None:
        real(self, *rest)  # type: ignore[arg-type]  # as it is called
        if left:
            left.pop()
            raise MemoryError

    monkeypatch.setattr(Writer, "_append", append)
    with pytest.raises(VolumeUnavailableError):
        farm.store(noise(200))
    farm.reopen()
    assert {row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 9)} == {kept}
    farm.store(noise(200))


def test_without_inodes_a_large_store_is_refused_and_deletes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path)
    small, large = farm.store(noise(100)).shard, farm.store(noise(2 * MIB)).shard
    real = OsFiles.open

    def open_(self: OsFiles, path: Path, access: Access) -> int:
        if access is Access.CREATE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(self, path, access)

    monkeypatch.setattr(OsFiles, "open", open_)
    with pytest.raises(StorageError):
        farm.store(noise(3 * MIB))
    farm.store(noise(101))
    farm.delete(small, erase=True)
    farm.delete(large, erase=True)
    farm.sweep()
    assert farm.engine.volumes()[0].reserved_bytes == 0
    monkeypatch.undo()
    farm.store(noise(3 * MIB))
    farm.engine.close()
