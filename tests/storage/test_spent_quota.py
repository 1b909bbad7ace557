"""A quota of the filesystem's own is spent (EDQUOT): the volume is full, not broken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.model.shard import DeletionOutcome, ShardState
from farmer.model.status import VolumeState
from farmer.storage.errors import NoSpaceError
from tests.crash.disks import MIB, make_image, mounted, need
from tests.nthcall.disk import NthFiles
from tests.nthcall.failures import Failure
from tests.nthcall.sqlite_disk import SqlFailure, watched
from tests.nthcall.sqlite_memory import SqlMemory
from tests.storage.bench import ALICE, Farm, noise
from tests.storage.recording import RecordingFiles

SIZE = 300_000


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Path]:
    """A directory on a btrfs of 600 MiB, of which 40 MiB may be used."""
    need("btrfs")
    image, folder = tmp_path / "image", tmp_path / "disk"
    make_image(image, "btrfs", 600 * MIB)
    folder.mkdir()
    with mounted(image, folder, "btrfs"):
        for words in (["quota", "enable"], ["qgroup", "limit", "40M"]):
            subprocess.run(["btrfs", *words, str(folder)], check=True, capture_output=True)
        yield folder


@pytest.mark.slow
def test_a_volume_whose_quota_is_spent_is_emptied_and_stores_again(limited: Path) -> None:
    """By the kernel's own word, on a filesystem that needs room also for giving up."""
    farm = Farm(limited, quota_bytes=400 * MIB)
    large = [farm.store(noise(2 * MIB, number)).shard for number in range(3)]
    small = _store_until_full(farm)
    with pytest.raises(NoSpaceError):
        farm.store(noise(3 * MIB))
    assert farm.engine.volumes()[0].state is VolumeState.FULL
    farm.reopen()
    assert not farm.engine.trouble(), "no reason to make the index again"

    assert farm.delete(small[0]).outcome is DeletionOutcome.TRASHED
    assert farm.delete(large[0], erase=True).outcome is DeletionOutcome.ERASED
    for shard in small[1:8]:
        # On btrfs a hole gives nothing back.
        assert farm.delete(shard, erase=True).outcome is DeletionOutcome.ERASED_AT_COMPACTION
    assert farm.engine.undelete(ALICE, small[0]).result(20).state is ShardState.LIVE
    farm.sweep()

    assert farm.read(farm.store(noise(SIZE, "again")).shard) == noise(SIZE, "again")
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    farm.reopen()
    assert farm.engine.volumes()[0].shards == len(small) - 7 + len(large) - 1 + 1
    farm.engine.close()


def _store_until_full(farm: Farm) -> list:  # type: ignore[type-arg]
    stored = []
    while len(stored) < 200:
        try:
            stored.append(farm.store(noise(SIZE, len(stored))).shard)
        except NoSpaceError:
            return stored
    raise AssertionError("the quota does not count")


def test_a_quota_that_only_sqlite_met_is_no_broken_index(tmp_path: Path) -> None:
    """It takes EDQUOT for an I/O error; the disk itself is asked what was meant."""
    files = NthFiles()
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(5000, number)).shard for number in range(3)]
    with watched(tmp_path, SqlMemory()) as disk:
        # Connections that are open already know nothing of the disk that fails.
        farm.reopen()
        files.besides = lambda name: (
            Failure.EDQUOT if name == "preallocate" and disk.struck else None
        )
        disk.arm(0, SqlFailure.EDQUOT)
        with pytest.raises(NoSpaceError):
            farm.store(noise(6000))
        assert farm.engine.volumes()[0].state is VolumeState.FULL
        disk.arm(0, SqlFailure.EDQUOT)
        assert farm.delete(shards[0], erase=True).outcome is DeletionOutcome.ERASED
        disk.arm(0, SqlFailure.EDQUOT)
        assert farm.delete(shards[1]).outcome is DeletionOutcome.TRASHED
        disk.disarm()
        files.besides = lambda _name: None
        farm.store(noise(6000))
        assert not farm.engine.trouble()
        farm.engine.close()


def test_a_reserve_that_cannot_be_cut_is_given_up_whole(tmp_path: Path) -> None:
    """Where cutting needs room itself."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    real = files.truncate

    def truncate(fd: int, length: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    files.truncate = truncate  # type: ignore[method-assign]  # a disk that does not cut
    writes = iter([True])
    write = files.pwritev

    def pwritev(fd: int, buffers: object, offset: int) -> None:
        if next(writes, False):
            raise OSError(122, "Disk quota exceeded")
        write(fd, buffers, offset)  # type: ignore[arg-type]  # as it was given

    files.pwritev = pwritev  # type: ignore[method-assign]  # as above
    assert farm.delete(shard).outcome is DeletionOutcome.TRASHED
    assert not (farm.path / "reserve").exists()
    files.truncate = real  # type: ignore[method-assign]  # as above
    farm.store(noise(5001))
    assert (farm.path / "reserve").stat().st_size
    farm.engine.close()
