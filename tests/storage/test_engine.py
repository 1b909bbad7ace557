"""The engine from outside: stores, reads, deletes, and what it refuses."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from farmer.audit.full import FullDigest
from farmer.audit.proof import verify_sample
from farmer.model.audit import AuditEntry
from farmer.model.ids import ShardId
from farmer.model.shard import (
    Deletion,
    DeletionOutcome,
    ShardState,
    StoredShard,
    Usage,
    charge_bytes,
)
from farmer.storage.directory import VolumeSettings
from farmer.storage.engine import EngineLimits
from farmer.storage.errors import (
    BadRangeError,
    BusyError,
    ContractFullError,
    CorruptShardError,
    NoSpaceError,
    ShardNotFoundError,
    ShardTooLargeError,
    TooManyError,
    VolumeUnavailableError,
    WrongHashError,
    WrongSizeError,
)
from farmer.storage.staging import LEASE_MS
from tests.storage.bench import ALICE, BOB, MIB, Farm, contract_of, crash_copy, noise, shard_of
from tests.storage.recording import Always, Call, Fault, RecordingFiles

SIZES = (0, 1, 4095, 4096, 65536, 65537, MIB, MIB + 5, 9 * MIB + 123)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_stored_is_read_back_also_after_a_restart(farm: Farm, size: int) -> None:
    data = noise(size)
    stored = farm.store(data)
    assert (stored.shard, stored.size_bytes) == (shard_of(data), size)
    assert farm.read(stored.shard) == data
    farm.reopen()
    assert farm.read(stored.shard) == data
    assert farm.engine.stat(ALICE, stored.shard) == stored
    assert farm.engine.usage(ALICE).live_bytes == charge_bytes(size)


def test_a_foreign_renter_sees_nothing(farm: Farm) -> None:
    shard = farm.store(noise(5000)).shard
    for ask in (
        lambda: farm.engine.open(BOB, shard),
        lambda: farm.engine.stat(BOB, shard),
        lambda: farm.delete(shard, BOB),
        lambda: farm.engine.undelete(BOB, shard),
        lambda: farm.engine.prove_full(BOB, bytes(32), AuditEntry(shard, 5000, 1)),
    ):
        with pytest.raises(ShardNotFoundError):
            ask()
    assert farm.engine.page(BOB, ShardId(bytes(32)), 10) == []
    assert farm.engine.usage(BOB).total_bytes == 0


def test_two_renters_hold_the_same_bytes_apart(farm: Farm) -> None:
    data = noise(5000)
    shard = farm.store(data, ALICE).shard
    farm.store(data, BOB)
    assert farm.delete(shard, ALICE, erase=True).outcome is DeletionOutcome.ERASED
    assert farm.read(shard, BOB) == data


def test_a_shard_that_is_held_is_answered_at_once(farm: Farm) -> None:
    data = noise(7000)
    stored = farm.store(data)
    assert farm.engine.begin(contract_of(ALICE), stored.shard, 7000) == stored
    with pytest.raises(WrongHashError):
        farm.engine.begin(contract_of(ALICE), stored.shard, 7001)


def test_storing_a_trashed_shard_takes_it_out_of_the_trash(farm: Farm) -> None:
    data = noise(7000)
    stored = farm.store(data)
    farm.delete(stored.shard)
    with pytest.raises(ShardNotFoundError):
        farm.engine.open(ALICE, stored.shard)
    assert farm.engine.begin(contract_of(ALICE), stored.shard, 7000) == stored
    assert farm.read(stored.shard) == data


@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_wrong_bytes_are_refused_and_nothing_is_kept(farm: Farm, size: int) -> None:
    free = farm.engine.free_bytes()
    upload = farm.engine.begin(contract_of(ALICE), shard_of(noise(size)), size)
    assert not isinstance(upload, StoredShard)
    upload.write(noise(size, "other"))
    with pytest.raises(WrongHashError):
        upload.commit()
    upload.abandon()
    assert farm.engine.usage(ALICE).total_bytes == 0
    assert farm.engine.free_bytes() == pytest.approx(free, abs=MIB)
    assert farm.engine.volumes()[0].reserved_bytes == 0
    assert not list((farm.path / "staging").iterdir())
    farm.store(noise(size))


@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_a_wrong_size_leaves_neither_file_nor_promise(farm: Farm, size: int) -> None:
    upload = farm.begin(noise(size))
    with pytest.raises(WrongSizeError):
        upload.write(noise(size + 1))
    with pytest.raises(VolumeUnavailableError, match="has ended"):
        upload.commit()
    short = farm.begin(noise(size))
    short.write(noise(size)[:-1])
    with pytest.raises(WrongSizeError) as told:
        short.commit()
    assert (told.value.declared_bytes, told.value.received_bytes) == (size, size - 1)
    again = farm.begin(noise(size))
    assert again.offset == 0, "and it is busy no more"
    again.abandon()
    assert farm.engine.volumes()[0].reserved_bytes == 0
    assert not list((farm.path / "staging").iterdir())
    farm.reopen()
    assert farm.engine.volumes()[0].reserved_bytes == 0


def test_a_store_that_the_disk_refused_may_be_begun_again_at_once(tmp_path: Path) -> None:
    """Nobody need give it up first: its shard is busy no more."""
    files = RecordingFiles()
    farm, data = Farm(tmp_path, files=files), noise(2 * MIB)
    upload = farm.begin(data)
    files.fault = Fault(0, errno.ENOSPC, lambda call: call.name == "pwritev")
    with pytest.raises(NoSpaceError):
        upload.write(data[:MIB])
    assert farm.read(farm.store(data).shard) == data
    farm.engine.close()


def test_an_upload_of_which_no_byte_was_durable_is_forgotten_by_a_kill(farm: Farm) -> None:
    upload = farm.begin(noise(2 * MIB))
    upload.write(noise(2 * MIB)[:MIB])
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    upload.abandon()
    farm.engine.close()
    farm.settings = [VolumeSettings(copy, 64 * MIB)]
    farm.open()
    assert farm.engine.volumes()[0].reserved_bytes == 0
    assert not list((farm.path / "staging").iterdir())


@pytest.mark.parametrize("name", ["unlink", "sync_directory"])
def test_a_lease_that_cannot_be_removed_is_kept(tmp_path: Path, name: str) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    data = noise(2 * MIB)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    files.fault = Fault(0, errno.EIO, lambda call: call.name == name)
    with pytest.raises(VolumeUnavailableError):
        farm.delete(shard_of(data))
    files.fault = None
    assert farm.engine.usage(ALICE).reserved_bytes > len(data)
    files.forget()
    assert farm.delete(shard_of(data)) == Deletion(DeletionOutcome.ERASED, 0)
    assert files.names("unlink", "sync_directory") == ["unlink", "sync_directory"]
    assert farm.engine.usage(ALICE).reserved_bytes == 0
    farm.engine.close()


def test_deleting_a_damaged_shard_gives_up_what_was_stored_of_it_again(farm: Farm) -> None:
    data = noise(2 * MIB)
    shard = farm.store(data).shard
    next((farm.path / "staging").iterdir()).write_bytes(b"")
    with pytest.raises(CorruptShardError):
        farm.read(shard)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    farm.delete(shard, erase=True)
    assert farm.engine.usage(ALICE) == Usage()
    assert not list((farm.path / "staging").iterdir())


def test_the_same_shard_cannot_be_stored_twice_at_once(farm: Farm) -> None:
    upload = farm.begin(noise(5000))
    with pytest.raises(BusyError):
        farm.begin(noise(5000))
    farm.begin(noise(5000), BOB).abandon()
    upload.abandon()
    upload.abandon()
    second = farm.begin(noise(5000))
    upload.abandon()
    with pytest.raises(BusyError):
        farm.begin(noise(5000))
    second.abandon()


def test_limits_of_size_space_and_number_are_kept(farm: Farm) -> None:
    with pytest.raises(ShardTooLargeError):
        farm.engine.begin(contract_of(ALICE), ShardId(bytes(32)), 64 * MIB + 1)
    with pytest.raises(NoSpaceError) as no_space:
        farm.engine.begin(contract_of(ALICE), ShardId(bytes(32)), 60 * MIB)
    assert no_space.value.available_bytes == farm.engine.free_bytes()
    with pytest.raises(ContractFullError) as full:
        farm.engine.begin(contract_of(ALICE, 8191), ShardId(bytes(32)), 4096)
    assert (full.value.wanted_bytes, full.value.available_bytes) == (8192, 8191)
    uploads = [farm.begin(noise(10, n)) for n in range(64)]
    with pytest.raises(TooManyError):
        farm.begin(noise(10, 64))
    for upload in uploads:
        upload.abandon()
    assert farm.engine.usage(ALICE).total_bytes == 0


def test_a_contract_has_so_many_shards_and_no_more(tmp_path: Path) -> None:
    """Each is a row of the index; what goes to the trash still is one."""
    farm = Farm(tmp_path, limits=EngineLimits(shards_per_contract_max=5))
    for n in range(5):
        farm.store(noise(10, n))
    for ask in (lambda: farm.begin(noise(10, 5)), lambda: farm.begin(noise(10, 6))):
        with pytest.raises(TooManyError) as caught:
            ask()
        assert (caught.value.have, caught.value.allowed) == (5, 5)
    farm.delete(shard_of(noise(10, 0)), erase=True)
    farm.store(noise(10, 5))
    farm.engine.close()


def test_ranges_are_exact_and_bounded(farm: Farm) -> None:
    data = noise(200_000)
    reader = farm.engine.open(ALICE, farm.store(data).shard)
    for offset, length in ((0, 0), (0, 1), (65535, 2), (65536, 65536), (199_999, 1), (200_000, 0)):
        assert reader.read(offset, length) == data[offset : offset + length]
    for offset, length in ((0, 200_001), (200_001, 0), (-1, 1)):
        with pytest.raises(BadRangeError):
            reader.read(offset, length)
    with pytest.raises(BadRangeError):
        reader.prove_range(200_000, 1)
    reader.close()
    reader.close()


@pytest.mark.parametrize("size", SIZES)
def test_proofs_verify(farm: Farm, size: int) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    proof = farm.engine.prove_sample(ALICE, b"n" * 32, AuditEntry(shard, size, 20))
    verify_sample(shard, size, b"n" * 32, 20, proof)
    digest = FullDigest(b"n" * 32, shard)
    digest.update(data)
    entry = AuditEntry(shard, size, 1)
    assert farm.engine.prove_full(ALICE, b"n" * 32, entry) == digest.finish()
    with pytest.raises(ShardNotFoundError):
        farm.engine.prove_sample(ALICE, b"n" * 32, AuditEntry(shard, size + 1, 20))


def test_pages_are_ascending_and_in_all_states(farm: Farm) -> None:
    shards = sorted(farm.store(noise(100, n)).shard for n in range(10))
    farm.delete(shards[3])
    first = farm.engine.page(ALICE, ShardId(bytes(32)), 4)
    rest = farm.engine.page(ALICE, first[-1].shard, 100)
    assert [one.shard for one in first + rest] == shards
    assert first[3].state is ShardState.TRASH


@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_trash_counts_can_be_undone_and_ends_after_seven_days_by_both_clocks(
    farm: Farm, size: int
) -> None:
    shard = farm.store(noise(size)).shard
    deletion = farm.delete(shard)
    assert deletion.outcome is DeletionOutcome.TRASHED
    assert deletion.gone_at_ms == farm.clocks.now_ms + 7 * 86_400_000
    farm.clocks.pass_days(1)
    assert farm.delete(shard) == deletion
    usage = farm.engine.usage(ALICE)
    assert (usage.live_bytes, usage.trash_bytes) == (0, charge_bytes(size))
    assert farm.engine.undelete(ALICE, shard).result(5).state is ShardState.LIVE
    assert farm.engine.undelete(ALICE, shard).result(5).state is ShardState.LIVE
    assert farm.read(shard) == noise(size)
    farm.delete(shard)
    assert farm.engine.sweep(farm.clocks.now_ms + 8 * 86_400_000, farm.clocks.observed_ms) == 0
    assert farm.engine.sweep(farm.clocks.now_ms, farm.clocks.observed_ms + 8 * 86_400_000) == 0
    farm.reopen()
    farm.clocks.pass_days(7)
    assert farm.sweep() == 1
    assert farm.engine.usage(ALICE).total_bytes == 0
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard)


@pytest.mark.parametrize("size", [5000, 2 * MIB])
@pytest.mark.parametrize("trashed", [False, True])
def test_an_erased_shard_is_gone_from_the_disk_when_that_is_said(
    farm: Farm, size: int, trashed: bool
) -> None:
    data = noise(size)
    shard = farm.store(data).shard
    if trashed:
        farm.delete(shard)
    assert farm.delete(shard, erase=True).outcome is DeletionOutcome.ERASED
    with pytest.raises(ShardNotFoundError):
        farm.engine.stat(ALICE, shard)
    files = [*farm.path.rglob("*.seg"), *farm.path.rglob("*.part")]
    everything = b"".join(path.read_bytes() for path in files)
    assert data[1000:1100] not in everything


def test_going_on_without_a_byte_does_not_make_a_lease_last_longer(farm: Farm) -> None:
    data = noise(3 * MIB)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    for _ in range(3):
        farm.clocks.now_ms += LEASE_MS // 2 - 1
        again = farm.begin(data)
        assert again.offset in (0, MIB)
        again.abandon()
        farm.sweep()

    assert farm.engine.begun_bytes(ALICE, shard_of(data)) == 0
    assert farm.engine.usage(ALICE) == Usage()


def test_purge_removes_one_contracts_shards_and_leases(farm: Farm) -> None:
    for n in range(300):
        farm.store(noise(10, n))
    kept = farm.store(noise(10), BOB)
    big = farm.begin(noise(3 * MIB))
    big.write(noise(3 * MIB)[: 2 * MIB])
    big.abandon()
    contract = contract_of(ALICE).contract
    assert farm.engine.purge(ALICE, contract_of(BOB).contract) == 0
    assert farm.engine.purge(ALICE, contract) == 300
    assert farm.engine.purge(ALICE, contract) == 0
    assert farm.engine.usage(ALICE).total_bytes == 0
    assert farm.engine.renters() == (BOB,)
    assert farm.read(kept.shard, BOB) == noise(10)


def test_a_closing_engine_takes_no_new_stores_but_finishes_those_under_way(farm: Farm) -> None:
    upload = farm.begin(noise(10))
    upload.write(noise(10))
    farm.engine.begin_close()
    with pytest.raises(VolumeUnavailableError):
        farm.begin(noise(11))
    upload.commit().result(5)
    late = noise(10)
    farm.engine.close()
    farm.open()
    assert farm.read(shard_of(late)) == late


def test_an_unfinished_store_on_a_disk_that_takes_no_writes_keeps_no_shard_from_being_deleted(
    tmp_path: Path,
) -> None:
    """But its bytes are not called erased."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files, volumes=2)
    data = noise(2 * MIB)
    upload = farm.begin(data)
    upload.write(data[:MIB])
    upload.abandon()
    (volume,) = [one for one in farm.engine.opened() if one.leases.of()]
    (lease,) = volume.leases.of()
    volume.ground.health.read_only("EROFS")
    shard = farm.store(data).shard
    part = volume.ground.paths.part(lease.file).name
    files.fault = Always(errno.EROFS, lambda call: call == Call("unlink", part))
    assert farm.delete(shard).outcome is DeletionOutcome.TRASHED
    assert farm.delete(shard, erase=True) == Deletion(DeletionOutcome.ERASED_AT_COMPACTION, 0)
    with pytest.raises(VolumeUnavailableError):
        farm.delete(shard, erase=True)
    files.fault = None
    assert farm.delete(shard, erase=True) == Deletion(DeletionOutcome.ERASED, 0)
    with pytest.raises(ShardNotFoundError):
        farm.delete(shard)
    farm.engine.close()
