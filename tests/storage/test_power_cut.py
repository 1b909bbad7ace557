"""After a power cut: bytes that were not synced are not there, and the index is an older one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import RECORD_HEADER_BYTES, StoredShard
from farmer.model.status import VolumeState
from farmer.storage import index, recovery, worthwhile
from farmer.storage.directory import VolumeSettings
from farmer.storage.records import SEGMENT_HEADER_BYTES
from tests.storage.bench import ALICE, MIB, Farm, crash_copy, noise, shard_of
from tests.storage.recording import Call, Fault, RecordingFiles

SEGMENT = "log/00000001.seg"
CHANGES = frozenset({"punch", "unlink", "rename"})


def page(farm: Farm) -> list[StoredShard]:
    return farm.engine.page(ALICE, ShardId(bytes(32)), 100)


def open_at(farm: Farm, path: Path) -> None:
    farm.settings = [VolumeSettings(path, 64 * MIB)]
    farm.open()


@pytest.mark.parametrize("lost", ["header", "payload", "trailer", "end"])
def test_a_record_of_which_a_block_was_not_written_is_no_shard(farm: Farm, lost: str) -> None:
    first = farm.store(noise(9000)).shard
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    start = (copy / SEGMENT).stat().st_size
    farm.store(noise(100_000, "torn"))
    record = bytearray((farm.path / SEGMENT).read_bytes()[start:])
    farm.engine.close()
    holes = {
        "header": slice(0, 4096),
        "payload": slice(40_960, 45_056),
        "trailer": slice(98_304, 102_400),
        "end": slice(8192, None),
    }
    hole = holes[lost]
    record[hole] = bytes(len(record[hole]))
    with (copy / SEGMENT).open("r+b") as file:
        file.seek(start)
        file.write(record)
    open_at(farm, copy)
    assert [row.shard for row in page(farm)] == [first]
    assert (copy / SEGMENT).stat().st_size == start
    data = noise(9001)
    farm.store(data)
    farm.reopen()
    assert farm.read(shard_of(data)) == data


class CuttingFiles(RecordingFiles):
    """Copies the volume after each change that takes something away, as a power cut leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.root: Path | None = None
        self.copies: list[tuple[Call, Path]] = []

    def _do(self, call, work):  # type: ignore[no-untyped-def]  # as the class it watches
        outcome = super()._do(call, work)
        if self.root is not None and call.name in CHANGES:
            copy = self.root.with_name(f"cut{len(self.copies)}")
            crash_copy(self.root, copy)
            # Nothing but a checkpoint makes the index durable; what it has not seen is lost.
            for name in ("index.sqlite-wal", "index.sqlite-shm"):
                (copy / name).unlink(missing_ok=True)
            self.copies.append((call, copy))
        return outcome


@pytest.mark.parametrize("can_punch", [True, False])
def test_whatever_tidying_was_at_everything_is_as_it_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_punch: bool
) -> None:
    files = CuttingFiles()
    files.can_punch = can_punch
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(100_000, n)).shard for n in range(60)]
    farm.reopen()
    monkeypatch.setattr(worthwhile, "MARKS_SLACK_BYTES", 1 << 40)
    # The index on the disk stays behind from here on.
    monkeypatch.setattr(index, "WAL_BYTES_MAX", 1 << 40)
    farm.store(noise(MIB + 1))
    farm.delete(shards[0])
    farm.delete(shards[1])
    farm.engine.undelete(ALICE, shards[1]).result(20)
    for shard in shards[2:30]:
        farm.delete(shard, erase=True)
    expected = page(farm)
    monkeypatch.setattr(worthwhile, "MARKS_SLACK_BYTES", 0)
    files.root = farm.path
    farm.sweep()
    files.root = None
    farm.engine.close()
    assert {call.name for call, _ in files.copies} >= {
        "rename",
        "punch" if can_punch else "unlink",
    }
    for _call, copy in files.copies:
        open_at(farm, copy)
        assert page(farm) == expected
        for row in expected:
            if row.shard != shards[0]:
                farm.read(row.shard)
        # What was unlinked or punched already does not keep the rest from being tidied.
        farm.sweep()
        assert "reclaim" not in dict(farm.engine.volumes()[0].errors)
        assert [one for one in page(farm) if one.shard != shards[0]] == [
            one for one in expected if one.shard != shards[0]
        ]
        farm.engine.close()


def killed(tmp_path: Path, data: bytes) -> tuple[Farm, RecordingFiles]:
    """Return a closed farm over what a kill left of a store that the index does not know."""
    farm, files = Farm(tmp_path), RecordingFiles()
    copy = tmp_path / "copy"
    crash_copy(farm.path, copy)
    farm.store(data)
    for name in ("log", "staging"):
        for path in sorted((farm.path / name).iterdir()):
            (copy / name / path.name).write_bytes(path.read_bytes())
    farm.engine.close()
    farm.settings, farm.files = [VolumeSettings(copy, 64 * MIB)], files
    return farm, files


@pytest.mark.parametrize("size", [9000, MIB + 1])
def test_what_a_kill_left_in_the_page_cache_is_synced_before_it_is_believed(
    tmp_path: Path, size: int
) -> None:
    data = noise(size)
    farm, files = killed(tmp_path, data)
    farm.open()
    assert [row.shard for row in page(farm)] == [shard_of(data)]
    synced = {call.path for call in files.calls if call.name == "sync_data"}
    ends = [path.name for path in farm.path.glob("log/*.seg")]
    assert synced >= {path.name for path in farm.path.glob("staging/*.part")} | set(ends)
    assert Call("sync_directory", "log") in files.calls or not ends
    farm.engine.close()


def test_a_start_that_cannot_sync_what_a_kill_left_gives_the_cache_up(tmp_path: Path) -> None:
    farm, files = killed(tmp_path, noise(9000))
    files.fault = Fault(0, errno.EIO, lambda call: call.name == "sync_data")
    farm.open()
    assert "uncache" in files.names("uncache", "pread")
    assert farm.engine.volumes()[0].state is not VolumeState.HEALTHY
    farm.engine.close()


class ForgetfulFiles(RecordingFiles):
    """The page cache has what the disk has not, since a sync has failed: a record's header."""

    def uncache(self, fd: int, offset: int, length: int) -> None:
        super().uncache(fd, offset, length)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        with path.open("r+b") as file:
            file.seek(max(offset, SEGMENT_HEADER_BYTES) if path.suffix == ".seg" else 0)
            file.write(bytes(RECORD_HEADER_BYTES))


@pytest.mark.parametrize("size", [9000, MIB + 1])
def test_what_no_sync_could_write_is_no_shard_after_a_kill(tmp_path: Path, size: int) -> None:
    farm, _ = killed(tmp_path, noise(size))
    farm.files = ForgetfulFiles()
    farm.open()
    assert page(farm) == []
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert farm.store(noise(size)).shard == shard_of(noise(size))
    farm.engine.close()


def test_a_long_replay_keeps_the_log_of_the_index_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power went when the index had last been written back long before."""
    monkeypatch.setattr(index, "WAL_BYTES_MAX", 1 << 40)
    farm = Farm(tmp_path)
    for number in range(200):
        farm.store(noise(100, number))
    copy = farm.path.with_name("copy")
    crash_copy(farm.path, copy)
    farm.engine.close()
    for name in ("index.sqlite-wal", "index.sqlite-shm"):
        (copy / name).unlink(missing_ok=True)
    monkeypatch.setattr(index, "WAL_BYTES_MAX", 0)
    monkeypatch.setattr(recovery, "_REPLAYED_PER_TRANSACTION", 16)
    checkpoint, done = index.Index.checkpoint_if_long, list[bool]()

    def noted(which: index.Index) -> bool:
        done.append(checkpoint(which))
        return done[-1]

    monkeypatch.setattr(index.Index, "checkpoint_if_long", noted)
    open_at(farm, copy)
    assert any(done)
    assert farm.engine.volumes()[0].shards == 200
    farm.engine.close()


def test_nothing_is_appended_within_what_a_damaged_record_claims(farm: Farm) -> None:
    """The disk put a mark within the last record; later, its header would be believed."""
    first, last = farm.store(noise(3000)).shard, farm.store(noise(500_000)).shard
    farm.delete(first)
    volume = farm.engine.opened()[0]
    row, (mark,) = volume.ground.index.find(ALICE, last), volume.ground.index.marks()
    assert row is not None
    farm.engine.close()
    log = bytearray((farm.path / SEGMENT).read_bytes())
    misplaced, within = log[mark.place.offset :][: mark.length], row.place.offset + 64 * 4096
    log[within : within + len(misplaced)] = misplaced
    (farm.path / SEGMENT).write_bytes(log[: mark.place.offset])
    lose_index(farm)
    farm.open()
    stored = [farm.store(noise(900_000, number)).shard for number in range(6)]
    farm.engine.close()
    lose_index(farm)
    farm.open()
    assert {row.shard for row in page(farm)} >= set(stored)
    farm.engine.close()


def lose_index(farm: Farm) -> None:
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
