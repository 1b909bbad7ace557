"""A volume that can only be read is emptied all the same, and its shards are there once."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState, StoredShard
from farmer.model.status import VolumeState
from farmer.storage import annex, emptying
from farmer.storage.annex import HOME_KEEPS_BYTES
from farmer.storage.directory import Paths, VolumeSettings
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.files import Buffer, Filesystem
from farmer.storage.fill import Fill
from farmer.storage.index import Index
from farmer.storage.index_errors import CommitInDoubtError
from farmer.storage.keeper import ANNEX_EVERY_S
from farmer.storage.records import SEGMENT_HEADER_BYTES
from farmer.storage.transaction import Transaction
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, Farm, contract_of, finished, noise, shard_of
from tests.storage.house import House
from tests.storage.recording import Always, Fault, ReadOnlyFiles
from tests.storage.test_moving import DRAIN, SIZES, step_until
from tests.storage.test_moving_crash import CuttingFiles

SICK = "volume0"


class Yard:
    """A farmer with two volumes; the first, which has all the shards, can become read-only."""

    def __init__(self, root: Path, files: ReadOnlyFiles | None = None) -> None:
        self.files = files or ReadOnlyFiles()
        root.mkdir(exist_ok=True)
        self.farm = Farm(root, volumes=2, files=self.files, annexes=root / "annexes")
        self.farm.engine.fill = Fill.FIRST
        self.data = {shard_of(data): data for data in (noise(size) for size in SIZES)}
        for data in self.data.values():
            self.farm.store(data)
        self.trashed = list(self.data)[2]
        self.farm.delete(self.trashed)
        self.expected = self.page()
        self.usage = self.farm.engine.usage(ALICE)

    @property
    def source(self) -> Volume:
        return self.farm.engine._slots.opened()[0]

    @property
    def annexes(self) -> list[str]:
        assert self.farm.annexes is not None
        there = self.farm.annexes
        return sorted(path.name for path in there.iterdir()) if there.exists() else []

    def page(self) -> list[StoredShard]:
        return self.farm.engine.page(ALICE, ShardId(bytes(32)), 100)

    def turn_read_only(self) -> None:
        """The disk takes no writes from now on, which the next store shows."""
        self.files.read_only = SICK
        with pytest.raises(VolumeUnavailableError):
            self.farm.store(noise(10, "refused"))
        assert self.state is VolumeState.READ_ONLY

    @property
    def state(self) -> VolumeState:
        return self.farm.engine.volumes()[0].state

    def begin(self) -> None:
        self.farm.engine.part(self.farm.settings[0].path)
        self.farm.engine.mover.begin(self.source, DRAIN)

    def steps(self, most: int = 1000) -> None:
        for _ in range(most):
            if self.farm.engine.mover.step() is None:
                return

    def move_some(self) -> int:
        """Let some shards cross, and return how many."""
        self.begin()
        step_until(self.farm.engine.mover, lambda: self.counts()[1])
        assert self.counts()[0]
        return self.counts()[1]

    def check(self) -> None:
        """Each shard is there once, as it was."""
        assert self.page() == self.expected
        assert self.farm.engine.usage(ALICE) == self.usage
        shards = [volume.shards for volume in self.farm.engine.volumes()]
        assert sum(shards) == len(self.expected)
        for row in self.expected:
            if row.state is ShardState.LIVE:
                assert self.farm.read(row.shard) == self.data[row.shard]

    def counts(self) -> list[int]:
        return [volume.shards for volume in self.farm.engine.volumes()]


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.farm.engine.close()


def content(root: Path) -> dict[str, bytes]:
    """Return all but the index, which SQLite tidies up by itself where it can."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    files = (path for path in files if not path.name.startswith("index.sqlite"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_it_is_emptied_without_a_write_and_over_restarts(yard: Yard) -> None:
    yard.turn_read_only()
    before = content(yard.farm.path)
    yard.begin()
    for _ in range(20):
        yard.check()
        yard.steps(4)
        yard.farm.reopen()
        assert yard.state is VolumeState.READ_ONLY
    yard.check()
    assert yard.counts() == [0, len(SIZES)]
    assert content(yard.farm.path) == before


def test_what_is_deleted_after_it_moved_does_not_come_back(yard: Yard) -> None:
    """Not with the index of either volume lost, nor with the one in the annex."""
    yard.turn_read_only()
    yard.begin()
    yard.steps()
    gone = list(yard.data)[4]
    yard.farm.delete(gone, erase=True)
    expected = yard.page()
    assert yard.farm.annexes is not None
    for lost in (yard.farm.annexes, yard.farm.settings[1].path):
        yard.farm.engine.close()
        for path in lost.rglob("index.sqlite*"):
            path.unlink()
        yard.farm.open()
        assert yard.page() == expected
        with pytest.raises(ShardNotFoundError):
            yard.farm.engine.stat(ALICE, gone)


def test_one_that_becomes_read_only_while_it_is_emptied_goes_on_by_itself(yard: Yard) -> None:
    yard.farm.engine.mover.begin(yard.source, DRAIN)
    assert yard.farm.engine.mover.step() is not None
    yard.files.read_only = SICK
    yard.steps()
    assert yard.counts()[0]
    yard.check()
    yard.source.ground.health.read_only("seen by the writer")
    yard.farm.engine.look_after_disks()
    yard.steps()
    yard.check()
    assert yard.counts() == [0, len(SIZES)]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_one_with_a_journal_that_becomes_read_only_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_restarted: bool
) -> None:
    """What crosses was noted on the disk already: the note is continued in the annex."""
    monkeypatch.setattr(emptying, "CROSSING_BYTES", 1)
    yard = Yard(tmp_path)
    engine = yard.farm.engine
    engine.mover.begin(yard.source, DRAIN)
    step_until(engine.mover, lambda: yard.counts()[1])
    assert (yard.farm.path / "moving").exists()
    yard.files.read_only = SICK
    if is_restarted:
        engine.close()
        engine = yard.farm.open()
        engine.fill = Fill.FIRST
    else:
        yard.steps()
        yard.source.ground.health.read_only("as the writer saw")
        engine.look_after_disks()
    for _ in range(5):
        yard.steps()
        engine.look_after_disks()
    assert yard.counts()[0] == 0
    yard.check()
    engine.close()


def test_what_was_begun_on_the_disk_can_be_cancelled_where_it_cannot_be_written(
    yard: Yard,
) -> None:
    """The wish stands on the disk for ever, and is noted as gone."""
    yard.farm.engine.mover.begin(yard.source, DRAIN)
    yard.files.read_only = SICK
    yard.source.ground.health.read_only("seen by the writer")
    yard.farm.engine.look_after_disks()
    assert yard.source.draining
    yard.farm.engine.mover.cancel(yard.source)
    yard.farm.reopen()
    assert not yard.source.draining
    yard.steps()
    assert yard.counts() == [len(SIZES), 0]
    yard.check()


def test_no_shard_is_copied_into_the_annex(yard: Yard) -> None:
    """Of a sparse segment, what is left is elsewhere written again to save its space."""
    for number in range(6):
        yard.farm.store(noise(MIB - 1, number))
    last = yard.farm.store(noise(MIB - 1, "damaged"))
    row = yard.source.find(ALICE, last.shard)
    assert row is not None
    assert row.place.segment > 1
    yard.farm.engine.fill = Fill.FIRST
    for number in range(4):
        yard.farm.store(noise(MIB - 1, f"behind {number}"))
    with yard.source.ground.paths.segment(row.place.segment).open("r+b") as file:
        file.seek(row.place.offset + 300)
        file.write(b"rot")
    yard.turn_read_only()
    yard.begin()
    yard.steps()
    yard.farm.sweep()
    assert yard.counts()[0] == 1
    assert yard.farm.annexes is not None
    noted = sum(path.stat().st_size for path in yard.farm.annexes.rglob("*.seg"))
    assert noted < MIB // 4


def test_one_that_fails_is_emptied_too(yard: Yard) -> None:
    yard.files.fault = Fault(0, errno.EIO, lambda call: call.name == "pwritev")
    with pytest.raises(VolumeUnavailableError):
        yard.farm.store(noise(10, "refused"))
    yard.files.read_only = SICK
    assert yard.state is VolumeState.FAILING
    yard.begin()
    yard.steps()
    yard.check()
    assert yard.counts() == [0, len(SIZES)]


def test_a_start_from_a_read_only_disk_serves_what_is_there(yard: Yard) -> None:
    """New shards go elsewhere, deletes are refused; nothing is left when it can be written."""
    yard.farm.engine.close()
    yard.files.read_only = SICK
    yard.farm.open()
    assert yard.state is VolumeState.READ_ONLY
    yard.check()
    with pytest.raises(VolumeUnavailableError):
        yard.farm.delete(yard.expected[0].shard)
    other = yard.farm.store(noise(10, "other"))
    assert yard.counts() == [len(SIZES), 1]
    yard.farm.delete(other.shard, erase=True)
    yard.files.read_only = ""
    yard.farm.engine.close()
    yard.farm.open()
    assert yard.state is VolumeState.HEALTHY
    yard.check()
    assert yard.annexes == []


def test_one_that_was_never_opened_says_that_it_cannot_be_written(yard: Yard) -> None:
    """As it is for a service outside of the places that its unit lets it write to."""
    yard.farm.engine.close()
    Paths(yard.farm.path).lock.unlink()
    yard.files.read_only = SICK
    yard.farm.open()
    assert yard.state is VolumeState.GONE
    assert "Read-only file system" in yard.farm.engine.volumes()[0].reason


def test_an_upload_that_had_begun_there_holds_nothing_up(yard: Yard) -> None:
    upload = yard.farm.begin(noise(2 * MIB, "half"))
    upload.write(noise(2 * MIB, "half")[:MIB])
    upload.abandon()
    yard.farm.engine.close()
    yard.files.read_only = SICK
    yard.farm.open()
    assert yard.farm.engine.volumes()[0].reserved_bytes == 0
    yard.begin()
    yard.steps()
    assert yard.source in finished(yard.farm.engine.mover)
    again = yard.farm.engine.begin(contract_of(ALICE), shard_of(noise(9)), 9)
    again.abandon()  # type: ignore[union-attr]  # a new shard


def test_when_it_can_be_written_again_the_annex_comes_home(yard: Yard) -> None:
    yard.turn_read_only()
    moved = yard.move_some()
    yard.farm.engine.mover.cancel(yard.source)
    yard.files.read_only = ""
    yard.source.ground.health.probe_worked()
    yard.farm.reopen()
    assert yard.state is VolumeState.HEALTHY
    assert yard.annexes == []
    assert not yard.source.draining
    yard.check()
    assert yard.counts()[1] == moved
    yard.farm.engine.fill = Fill.FIRST
    stored = yard.farm.store(noise(20, "new"))
    yard.farm.reopen()
    assert yard.farm.read(stored.shard) == noise(20, "new")
    assert yard.counts()[1] == moved


def test_a_probe_that_works_brings_the_annex_home_without_a_restart(yard: Yard) -> None:
    yard.turn_read_only()
    yard.move_some()
    yard.files.read_only = ""
    slot = yard.farm.engine._slots[0]
    yard.farm.engine.look_after_disks()
    slot._next_probe_s = 1e-9
    yard.farm.engine.look_after_disks()
    assert yard.state is VolumeState.HEALTHY
    assert yard.annexes == []
    yard.check()
    yard.steps()
    yard.check()
    assert yard.counts()[0] == 0


@pytest.mark.parametrize("committed", [False, True])
def test_after_a_commit_in_doubt_it_is_opened_anew_before_anything_is_noted(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """Else marks that its index knows are written over, and shards come back with the disk."""
    monkeypatch.setattr(emptying, "CROSSING_BYTES", 1)
    yard.turn_read_only()
    yard.begin()
    sick, commit, left = yard.source, Index._commit, [1]

    def in_doubt(self: Index, transaction: Transaction) -> None:
        if self is not sick.ground.index or not transaction.changes_rows or not left:
            return commit(self, transaction)
        left.pop()
        if committed:
            commit(self, transaction)
        raise CommitInDoubtError

    monkeypatch.setattr(Index, "_commit", in_doubt)
    while left:
        yard.farm.engine.mover.step()
    row = next(row for row in yard.expected if sick.find(ALICE, row.shard) is not None)
    there = sick.find(ALICE, row.shard)
    assert there is not None
    with pytest.raises(VolumeUnavailableError, match="CommitInDoubt"):
        sick.remove([there])
    yard.farm.engine.look_after_disks()
    assert yard.source is not sick
    yard.steps()
    yard.farm.reopen()
    yard.check()
    for row in yard.expected:
        yard.farm.delete(row.shard, erase=True)
    yard.farm.engine.close()
    yard.files.read_only = ""
    yard.farm.open()
    assert yard.annexes == []
    assert yard.page() == []


@pytest.mark.parametrize("number", range(0, 40, 3))
def test_an_annex_on_its_way_home_may_be_stopped_at_any_call(yard: Yard, number: int) -> None:
    yard.turn_read_only()
    yard.move_some()
    yard.farm.engine.close()
    yard.files.read_only = ""
    yard.files.fault = Fault(number, errno.EIO)
    yard.farm.open()
    yard.files.fault = None
    if None not in yard.farm.engine._slots.every():
        yard.check()
    yard.farm.reopen()
    yard.check()
    assert yard.annexes == []
    assert yard.state is VolumeState.HEALTHY


def test_a_volume_that_was_used_without_its_annex_is_not_mixed_with_it(yard: Yard) -> None:
    """Two pasts of one volume: a person has to say which of them was."""
    yard.turn_read_only()
    yard.move_some()
    yard.farm.engine.close()
    yard.files.read_only = ""
    annexes, yard.farm.annexes = yard.farm.annexes, None
    yard.farm.open()
    yard.farm.engine.fill = Fill.FIRST
    number = 0
    while yard.source.writer.active_number == 1:
        yard.farm.store(noise(MIB // 2, number))
        number += 1
    yard.farm.engine.close()
    yard.farm.annexes = annexes
    yard.farm.open()
    assert yard.state is VolumeState.GONE
    assert "used without it" in yard.farm.engine.volumes()[0].reason


def fail_roll(yard: Yard, call: str) -> Path:
    """
    The disk fails while a segment is begun, and takes no writes from then on.

    Return what is left of that segment.  If it is whole, it alone says that the record behind
    the one before was refused.
    """
    left = yard.source.ground.paths.segment(yard.source.writer.active_number + 1)
    yard.files.fault = Always(
        errno.EIO,
        lambda one: (
            (one.name, one.path) in {(call, left.name), ("unlink", left.name)}
            or (one.name == "sync_data" and one.path.endswith(".seg"))
            or (one.name == "truncate" and call == "sync_data")
        ),
    )
    with pytest.raises(VolumeUnavailableError):
        yard.farm.store(noise(10, "refused"))
    yard.files.read_only = SICK
    assert left.stat().st_size == (0 if call == "pwritev" else SEGMENT_HEADER_BYTES)
    yard.files.fault = None
    yard.source.ground.health.read_only("seen by the writer")
    return left


def restart(left: Path, size: int | None) -> None:
    """Let the system start anew: it has so much of the file as had reached the disk."""
    if size is None:
        left.unlink()
    else:
        left.write_bytes(left.read_bytes().ljust(size, b"x")[:size])


@pytest.mark.parametrize(
    ("call", "size"),
    [
        *(("pwritev", size) for size in (None, 0, 100, SEGMENT_HEADER_BYTES)),
        *(("sync_data", size) for size in (None, 0, 100, SEGMENT_HEADER_BYTES)),
    ],
)
@pytest.mark.parametrize("number", [None, *range(0, 40, 9)])
def test_one_that_failed_while_a_segment_was_begun_comes_home(
    yard: Yard, call: str, size: int | None, number: int | None
) -> None:
    """Whatever is left of that segment, and also if it is stopped on its way."""
    left = fail_roll(yard, call)
    yard.begin()
    step_until(yard.farm.engine.mover, lambda: yard.counts()[1] > 2)
    assert yard.annexes
    moved = yard.farm.engine.opened()[1].ground.index.page(ALICE, ShardId(bytes(32)), 100)
    gone = next(row.shard for row in moved if row.state is ShardState.LIVE)
    yard.farm.delete(gone, erase=True)
    yard.expected, yard.usage = yard.page(), yard.farm.engine.usage(ALICE)
    yard.farm.engine.close()
    restart(left, size)
    yard.files.read_only = ""
    if number is not None:
        yard.files.fault = Fault(number, errno.EIO)
        yard.farm.open()
        yard.files.fault = None
        yard.farm.engine.close()
    yard.farm.open()
    assert yard.state is VolumeState.HEALTHY, yard.farm.engine.volumes()[0].reason
    assert yard.annexes == []
    yard.check()
    with pytest.raises(ShardNotFoundError):
        yard.farm.engine.stat(ALICE, gone)
    yard.farm.engine.fill = Fill.FIRST
    stored = yard.farm.store(noise(20, "new"))
    yard.farm.reopen()
    assert yard.farm.read(stored.shard) == noise(20, "new")


def test_where_the_log_ended_is_known_after_a_restart_that_lost_what_said_so(yard: Yard) -> None:
    """The disk still takes no writes then; and the index may be lost as well."""
    left = fail_roll(yard, "sync_data")
    yard.begin()
    yard.steps(2)
    yard.farm.engine.close()
    left.unlink()
    assert yard.farm.annexes is not None
    for path in yard.farm.annexes.rglob("index.sqlite*"):
        path.unlink()
    yard.farm.open()
    assert yard.state is VolumeState.READ_ONLY
    yard.check()
    yard.steps()
    yard.check()
    assert yard.counts() == [0, len(SIZES)]


def test_without_room_for_an_annex_all_stays_as_it_was(yard: Yard) -> None:
    yard.turn_read_only()
    yard.files.fault = Fault(0, errno.ENOSPC, lambda call: call.path == "annexes")
    with pytest.raises(OSError, match="space"):
        yard.begin()
    yard.check()
    assert yard.annexes == []
    shutil.rmtree(yard.farm.annexes or "", ignore_errors=True)


def test_readers_notice_nothing_when_a_volume_is_opened_anew(yard: Yard) -> None:
    """The moment without it is waited for; a look-up that comes too late is made again."""
    wrong: list[BaseException] = []
    is_over, has_read = threading.Event(), threading.Semaphore(0)
    live = [row.shard for row in yard.expected if row.state is ShardState.LIVE]

    def read() -> None:
        while not is_over.is_set():
            try:
                assert yard.page() == yard.expected
                for shard in live:
                    assert yard.farm.read(shard) == yard.data[shard]
                    has_read.release()
            except BaseException as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    slot = yard.farm.engine._slots[0]
    for _ in range(50):
        while has_read.acquire(blocking=False):
            pass
        assert has_read.acquire(timeout=20)
        slot._begin("again", lambda: slot._open_anew(yard.source))
    is_over.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
    assert yard.state is VolumeState.HEALTHY


class CuttingReadOnlyFiles(ReadOnlyFiles, CuttingFiles):
    """Copies volumes and annexes before each change; the first volume takes none."""

    def __init__(self, *, power: bool) -> None:
        CuttingFiles.__init__(self, power=power)

    def _lose(self, root: Path, copy: Path) -> None:
        super()._lose(root, copy)
        for path in copy.rglob("index.sqlite-*"):
            path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power"])
def test_it_goes_on_after_a_crash_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power: bool
) -> None:
    monkeypatch.setattr(emptying, "CROSSING_MAX", 2)
    yard = Yard(tmp_path / "world", CuttingReadOnlyFiles(power=power))
    files, farm = yard.files, yard.farm
    assert isinstance(files, CuttingReadOnlyFiles)
    assert farm.annexes is not None
    farm.annexes.mkdir()
    yard.turn_read_only()
    files.roots = [*(settings.path for settings in farm.settings), farm.annexes]
    yard.begin()
    yard.steps()
    files.roots = []
    yard.check()
    farm.engine.close()
    assert len(files.cuts) > 60
    for cut in files.cuts[power::2]:
        *volumes, farm.annexes = cut.roots
        farm.settings = [VolumeSettings(root, 64 * MIB) for root in volumes]
        farm.open()
        yard.check()
        if not yard.source.draining:
            yard.begin()
        yard.steps()
        yard.check()
        assert yard.counts() == [0, len(SIZES)], cut.what
        farm.engine.close()
        for lost in (farm.annexes, volumes[1]):
            for path in lost.rglob("index.sqlite*"):
                path.unlink()
        farm.open()
        yard.check()
        farm.engine.close()


class CrampedFiles(ReadOnlyFiles):
    """A farmer's home that has no more than some room, as it says or only shows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.free_bytes: int | None = None
        self.left_bytes: int | None = None
        self.tried_bytes = 0

    def filesystem(self, path: Path) -> Filesystem:
        found = super().filesystem(path)
        if path.name != "annexes" or self.free_bytes is None:
            return found
        return replace(found, free_bytes=self.free_bytes)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        if "annexes" in self._places[fd].parts:
            size = sum(map(len, buffers))
            self.tried_bytes += size
            if self.left_bytes is not None and offset + size > self.left_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().pwritev(fd, buffers, offset)


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Farm]:
    """A closed farmer of which a volume could be written before, and cannot any more."""
    files = CrampedFiles()
    farm = Farm(tmp_path, volumes=2, files=files, annexes=tmp_path / "annexes")
    farm.store(noise(1000))
    farm.engine.close()
    files.read_only = SICK
    yield farm
    farm.engine.close()


def test_a_home_that_is_nearly_full_is_not_filled_by_an_annex(cramped: Farm) -> None:
    files = cramped.files
    assert isinstance(files, CrampedFiles)
    index_bytes = (cramped.path / "index.sqlite").stat().st_size
    files.free_bytes = HOME_KEEPS_BYTES + index_bytes - 1
    house = House(cramped)
    assert "no place" in house.engine.volumes()[0].reason
    assert files.tried_bytes == 0
    assert list((cramped.path.parent / "annexes").iterdir()) == []
    files.free_bytes += 1
    house.clock.now_s += ANNEX_EVERY_S
    house.engine.look_after_disks()
    assert house.engine.volumes()[0].state is VolumeState.READ_ONLY


def test_what_was_made_of_an_annex_goes_where_it_fails_and_it_is_not_tried_again_at_once(
    cramped: Farm,
) -> None:
    files = cramped.files
    assert isinstance(files, CrampedFiles)
    files.left_bytes = 10_000
    house = House(cramped)
    reason = house.engine.volumes()[0].reason
    assert "No space left on device" in reason
    assert list((cramped.path.parent / "annexes").iterdir()) == []
    tried_bytes, files.left_bytes = files.tried_bytes, None
    house.clock.now_s += ANNEX_EVERY_S - 1
    house.engine.look_after_disks()
    assert files.tried_bytes == tried_bytes
    assert house.engine.volumes()[0].reason == reason
    house.clock.now_s += 1
    house.engine.look_after_disks()
    assert house.engine.volumes()[0].state is VolumeState.READ_ONLY


def test_one_that_waits_for_its_annex_is_opened_as_soon_as_it_can_be_written(
    cramped: Farm,
) -> None:
    files = cramped.files
    assert isinstance(files, CrampedFiles)
    files.free_bytes = 0
    house = House(cramped)
    files.read_only = ""
    house.engine.look_after_disks()
    assert house.engine.volumes()[0].state is VolumeState.HEALTHY


class CopyingFiles(ReadOnlyFiles):
    """Has something done whenever an index that is copied to an annex is synced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.during: Callable[[], object] = lambda: None

    def sync_data(self, fd: int) -> None:
        place = self._places[fd]
        if "annexes" in place.parts and place.name == "index.sqlite":
            self.during()
        super().sync_data(fd)


def test_shards_are_read_while_the_index_is_copied_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a slow disk under the farmer's home makes no volume slow, nor lets it hang."""
    files = CopyingFiles()
    yard = Yard(tmp_path, files)
    yard.turn_read_only()
    monkeypatch.setattr(annex, "_STEP_BYTES", 4096)
    monkeypatch.setattr(annex, "_SYNCED_BYTES", 2 * 4096)
    index_bytes = (yard.farm.path / "index.sqlite").stat().st_size
    live = next(row.shard for row in yard.expected if row.state is ShardState.LIVE)
    calls: list[list[str]] = []
    with ThreadPoolExecutor(1) as threads:

        def look() -> None:
            calls.append([call.what for call in yard.source.ground.watch.calls.values()])
            threads.submit(yard.farm.read, live).result(5)

        files.during = look
        yard.begin()
        files.during = lambda: None
    assert len(calls) == index_bytes // (2 * 4096) + 1
    assert not any(map(any, calls))
    yard.steps()
    yard.check()
    yard.farm.engine.close()
