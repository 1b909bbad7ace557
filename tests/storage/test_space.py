"""Space: never over the quota, and given back when shards go."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import (
    RECORD_ALIGNMENT_BYTES,
    RECORD_HEADER_BYTES,
    StoredShard,
    charge_bytes,
)
from farmer.model.status import VolumeState
from farmer.storage import compaction, condensing, reclaim, worthwhile
from farmer.storage import engine as engine_module
from farmer.storage import volume as volume_module
from farmer.storage import writer as writer_module
from farmer.storage.engine import EngineLimits
from farmer.storage.errors import NoSpaceError, StorageError
from farmer.storage.health import BEYOND_BYTES_MIN
from farmer.storage.marks import MARK_BYTES
from farmer.storage.measure import measure
from farmer.storage.operations import Move, Operation
from farmer.storage.places import Doomed, Place, Row, Segment
from farmer.storage.volume import Volume
from farmer.storage.worthwhile import HURRIED_MARKS, HURRIED_STEPS, Plan, plan
from tests.storage.bench import ALICE, BOB, MIB, Farm, contract_of, noise, shard_of
from tests.storage.recording import Fault, RecordingFiles

MANY = EngineLimits(uploads_per_renter_max=1_000_000, shard_bytes_max=64 * MIB)


def allocated(root: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in [root, *root.rglob("*")])


def fill(farm: Farm, size: int, seed: str) -> list[ShardId]:
    """Store shards of a size until there is no room, many per sync."""
    shards, futures = [], []
    with contextlib.suppress(NoSpaceError):
        for number in range(100_000):
            data = noise(size, (seed, number))
            upload = farm.begin(data)
            upload.write(data)
            futures.append(upload.commit())
            shards.append(shard_of(data))
    for future in futures:
        future.result(30)
    return shards


@pytest.mark.parametrize(
    "size", [*(pytest.param(size, marks=pytest.mark.slow) for size in (8, 60_000)), 2 * MIB]
)
@pytest.mark.parametrize("can_punch", [True, False])
def test_a_full_volume_is_within_its_quota_and_can_delete_and_fill_again(
    tmp_path: Path, size: int, can_punch: bool
) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=can_punch), limits=MANY)
    farm.engine.opened()[0].ground.rests.end()  # nobody is served meanwhile
    for turn in range(2):
        shards = fill(farm, size, f"turn {turn}")
        assert len(shards) * charge_bytes(size) > 20 * MIB
        assert allocated(farm.path) <= 64 * MIB
        assert farm.engine.volumes()[0].free_bytes < charge_bytes(size) + 10_000
        futures = [farm.engine.delete(ALICE, shard, erase=False) for shard in shards]
        for future in futures:
            future.result(30)
        assert allocated(farm.path) <= 64 * MIB
        for shard in shards[:50]:
            farm.engine.undelete(ALICE, shard).result(30)
        for shard in shards[:50]:
            farm.delete(shard)
        assert allocated(farm.path) <= 64 * MIB
        farm.clocks.pass_days(8)
        assert farm.sweep() == len(shards)
        assert allocated(farm.path) <= 20 * MIB
        assert farm.engine.volumes()[0].trash_bytes == 0
    farm.engine.close()


def test_parallel_stores_cannot_overshoot(tmp_path: Path) -> None:
    farm = Farm(tmp_path, limits=MANY)

    def begin(number: int) -> int:
        try:
            farm.begin(noise(1_000_000, number))
        except NoSpaceError:
            return 0
        return 1

    with ThreadPoolExecutor(16) as threads:
        begun = sum(threads.map(begin, range(100)))
    status = farm.engine.volumes()[0]
    assert 0 < begun < 100
    assert status.reserved_bytes == begun * charge_bytes(1_000_000)
    assert status.reserved_bytes + status.allowance_bytes <= status.quota_bytes
    farm.engine.close()


def test_the_owners_free_space_is_never_taken(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    free = farm.engine.volumes()[0].filesystem_free_bytes
    farm.engine.change_quota(farm.settings[0].path, 64 * MIB, free + MIB)
    assert farm.engine.free_bytes() == 0
    assert farm.engine.volumes()[0].state is VolumeState.FULL
    with pytest.raises(NoSpaceError):
        farm.begin(noise(10))
    farm.engine.change_quota(farm.settings[0].path, 128 * MIB, 0)
    farm.store(noise(10))
    assert farm.engine.volumes()[0].quota_bytes == 128 * MIB
    farm.engine.close()


def test_single_deletes_and_undeletes_for_ever_stay_within_bounds(tmp_path: Path) -> None:
    farm = Farm(tmp_path)
    shard = farm.store(noise(10)).shard
    for _ in range(700):
        farm.delete(shard)
        farm.engine.undelete(ALICE, shard).result(5)
    assert allocated(farm.path / "log") < 3 * MIB
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()
    assert farm.read(shard) == noise(10)
    farm.engine.close()


def test_the_space_of_many_shards_is_given_back_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many went: memory is bounded, and nothing is left over."""
    monkeypatch.setattr(reclaim, "RELEASED_AT_ONCE", 10)
    farm = Farm(tmp_path, limits=MANY)
    shards = [farm.store(noise(size, n)).shard for n, size in enumerate([60_000] * 33 + [2 * MIB])]
    for shard in shards:
        farm.delete(shard)
    index = farm.engine.opened()[0].ground.index
    ask, counts = index.doomed, []

    def counted(*bounds: int) -> list[Doomed]:
        found = ask(*bounds)
        counts.append(len(found))
        return found

    monkeypatch.setattr(index, "doomed", counted)
    farm.clocks.pass_days(8)
    assert farm.sweep() == 34
    assert counts == [10, 10, 10, 4, 0]
    assert ask() == []
    assert allocated(farm.path / "log") < MIB
    farm.engine.close()


def test_what_stood_side_by_side_is_given_back_by_one_call(tmp_path: Path) -> None:
    """An ended contract leaves thousands of records, one behind the other."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files, limits=MANY)
    shards = [farm.store(noise(10_000, n)).shard for n in range(12)]
    kept = shards[5]
    for shard in shards:
        if shard != kept:
            farm.delete(shard)
    farm.clocks.pass_days(8)
    files.forget()
    assert farm.sweep() == 11
    punched = [call.length for call in files.calls if call.name == "punch"]
    assert punched[:2] == [5 * 12_288, 6 * 12_288]
    assert farm.read(kept) == noise(10_000, 5)
    assert allocated(farm.path / "log") < 80 * 1024
    farm.engine.close()


def sparse_segments(farm: Farm) -> list[Segment]:
    """Let a third of what was stored go, everywhere in the log; return the sealed segments."""
    shards = [farm.store(noise(60_000, number)).shard for number in range(190)]
    volume = farm.engine.opened()[0]
    index = volume.ground.index
    rows = [row for shard in shards[::3] if (row := index.find(ALICE, shard)) is not None]
    assert volume.remove(rows) == len(rows)
    sealed = index.segments()[:-1]
    assert len(sealed) == 2
    return sealed


def test_a_segment_that_is_read_is_not_written_twice(tmp_path: Path) -> None:
    """Else who reads a little of each lets a volume take half as much again as its quota."""
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False), limits=MANY)
    first, second = sparse_segments(farm)
    volume = farm.engine.opened()[0]
    index = volume.ground.index
    rows = volume.page(ALICE, ShardId(bytes(32)), 999)
    some = next(row for row in rows if row.place.segment == first.number)
    reader = farm.engine.open(ALICE, some.shard)
    farm.sweep()
    assert index.segment(first.number) == first
    assert index.segment(second.number) is None
    reader.close()
    farm.sweep()
    assert index.segment(first.number) is None
    farm.engine.close()


def test_a_compaction_ends_when_what_it_has_emptied_is_kept_by_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They began meanwhile; the allowance has room for one segment that is there twice."""
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False), limits=MANY)
    sparse_segments(farm)
    volume = farm.engine.opened()[0]
    compactor = volume.reclaimer._compactor
    compact, begun, read = compactor.compact, [], set()

    def read_meanwhile(number: int) -> bool:
        if compactor.live_bytes(number):
            begun.append(number)
            read.add(number)
        return compact(number)

    monkeypatch.setattr(compactor, "compact", read_meanwhile)
    monkeypatch.setattr(volume.handles, "is_segment_pinned", lambda number: number in read)
    monkeypatch.setattr(reclaim, "segment_bytes", lambda _quota_bytes: 3 * MIB)
    farm.sweep()
    assert len(begun) == 1
    assert compactor.live_bytes(begun[0]) == 0
    farm.sweep()
    assert len(begun) == 1, "it is still there twice"
    read.clear()
    farm.sweep()
    assert len(begun) == len(set(begun)) == 2
    assert compactor.live_bytes(begun[-1]) == 0
    assert not (farm.path / "log" / f"{begun[0]:08}.seg").exists()
    farm.engine.close()


def test_what_was_kept_goes_as_soon_as_it_is_free_though_another_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False), limits=MANY)
    first, second = sparse_segments(farm)
    volume = farm.engine.opened()[0]
    read: set[int] = set()
    compact = volume.reclaimer._compactor.compact

    def read_meanwhile(number: int) -> bool:
        read.add(number)
        return compact(number)

    with monkeypatch.context() as patch:
        patch.setattr(volume.reclaimer._compactor, "compact", read_meanwhile)
        patch.setattr(volume.handles, "is_segment_pinned", lambda number: number in read)
        patch.setattr(reclaim, "segment_bytes", lambda _quota_bytes: 16 * MIB)
        farm.sweep()
    assert read == {first.number, second.number}
    read.remove(second.number)
    monkeypatch.setattr(volume.handles, "is_segment_pinned", lambda number: number in read)
    monkeypatch.setattr(reclaim, "segment_bytes", lambda _quota_bytes: 3 * MIB)
    farm.sweep()
    assert volume.ground.index.segment(second.number) is None
    assert volume.ground.index.segment(first.number) is not None
    farm.engine.close()


def test_who_deletes_writes_the_emptiest_segment_again_that_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False), limits=MANY)
    sealed = sorted(sparse_segments(farm), key=lambda one: one.live_bytes)
    volume = farm.engine.opened()[0]
    monkeypatch.setattr(worthwhile, "HURRIED_LIVE_BYTES", 4 * MIB)
    monkeypatch.setattr(
        volume.handles, "is_segment_pinned", lambda number: number == sealed[0].number
    )
    volume.tidy(hurried=True)
    index = volume.ground.index
    assert index.segment(sealed[0].number) is not None
    assert index.segment(sealed[1].number) is None
    farm.engine.close()


def test_compaction_keeps_states_and_bytes(tmp_path: Path) -> None:
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False), limits=MANY)
    shards = [farm.store(noise(200_000, n)).shard for n in range(60)]
    farm.delete(shards[0])
    trashed = farm.engine.stat(ALICE, shards[0])
    for number, shard in enumerate(shards):
        if number % 3:
            farm.delete(shard, erase=True)
    # So much erasing has moved records already.
    assert farm.engine.stat(ALICE, shards[0]) == trashed
    before = farm.engine.page(ALICE, ShardId(bytes(32)), 100)
    farm.sweep()
    assert not (farm.path / "log/00000001.seg").exists()
    for turn in range(2):
        assert farm.engine.page(ALICE, ShardId(bytes(32)), 100) == before
        assert farm.read(shards[3]) == noise(200_000, 3)
        farm.engine.compare_with_disk()
        assert 0 <= farm.engine.volumes()[0].drift_bytes <= 4096 * 4
        farm.engine.close()
        if not turn:
            for path in farm.path.glob("index.sqlite*"):
                path.unlink()
        farm.open()
    farm.engine.close()


def test_where_a_segment_ends_is_durable_before_the_next_one_goes_which_says_so(
    tmp_path: Path,
) -> None:
    """Else what was refused, and cut off without a sync, is stored after a rebuild."""
    files = RecordingFiles()
    farm = Farm(tmp_path, files=files, limits=MANY)
    kept, gone = farm.store(noise(100)).shard, []
    for number in (1, 2):
        name = f"{number:08}.seg"
        files.fault = Fault(
            0, errno.ENOSPC, lambda call, name=name: (call.name, call.path) == ("sync_data", name)
        )
        with pytest.raises(StorageError):
            farm.store(noise(200, number))
        files.fault = None
        gone.append(farm.store(noise(300, number)).shard)
    farm.delete(gone[0], erase=True)
    files.forget()
    farm.sweep()
    assert not (farm.path / "log/00000002.seg").exists()
    calls = [(call.name, call.path) for call in files.calls]
    first = calls.index(("sync_data", "00000001.seg"))
    assert first < calls.index(("unlink", "00000002.seg"))
    assert farm.read(kept) == noise(100)
    farm.engine.close()


def test_a_store_waits_for_few_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small what is written again: what the writer has to do first is bounded."""
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False), limits=MANY)
    shards = [farm.store(noise(100, number)).shard for number in range(12 * compaction.MOVING_MAX)]
    writer, under_way = farm.engine.opened()[0].writer, []
    while writer.active_number == 1:
        shards += [farm.store(noise(MIB, f"large {len(shards)}")).shard] * 2
    submit, most = writer.submit, 0

    def counted(operation: Operation[Any], *words: Any) -> Future[Any]:
        nonlocal most
        future = submit(operation, *words)
        if isinstance(operation, Move):
            under_way.append(future)
            most = max(most, sum(not one.done() for one in under_way))
        return future

    monkeypatch.setattr(writer, "submit", counted)
    for shard in {shard for number, shard in enumerate(shards) if number % 3}:
        farm.delete(shard, erase=True)
    farm.sweep()
    assert len(under_way) >= 2 * compaction.MOVING_MAX
    assert most <= compaction.MOVING_MAX + 1
    farm.engine.close()


def test_pages_of_several_volumes_are_merged(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    shards = sorted(farm.store(noise(MIB, n)).shard for n in range(10))
    assert sum(status.shards for status in farm.engine.volumes()) == 10
    assert [row.shard for row in farm.engine.page(ALICE, ShardId(bytes(32)), 7)] == shards[:7]
    assert farm.engine.usage(ALICE).shards == 10
    assert farm.engine.free_bytes() == sum(one.free_bytes for one in farm.engine.volumes())
    farm.reopen()
    for shard in shards:
        farm.delete(shard, erase=True)
    assert farm.engine.usage(ALICE).shards == 0
    farm.engine.close()


def test_a_repeated_large_store_goes_on_where_its_lease_lies(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    data = noise(4 * MIB)
    upload = farm.begin(data)
    upload.write(data[: 2 * MIB])
    upload.abandon()
    upload = farm.begin(data)
    assert upload.offset == 2 * MIB
    upload.write(data[2 * MIB :])
    assert isinstance(upload.commit().result(10), StoredShard)
    assert farm.read(shard_of(data)) == data
    farm.engine.close()


def test_nothing_is_reserved_after_refusals(farm: Farm) -> None:
    for renter in (ALICE, BOB):
        with pytest.raises(StorageError):
            farm.engine.begin(contract_of(renter, 100), shard_of(noise(10)), 10)
    assert farm.engine.renters() == ()


def test_the_plan_takes_sparse_sealed_segments_and_many_marks() -> None:
    segments = [
        Segment(1, b"", size_bytes=MIB, live_bytes=0, punched_bytes=MIB - 4096),
        Segment(2, b"", size_bytes=MIB, live_bytes=MIB - 4096),
        Segment(3, b"", size_bytes=MIB, live_bytes=MIB // 2),
        Segment(4, b"", size_bytes=MIB, live_bytes=0),
        Segment(5, b"", size_bytes=MIB, live_bytes=MIB // 4, punched_bytes=3 * MIB // 4),
        Segment(6, b"", size_bytes=MIB, live_bytes=MIB // 5, punched_bytes=4 * MIB // 5),
    ]
    assert plan(segments, 4, [], 0) == Plan(condense=False, compact=(1, 6, 3))
    many = marks(9, 2 * MIB)
    assert plan(segments, 3, many, 0) == Plan(condense=True, compact=(1, 4, 6))
    assert not plan([], 1, many, 100_000).condense


def test_the_plan_leaves_segments_full_of_marks_that_are_needed() -> None:
    """There are such with millions of shards in the trash; else each sweep writes them again."""
    segments = [
        Segment(1, b"", size_bytes=MIB, live_bytes=0),
        Segment(2, b"", size_bytes=MIB, live_bytes=MIB // 2),
        Segment(3, b"", size_bytes=MIB, live_bytes=0, punched_bytes=MIB - 65536),
        Segment(4, b"", size_bytes=MIB, live_bytes=MIB // 2),
    ]
    dense = marks(1, MIB - 4096) + marks(2, MIB // 2 - 4096) + marks(3, 65536 - 4096)
    lone = [Doomed(number, Place(4, 4096 * number), 4096) for number in range(1, 127)]
    assert plan(segments, 9, dense + lone, 100_000) == Plan(condense=False, compact=(3, 4))
    assert plan(segments, 9, dense + lone, 0) == Plan(condense=True, compact=(1, 3, 2, 4))
    assert plan(segments, 9, dense + lone, None) == Plan(condense=True, compact=(3, 4))


def marks(segment: int, length: int) -> list[Doomed]:
    """Return what was written together there."""
    return [Doomed(segment, Place(segment, 4096), length)]


def gather(farm: Farm, count: int) -> list[ShardId]:
    """Let much be left to be given back: small shards of one renter, removed for good."""
    shards = [farm.store(noise(60_000, number)).shard for number in range(count)]
    volume = farm.engine.opened()[0]
    assert volume.remove(volume.page(ALICE, ShardId(bytes(32)), count)) == count
    return shards


def test_who_deletes_pays_for_a_bounded_part_of_what_others_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "HURRIED_RECORDS", 10)
    farm = Farm(tmp_path, limits=MANY)
    mine = farm.store(noise(100), BOB).shard
    gather(farm, 33)
    volume = farm.engine.opened()[0]
    assert volume.reclaimer.is_due
    farm.delete(mine, BOB)
    assert len(volume.ground.index.doomed()) == 23
    assert not volume.reclaimer.is_due
    farm.sweep()
    assert not volume.ground.index.doomed()
    farm.engine.close()


@pytest.mark.parametrize("copied_bytes_max", [0, MIB])
def test_who_deletes_waits_for_no_long_copying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied_bytes_max: int
) -> None:
    """Where holes cannot be punched; a segment with little in it is worth it."""
    monkeypatch.setattr(worthwhile, "HURRIED_LIVE_BYTES", copied_bytes_max)
    farm = Farm(tmp_path, files=RecordingFiles(can_punch=False), limits=MANY)
    mine = [farm.store(noise(900, number), BOB).shard for number in range(2)]
    gather(farm, 90)
    segment = farm.path / "log" / "00000001.seg"
    farm.delete(mine[0], BOB)
    assert segment.exists() == (copied_bytes_max == 0)
    farm.sweep()
    assert not segment.exists()
    assert farm.read(mine[1], BOB) == noise(900, 1)
    farm.engine.close()


def test_who_deletes_waits_for_few_of_the_smallest_copies(tmp_path: Path) -> None:
    """They are copied eight at a time, each time with syncs: 8 MiB of them are too many."""
    files = RecordingFiles(can_punch=False)
    farm = Farm(tmp_path, files=files, limits=MANY)
    shards, futures = [], []
    for number in range(1100):
        upload = farm.begin(data := noise(10, number))
        upload.write(data)
        futures.append(upload.commit())
        shards.append(shard_of(data))
    for future in futures:
        future.result(30)
    volume = farm.engine.opened()[0]
    volume.remove(volume.page(ALICE, ShardId(bytes(32)), 1100)[::2])
    assert volume.reclaimer.is_due
    files.forget()
    mine = volume.page(ALICE, ShardId(bytes(32)), 1)[0].shard
    farm.delete(mine)
    assert len(files.names("sync_data")) < 40
    farm.engine.close()


def test_who_deletes_writes_no_segment_full_of_marks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in it is alive, and yet each few of its marks cost syncs."""
    files = RecordingFiles(can_punch=False)
    farm = Farm(tmp_path, files=files, limits=MANY)
    monkeypatch.setattr(condensing, "_MARKS_PER_STEP", 4)
    monkeypatch.setattr(writer_module, "segment_bytes", lambda _quota_bytes: MIB)
    shard, other = (farm.store(noise(10, number)).shard for number in range(2))
    volume = farm.engine.opened()[0]
    with monkeypatch.context() as patch:
        patch.setattr(worthwhile, "MARKS_SLACK_BYTES", 64 * MIB)
        while volume.writer.active_number < 3:
            farm.delete(shard)
            farm.engine.undelete(ALICE, shard).result(5)
    assert volume.reclaimer._compactor.live_bytes(2) == 0
    assert volume.reclaimer.is_due
    files.forget()
    farm.delete(other)
    assert len(files.names("sync_data")) < 12
    assert volume.ground.index.segment(2) is not None
    farm.sweep()
    assert volume.ground.index.segment(2) is None
    farm.engine.close()


def test_who_deletes_writes_a_segment_with_few_marks_again_in_few_steps() -> None:
    """As many as fit the steps that a hurried run has, however many shards each speaks of."""
    shards_max = (RECORD_ALIGNMENT_BYTES - RECORD_HEADER_BYTES) // MARK_BYTES
    records_per_step_min = math.ceil(condensing._MARKS_PER_STEP / shards_max)
    assert HURRIED_STEPS * records_per_step_min >= HURRIED_MARKS
    close = [Doomed(1, Place(3, 4096), 8192)]
    few = [Doomed(number, Place(1, 4096 * number), 4096) for number in range(HURRIED_MARKS)]
    many = [Doomed(number, Place(2, 4096 * number), 4096) for number in range(HURRIED_MARKS + 1)]
    segments = [Segment(number, b"", size_bytes=MIB) for number in (1, 2, 3)]
    assert worthwhile.cheap(segments, [*few, *many, *close]) == segments[:1]


def test_marks_are_condensed_a_bounded_number_at_a_time_for_who_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "HURRIED_RECORDS", 20)
    farm = Farm(tmp_path)
    shard = farm.store(noise(10)).shard
    index = farm.engine.opened()[0].ground.index
    counts = []
    for _ in range(150):
        farm.delete(shard)
        farm.engine.undelete(ALICE, shard).result(5)
        counts.append(len(index.marks()))
    drops = [before - after for before, after in pairwise(counts) if after < before]
    assert drops and max(drops) <= 20
    farm.engine.close()


def test_who_deletes_writes_no_marks_again_that_lie_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be those of thousands of shards in the trash, and all of them be needed."""
    farm = Farm(tmp_path, limits=MANY)
    shards = [farm.store(noise(10, number)).shard for number in range(130)]
    for shard in shards[:128]:
        farm.delete(shard)
    monkeypatch.setattr(worthwhile, "MARKS_SLACK_BYTES", 0)
    farm.sweep()
    volume = farm.engine.opened()[0]
    dense = volume.ground.index.marks()
    assert [one.length for one in dense] == [8192, 8192]
    volume.reclaimer._restated = 0
    for shard in shards[128:]:
        farm.delete(shard)
        volume.tidy(hurried=True)
    marks = volume.ground.index.marks()
    assert marks[:2] == dense
    assert len(marks) == 3, "the lone ones lie together"
    farm.engine.close()


def test_who_deletes_waits_for_few_steps_of_condensing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record may speak of so many shards that a step is over with two or three."""
    monkeypatch.setattr(reclaim, "HURRIED_STEPS", 2)
    monkeypatch.setattr(condensing, "_MARKS_PER_STEP", 4)
    farm = Farm(tmp_path, limits=MANY)
    for number in range(40):
        farm.delete(farm.store(noise(10, number)).shard)
    monkeypatch.setattr(worthwhile, "MARKS_SLACK_BYTES", 0)
    volume = farm.engine.opened()[0]
    volume.tidy(hurried=True)
    assert len(volume.ground.index.marks()) == 40 - 2 * 4 + 2
    farm.engine.close()


def test_where_no_holes_are_made_marks_are_not_written_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their space does not come back: the old ones would be written again with the new ones."""
    monkeypatch.setattr(worthwhile, "MARKS_SLACK_BYTES", 0)
    files = RecordingFiles(can_punch=False)
    farm = Farm(tmp_path, files=files)
    for number in range(70):
        farm.delete(farm.store(noise(30_000, number)).shard)
    farm.sweep()
    files.forget()
    for _ in range(3):
        farm.sweep()
        farm.engine.opened()[0].tidy(hurried=True)
    assert not files.names("pwritev")
    farm.engine.close()


def test_where_no_holes_are_made_given_up_records_are_not_asked_for_again_and_again(
    tmp_path: Path,
) -> None:
    files = RecordingFiles(can_punch=False)
    farm = Farm(tmp_path, files=files)
    gather(farm, 5)
    large = farm.store(noise(2 * MIB)).shard
    farm.sweep()
    files.forget()
    volume = farm.engine.opened()[0]
    volume.remove(volume.page(ALICE, ShardId(bytes(32)), 9))
    farm.sweep()
    assert not files.bytes_read()["00000001.seg"]
    left = volume.ground.index.doomed()
    assert len(left) == 5 and all(one.place.segment for one in left)
    with pytest.raises(StorageError):
        farm.read(large)
    farm.engine.close()


def test_a_start_does_not_write_marks_again_that_are_all_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten million shards in the trash are ten million marks, and writing them takes hours."""
    monkeypatch.setattr(worthwhile, "MARKS_SLACK_BYTES", 0)
    farm = Farm(tmp_path, limits=MANY)
    for number in range(60):
        farm.delete(farm.store(noise(10, number)).shard)
    farm.sweep()
    dense = farm.engine.opened()[0].ground.index.marks()
    assert len(dense) < 60, "condensed"
    farm.reopen()
    farm.sweep()
    assert farm.engine.opened()[0].ground.index.marks() == dense
    farm.engine.close()


def test_a_purge_gives_space_back_before_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_module, "LOOK_AT_ONCE", 4)
    monkeypatch.setattr(volume_module, "RECLAIM_BYTES", MIB)
    farm = Farm(tmp_path, limits=MANY)
    for number in range(40):
        farm.store(noise(60_000, number))
    volume, left = farm.engine.opened()[0], []
    remove = volume.remove

    def noted(rows: list[Row], **words: bool) -> int:
        left.append(len(volume.ground.index.doomed()))
        return remove(rows, **words)

    monkeypatch.setattr(volume, "remove", noted)
    assert farm.engine.purge(ALICE) == 40
    assert left == [0, 4, 8, 12, 16] * 2
    assert not volume.ground.index.doomed()
    farm.engine.close()


class BlinkingFiles(RecordingFiles):
    """A disk that is away while it is asked for the first segment, and back at once."""

    is_away = False

    def exists(self, path: Path) -> bool:
        return not (self.is_away and path.name == "00000001.seg") and super().exists(path)


def test_a_segment_of_a_disk_that_was_away_for_a_moment_is_not_forgotten(tmp_path: Path) -> None:
    files = BlinkingFiles(can_punch=False)
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(900_000, number)).shard for number in range(6)]
    volume = farm.engine.opened()[0]
    rows = [row for one in shards if (row := volume.find(ALICE, one)) is not None]
    first = [row for row in rows if row.place.segment == 1]
    assert len(first) < len(shards)
    volume.remove(first)
    assert (farm.path / "log" / "00000001.seg").exists()
    files.is_away = True
    farm.sweep()
    files.is_away = False
    farm.sweep()
    assert not (farm.path / "log" / "00000001.seg").exists()
    farm.engine.close()


def test_what_a_volume_takes_and_nobody_can_explain_is_told_until_it_is_gone(
    tmp_path: Path,
) -> None:
    farm = Farm(tmp_path, limits=MANY)
    with closing(farm.engine) as engine:
        for number in range(20):
            farm.store(noise(200_000, number))
        engine.compare_with_disk()
        assert engine.trouble() == ()
        stranger = farm.path / "a film"
        [volume] = engine.opened()
        room_bytes = volume.ground.account.explained_bytes - engine.volumes()[0].allocated_bytes
        for more_bytes, told in ((-65_536, ()), (65_536, ("VolumeTakesMore",))):
            with stranger.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, room_bytes + BEYOND_BYTES_MIN + more_bytes)
            engine.compare_with_disk()
            assert tuple(alert.name for alert in engine.trouble()) == told
        [alert] = engine.trouble()
        assert alert.message.startswith("volume0 takes 16 MiB more of its disk than its shards")
        assert alert.command == f"du -xsh {farm.path}/*"
        stranger.unlink()
        engine.compare_with_disk()
        assert engine.trouble() == ()


def lay_beside(farm: Farm, beyond_bytes: int) -> None:
    """Put a file into a volume, so that it takes more than can be explained by so much."""
    farm.engine.compare_with_disk()
    [volume] = farm.engine.opened()
    room_bytes = volume.ground.account.explained_bytes - volume.status().allocated_bytes
    with (farm.path / "a film").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room_bytes + beyond_bytes)


def test_what_goes_while_the_files_are_walked_over_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path, limits=MANY)

    def walk_and_purge(volume: Volume) -> tuple[int, int]:
        found = measure(volume)
        assert farm.engine.purge(ALICE) == 20
        return found

    with closing(farm.engine) as engine:
        for number in range(20):
            farm.store(noise(200_000, number))
        lay_beside(farm, BEYOND_BYTES_MIN - 65_536)
        monkeypatch.setattr(engine_module, "measure", walk_and_purge)
        engine.compare_with_disk()
        assert engine.trouble() == ()


def test_nothing_is_told_of_what_a_volume_takes_that_was_closed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm = Farm(tmp_path, limits=MANY)

    def walk_and_lose(volume: Volume) -> tuple[int, int]:
        found = measure(volume)
        farm.engine.remove_volume(farm.path)
        return found

    with closing(farm.engine) as engine:
        [volume] = engine.opened()
        lay_beside(farm, BEYOND_BYTES_MIN + 65_536)
        before = volume.status().allocated_bytes
        monkeypatch.setattr(engine_module, "measure", walk_and_lose)
        engine.compare_with_disk()
        assert engine.opened() == []
        assert volume.ground.health.alerts() == ()
        assert volume.status().allocated_bytes == before
