"""Who reads a shard that is erased meanwhile: told so, while its space is back at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from farmer.model.audit import AuditEntry
from farmer.model.contract import TRASH_MS
from farmer.model.shard import BLOCK_BYTES, DeletionOutcome, ShardState, StoredShard
from farmer.storage.errors import ShardNotFoundError, ShardWentError
from farmer.storage.files import Access, OsFiles
from farmer.storage.mending import Mending
from farmer.storage.reader import VolumeReader
from tests.storage.bench import ALICE, DAY_MS, MIB, Farm, contract_of, noise, open_files
from tests.storage.rot import rot, row_of, volume_of

R = TypeVar("R")
SIZES = [200_000, 3 * MIB]
"""In the log, and in a file of its own."""
NONCE = bytes(32)

READ: dict[str, Callable[[VolumeReader], object]] = {
    "whole": lambda reader: reader.read(0, reader.stored.size_bytes),
    "a range with its proof": lambda reader: reader.prove_range(0, 4096),
    "a sample": lambda reader: reader.prove_sample(NONCE, 5),
    "all for an audit": lambda reader: reader.prove_full(NONCE),
    "an examination": lambda reader: reader.examine(),
}


class OvertakenFiles(OsFiles):
    """Has something done, once, within a call."""

    def __init__(self) -> None:
        self.act: Callable[[], object] = lambda: None
        self.before = self.after = ""
        """The call before whose work it is done, or after it."""

    def open(self, path: Path, access: Access) -> int:
        return self._amid(
            f"open {access.name}", lambda: super(OvertakenFiles, self).open(path, access)
        )

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return self._amid("pread", lambda: super(OvertakenFiles, self).pread(fd, length, offset))

    def _amid(self, name: str, work: Callable[[], R]) -> R:
        if self.before == name:
            self.before = ""
            self.act()
        found = work()
        if self.after == name:
            self.after = ""
            self.act()
        return found


@pytest.fixture
def files() -> OvertakenFiles:
    return OvertakenFiles()


@pytest.fixture
def farm(tmp_path: Path, files: OvertakenFiles) -> Iterator[Farm]:
    farm = Farm(tmp_path, files=files)
    yield farm
    farm.engine.close()


def erase(farm: Farm, shard: StoredShard) -> DeletionOutcome:
    outcome: DeletionOutcome = farm.delete(shard.shard, erase=True).outcome
    return outcome


def check_nothing_is_left(farm: Farm, data: bytes) -> None:
    """Not of the shard, and no alarm: it is no damage that its bytes are not there."""
    on_the_disk = [*farm.path.rglob("*.seg"), *farm.path.rglob("*.part")]
    assert not any(data[1000:1100] in path.read_bytes() for path in on_the_disk)
    assert not [path for path in open_files(farm.path) if "(deleted)" in path.name]
    (volume,) = farm.engine.volumes()
    assert (dict(volume.errors), volume.quarantined, volume.shards) == ({}, 0, 0)
    assert volume_of(farm).ground.index.doomed() == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_a_slow_reader_keeps_no_space_of_a_shard_that_is_erased(
    farm: Farm, size: int, read: Callable[[VolumeReader], object]
) -> None:
    data = noise(size)
    shard = farm.store(data)
    readers = [farm.engine.open(ALICE, shard.shard) for _ in range(2)]
    for reader in readers:
        assert reader.read(0, BLOCK_BYTES) == data[:BLOCK_BYTES]
    assert erase(farm, shard) is DeletionOutcome.ERASED
    check_nothing_is_left(farm, data)
    for reader in readers:
        assert reader.read_cached(0, BLOCK_BYTES) is None
        with pytest.raises(ShardWentError):
            read(reader)
        reader.close()
        reader.close()
    check_nothing_is_left(farm, data)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("before", "after"), [("pread", ""), ("", "pread"), ("open READ", ""), ("", "open READ")]
)
@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_a_shard_that_is_erased_amid_a_read_went_and_is_not_damaged(  # by name
    farm: Farm,
    files: OvertakenFiles,
    size: int,
    before: str,
    after: str,
    read: Callable[[VolumeReader], object],
) -> None:
    data = noise(size)
    shard = farm.store(data)
    reader = farm.engine.open(ALICE, shard.shard)
    volume_of(farm).handles.forget(reader.row.place)
    outcomes: list[DeletionOutcome] = []
    files.act = lambda: outcomes.append(erase(farm, shard))
    files.before, files.after = before, after
    with pytest.raises(ShardWentError):
        read(reader)
    assert outcomes == [DeletionOutcome.ERASED]
    check_nothing_is_left(farm, data)
    reader.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_audit", [True, False])
def test_a_shard_that_is_erased_as_it_is_opened_is_not_found(
    farm: Farm, files: OvertakenFiles, size: int, is_audit: bool
) -> None:
    data = noise(size)
    shard = farm.store(data)
    files.before, files.act = "pread", lambda: erase(farm, shard)
    with pytest.raises(ShardNotFoundError):
        if is_audit:
            farm.engine.prove_full(ALICE, NONCE, AuditEntry(shard.shard, size, 0))
        else:
            farm.engine.open(ALICE, shard.shard)
    assert volume_of(farm).readers == 0
    check_nothing_is_left(farm, data)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_stored_again_is_nothing_to_whoever_read_what_was_erased(
    farm: Farm, size: int
) -> None:
    data = noise(size)
    shard = farm.store(data)
    first = farm.engine.open(ALICE, shard.shard)
    erase(farm, shard)
    farm.store(data)
    second = farm.engine.open(ALICE, shard.shard)
    with pytest.raises(ShardWentError):
        first.read(0, size)
    assert second.read(0, size) == data
    first.close()
    assert second.read(0, size) == data
    second.close()
    assert volume_of(farm).readers == 0


@pytest.mark.parametrize("size", SIZES)
def test_who_reads_a_shard_that_goes_into_the_trash_reads_on(farm: Farm, size: int) -> None:
    """There it is paid for, and may come back."""
    data = noise(size)
    shard = farm.store(data)
    reader = farm.engine.open(ALICE, shard.shard)
    farm.delete(shard.shard)
    farm.sweep()
    assert reader.read(0, size) == data
    farm.clocks.pass_days(TRASH_MS / DAY_MS + 1)
    assert farm.sweep() == 1
    assert reader.read(0, size) == data
    reader.close()


@pytest.mark.parametrize("size", SIZES)
def test_who_reads_a_record_that_another_replaces_reads_on(farm: Farm, size: int) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    rot(farm, row_of(farm, shard), "payload", 0)
    reader = farm.engine.open(ALICE, shard)
    mending = farm.engine.repair(contract_of(ALICE), shard)
    assert isinstance(mending, Mending)
    mending.write(data[:BLOCK_BYTES])
    mending.commit().result(20)
    farm.sweep()
    assert reader.read(BLOCK_BYTES, size - BLOCK_BYTES) == data[BLOCK_BYTES:]
    assert len(volume_of(farm).ground.index.doomed()) == 1
    farm.delete(shard, erase=True)
    with pytest.raises(ShardWentError):
        reader.read(BLOCK_BYTES, 1)
    assert volume_of(farm).ground.index.doomed() == []
    reader.close()


@pytest.mark.parametrize("size", SIZES)
def test_who_reads_what_a_contract_leaves_behind_is_told_that_it_went(
    farm: Farm, size: int
) -> None:
    data = noise(size)
    reader = farm.engine.open(ALICE, farm.store(data).shard)
    farm.engine.purge(ALICE)
    with pytest.raises(ShardWentError):
        reader.read(0, size)
    check_nothing_is_left(farm, data)
    reader.close()


def test_a_repair_of_a_shard_that_is_erased_ends_and_nothing_is_left_of_it(farm: Farm) -> None:
    data = noise(2 * MIB)
    shard = farm.store(data)
    for block in (1, 3):
        rot(farm, row_of(farm, shard.shard), "payload", block)
    mending = farm.engine.repair(contract_of(ALICE), shard.shard)
    assert isinstance(mending, Mending)
    assert erase(farm, shard) is DeletionOutcome.ERASED
    with pytest.raises(ShardWentError):
        mending.write(data[BLOCK_BYTES : 2 * BLOCK_BYTES])
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard.shard)
    assert farm.engine.usage(ALICE).total_bytes == 0
    assert list((farm.path / "staging").iterdir()) == []
    farm.store(data)


@pytest.mark.parametrize("is_erased", [True, False])
def test_a_sound_shard_that_goes_as_soon_as_it_is_read_for_a_repair_is_not_called_stored(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, *, is_erased: bool
) -> None:
    shard = farm.store(noise(SIZES[0])).shard
    close = VolumeReader.close

    def close_and_delete(reader: VolumeReader) -> None:
        monkeypatch.undo()
        close(reader)
        farm.delete(shard, erase=is_erased)

    monkeypatch.setattr(VolumeReader, "close", close_and_delete)
    with pytest.raises(ShardWentError):
        farm.engine.repair(contract_of(ALICE), shard)
    assert farm.engine.stat(ALICE, farm.store(noise(SIZES[0])).shard).state is ShardState.LIVE


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_erased", [True, False])
def test_a_sound_shard_that_goes_while_it_is_read_for_a_repair_is_not_called_stored(
    farm: Farm, files: OvertakenFiles, size: int, is_erased: bool
) -> None:
    shard = farm.store(noise(size)).shard
    files.act = lambda: farm.delete(shard, erase=is_erased)
    files.after = "pread"
    with pytest.raises(ShardWentError):
        farm.engine.repair(contract_of(ALICE), shard)
    assert volume_of(farm).readers == 0
    again = farm.store(noise(size))
    assert again.state is ShardState.LIVE
    assert farm.engine.repair(contract_of(ALICE), shard) == again, "nobody has a claim on it"
