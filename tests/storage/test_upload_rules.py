"""Where stores begin, how they end, and what is left of them on the disk and in the ledger."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import pytest

from farmer.model.ids import ContractId, ShardId
from farmer.model.shard import ShardState, charge_bytes
from farmer.model.status import VolumeState
from farmer.storage import uploads
from farmer.storage.doubts import InDoubtError
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import (
    NoSpaceError,
    ShardNotFoundError,
    VolumeClosedError,
    VolumeUnavailableError,
    WrongHashError,
    WrongSizeError,
)
from farmer.storage.files import Filesystem
from farmer.storage.fill import Fill
from farmer.storage.places import Key
from farmer.storage.placing import begin_on, candidates
from farmer.storage.staging import Lease, Staged
from farmer.storage.upload import PART_BYTES, LargeUpload, SmallUpload, Wanted
from farmer.storage.uploads import AnyUpload
from farmer.storage.volume import Volume
from farmer.storage.whereabouts import Copy
from tests.storage.bench import (
    ALICE,
    BOB,
    MIB,
    Farm,
    contract_of,
    noise,
    open_files,
    shard_of,
)
from tests.storage.recording import Always, Call, Fault, RecordingFiles

SMALL, LARGE = 5000, MIB + 5000
CHARGE = charge_bytes(LARGE)


@dataclass
class Bench:
    """One volume, and its disk, which can be made to fail."""

    farm: Farm
    files: RecordingFiles

    @property
    def volume(self) -> Volume:
        return self.farm.engine.opened()[0]

    def begin(self, size: int = LARGE, **fields: object) -> AnyUpload:
        return self.volume.uploads.begin(wanted(size, **fields))

    def lease(self, size: int = LARGE, so_far: int = 3000, **fields: object) -> None:
        """Leave an upload unfinished."""
        upload = self.begin(size, **fields)
        upload.write(noise(size)[:so_far])
        upload.abandon()
        assert len(self.parts) == 1

    def finish(self, upload: AnyUpload, size: int = LARGE) -> None:
        upload.write(noise(size)[upload.offset :])
        assert upload.commit().result(20).size_bytes == size

    def fail(self, name: str, error: int, where: str = "", number: int = 0) -> None:
        """Let one call fail."""
        self.files.fault = Fault(
            number, error, lambda call: call.name == name and call.path.endswith(where)
        )

    @property
    def parts(self) -> list[Path]:
        """Files of stores that have not ended."""
        ground = self.volume.ground
        stored = {ground.paths.part(name) for name in ground.index.staged()}
        return [path for path in ground.paths.staging.glob("*.part") if path not in stored]

    @property
    def reserved_bytes(self) -> int:
        account = self.volume.ground.account
        assert account.reserved_bytes == self.farm.engine.usage(ALICE).reserved_bytes
        return account.reserved_bytes

    def is_clean(self) -> bool:
        """Say whether nothing is left of any store."""
        account = self.volume.ground.account
        return (
            not (self.parts or self.reserved_bytes or account.unallocated_bytes)
            and not account.pending_overhead_bytes
        )


def wanted(size: int = LARGE, **fields: object) -> Wanted:
    one = Wanted(contract_of(ALICE), shard_of(noise(size)), size)
    return replace(one, **fields)  # type: ignore[arg-type]  # a test's shorthand


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    files = RecordingFiles()
    bench = Bench(Farm(tmp_path, files=files), files)
    yield bench
    files.fault = None
    bench.farm.engine.close()


# Where they begin.


@pytest.mark.parametrize("again", [False, True])
def test_nothing_begins_where_nothing_can_be_written(bench: Bench, again: bool) -> None:
    bench.lease()
    bench.volume.ground.health.fail("it is old")
    begin = bench.volume.uploads.begin_anew if again else bench.volume.uploads.begin
    for size in (SMALL, LARGE):
        with pytest.raises(VolumeUnavailableError):
            begin(wanted(size))
    assert len(bench.parts) == 1
    assert bench.reserved_bytes == CHARGE


def test_up_to_one_mib_is_kept_in_memory_and_more_in_a_file(bench: Bench) -> None:
    small = bench.begin(MIB)
    assert bench.parts == []
    assert bench.volume.ground.account.unallocated_bytes == charge_bytes(MIB)
    large = bench.begin(MIB + 1)
    assert [path.stat().st_size for path in bench.parts] == [charge_bytes(MIB + 1)]
    assert bench.volume.ground.account.unallocated_bytes == charge_bytes(MIB)
    assert (type(small), type(large)) == (SmallUpload, LargeUpload)
    assert bench.reserved_bytes == charge_bytes(MIB) + charge_bytes(MIB + 1)
    for upload in (small, large):
        upload.abandon()
    assert bench.is_clean()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_how_much_room_the_disk_has_is_asked_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(bench.files, "filesystem", lambda _path: Filesystem(1 << 40, 3000))
    with pytest.raises(NoSpaceError):
        bench.begin(size)
    assert bench.is_clean()


def test_a_file_that_cannot_be_made_takes_no_space(bench: Bench) -> None:
    bench.fail("preallocate", errno.ENOSPC, ".part")
    with pytest.raises(NoSpaceError) as refused:
        bench.begin()
    assert refused.value.wanted_bytes == CHARGE
    assert bench.is_clean()
    bench.fail("sync_data", errno.EIO, ".part")
    with pytest.raises(VolumeUnavailableError):
        bench.begin()
    assert bench.is_clean()


# Going on.


def test_an_unfinished_store_goes_on_from_what_is_there(bench: Bench) -> None:
    bench.lease()
    assert bench.reserved_bytes == CHARGE
    upload = bench.begin()
    assert upload.offset == 3000
    bench.finish(upload)
    assert bench.is_clean()
    assert bench.farm.read(shard_of(noise(LARGE))) == noise(LARGE)


def test_one_of_another_size_is_begun_at_the_first_byte(bench: Bench) -> None:
    bench.lease(size=2 * LARGE, shard=shard_of(noise(LARGE)))
    upload = bench.begin()
    assert upload.offset == 0
    assert bench.reserved_bytes == CHARGE
    bench.finish(upload)
    assert bench.is_clean()


def test_what_is_begun_anew_gives_up_what_was_there(bench: Bench) -> None:
    bench.lease()
    upload = bench.volume.uploads.begin_anew(wanted())
    assert upload.offset == 0
    assert len(bench.parts) == 1
    assert bench.reserved_bytes == CHARGE
    bench.finish(upload)
    assert bench.is_clean()
    other = bench.volume.uploads.begin_anew(wanted(SMALL))
    other.abandon()
    assert bench.is_clean()


@pytest.mark.parametrize(("then", "now"), [(5, 9), (9, 5)])
def test_who_goes_on_speaks_against_older_copies_as_late_as_either(
    bench: Bench, then: int, now: int
) -> None:
    bench.lease(alone_ms=then)
    bench.finish(bench.begin(alone_ms=now))
    row = bench.volume.find(ALICE, shard_of(noise(LARGE)))
    assert row is not None
    assert row.alone_ms == 9


def test_a_lease_outlives_a_want_of_descriptors(bench: Bench) -> None:
    bench.lease()
    bench.fail("open", errno.EMFILE, ".part")
    with pytest.raises(VolumeUnavailableError):
        bench.begin()
    assert bench.volume.ground.health.state is VolumeState.HEALTHY
    assert bench.reserved_bytes == CHARGE
    assert bench.begin().offset == 3000


def test_a_lease_outlives_a_want_of_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def reopen(*_: object) -> Staged:
        raise MemoryError

    bench.lease()
    with monkeypatch.context() as patched:
        patched.setattr(uploads, "reopen", reopen)
        with pytest.raises(MemoryError):
            bench.begin()
    assert bench.begin().offset == 3000


def test_a_lease_that_cannot_be_read_is_given_up(bench: Bench) -> None:
    bench.lease()
    bench.fail("pread", errno.EIO, ".part")
    with pytest.raises(VolumeUnavailableError, match="could not be read"):
        bench.begin()
    assert bench.is_clean()
    assert bench.begin().offset == 0


# Writing.


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_more_than_was_declared_ends_it_and_how_much_came_is_told(bench: Bench, size: int) -> None:
    upload = bench.begin(size)
    upload.write(noise(size)[:4000])
    with pytest.raises(WrongSizeError) as refused:
        upload.write(bytes(size - 4000 + 1))
    assert (refused.value.declared_bytes, refused.value.received_bytes) == (size, size + 1)
    assert bench.is_clean()
    with pytest.raises(VolumeUnavailableError, match="ended"):
        upload.commit()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_what_was_committed_has_ended(bench: Bench, size: int) -> None:
    upload = bench.begin(size)
    upload.write(noise(size))
    answer = upload.commit()
    with pytest.raises(VolumeUnavailableError, match="ended"):
        upload.commit()
    assert answer.result(20).size_bytes == size
    assert open_files(bench.volume.ground.paths.staging) == []


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_what_is_stored_has_left_nothing_behind(bench: Bench, size: int) -> None:
    bench.farm.clocks.now_ms += 77
    upload = bench.begin(size)
    for start in range(0, size, 300_000):
        assert upload.offset == start
        upload.write(noise(size)[start : start + 300_000])
    stored = upload.commit().result(20)
    assert (stored.size_bytes, stored.stored_at_ms) == (size, bench.farm.clocks.now_ms)
    row = bench.volume.find(ALICE, stored.shard)
    assert row is not None
    assert row.alone_ms == 0
    upload.abandon()
    upload.drop()
    assert bench.is_clean()
    with pytest.raises(VolumeUnavailableError, match="ended"):
        upload.commit()
    assert bench.farm.read(shard_of(noise(size))) == noise(size)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_fewer_bytes_than_declared_are_not_stored(bench: Bench, size: int) -> None:
    upload = bench.begin(size)
    upload.write(noise(size)[:-1])
    with pytest.raises(WrongSizeError) as refused:
        upload.commit()
    assert (refused.value.declared_bytes, refused.value.received_bytes) == (size, size - 1)
    assert bench.is_clean()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_other_bytes_than_the_id_names_are_not_stored(bench: Bench, size: int) -> None:
    upload = bench.begin(size)
    upload.write(noise(size, "other"))
    with pytest.raises(WrongHashError):
        upload.commit()
    assert bench.is_clean()
    with pytest.raises(ShardNotFoundError):
        bench.farm.engine.stat(ALICE, shard_of(noise(size)))


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("is_trashed", [False, True])
def test_what_takes_the_place_of_a_record_does_so_only_while_it_is_there(
    bench: Bench, size: int, is_trashed: bool
) -> None:
    shard = bench.farm.store(noise(size)).shard
    row = bench.volume.find(ALICE, shard)
    assert row is not None
    other = bench.begin(size, instead_of=row.sequence + 1)
    other.write(noise(size))
    with pytest.raises(ShardNotFoundError):
        other.commit().result(20)
    upload = bench.begin(size, instead_of=row.sequence)
    upload.write(noise(size))
    if is_trashed:
        bench.farm.delete(shard)
        with pytest.raises(ShardNotFoundError):
            upload.commit().result(20)
        assert bench.farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    else:
        upload.commit().result(20)
    assert bench.is_clean()


def test_a_failed_write_leaves_nothing_to_go_on_from(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE)[:3000])
    bench.fail("pwritev", errno.EIO, ".part")
    with pytest.raises(VolumeUnavailableError):
        upload.write(noise(LARGE)[3000:4000])
    assert bench.is_clean()
    with pytest.raises(VolumeUnavailableError, match="ended"):
        upload.write(b"more")
    upload.abandon()
    assert bench.is_clean()


def test_a_failed_end_is_not_stored(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE))
    bench.fail("sync_data", errno.ENOSPC, ".part")
    with pytest.raises(NoSpaceError) as refused:
        upload.commit()
    assert refused.value.wanted_bytes == CHARGE
    assert bench.is_clean()
    assert bench.volume.find(ALICE, shard_of(noise(LARGE))) is None


@pytest.mark.parametrize("size", [0, 1, SMALL, PART_BYTES, 65536, 200_000, MIB, LARGE])
@pytest.mark.parametrize("step", [SMALL - 1, PART_BYTES, PART_BYTES + 1, 65536, 100_001, LARGE])
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_slices_of_any_size_store_the_same_bytes(
    bench: Bench, size: int, step: int, form: type[bytes | bytearray | memoryview]
) -> None:
    data = noise(size)
    upload = bench.begin(size)
    starts = range(0, size, step)
    # A small one now and then, as the last of a step is.
    for start, cut in zip(starts, cycle((step, 7)), strict=False):
        end = min(start + step, size)
        upload.write(form(data[start : start + cut]))
        upload.write(form(data[start + cut : end]))
        assert upload.offset == end
    assert upload.commit().result(20).size_bytes == size
    assert bench.farm.read(shard_of(data)) == data
    assert bench.is_clean()


@pytest.mark.parametrize("size", [SMALL, 65536, LARGE])
def test_a_buffer_that_is_changed_after_it_was_given_changes_nothing_stored(
    bench: Bench, size: int
) -> None:
    data = noise(size)
    for give in (bytearray, lambda buffer: memoryview(buffer).toreadonly()):
        buffer = bytearray(data)
        upload = bench.begin(size)
        upload.write(give(buffer))
        buffer[:] = bytes(size)
        upload.commit().result(20)
        assert bench.farm.read(shard_of(data)) == data


def test_a_small_one_is_kept_as_it_came_and_a_thousand_bytes_together(bench: Bench) -> None:
    """A shard of a block is in memory once, and tiny slices are no object each."""
    data = noise(MIB)
    upload = bench.begin(MIB)
    assert isinstance(upload, SmallUpload)
    upload.write(data[:65536])
    for start in range(65536, MIB, 1000):
        upload.write(data[start : start + 1000])
    assert [len(part) for part in upload._parts] == [65536, MIB - 65536]
    bench.finish(upload, MIB)


# Breaking off.


@pytest.mark.parametrize("so_far", [0, 3000])
def test_a_small_one_leaves_nothing(bench: Bench, so_far: int) -> None:
    upload = bench.begin(SMALL)
    upload.write(noise(SMALL)[:so_far])
    upload.abandon()
    upload.abandon()
    assert bench.is_clean()


def test_where_the_disk_hangs_a_small_one_waits_for_nothing_and_a_large_one_for_the_disk(
    bench: Bench,
) -> None:
    """What lies in memory alone has nothing to ask a disk, which may never answer."""
    watch = bench.farm.engine._slots[0].watch
    small, large = bench.farm.begin(noise(SMALL)), bench.farm.begin(noise(LARGE))
    small.write(noise(SMALL)[:3000])
    watch.declare("it sleeps")
    small.abandon()
    large.abandon()
    assert bench.reserved_bytes == CHARGE
    assert len(bench.parts) == 1
    watch.declare("")
    watch.catch_up()
    assert bench.is_clean()


def test_a_large_one_without_a_byte_leaves_nothing(bench: Bench) -> None:
    upload = bench.begin()
    upload.abandon()
    upload.abandon()
    assert bench.is_clean()


def test_a_large_one_leaves_what_it_has_once(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE)[:3000])
    upload.abandon()
    upload.drop()
    with pytest.raises(VolumeUnavailableError, match="ended"):
        upload.write(b"more")
    upload.abandon()
    assert len(bench.parts) == 1
    assert bench.volume.leases.begun_bytes((ALICE, shard_of(noise(LARGE)))) == 3000
    assert open_files(bench.volume.ground.paths.staging) == []


def test_what_is_dropped_leaves_nothing(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE)[:3000])
    upload.drop()
    upload.drop()
    upload.abandon()
    assert bench.is_clean()
    assert open_files(bench.volume.ground.paths.staging) == []


def test_what_cannot_be_made_durable_is_given_up(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE)[:3000])
    bench.fail("sync_data", errno.EIO, ".part")
    upload.abandon()
    assert bench.is_clean()
    assert bench.volume.ground.health.errors()


def test_a_file_that_stays_keeps_its_space_until_it_is_gone(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE)[:3000])
    bench.fail("unlink", errno.EIO, ".part")
    upload.drop()
    assert bench.reserved_bytes == CHARGE
    assert bench.volume.find(ALICE, shard_of(noise(LARGE))) is None, "nobody can take it for one"
    bench.volume.settle_doubts()
    assert bench.is_clean()


def test_a_file_that_stays_and_may_be_stored_is_in_doubt(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE))

    def strikes(call: Call) -> bool:
        return call.name in {"sync_data", "unlink"} and call.path.endswith(".part")

    bench.files.fault = Always(errno.EIO, strikes)
    with pytest.raises(VolumeUnavailableError):
        upload.commit()
    bench.files.fault = None
    with pytest.raises(InDoubtError):
        bench.volume.find(ALICE, shard_of(noise(LARGE)))
    assert bench.reserved_bytes == CHARGE


def test_what_outlives_its_volume_is_not_entered_but_waits_for_the_next(bench: Bench) -> None:
    upload = bench.begin()
    upload.write(noise(LARGE))
    bench.volume.leases.let_go()
    with pytest.raises(VolumeUnavailableError, match="ended"):
        upload.commit()
    assert len(bench.parts) == 1
    assert bench.reserved_bytes == 0


def test_a_file_that_could_not_be_made_nor_removed_keeps_its_space(bench: Bench) -> None:
    def strikes(call: Call) -> bool:
        return (call.name, call.path[-7:]) == ("sync_directory", "staging") or (
            call.name == "unlink" and call.path.endswith(".part")
        )

    bench.files.fault = Always(errno.EIO, strikes)
    with pytest.raises(VolumeUnavailableError):
        bench.begin()
    bench.files.fault = None
    assert len(bench.parts) == 1
    assert bench.reserved_bytes == CHARGE
    bench.farm.engine.compare_with_disk()
    assert bench.farm.engine.volumes()[0].drift_bytes == 0
    bench.volume.settle_doubts()
    assert bench.is_clean()


def test_nothing_begins_on_a_volume_that_was_given_up(bench: Bench) -> None:
    """Its next opening has looked already, and would not know of the file."""
    bench.volume.leases.let_go()
    with pytest.raises(VolumeClosedError):
        bench.begin()
    assert bench.is_clean()


def test_what_was_given_up_removes_no_file_of_the_next_opening(bench: Bench) -> None:
    upload, other = bench.begin(), bench.begin(2 * LARGE)
    for one in (upload, other):
        one.write(noise(LARGE)[:3000])
    other.abandon()
    (lease,) = bench.volume.leases.of()
    bench.volume.leases.let_go()
    upload.drop()
    bench.volume.leases.drop(lease)
    assert len(bench.parts) == 2
    assert bench.reserved_bytes == 0
    assert open_files(bench.volume.ground.paths.staging) == []


def test_a_lease_that_was_given_up_meanwhile_is_not_called_erased(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.lease()
    leases = bench.volume.leases
    took = leases.take

    def take(key: Key) -> Lease | None:
        lease = took(key)
        leases.let_go()
        return lease

    monkeypatch.setattr(leases, "take", take)
    with pytest.raises(VolumeClosedError):
        leases.erase((ALICE, shard_of(noise(LARGE))))
    assert len(bench.parts) == 1
    assert bench.reserved_bytes == 0


# Leases.


def test_of_two_leases_the_one_with_more_bytes_stays(bench: Bench) -> None:
    key = (ALICE, shard_of(noise(LARGE)))
    for first, second in ((3000, 4000), (4000, 3000), (3000, 3000)):
        one, two = bench.begin(), bench.begin()
        for upload, so_far in ((one, first), (two, second)):
            upload.write(noise(LARGE)[:so_far])
        one.abandon()
        bench.farm.clocks.now_ms += 1
        two.abandon()
        assert bench.volume.leases.begun_bytes(key) == max(first, second)
        (lease,) = bench.volume.leases.of()
        assert [path.name for path in bench.parts] == [
            bench.volume.ground.paths.part(lease.file).name
        ]
        assert bench.reserved_bytes == CHARGE
        assert bench.volume.leases.erase(key)
        assert bench.is_clean()


def test_leases_are_found_by_renter_and_contract(bench: Bench) -> None:
    leases = bench.volume.leases
    key = (ALICE, shard_of(noise(LARGE)))
    assert key not in leases
    assert leases.begun_bytes(key) == 0
    bench.lease()
    assert key in leases
    contract = contract_of(ALICE).contract
    assert len(leases.of()) == len(leases.of(ALICE)) == len(leases.of(ALICE, contract)) == 1
    assert leases.of(BOB) == leases.of(ALICE, ContractId(bytes(16))) == []
    lease = leases.take(key)
    assert lease is not None
    assert leases.take(key) is None
    assert key not in leases
    leases.end(lease)
    assert len(bench.parts) == 1, "somebody has taken it"
    leases.keep(lease)
    leases.end(lease)
    assert bench.is_clean()


def test_an_erased_lease_is_gone_durably(bench: Bench) -> None:
    key = (ALICE, shard_of(noise(LARGE)))
    assert not bench.volume.leases.erase(key)
    bench.lease()
    bench.files.forget()
    assert bench.volume.leases.erase(key)
    assert bench.files.names("unlink", "sync_directory") == ["unlink", "sync_directory"]
    assert bench.is_clean()


@pytest.mark.parametrize("call", ["unlink", "sync_directory"])
def test_a_lease_whose_erasure_fails_stays(bench: Bench, call: str) -> None:
    key = (ALICE, shard_of(noise(LARGE)))
    bench.lease()
    bench.fail(call, errno.EIO)
    with pytest.raises(VolumeUnavailableError, match="the disk failed"):
        bench.volume.leases.erase(key)
    assert key in bench.volume.leases
    assert bench.reserved_bytes == CHARGE


def test_a_lease_whose_file_stays_keeps_its_space(bench: Bench) -> None:
    bench.lease()
    (lease,) = bench.volume.leases.of()
    bench.fail("unlink", errno.EIO, ".part")
    bench.volume.leases.end(lease)
    assert bench.volume.leases.of() == []
    assert bench.reserved_bytes == CHARGE
    bench.volume.settle_doubts()
    assert bench.is_clean()


def test_a_volume_that_is_given_up_promises_its_leases_nothing(bench: Bench) -> None:
    bench.lease()
    late = bench.begin(2 * LARGE)
    late.write(noise(2 * LARGE)[:3000])
    leases = bench.volume.leases
    assert not leases.are_over
    leases.let_go()
    assert leases.are_over
    assert leases.of() == []
    late.abandon()
    assert leases.of() == []
    assert bench.reserved_bytes == 0
    assert len(bench.parts) == 2, "the next opening finds them"


# On which volume.


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path, volumes=3)
    farm.engine.fill = Fill.FIRST
    yield farm
    farm.engine.close()


def copy_on(farm: Farm, number: int, *, is_damaged: bool = False) -> Copy:
    volumes = farm.engine.opened()
    for other, volume in enumerate(volumes):
        volume.change_quota(volume.settings.quota_bytes, 0 if other == number else 1 << 60)
    shard = farm.store(noise(SMALL)).shard
    for volume in volumes:
        volume.change_quota(volume.settings.quota_bytes, 0)
    row = volumes[number].find(ALICE, shard)
    assert row is not None
    return Copy(volumes[number], replace(row, is_damaged=is_damaged))


@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_is_stored_again_goes_where_it_lies(three: Farm, is_damaged: bool) -> None:
    there = copy_on(three, 1, is_damaged=is_damaged)
    volumes = three.engine.opened()
    key = (ALICE, there.row.shard)
    assert candidates(volumes, key, there, Fill.FIRST) == [volumes[1]]
    assert candidates(volumes, key, None, Fill.FIRST) == volumes
    volumes[1].ground.health.fail("it is old")
    elsewhere = [] if is_damaged else [volumes[0], volumes[2]]
    assert candidates(volumes, key, there, Fill.FIRST) == elsewhere
    assert candidates(volumes, key, there, Fill.FIRST, is_bound=True) == []


def test_where_a_store_waits_unfinished_it_goes_on(three: Farm) -> None:
    first, second, third = volumes = three.engine.opened()
    upload = second.uploads.begin(wanted())
    upload.write(noise(LARGE)[:3000])
    upload.abandon()
    key = (ALICE, shard_of(noise(LARGE)))
    assert candidates(volumes, key, None, Fill.FIRST) == [second, first, third]
    other: ShardId = shard_of(b"other")
    assert candidates(volumes, (ALICE, other), None, Fill.FIRST) == volumes


@pytest.mark.parametrize("others", [0, 2])
def test_only_where_it_may_be_written_and_what_is_emptied_takes_nothing_new(
    three: Farm, others: int
) -> None:
    one, *rest = three.engine.opened()
    volumes = [one, *rest[:others]]
    new, begun = (ALICE, shard_of(b"new")), (ALICE, shard_of(noise(LARGE)))
    upload = one.uploads.begin(wanted())
    upload.write(noise(LARGE)[:3000])
    upload.abandon()
    assert one in candidates(volumes, new, None, Fill.SPREAD)
    one.duty = Duty(verb=Leaving.DRAIN, since_ms=0)
    assert one not in candidates(volumes, new, None, Fill.SPREAD)
    assert one in candidates(volumes, begun, None, Fill.SPREAD)
    one.ground.health.fail("it is old")
    assert one not in candidates(volumes, begun, None, Fill.SPREAD)


def test_a_store_begins_on_the_first_that_has_room(three: Farm) -> None:
    first, second, third = volumes = three.engine.opened()
    watch, upload = begin_on(volumes[1:], wanted())
    assert watch is second.ground.watch
    assert second.ground.account.reserved_bytes == CHARGE
    upload.abandon()
    second.change_quota(second.settings.quota_bytes, 1 << 60)
    watch, upload = begin_on(volumes[1:], wanted())
    assert watch is third.ground.watch
    upload.abandon()
    for volume in (first, third):
        volume.change_quota(volume.settings.quota_bytes, 1 << 60)
    with pytest.raises(NoSpaceError):
        begin_on(volumes, wanted())
    with pytest.raises(VolumeUnavailableError, match="no volume can be written"):
        begin_on([], wanted())


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_what_the_roomiest_has_is_told(
    three: Farm, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    volumes = three.engine.opened()
    for free, volume in zip((3000, 9000, 5000), volumes, strict=True):
        told = NoSpaceError(CHARGE, free)

        def begin(_wanted: Wanted, told: NoSpaceError = told) -> AnyUpload:
            raise told

        monkeypatch.setattr(volume.uploads, "begin", begin)
    with pytest.raises(NoSpaceError) as refused:
        begin_on([volumes[number] for number in order], wanted())
    assert refused.value.available_bytes == 9000
