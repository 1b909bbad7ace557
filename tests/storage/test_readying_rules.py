"""An index made ready: brought up to date, made again, or left alone and the reason told."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from farmer.storage.directory import Marker, Paths, create_volume
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access
from farmer.storage.index import INDEX_DESCRIPTORS, Index
from farmer.storage.index_errors import CommitInDoubtError, IndexDamagedError
from farmer.storage.index_file import connect
from farmer.storage.places import Place
from farmer.storage.quota import RESERVE_BYTES
from farmer.storage.readying import Ready, Readying
from farmer.storage.records import Kind
from farmer.storage.reserve import Reserve
from tests.storage.bench import ALICE, NODE, are_closed
from tests.storage.log_bytes import BAD, PAGE, SIZE, Log, header_of, part_of
from tests.storage.recording import Always, Call, Fault, RecordingFiles


class Files(RecordingFiles):
    """Files of which only so many may be open."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.open_max = 1 << 20

    def open(self, path: Path, access: Access) -> int:
        if len(self.is_open) >= self.open_max:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().open(path, access)


class Volume(Log):
    """A volume without an engine, of which the index can be made ready."""

    def __init__(self, root: Path) -> None:
        self.files: Files = Files()
        marker = create_volume(root, NODE, self.files, 1)
        self.marker = Marker(b"v" * 16, NODE, marker.created_at_ms)
        self.paths = Paths(root)
        self.reserve = Reserve(self.files, self.paths.reserve)
        self.reserve.take()
        self.told: list[tuple[int, int]] = []
        self.connections: list[sqlite3.Connection] = []
        self.connect: Callable[[Path], sqlite3.Connection] = self.connected
        self.ready: list[Ready] = []

    def connected(self, path: Path) -> sqlite3.Connection:
        self.connections.append(connect(path))
        return self.connections[-1]

    def readying(self) -> Readying:
        return Readying(
            self.paths,
            self.marker,
            self.files,
            self.reserve,
            lambda number, last: self.told.append((number, last)),
            self.connect,
        )

    def open(self) -> Ready:
        ready = self.readying().open()
        self.index = ready.index
        return ready

    def opened_once(self) -> None:
        self.open().index.close(clean=True)
        with closing(sqlite3.connect(self.paths.index)) as rows:
            rows.execute("PRAGMA user_version = 1")
        self.connections.clear()
        self.told.clear()
        self.files.forget()

    def all_closed(self) -> bool:
        return are_closed(self.connections) and not self.files.is_open

    def spoil_index(self) -> None:
        for path in self.paths.root.glob("index.sqlite-*"):
            path.unlink()
        self.paths.index.write_bytes(b"this is no database" * 500)

    @property
    def is_kept(self) -> bool:
        """Whether the index is the one that `opened_once` has left."""
        with closing(sqlite3.connect(self.paths.index)) as rows:
            return bool(rows.execute("PRAGMA user_version").fetchone()[0])


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path / "volume")
    yield volume
    for one in volume.connections:
        one.close()
    assert not volume.files.is_open


def test_the_index_of_a_new_volume_is_made_and_that_is_no_news(volume: Volume) -> None:
    ready = volume.open()
    assert (ready.rebuilt, ready.parts, ready.recovered.records) == ("", [], 0)
    assert stat.S_IMODE(volume.paths.index.stat().st_mode) == 0o600
    ready.index.close(clean=False)


def test_an_index_that_is_in_use_says_so(volume: Volume) -> None:
    volume.opened_once()
    volume.open()
    with closing(sqlite3.connect(volume.paths.index)) as rows:
        assert rows.execute("SELECT clean, complete FROM state").fetchone() == (0, 1)
    volume.index.close(clean=True)


def test_a_sound_index_is_brought_up_to_date_and_kept(volume: Volume) -> None:
    volume.write(1, 1)
    volume.opened_once()
    volume.write(1, 1, 2)
    part = part_of(volume, 4)
    lease = part_of(volume, 5, kind=Kind.STAGING, synced_bytes=50)
    ready = volume.open()
    assert (ready.rebuilt, ready.recovered.records) == ("", 1)
    assert ready.parts == [part, lease]
    assert volume.known() == {1: Place(1, PAGE), 2: Place(1, 2 * PAGE), 4: Place(0, 0, b"\4" * 16)}
    assert (volume.is_kept, volume.told) == (True, [])
    assert ready.index.staged() == [b"\4" * 16]
    ready.index.close(clean=True)


def test_a_lost_index_is_made_again_and_that_is_told(volume: Volume) -> None:
    volume.write(1, 1, 2)
    part = part_of(volume, 4)
    volume.opened_once()
    volume.spoil_index()
    ready = volume.open()
    assert "not readable" in ready.rebuilt
    assert (ready.recovered.records, ready.parts) == (2, [part])
    assert set(volume.known()) == {1, 2, 4}
    assert ready.index.staged() == [b"\4" * 16]
    assert volume.told == [(1, 1)]
    assert ready.recovered.damaged == []
    synced = [call.path for call in volume.files.calls if call.name == "sync_directory"]
    assert synced[-1] == "volume", "its name is durable"
    ready.index.close(clean=True)
    Index(volume.paths.index, volume.marker.volume).close(clean=True)


def test_an_index_of_an_older_release_is_made_anew_and_nothing_is_wrong_with_that(
    volume: Volume,
) -> None:
    volume.write(1, 1, 2)
    volume.opened_once()
    with closing(sqlite3.connect(volume.paths.index)) as rows:
        rows.execute("UPDATE state SET version = version - 1")
        rows.commit()
    ready = volume.open()
    assert (ready.rebuilt, ready.recovered.records) == ("", 2)
    assert set(volume.known()) == {1, 2}
    assert volume.told == [(1, 1)]
    ready.index.close(clean=True)


class PowerCutError(Exception):
    """In the middle of something."""


@pytest.mark.parametrize("after", ["rename", "unlink", "open", "create_index", "rebuild"])
def test_nothing_is_wrong_with_it_either_where_a_crash_broke_that_off(
    volume: Volume, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_args: object) -> None:
        raise PowerCutError

    volume.write(1, 1, 2)
    volume.opened_once()
    with closing(sqlite3.connect(volume.paths.index)) as rows:
        rows.execute("UPDATE state SET version = version - 1")
        rows.commit()
    with monkeypatch.context() as patch:
        match after:
            case "rename":
                patch.setattr(volume.files, "sync_directory", cut)
            case "unlink":
                patch.setattr(Readying, "rebuild", cut)
            case "open":
                patch.setattr("farmer.storage.readying.create_index", cut)
            case "create_index":
                patch.setattr("farmer.storage.readying.Recovery", cut)
            case _:
                patch.setattr(Index, "finish", cut)
        with pytest.raises(PowerCutError):
            volume.open()
    ready = volume.open()
    assert (ready.rebuilt, ready.recovered.records) == ("", 2)
    assert set(volume.known()) == {1, 2}
    assert not list(volume.paths.root.glob("*.before"))
    ready.index.close(clean=True)
    volume.spoil_index()
    ready = volume.open()
    assert "not readable" in ready.rebuilt, "of damage it is told as ever"
    ready.index.close(clean=True)


def test_an_older_releases_index_takes_no_room_while_another_one_is_made(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_at(*_args: object) -> None:
        sizes.extend(path.stat().st_size for path in volume.paths.root.glob("*.before"))
        raise PowerCutError

    sizes: list[int] = []
    volume.opened_once()
    with closing(sqlite3.connect(volume.paths.index)) as rows:
        rows.execute("UPDATE state SET version = version - 1")
        rows.commit()
    monkeypatch.setattr("farmer.storage.readying.create_index", looked_at)
    with pytest.raises(PowerCutError):
        volume.open()
    assert sizes == [0]


def test_a_log_that_was_cut_is_a_loss_and_not_the_indexs(volume: Volume) -> None:
    volume.write(1, 1, 2)
    volume.opened_once()
    volume.write(1, 1)
    ready = volume.open()
    assert ready.rebuilt == ""
    assert ready.recovered.damaged == ["00000001.seg is shorter than it was"]
    assert set(volume.known()) == {1}
    ready.index.close(clean=True)


def test_an_index_whose_totals_make_no_sense_is_made_again(volume: Volume) -> None:
    volume.write(1, 1)
    volume.opened_once()
    with closing(sqlite3.connect(volume.paths.index)) as rows:
        rows.execute("UPDATE usage SET live = 'rot'")
        rows.commit()
    ready = volume.open()
    assert "not of its kind" in ready.rebuilt
    ready.index.close(clean=True)


def test_a_rebuild_that_is_asked_for_throws_away_what_is_left(volume: Volume) -> None:
    volume.write(1, 1)
    volume.opened_once()
    volume.paths.index.with_name("index.sqlite-wal").write_bytes(b"old")
    ready = volume.readying().rebuild()
    assert not volume.is_kept
    unlinked = [call.path for call in volume.files.calls if call.name == "unlink"]
    assert unlinked == ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"]
    ready.index.close(clean=True)


def test_where_no_index_can_be_made_the_volume_is_not_there(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object) -> None:
        raise IndexDamagedError("whatever is done")

    monkeypatch.setattr("farmer.storage.readying.create_index", fails)
    with pytest.raises(VolumeUnavailableError, match="no index can be made there: whatever"):
        volume.open()


@pytest.mark.parametrize("rebuild", [False, True])
def test_an_opening_that_fails_leaves_nothing_open(volume: Volume, rebuild: bool) -> None:
    volume.write(1, 1)
    volume.opened_once()
    if rebuild:
        volume.spoil_index()
    volume.files.fault = Always(
        errno.EIO, lambda call: (call.name, call.path) == ("sync_data", "00000001.seg")
    )
    with pytest.raises(OSError, match="Input/output"):
        volume.open()
    assert volume.all_closed()
    volume.files.fault = None
    volume.open().index.close(clean=True)


def test_an_index_that_cannot_say_that_it_is_in_use_is_closed(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.opened_once()

    def fails(_index: Index) -> None:
        raise sqlite3.OperationalError("it failed")

    monkeypatch.setattr(Index, "opened", fails)
    with pytest.raises(sqlite3.OperationalError, match="it failed"):
        volume.open()
    assert volume.all_closed()


def is_clean(volume: Volume) -> bool:
    with closing(sqlite3.connect(volume.paths.index)) as rows:
        return bool(rows.execute("SELECT clean FROM state").fetchone()[0])


def test_an_index_that_was_not_closed_in_peace_is_not_called_so_by_a_failed_opening(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume.write(1, 1)
    volume.open().index.close(clean=False)
    assert not is_clean(volume)
    volume.files.fault = Fault(0, errno.EIO, lambda call: call.name == "list")
    with pytest.raises(OSError, match="Input/output"):
        volume.open()
    assert not is_clean(volume)

    def fails(_index: Index) -> None:
        raise sqlite3.OperationalError("it failed")

    volume.files.fault = None
    monkeypatch.setattr(Index, "opened", fails)
    with pytest.raises(sqlite3.OperationalError, match="it failed"):
        volume.open()
    assert not is_clean(volume)


# What says nothing against an index.


def failing(volume: Volume, code: int, times: int) -> None:
    """Let SQLite fail so many openings like this."""
    left = iter(range(times))

    def fails(path: Path) -> sqlite3.Connection:
        if next(left, None) is not None:
            error = sqlite3.OperationalError("it failed")
            error.sqlite_errorcode = code
            raise error
        return volume.connected(path)

    volume.connect = fails


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE])
def test_on_a_full_disk_the_reserve_is_spent_once_and_it_is_tried_again(
    volume: Volume, code: int
) -> None:
    volume.write(1, 1)
    volume.opened_once()
    failing(volume, code, 1)
    ready = volume.open()
    assert volume.reserve.missing_bytes == RESERVE_BYTES
    assert (ready.rebuilt, volume.is_kept) == ("", True)
    ready.index.close(clean=True)
    volume.reserve.take()
    failing(volume, code, 9)
    with pytest.raises(sqlite3.OperationalError, match="it failed"):
        volume.open()
    assert volume.is_kept


def test_without_a_reserve_a_full_disk_stays_full(volume: Volume) -> None:
    volume.opened_once()
    volume.reserve.spend(RESERVE_BYTES)
    failing(volume, sqlite3.SQLITE_FULL, 1)
    with pytest.raises(sqlite3.OperationalError, match="it failed"):
        volume.open()


def test_a_spent_quota_that_sqlite_takes_for_a_broken_disk_is_want_of_room(
    volume: Volume,
) -> None:
    volume.write(1, 1)
    volume.opened_once()
    failing(volume, sqlite3.SQLITE_IOERR, 1)
    volume.files.fault = Always(errno.EDQUOT, lambda call: call.name == "preallocate")
    ready = volume.open()
    assert (volume.reserve.missing_bytes, volume.is_kept) == (RESERVE_BYTES, True)
    ready.index.close(clean=True)


def test_want_of_memory_spends_no_reserve_and_costs_no_index(volume: Volume) -> None:
    volume.write(1, 1)
    volume.opened_once()
    failing(volume, sqlite3.SQLITE_NOMEM, 1)
    with pytest.raises(sqlite3.OperationalError, match="it failed"):
        volume.open()
    assert (volume.reserve.missing_bytes, volume.is_kept) == (0, True)


def test_a_commit_in_doubt_costs_no_index(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    volume.write(1, 1)
    volume.opened_once()
    replayed = Readying._replayed

    def doubtful(_readying: Readying, _index: Index) -> Ready:
        error = sqlite3.OperationalError("out of memory")
        error.sqlite_errorcode = sqlite3.SQLITE_NOMEM
        raise CommitInDoubtError("who knows") from error

    monkeypatch.setattr(Readying, "_replayed", doubtful)
    with pytest.raises(sqlite3.OperationalError, match="out of memory"):
        volume.open()
    assert volume.all_closed()
    monkeypatch.setattr(Readying, "_replayed", replayed)
    volume.open().index.close(clean=True)
    assert volume.is_kept


def test_want_of_descriptors_costs_no_index(volume: Volume) -> None:
    volume.write(1, 1)
    volume.opened_once()
    failing(volume, sqlite3.SQLITE_CANTOPEN, 1)
    volume.files.open_max = INDEX_DESCRIPTORS - 1
    with pytest.raises(OSError, match="Too many open files"):
        volume.open()
    assert volume.is_kept
    # With as many as an index takes it is the index that is to blame.
    failing(volume, sqlite3.SQLITE_CANTOPEN, 1)
    volume.files.open_max = INDEX_DESCRIPTORS
    ready = volume.open()
    assert (ready.rebuilt, volume.is_kept) == ("it failed", False)
    ready.index.close(clean=True)


def test_a_marker_that_cannot_be_opened_says_nothing_of_descriptors(volume: Volume) -> None:
    volume.write(1, 1)
    volume.opened_once()
    failing(volume, sqlite3.SQLITE_CANTOPEN, 1)
    volume.files.fault = Fault(
        0, errno.EIO, lambda call: (call.name, call.path) == ("open_read", "farmer-volume.json")
    )
    ready = volume.open()
    assert ready.rebuilt == "it failed"
    ready.index.close(clean=True)


# What lies in staging.


def test_what_is_no_upload_is_removed_and_what_the_index_has_stays(volume: Volume) -> None:
    stored = part_of(volume, 4)
    volume.opened_once()
    worthless = part_of(volume, 5, kind=Kind.STAGING)
    lease = part_of(volume, 6, kind=Kind.STAGING, synced_bytes=1)
    (volume.paths.staging / "nonsense").write_bytes(b"x")
    (volume.paths.staging / "systems own").mkdir()
    raw = stored.path.read_bytes()
    stored.path.write_bytes(BAD)
    ready = volume.open()
    assert ready.parts == [lease]
    left = sorted(one.name for one in volume.paths.staging.iterdir())
    assert left == sorted([stored.path.name, lease.path.name, "systems own"])
    assert not worthless.path.exists()
    assert stored.path.read_bytes() != raw
    ready.index.close(clean=True)


def on_part(path: Path) -> Callable[[Call], bool]:
    return lambda call: (call.name, call.path) == ("pread", path.name)


def test_a_shard_that_cannot_be_read_holds_no_other_up(volume: Volume) -> None:
    stored = part_of(volume, 4)
    volume.opened_once()
    behind = part_of(volume, 5)
    volume.files.fault = Fault(0, errno.EIO, on_part(stored.path))
    ready = volume.open()
    assert (ready.rebuilt, ready.parts, set(volume.known())) == ("", [behind], {4, 5})
    assert stored.path.exists()
    ready.index.close(clean=True)


def test_of_a_disk_that_cannot_be_read_at_all_no_shard_is_passed_over(volume: Volume) -> None:
    stored = part_of(volume, 4)
    volume.opened_once()
    volume.files.fault = Always(
        errno.EIO, lambda call: call.name == "pread" and call.path[-5:] in {".part", ".json"}
    )
    with pytest.raises(OSError, match="Input/output"):
        volume.open()
    assert stored.path.exists()
    assert volume.all_closed()


@pytest.mark.parametrize(("number", "known"), [(errno.EIO, False), (errno.ENOMEM, True)])
def test_what_nobody_could_say_was_lost_stops_the_opening(
    volume: Volume, number: int, known: bool
) -> None:
    if known:
        stored = part_of(volume, 4)
        volume.opened_once()
    else:
        volume.opened_once()
        stored = part_of(volume, 4)
    volume.files.fault = Fault(0, number, on_part(stored.path))
    with pytest.raises(OSError, match=r".") as caught:
        volume.open()
    assert caught.value.errno == number
    assert stored.path.exists()
    volume.files.fault = None
    volume.open()
    assert volume.index.find(ALICE, header_of(SIZE, 4).shard) is not None
    volume.index.close(clean=True)
