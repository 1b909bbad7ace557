"""What seldom happens: things move between two looks, and disks fail at odd moments."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import ShardState, Usage, charge_bytes
from farmer.model.status import Alert, VolumeState
from farmer.storage.errors import (
    ContractEndedError,
    ShardNotFoundError,
    VolumeUnavailableError,
)
from farmer.storage.files import Filesystem, OsFiles
from farmer.storage.handles import OPEN_FILES_MAX
from farmer.storage.operations import Restate
from farmer.storage.places import Row
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of
from tests.storage.recording import Fault, RecordingFiles


def volume_of(farm: Farm) -> Volume:
    volume = farm.engine._slots[0].volume
    assert volume is not None
    return volume


def row_of(farm: Farm, shard: ShardId) -> Row:
    row = volume_of(farm).find(ALICE, shard)
    assert row is not None
    return row


def test_a_shard_that_moves_before_it_is_opened_is_read_where_it_is_now(farm: Farm) -> None:
    row = row_of(farm, farm.store(noise(5000)).shard)
    reader = volume_of(farm).open(replace(row, place=replace(row.place, offset=1 << 20)))
    assert reader.read(0, 5000) == noise(5000)
    reader.close()


@pytest.mark.parametrize("erase", [False, True])
def test_a_shard_that_is_deleted_before_it_is_opened_is_not_there(farm: Farm, erase: bool) -> None:
    shard = farm.store(noise(5000)).shard
    row = row_of(farm, shard)
    farm.delete(shard, erase=erase)
    with pytest.raises(ShardNotFoundError):
        volume_of(farm).open(row)
    assert not volume_of(farm).handles.is_pinned(row.place)


def test_a_shard_is_looked_up_once_to_be_opened(farm: Farm) -> None:
    shard, volume = farm.store(noise(5000)).shard, volume_of(farm)
    find, looks = volume.find, 0

    def counted(renter: NodeId, shard: ShardId) -> Row | None:
        nonlocal looks
        looks += 1
        return find(renter, shard)

    volume.find = counted  # type: ignore[method-assign]
    with closing(farm.engine.open(ALICE, shard)) as reader:
        assert reader.read(0, 5000) == noise(5000)
    assert looks == 1


def test_what_others_store_meanwhile_is_no_reason_to_look_again(farm: Farm) -> None:
    farm.store(noise(5000))
    before = volume_of(farm).changes
    farm.store(noise(5000, "another"))
    assert volume_of(farm).changes == before


def test_while_a_row_goes_nobody_believes_what_was_looked_up(farm: Farm) -> None:
    shard, volume = farm.store(noise(5000)).shard, volume_of(farm)
    seen: list[int | None] = [volume.changes]

    def traced(statement: str) -> None:
        if statement == "COMMIT":
            seen.append(volume.changes)

    volume.ground.index._writer.set_trace_callback(traced)
    farm.delete(shard)
    volume.ground.index._writer.set_trace_callback(None)
    assert seen[:2] == [seen[0], None]
    assert volume.changes not in seen


@pytest.mark.parametrize("erase", [False, True])
def test_a_shard_that_is_deleted_since_the_look_up_is_not_opened(farm: Farm, erase: bool) -> None:
    shard, volume = farm.store(noise(5000)).shard, volume_of(farm)
    as_of, row = volume.changes, row_of(farm, shard)
    farm.delete(shard, erase=erase)
    with pytest.raises(ShardNotFoundError):
        volume.open(row, as_of=as_of)
    assert not volume.handles.is_pinned(row.place)


def test_a_look_up_that_fails_after_the_pin_leaves_none(farm: Farm) -> None:
    volume, row = volume_of(farm), row_of(farm, farm.store(noise(5000)).shard)

    def fails(*_key: object) -> Row:
        raise VolumeUnavailableError("the index cannot be read")

    volume.find = fails  # type: ignore[method-assign]
    with pytest.raises(VolumeUnavailableError):
        volume.open(row)
    assert not volume.handles.is_pinned(row.place)


def test_a_shard_that_never_keeps_still_is_given_up_after_some_looks(farm: Farm) -> None:
    row = row_of(farm, farm.store(noise(5000)).shard)
    volume = volume_of(farm)
    looks = []

    def somewhere_else(*_key: object) -> Row:
        looks.append(replace(row, sequence=row.sequence + len(looks) + 1))
        return looks[-1]

    volume.find = somewhere_else  # type: ignore[method-assign]
    with pytest.raises(ShardNotFoundError):
        volume.open(row)
    assert len(looks) == 8


def test_a_shard_that_leaves_the_trash_while_the_sweep_chooses_is_kept(farm: Farm) -> None:
    shard = farm.store(noise(5000)).shard
    farm.delete(shard)
    farm.clocks.pass_days(8)
    index = volume_of(farm).ground.index
    in_trash, chosen = index.in_trash, list[Row]()

    def undeleted_meanwhile(until_ms: int, after: Row | None, limit: int) -> list[Row]:
        rows = in_trash(until_ms, after, limit)
        if rows:
            chosen.extend(rows)
            farm.engine.undelete(ALICE, shard).result(20)
        return rows

    index.in_trash = undeleted_meanwhile  # type: ignore[method-assign]
    assert farm.sweep() == 0
    assert [row.shard for row in chosen] == [shard]
    assert farm.engine.stat(ALICE, shard).state is ShardState.LIVE


def test_a_shard_that_changes_while_its_contract_is_purged_goes_with_the_next_purge(
    farm: Farm,
) -> None:
    """Once a contract is called purged nobody looks for its shards again."""
    shard = farm.store(noise(5000)).shard
    volume = volume_of(farm)
    page = volume.page

    def deleted_meanwhile(renter: NodeId, after: ShardId, limit: int) -> list[Row]:
        rows = page(renter, after, limit)
        farm.delete(shard)
        return rows

    volume.page = deleted_meanwhile  # type: ignore[method-assign]
    with pytest.raises(VolumeUnavailableError):
        farm.engine.purge(ALICE)
    volume.page = page  # type: ignore[method-assign]
    assert farm.engine.purge(ALICE) == 1


def test_a_lease_begun_again_with_another_size_is_begun_anew(farm: Farm) -> None:
    upload = farm.begin(noise(3 * MIB))
    upload.write(noise(3 * MIB)[:MIB])
    upload.abandon()
    volume = volume_of(farm)
    (lease,) = volume.leases.of(ALICE)
    volume.leases.take((ALICE, lease.header.shard))
    volume.leases.keep(replace(lease, header=replace(lease.header, payload_bytes=2 * MIB)))
    again = farm.begin(noise(3 * MIB))
    assert again.offset == 0
    volume.leases.end(lease)
    assert len(list((farm.path / "staging").iterdir())) == 1
    again.write(noise(3 * MIB))
    again.commit().result(20)
    assert farm.engine.usage(ALICE).reserved_bytes == 0


@pytest.mark.parametrize("later_bytes", [MIB, 2 * MIB])
def test_a_store_that_breaks_off_twice_leaves_the_lease_with_more_bytes(
    farm: Farm, later_bytes: int
) -> None:
    """Where the disk hung, the first is left by and by, and the second may be there before it."""
    data, watch = noise(4 * MIB), farm.engine._slots[0].watch
    first = farm.begin(data)
    first.write(data[: 3 * MIB - later_bytes])
    watch.declare("it sleeps")
    first.abandon()
    watch.declare("")
    second = farm.begin(data)
    second.write(data[:later_bytes])
    second.abandon()
    watch.catch_up()
    assert len(list((farm.path / "staging").iterdir())) == 1
    assert farm.engine.usage(ALICE).reserved_bytes == charge_bytes(len(data))
    assert farm.begin(data).offset == 2 * MIB


def test_a_lease_that_is_left_when_its_shard_was_stored_meanwhile_goes_with_the_next_sweep(
    farm: Farm,
) -> None:
    data, watch = noise(2 * MIB), farm.engine._slots[0].watch
    first = farm.begin(data)
    first.write(data[:MIB])
    watch.declare("it sleeps")
    first.abandon()
    watch.declare("")
    second = farm.begin(data)
    second.write(data)
    watch.catch_up()
    second.commit().result(20)
    assert farm.engine.usage(ALICE).reserved_bytes == charge_bytes(len(data))
    farm.sweep()
    assert farm.engine.usage(ALICE).reserved_bytes == 0
    assert farm.read(shard_of(data)) == data


def test_of_two_leases_of_a_shard_a_start_keeps_the_one_with_more_bytes(farm: Farm) -> None:
    data = noise(4 * MIB)
    for begun_bytes in (MIB, 3 * MIB, 2 * MIB):
        upload = farm.begin(data)
        upload.write(data[:begun_bytes])
        upload.abandon()
        volume_of(farm).leases.take((ALICE, shard_of(data)))
    farm.reopen()
    assert len(list((farm.path / "staging").iterdir())) == 1
    assert farm.engine.usage(ALICE).reserved_bytes == charge_bytes(len(data))
    assert farm.begin(data).offset == 3 * MIB


def test_a_lease_whose_file_cannot_be_removed_is_ended_by_the_next_look(tmp_path: Path) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    upload = farm.begin(noise(3 * MIB))
    upload.write(noise(3 * MIB)[:MIB])
    upload.abandon()
    farm.clocks.pass_days(2)
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "unlink")
    farm.sweep()
    assert dict(farm.engine.volumes()[0].errors) == {"unlink": 1}
    assert farm.engine.usage(ALICE).reserved_bytes > 3 * MIB, "the file takes it still"
    files.fault = None
    farm.engine.look_after_disks()
    assert farm.engine.usage(ALICE) == Usage()
    assert not list((farm.path / "staging").iterdir())
    farm.engine.close()


def test_more_files_than_are_kept_open_can_be_read_at_once(farm: Farm) -> None:
    farm = Farm(farm.path.parent / "more", quota_bytes=256 * MIB)
    data = [noise(MIB + 1, number) for number in range(OPEN_FILES_MAX + 6)]
    readers = [farm.engine.open(ALICE, farm.store(one).shard) for one in data]
    handles = volume_of(farm).handles
    assert len(handles._open) == OPEN_FILES_MAX
    with handles.borrow(readers[0].row.place) as fd:
        for reader, one in zip(readers, data, strict=True):
            assert reader.read(0, len(one)) == one
        assert OsFiles().size(fd) > MIB
    for reader in readers:
        reader.close()
    farm.engine.close()


def test_a_large_shard_that_leaves_staging_between_look_and_open_is_opened(
    tmp_path: Path,
) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(2 * MIB)).shard
    files.fault = Fault(0, errno.ENOENT, lambda call: call.name == "open_read")
    assert farm.read(shard) == noise(2 * MIB)
    assert files.fault.struck
    farm.engine.close()


class Interrupted(RecordingFiles):
    """Before one of the calls that name a large shard's file, something else happens."""

    number = 0
    """Which call that is, counted from 0 over those of `kind`."""
    kind = ("exists", "unlink", "rename")
    happens: Callable[[], object] | None = None

    def _come(self, name: str, path: Path) -> None:
        happens = self.happens
        if happens is None or name not in self.kind or "log" in path.parts:
            return
        if self.number:
            self.number -= 1
            return
        self.happens = None
        happens()

    def exists(self, path: Path) -> bool:
        self._come("exists", path)
        return super().exists(path)

    def unlink(self, path: Path) -> None:
        self._come("unlink", path)
        super().unlink(path)

    def rename(self, source: Path, target: Path) -> None:
        self._come("rename", source)
        super().rename(source, target)


def checkpoint(volume: Volume) -> None:
    """Make the index durable, which lets the writer move what waits in staging."""
    volume.writer.submit(Restate(lambda _transaction: [], 1)).result(20)


def large_files(farm: Farm) -> list[Path]:
    return [*farm.path.glob("shards/*/*"), *farm.path.glob("staging/*")]


def test_a_large_shard_that_leaves_staging_while_it_is_removed_is_removed(tmp_path: Path) -> None:
    """Whichever of its two names was looked at already when the writer moves it."""
    for number in range(10):
        files = Interrupted()
        farm = Farm(tmp_path / str(number), files=files)
        farm.store(noise(2 * MIB))
        volume = volume_of(farm)
        volume.remove(volume.page(ALICE, ShardId(bytes(32)), 9))
        assert large_files(farm), "given up, and still in staging"
        files.number, files.happens = number, partial(checkpoint, volume)
        volume.reclaim()
        is_over, files.happens = files.happens is not None, None
        assert volume.ground.index.doomed() == []
        assert large_files(farm) == [], number
        farm.engine.close()
        if is_over:
            assert number
            return
    pytest.fail("the sweep did not come to its end")


def test_a_large_shard_that_is_removed_while_it_leaves_staging_holds_nothing_up(
    tmp_path: Path,
) -> None:
    """The writer counts that it could not move it, and next time moves what is left."""
    files = Interrupted()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(2 * MIB)).shard
    volume = volume_of(farm)
    volume.remove([row_of(farm, shard)])
    doomed = volume.ground.index.doomed()
    files.kind, files.happens = ("rename",), lambda: volume.reclaimer.releaser.release(doomed)
    checkpoint(volume)
    assert dict(farm.engine.volumes()[0].errors) == {"rename": 1}
    kept = farm.store(noise(2 * MIB, "kept")).shard
    checkpoint(volume)
    volume.reclaim()
    assert volume.ground.index.staged() == []
    assert volume.ground.index.doomed() == []
    assert [path.parent.parent.name for path in large_files(farm)] == ["shards"]
    assert farm.read(kept) == noise(2 * MIB, "kept")
    farm.engine.close()


class Unmounted(RecordingFiles):
    """The filesystem does not say how large it is, so often."""

    silent = 0

    def filesystem(self, path: Path) -> Filesystem:
        if self.silent:
            self.silent -= 1
            raise OSError(errno.EIO, "silent")
        return super().filesystem(path)


def test_an_opening_that_fails_late_leaves_no_trace_in_the_ledger(tmp_path: Path) -> None:
    files = Unmounted()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    upload = farm.begin(noise(3 * MIB))
    upload.write(noise(3 * MIB)[:MIB])
    upload.abandon()
    usage = farm.engine.usage(ALICE)
    files.silent = 1
    farm.reopen()
    assert farm.engine.usage(ALICE) == Usage()
    assert [alert.name for alert in farm.engine.trouble()] == ["VolumeGone"]
    farm.engine.look_after_disks()
    assert farm.engine.usage(ALICE) == usage
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


def test_a_filesystem_that_does_not_answer_refuses_stores(tmp_path: Path) -> None:
    files = Unmounted()
    farm = Farm(tmp_path, files=files)
    files.silent = 1
    with pytest.raises(VolumeUnavailableError, match="does not answer"):
        farm.begin(noise(10))
    farm.store(noise(10))
    farm.engine.close()


@pytest.mark.parametrize("name", ["open_read", "list", "pread"])
def test_a_disk_that_fails_while_a_volume_is_opened_is_tried_again(
    tmp_path: Path, name: str
) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    gone = 0
    for number in range(12):
        files.fault = fault = Fault(number, errno.EIO, lambda call: call.name == name)
        farm.reopen()
        files.fault = None
        # What is only noted for convenience may be unreadable, and is begun anew.
        gone += farm.engine.volumes()[0].state is VolumeState.GONE
        farm.sweep()
        assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
        assert farm.read(shard) == noise(5000)
        if not fault.struck:
            break
    else:
        pytest.fail("the sweep did not come to its end")
    assert gone
    farm.engine.close()


@pytest.mark.parametrize("fails", ["list", "index"])
def test_a_rebuild_that_fails_leaves_a_volume_for_later(tmp_path: Path, fails: str) -> None:
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files)
    shard = farm.store(noise(5000)).shard
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    if fails == "index":
        (farm.path / "index.sqlite-wal").mkdir()
    else:
        files.fault = Fault(0, errno.EIO, lambda call: (call.name, call.path) == ("list", "log"))
    farm.open()
    assert [alert.name for alert in farm.engine.trouble()] == ["VolumeGone"]
    files.fault = None
    if fails == "index":
        (farm.path / "index.sqlite-wal").rmdir()
    farm.sweep()
    assert farm.read(shard) == noise(5000)
    farm.engine.close()


@pytest.mark.parametrize(
    "look", [lambda farm: farm.engine.stat, lambda farm: farm.engine.open], ids=["stat", "open"]
)
def test_a_volume_that_is_gone_answers_no_question(
    farm: Farm, look: Callable[[Farm], Callable[..., object]]
) -> None:
    shard = farm.store(noise(100)).shard
    volume = volume_of(farm)
    volume.ground.health.go("pulled out")
    with pytest.raises(VolumeUnavailableError):
        look(farm)(ALICE, shard)
    with pytest.raises(VolumeUnavailableError, match="pulled out"):
        volume.find(ALICE, shard)
    volume.ground.health.fail("broken meanwhile")
    assert volume.ground.health.state is VolumeState.GONE
    volume.ground.health.reopened()
    volume.ground.health.reopened()
    assert farm.engine.volumes()[0].state is VolumeState.FAILING
    assert farm.engine.stat(ALICE, shard).shard == shard


def test_a_file_that_goes_while_the_disk_is_measured_counts_nothing(tmp_path: Path) -> None:
    class Fleeting(RecordingFiles):
        def allocated(self, path: Path) -> int:
            if path.suffix == ".part":
                raise FileNotFoundError(path)
            return super().allocated(path)

    farm = Farm(tmp_path, files=Fleeting())
    farm.store(noise(2 * MIB))
    farm.engine.compare_with_disk()
    assert farm.engine.volumes()[0].drift_bytes < -2 * MIB
    farm.engine.close()


@pytest.mark.parametrize(("name", "failures"), [("lost+found", 0), ("log", 1)])
def test_what_may_not_be_listed_is_not_ours_and_not_measured(
    tmp_path: Path, name: str, failures: int
) -> None:
    class Closed(RecordingFiles):
        closed = ""

        def list(self, path: Path) -> list[str]:
            if path.name == self.closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return super().list(path)

    files = Closed()
    farm = Farm(tmp_path, files=files)
    (farm.path / "lost+found").mkdir()
    farm.store(noise(100))
    files.closed = name
    farm.engine.compare_with_disk()
    assert dict(farm.engine.volumes()[0].errors).get("measure", 0) == failures
    assert (farm.engine.volumes()[0].allocated_bytes > 0) is (not failures)
    farm.engine.close()


def test_a_volume_that_is_left_shut_says_why_and_stays_shut(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(100)).shard
    farm.engine.close()
    why = Alert(name="VolumeLeftOut", since_ms=7, message="not in the settings")
    farm.settings = [replace(farm.settings[0], left_shut=why)]
    farm.open()
    farm.sweep()
    assert farm.engine.trouble() == (why,)
    assert farm.engine.volumes()[0].quota_bytes == 0
    with pytest.raises(VolumeUnavailableError):
        farm.engine.stat(ALICE, shard)
    farm.engine.close()


def test_a_reclaim_that_fails_says_so(tmp_path: Path) -> None:
    files = RecordingFiles(can_punch=False)
    farm = Farm(tmp_path, files=files)
    for number in range(8):
        farm.store(noise(900_000, number))
    volume = volume_of(farm)
    assert volume.remove(volume.page(ALICE, ShardId(bytes(32)), 9)) == 8
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "unlink")
    with pytest.raises(VolumeUnavailableError):
        volume.reclaim()
    assert dict(farm.engine.volumes()[0].errors) == {"reclaim": 1}
    files.fault = None
    assert volume.reclaim() > 3_000_000
    assert volume.reclaim() == 0
    farm.engine.close()


def test_the_end_of_a_contract_is_told_with_both_its_dates() -> None:
    error = ContractEndedError(ended_at_ms=5, readable_until_ms=9)
    assert (str(error), error.ended_at_ms, error.readable_until_ms) == ("ended at 5", 5, 9)
