"""Short of memory or descriptors: refused, nothing lost, and the same farmer goes on."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.status import VolumeState
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.index import Index
from farmer.storage.index_errors import CommitInDoubtError
from farmer.storage.log import Batch
from farmer.storage.records import RecordHeader
from farmer.storage.staging import Staged
from farmer.storage.transaction import Transaction
from tests.storage.bench import ALICE, MIB, Farm, noise
from tests.storage.recording import RecordingFiles


def out_of_memory(*_given: object) -> None:
    raise MemoryError


def reserved(farm: Farm) -> int:
    return farm.engine.volumes()[0].reserved_bytes + farm.engine.usage(ALICE).reserved_bytes


@pytest.mark.parametrize("size", [5000, 2 * MIB])
@pytest.mark.parametrize("committed", [False, True])
def test_a_commit_in_which_memory_ran_out_is_looked_up_in_the_file(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, size: int, committed: bool
) -> None:
    """Nobody knows what the index holds then; the volume is opened again by itself."""
    kept = farm.store(noise(100)).shard
    slot, now = farm.engine._slots[0], [0.0]
    slot._around = replace(slot._around, monotonic_s=lambda: now[0])
    real = Index._commit

    def commit(self: Index, transaction: Transaction) -> None:
        if committed:
            real(self, transaction)
        raise CommitInDoubtError

    with monkeypatch.context() as patch:
        patch.setattr(Index, "_commit", commit)
        with pytest.raises(VolumeUnavailableError):
            farm.store(noise(size))
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    assert not reserved(farm), "what it held is nobody's any more"
    for _ in range(5):
        now[0] += 6
        farm.engine.look_after_disks()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert not farm.engine.trouble()
    assert farm.read(farm.store(noise(size)).shard) == noise(size)
    assert farm.read(kept) == noise(100)
    assert farm.engine.usage(ALICE).shards == 2


def test_memory_that_runs_out_where_a_large_store_begins_leaves_nothing(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RecordHeader, "encode", out_of_memory)
        with pytest.raises(MemoryError):
            farm.begin(noise(2 * MIB))
    assert not reserved(farm)
    assert not list((farm.path / "staging").iterdir())
    farm.store(noise(2 * MIB))


def test_memory_that_runs_out_where_a_store_goes_on_costs_no_lease(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(2 * MIB)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    with monkeypatch.context() as patch:
        patch.setattr(Staged, "resume", out_of_memory)
        with pytest.raises(MemoryError):
            farm.begin(data)
    upload = farm.begin(data)
    assert upload.offset == MIB
    upload.write(data[MIB:])
    upload.commit().result(10)
    assert not reserved(farm)


@pytest.mark.parametrize("committed", [False, True])
def test_an_index_whose_commit_is_in_doubt_while_it_is_opened_is_kept(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The next opening sees what there is; to make it again would read the whole volume."""
    kept = [farm.store(noise(size)).shard for size in (100, 2 * MIB)]
    real, left = Index._commit, [1]

    def commit(self: Index, transaction: Transaction) -> None:
        if not left:
            return real(self, transaction)
        left.pop()
        if committed:
            real(self, transaction)
        cause = sqlite3.OperationalError("out of memory")
        cause.sqlite_errorcode = sqlite3.SQLITE_NOMEM
        raise CommitInDoubtError("in a commit") from cause

    farm.engine.close()
    monkeypatch.setattr(Index, "_commit", commit)
    farm.open()
    assert not left, "nothing was committed while it was opened"
    farm.engine.look_after_disks()
    assert [one.name for one in farm.engine.trouble()] == []
    assert [farm.read(shard) for shard in kept] == [noise(100), noise(2 * MIB)]


def test_memory_that_runs_out_in_a_batch_is_no_fault_of_the_volume(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Batch.append, [1]

    def append(self: Batch, header: RecordHeader, parts: list[bytes]):  # type: ignore[no-untyped-def]  # as it is
        if left and left.pop():
            raise MemoryError
        return real(self, header, parts)  # type: ignore[arg-type]  # as it is called

    monkeypatch.setattr(Batch, "append", append)
    with pytest.raises(VolumeUnavailableError, match="memory"):
        farm.store(noise(5000))
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert not reserved(farm)
    assert farm.read(farm.store(noise(5000)).shard) == noise(5000)


@contextmanager
def few_descriptors(highest: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_an_index_that_could_not_be_opened_for_want_of_descriptors_is_kept(tmp_path: Path) -> None:
    """SQLite says that it cannot be opened; to make it again would read the whole volume."""
    farm = Farm(tmp_path)
    shard = farm.store(noise(5000)).shard
    failed = 0
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    for limit in range(3, highest + 2):
        farm.engine.close()
        with few_descriptors(limit):
            farm.open()
        failed += bool(farm.engine.trouble())
        farm.engine.look_after_disks()
        assert not farm.engine.trouble(), limit
        assert farm.read(shard) == noise(5000)
    assert failed > 5
    farm.engine.close()


def test_a_disk_that_keeps_failing_while_it_is_opened_costs_no_descriptors(
    tmp_path: Path,
) -> None:
    """It is tried again every few seconds, for ever."""

    class Silent(RecordingFiles):
        is_silent = False

        def filesystem(self, path: Path):  # type: ignore[no-untyped-def]  # as it is
            if self.is_silent:
                raise OSError(5, "Input/output error")
            return super().filesystem(path)

    files = Silent()
    farm = Farm(tmp_path, files=files)
    farm.store(noise(5000))
    farm.engine.close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    files.is_silent = True
    farm.open()
    for _ in range(20):
        farm.engine.look_after_disks()
    assert [alert.name for alert in farm.engine.trouble()] == ["VolumeGone"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    farm.engine.close()


def test_a_look_for_which_there_is_no_thread_is_made_up_for(tmp_path: Path) -> None:
    """Nobody waits for the one that never began."""
    farm = Farm(tmp_path)
    shard = farm.store(noise(5000)).shard
    slot, real = farm.engine._slots[0], farm.engine._slots[0]._around

    def refuse(_name: str, _work: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    hidden = tmp_path / "hidden"
    farm.path.rename(hidden)
    slot._around = replace(real, spawn=refuse)
    farm.engine.look_after_disks()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY, "nobody has looked"
    slot._around = real
    farm.engine.look_after_disks()
    assert farm.engine.volumes()[0].state is VolumeState.GONE
    hidden.rename(farm.path)
    farm.engine.look_after_disks()
    assert farm.read(shard) == noise(5000)
    farm.engine.close()
