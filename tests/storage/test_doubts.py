"""What could not be undone on the disk is neither there nor absent, until it is settled."""

from __future__ import annotations

import errno
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState, StoredShard
from farmer.storage.doubts import InDoubtError
from farmer.storage.errors import NoSpaceError, ShardNotFoundError, StorageError
from farmer.storage.index import Index
from farmer.storage.index_errors import CommitInDoubtError
from farmer.storage.transaction import Transaction
from tests.storage.bench import ALICE, BOB, MIB, Farm, crash_copy, noise, shard_of
from tests.storage.recording import Call, Fault, RecordingFiles
from tests.storage.test_held_sync import HeldFiles

NOBODY_AFTER = ShardId(bytes(32))


@dataclass
class Failing(Fault):
    """All calls of some names fail, on some files, for as long as it lasts."""

    number: int = 0
    error: int = errno.EIO
    calls: dict[str, str] = field(default_factory=dict)
    """By name of the call: how the path ends."""

    def strikes(self, call: Call) -> bool:
        end = self.calls.get(call.name)
        return end is not None and call.path.endswith(end)


class Refusing(Failing):
    """All of a batch is written, and refused for lack of room; it cannot be cut off."""

    after = True

    def __init__(self) -> None:
        super().__init__(error=errno.ENOSPC, calls={"pwritev": ".seg", "truncate": ".seg"})

    def strikes(self, call: Call) -> bool:
        self.after = call.name == "pwritev"
        return super().strikes(call)


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path, files=RecordingFiles())


def fail(farm: Farm, error: int = errno.EIO, **calls: str) -> None:
    assert isinstance(farm.files, RecordingFiles)
    farm.files.fault = Failing(error=error, calls=calls) if calls else None


def fail_to_store(farm: Farm) -> None:
    """Refuse a batch that cannot be cut off either, nor a new segment be begun."""
    fail(farm, errno.ENOSPC, sync_data="1.seg", truncate="1.seg", open="2.seg")


def commit(farm: Farm, number: int) -> Future[StoredShard]:
    upload = farm.begin(noise(5000, number))
    upload.write(noise(5000, number))
    return upload.commit()


def state_of(farm: Farm, shard: ShardId) -> ShardState | None:
    rows = farm.engine.page(ALICE, NOBODY_AFTER, 100)
    return next((row.state for row in rows if row.shard == shard), None)


def test_a_store_that_could_not_be_cut_off_is_in_doubt_and_may_be_there_after_a_kill(
    farm: Farm, tmp_path: Path
) -> None:
    kept = farm.store(noise(100)).shard
    fail_to_store(farm)
    with pytest.raises(NoSpaceError):
        farm.store(noise(5000))
    for ask in (farm.engine.stat, farm.engine.open):
        with pytest.raises(InDoubtError):
            ask(ALICE, shard_of(noise(5000)))
    with pytest.raises(InDoubtError):
        farm.engine.page(ALICE, NOBODY_AFTER, 10)
    assert farm.engine.page(BOB, NOBODY_AFTER, 10) == []
    assert farm.read(kept) == noise(100)
    crash_copy(farm.path, tmp_path / "killed/volume0")
    killed = Farm(tmp_path / "killed")
    assert killed.read(shard_of(noise(5000))) == noise(5000)
    killed.engine.close()


def test_a_doubt_ends_when_the_log_says_where_it_ends(farm: Farm, tmp_path: Path) -> None:
    farm.store(noise(100))
    fail_to_store(farm)
    with pytest.raises(NoSpaceError):
        farm.store(noise(5000))
    fail(farm)
    farm.engine.look_after_disks()
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(noise(5000)))
    crash_copy(farm.path, tmp_path / "killed/volume0")
    killed = Farm(tmp_path / "killed")
    with pytest.raises(ShardNotFoundError):
        killed.engine.stat(ALICE, shard_of(noise(5000)))
    killed.engine.close()


def test_a_delete_that_could_not_be_cut_off_is_in_doubt(farm: Farm) -> None:
    shard = farm.store(noise(5000)).shard
    fail_to_store(farm)
    with pytest.raises(NoSpaceError):
        farm.delete(shard)
    with pytest.raises(InDoubtError):
        farm.engine.open(ALICE, shard)
    fail(farm)
    farm.engine.look_after_disks()
    assert farm.read(shard) == noise(5000)


def test_records_behind_a_shorter_batch_do_not_come_back(tmp_path: Path) -> None:
    """Refused for lack of room and not cut off: nothing may be written over their beginning."""
    files = HeldFiles()
    farm = Farm(tmp_path, files=files)
    kept = [farm.store(noise(100)).shard]
    files.hold()
    futures = [commit(farm, number) for number in range(1)]
    assert files.reached.wait(20)
    futures += [commit(farm, number) for number in range(1, 4)]
    # The batch of three that waits is written, but not by the word of the disk, and stays.
    files.fault = Refusing()
    files.let_go.set()
    kept.append(futures[0].result(20).shard)
    for future in futures[1:]:
        with pytest.raises(StorageError):
            future.result(20)
    files.fault = None
    kept.append(farm.store(noise(200)).shard)
    crash_copy(farm.path, tmp_path / "killed/volume0")
    for path in (tmp_path / "killed/volume0").glob("index.sqlite*"):
        path.unlink()
    killed = Farm(tmp_path / "killed")
    found = {row.shard for row in killed.engine.page(ALICE, NOBODY_AFTER, 10)}
    assert found == set(kept)
    killed.engine.close()


def test_the_file_of_a_refused_large_store_keeps_its_space_until_it_is_gone(farm: Farm) -> None:
    data = noise(2 * MIB)
    upload = farm.begin(data)
    upload.write(data)
    fail(farm, sync_data=".part", unlink=".part")
    with pytest.raises(StorageError):
        upload.commit().result(10)
    (volume,) = farm.engine.opened()
    assert volume.ground.account.reserved_bytes > 2 * MIB
    with pytest.raises(InDoubtError):
        farm.engine.stat(ALICE, shard_of(data))
    fail(farm)
    farm.engine.look_after_disks()
    assert volume.ground.account.reserved_bytes == 0
    assert not list(farm.path.glob("staging/*"))
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(data))


def test_a_refused_large_store_does_not_come_back_after_a_power_cut(farm: Farm) -> None:
    """Its name is gone durably before the refusal: a start would take it for stored."""
    data = noise(2 * MIB)
    upload = farm.begin(data)
    upload.write(data)
    (volume,) = farm.engine.opened()
    assert isinstance(farm.files, RecordingFiles)
    farm.files.forget()
    volume.ground.index._writer.execute("DROP TABLE staged")
    with pytest.raises(StorageError):
        upload.commit().result(10)
    names = [call.name for call in farm.files.calls]
    assert "sync_directory" in names[names.index("unlink") :]


def test_a_lease_whose_file_stays_keeps_its_space(farm: Farm) -> None:
    data = noise(12 * MIB)
    upload = farm.begin(data)
    upload.write(data[: 10 * MIB])
    upload.abandon()
    (volume,) = farm.engine.opened()
    fail(farm, unlink=".part")
    volume.purge(ALICE, None)
    assert volume.ground.account.reserved_bytes > 12 * MIB
    fail(farm)
    farm.engine.look_after_disks()
    assert volume.ground.account.reserved_bytes == 0


def test_what_the_index_refused_is_cut_off_durably(farm: Farm) -> None:
    """It was synced: without a sync of the cut a power cut would bring it back."""
    shard = farm.store(noise(100)).shard
    (volume,) = farm.engine.opened()
    volume.ground.index._writer.execute("DROP TABLE usage")
    assert isinstance(farm.files, RecordingFiles)
    farm.files.forget()
    with pytest.raises(StorageError):
        farm.delete(shard)
    # After these the disk is asked whether it lacks room.
    assert farm.files.names("pwritev", "sync_data", "truncate")[:4] == [
        "pwritev",
        "sync_data",
        "truncate",
        "sync_data",
    ]


def test_what_could_not_be_cut_off_counts_until_it_is(farm: Farm) -> None:
    """It takes space on the disk that nobody else may be promised."""
    farm.store(noise(100))
    fail(farm, errno.ENOSPC, sync_data="1.seg", truncate="1.seg")
    with pytest.raises(NoSpaceError):
        farm.store(noise(500_000))
    farm.engine.compare_with_disk()
    assert farm.engine.volumes()[0].drift_bytes == 0
    (volume,) = farm.engine.opened()
    assert volume.ground.account.log_bytes > 500_000
    fail(farm)
    farm.engine.look_after_disks()
    farm.engine.compare_with_disk()
    assert farm.engine.volumes()[0].drift_bytes == 0
    assert volume.ground.account.log_bytes < 20_000


def test_a_file_whose_removal_was_not_synced_is_removed_durably_later(farm: Farm) -> None:
    """From where it lay then: its name in staging would come back with a power cut."""
    shard = farm.store(noise(2 * MIB)).shard
    fail(farm, sync_directory="staging")
    farm.delete(shard, erase=True)
    fail(farm)
    assert isinstance(farm.files, RecordingFiles)
    farm.files.forget()
    farm.sweep()
    synced = {call.path for call in farm.files.calls if call.name == "sync_directory"}
    assert "staging" in synced
    (volume,) = farm.engine.opened()
    assert not volume.ground.index.doomed()


@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_what_a_commit_in_doubt_may_have_stored_is_in_doubt_and_erased_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The next opening finds it in the log, or in its file: an erase must not be forgotten."""
    farm = Farm(tmp_path, volumes=2)
    data = noise(size)

    def in_doubt(_index: Index, _transaction: Transaction) -> None:
        raise CommitInDoubtError

    with monkeypatch.context() as patch:
        patch.setattr(Index, "_commit", in_doubt)
        with pytest.raises(StorageError, match="CommitInDoubt"):
            farm.store(data)
    with pytest.raises(InDoubtError):
        farm.engine.stat(ALICE, shard_of(data))
    farm.store(data)
    farm.delete(shard_of(data), erase=True)
    farm.reopen()
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard_of(data))
    farm.engine.close()
