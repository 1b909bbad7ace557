"""A disk with bad spots is just what one empties: what lies on them stays, the rest goes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from farmer.model.shard import BLOCK_BYTES, RECORD_HEADER_BYTES, ShardState
from farmer.model.status import VolumeState
from farmer.storage import ferry, spoilers
from farmer.storage.bad_spots import MET_MAX, BadSpots
from farmer.storage.checking import check_volume
from farmer.storage.directory import MARKER_NAME, Paths, VolumeSettings, create_volume
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access, OsFiles
from farmer.storage.places import Row
from farmer.storage.quota import SMALL_BYTES_MAX
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, MIB, NODE, Farm, crash_copy, noise
from tests.storage.rot import is_spoiled, rot, row_of, volume_of
from tests.storage.test_moving import DRAIN, Street
from tests.storage.test_scrub import alerts, scrub


class Spotty(OsFiles):
    """Bad spots by inode and offset; or a whole disk that cannot be read."""

    def __init__(self) -> None:
        self.bad: set[tuple[int, int]] = set()
        self.dead = ""
        self.unlisted = ""

    def list(self, path: Path) -> list[str]:
        if path.name == self.unlisted:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return super().list(path)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._check(fd, length, offset, apart=False)
        return super().pread(fd, length, offset)

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        self._check(fd, length, offset, apart=True)
        return os.pread(fd, length, offset)

    def _check(self, fd: int, length: int, offset: int, *, apart: bool) -> None:
        spots = (at for inode, at in self.bad if inode == os.fstat(fd).st_ino)
        if any(is_spoiled(at, offset, length, apart=apart) for at in spots):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.dead and self.dead in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("is_large", [False, True])
def test_one_bad_spot_keeps_no_other_shard(tmp_path: Path, *, is_large: bool) -> None:
    files = Spotty()
    street = Street(tmp_path, files=files)
    with closing(street.farm.engine) as engine:
        rows = street.source.ground.index.some(None, 100)
        like = [row for row in rows if (row.size_bytes > SMALL_BYTES_MAX) is is_large]
        bad = max(like, key=lambda row: row.size_bytes)
        path = street.source.handles.path_of(bad.place)
        files.bad = {(path.stat().st_ino, bad.place.offset + 5000)}
        street.begin()
        for _ in range(5):
            street.steps()
        source, target = engine.volumes()
        assert (source.shards, source.quarantined) == (1, 1)
        assert target.shards == len(rows) - 1
        files.bad.clear()
        street.check_bytes()


def test_the_shards_around_a_bad_spot_are_served_and_stay(tmp_path: Path) -> None:
    """The kernel reads them together, and then none of them counts as read."""
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine) as engine:
        shards = [farm.store(noise(5000, number)).shard for number in range(9)]
        bad = row_of(farm, shards[4])
        log = volume_of(farm).ground.paths.segment(bad.place.segment)
        files.bad = {(log.stat().st_ino, bad.place.offset + 300)}
        for number, shard in enumerate(shards):
            if number != 4:
                assert farm.read(shard) == noise(5000, number)
                assert not engine.examine(ALICE, shard).blocks
        with pytest.raises(VolumeUnavailableError):
            farm.read(bad.shard)
        scrub(farm)
        assert [shard for shard in shards if row_of(farm, shard).is_damaged] == [bad.shard]


def test_of_a_large_shard_one_block_is_damaged_by_one_bad_spot(tmp_path: Path) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine):
        row = row_of(farm, farm.store(noise(3 * MIB)).shard)
        path = volume_of(farm).handles.path_of(row.place)
        files.bad = {(path.stat().st_ino, RECORD_HEADER_BYTES + 5 * BLOCK_BYTES + 9000)}
        scrub(farm)
        found = volume_of(farm).examined.find(row.sequence)
        assert found is not None
        assert found.bad_blocks == (5,)


def test_a_shard_whose_header_cannot_be_read_waits_for_the_scrub_and_the_others_go(
    tmp_path: Path,
) -> None:
    files = Spotty()
    street = Street(tmp_path, files=files)
    with closing(street.farm.engine) as engine:
        rows = street.source.ground.index.some(None, 100)
        path = street.source.handles.path_of(rows[0].place)
        files.bad = {(path.stat().st_ino, rows[0].place.offset + 5)}
        street.begin()
        for _ in range(5):
            street.steps()
        source, target = engine.volumes()
        assert (source.shards, source.quarantined, target.shards) == (1, 0, len(rows) - 1)
        assert source.work is not None
        assert "read" in source.work.problem
        files.bad.clear()
        street.steps()
        assert engine.volumes()[0].shards == 0
        street.check_bytes()


@contextmanager
def arriving_on_a_bad_spot(
    files: Spotty, monkeypatch: pytest.MonkeyPatch, at: int, *, is_large: bool
) -> Iterator[None]:
    """Let a spot of the first copy of its kind go bad when it has been entered at its target."""
    real = ferry._read_back

    def spoil(target: Volume, rows: Iterable[Row]) -> list[Row]:
        rows = list(rows)
        like = [row for row in rows if (row.size_bytes > SMALL_BYTES_MAX) is is_large]
        if like and not files.bad:
            row = max(like, key=lambda row: row.size_bytes)
            path = target.handles.path_of(row.place)
            files.bad = {(path.stat().st_ino, row.place.offset + at)}
        return real(target, rows)

    with monkeypatch.context() as patched:
        patched.setattr(ferry, "_read_back", spoil)
        yield
    assert files.bad


@pytest.mark.parametrize(("at", "is_large"), [(300, False), (5, False), (5, True)])
def test_a_copy_that_arrived_on_a_bad_spot_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, *, is_large: bool
) -> None:
    monkeypatch.setattr(spoilers, "AGAIN_S", 0.0)
    files = Spotty()
    street = Street(tmp_path, files=files)
    with closing(street.farm.engine) as engine:
        street.begin()
        with arriving_on_a_bad_spot(files, monkeypatch, at, is_large=is_large):
            for _ in range(5):
                street.steps()
        assert not any(volume.journal.open.keys for volume in engine.opened())
        assert [one.shards for one in engine.volumes()] == [0, len(street.data)]
        assert engine.volumes()[1].quarantined == 0
        street.check_bytes()


def test_a_shard_whose_copy_is_damaged_stays_also_where_that_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Spotty()
    street = Street(tmp_path, files=files)
    with closing(street.farm.engine) as engine:
        street.begin()
        with arriving_on_a_bad_spot(files, monkeypatch, 300, is_large=False):
            monkeypatch.setattr(street.target, "quarantine", lambda _row: None)
            street.steps()
        assert engine.volumes()[0].shards >= sum(
            len(data) <= SMALL_BYTES_MAX for data in street.data.values()
        )
        monkeypatch.undo()
        for _ in range(5):
            street.steps()
        assert [one.shards for one in engine.volumes()] == [0, len(street.data)]
        street.check_bytes()


class Dying(OsFiles):
    """A disk that goes away, of which memory still has the first page of each record."""

    def __init__(self) -> None:
        self.gone = ""

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        where = str(Path(f"/proc/self/fd/{fd}").readlink())
        if self.gone and self.gone in where and length != RECORD_HEADER_BYTES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread(fd, length, offset)


def test_a_disk_that_goes_away_in_the_middle_of_a_drain_blames_no_shard(tmp_path: Path) -> None:
    files = Dying()
    street = Street(tmp_path, files=files)
    with closing(street.farm.engine) as engine:
        files.gone = str(street.source.settings.path)
        street.begin()
        street.steps()
        assert engine.volumes()[0].quarantined == 0


def test_a_disk_that_cannot_be_read_at_all_blames_no_shard(tmp_path: Path) -> None:
    files = Spotty()
    street = Street(tmp_path, files=files)
    with closing(street.farm.engine) as engine:
        files.dead = str(street.source.settings.path)
        street.begin()
        street.steps()
        files.dead = ""
        assert engine.volumes()[0].quarantined == 0
        for _ in range(5):
            engine.look_after_disks()
            street.steps()
        assert engine.volumes()[0].shards == 0
        street.check_bytes()


def test_a_bad_spot_under_a_stored_shards_header_in_staging_shuts_no_volume(
    tmp_path: Path,
) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    other = farm.store(noise(5000)).shard
    farm.store(noise(3 * MIB))
    crash_copy(farm.path, tmp_path / "copy")
    farm.engine.close()
    [part] = (tmp_path / "copy" / "staging").iterdir()
    files.bad = {(part.stat().st_ino, 100)}
    farm.settings = [VolumeSettings(tmp_path / "copy", 64 * MIB)]
    farm.open()
    with closing(farm.engine):
        assert farm.read(other) == noise(5000)
        assert part.exists()


def test_a_shelf_that_cannot_be_listed_ends_no_scrub(tmp_path: Path) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine):
        farm.store(noise(3 * MIB))
        farm.reopen()
        [file] = (farm.path / "shards").rglob("*.seg")
        files.unlisted = file.parent.name
        scrub(farm)
        assert farm.engine.volumes()[0].scrub.state == "idle"


@pytest.mark.parametrize("where", ["header", "marks", "shelf"])
def test_no_index_is_made_from_what_can_be_read_of_a_log(tmp_path: Path, where: str) -> None:
    """What it did not know would be taken for room: given back, or written over."""
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(90_000, str(number))).shard for number in range(3)]
    large = farm.store(noise(3 * MIB)).shard
    row = row_of(farm, shards[1])
    log = volume_of(farm).ground.paths.segment(1)
    farm.delete(shards[0])
    [marks] = volume_of(farm).ground.index.marks()
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    [file] = (farm.path / "shards").rglob("*.seg")
    files.bad = {
        "header": {(log.stat().st_ino, row.place.offset + 5)},
        "marks": {(log.stat().st_ino, marks.place.offset + 5)},
        "shelf": {(file.stat().st_ino, 5)},
    }[where]
    farm.open()
    with closing(farm.engine) as engine:
        assert engine.volumes()[0].state is VolumeState.GONE
        files.bad.clear()
        for _ in range(3):
            engine.look_after_disks()
        assert farm.read(shards[1]) == noise(90_000, "1")
        assert farm.read(large) == noise(3 * MIB)


def test_what_lies_behind_a_bad_spot_is_scrubbed_however_often_the_pass_rests(
    tmp_path: Path,
) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine) as engine:
        first, second = [farm.store(noise(9000, name)).shard for name in "ab"]
        rot(farm, row_of(farm, second), "payload")
        row = row_of(farm, first)
        log = volume_of(farm).ground.paths.segment(row.place.segment)
        files.bad = {(log.stat().st_ino, row.place.offset + 10)}
        engine.scrubs.begin_now()
        engine.scrubs.turn("volume0", 0.0, farm.clocks.now_ms, 30)
        for turn in range(100):
            if turn % 10 == 9:
                engine.scrubs.pause(paused=True)
                engine.scrubs.pause(paused=False)
            engine.scrubs.turn("volume0", 0.0, farm.clocks.now_ms, 30)
        assert volume_of(farm).find(ALICE, second).state is ShardState.QUARANTINED


def test_rows_of_a_segment_that_was_given_up_are_read_also_after_a_rest(tmp_path: Path) -> None:
    """Behind too many bad blocks the log shows nothing; each row is read, not only its header."""
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine) as engine:
        first, second = [farm.store(noise(size)).shard for size in (4096 * (MET_MAX + 8), 9000)]
        rot(farm, row_of(farm, second), "payload")
        row = row_of(farm, first)
        log = volume_of(farm).ground.paths.segment(row.place.segment)
        inode, at = log.stat().st_ino, row.place.offset
        files.bad = {(inode, at + 4096 * block) for block in range(MET_MAX + 2)}
        engine.scrubs.begin_now()
        engine.scrubs.turn("volume0", 0.0, farm.clocks.now_ms, 30)
        for turn in range(200):
            if turn % 10 == 9:
                engine.scrubs.pause(paused=True)
                engine.scrubs.pause(paused=False)
            engine.scrubs.turn("volume0", 0.0, farm.clocks.now_ms, 30)
        assert engine.volumes()[0].scrub.state == "idle"
        assert volume_of(farm).find(ALICE, second).state is ShardState.QUARANTINED


def test_marks_behind_too_many_bad_blocks_are_told(tmp_path: Path) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine):
        shard = farm.store(noise(4096 * (MET_MAX + 8))).shard
        farm.delete(farm.store(noise(9000)).shard)
        [marks] = volume_of(farm).ground.index.marks()
        at = row_of(farm, shard).place.offset
        log = volume_of(farm).ground.paths.segment(marks.place.segment)
        rot_at = {at + 4096 * block for block in range(MET_MAX + 2)} | {marks.place.offset}
        files.bad = {(log.stat().st_ino, one) for one in rot_at}
        scrub(farm)
        assert "LogDamaged" in alerts(farm)


def test_marks_on_a_bad_spot_are_told(tmp_path: Path) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine):
        farm.delete(farm.store(noise(9000)).shard)
        [marks] = volume_of(farm).ground.index.marks()
        log = volume_of(farm).ground.paths.segment(marks.place.segment)
        files.bad = {(log.stat().st_ino, marks.place.offset + 10)}
        scrub(farm)
        assert alerts(farm) == {"LogDamaged"}


def test_a_bad_spot_under_a_segments_header_moves_what_it_holds(tmp_path: Path) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine):
        shard = farm.store(noise(9000)).shard
        log = volume_of(farm).ground.paths.segment(1)
        files.bad = {(log.stat().st_ino, 0)}
        scrub(farm)
        assert alerts(farm) == {"LogDamaged"}
        assert farm.read(shard) == noise(9000)


def test_a_check_goes_on_behind_a_bad_spot(tmp_path: Path) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    with closing(farm.engine):
        first, second = [row_of(farm, farm.store(noise(9000, name)).shard) for name in "ab"]
        log = volume_of(farm).ground.paths.segment(first.place.segment)
        rot(farm, second, "header")
        files.bad = {(log.stat().st_ino, first.place.offset + 10)}
        checked = check_volume(farm.path, NODE, files)
    assert len(checked.findings) == 2
    assert str(first.shard) in "".join(checked.findings)
    assert str(second.shard) in "".join(checked.findings)


class Refusing(OsFiles):
    """A disk that takes no new file in its staging directory; nobody has noticed that yet."""

    refusing = ""

    def open(self, path: Path, access: Access) -> int:
        if self.refusing and self.refusing in path.parts and access is Access.CREATE:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return super().open(path, access)


def test_a_target_that_takes_no_files_is_left_for_another_one(tmp_path: Path) -> None:
    files = Refusing()
    farm = Farm(tmp_path, volumes=3, files=files, quota_bytes=128 * MIB)
    with closing(farm.engine) as engine:
        source, first, second = engine.opened()
        first.duty = second.duty = DRAIN
        farm.store(noise(3 * MIB))
        first.duty = second.duty = None
        engine.change_quota(
            farm.settings[2].path, 100 * MIB, 0
        )  # has less room: the second choice
        files.refusing = "volume1"
        engine.mover.begin(source, DRAIN)
        for _ in range(5):
            while engine.mover.step() is not None:
                pass
        assert [volume.shards for volume in engine.volumes()] == [0, 0, 1]


class Ruined(OsFiles):
    """Every other block of all files but the marker cannot be read."""

    failures = 0

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        is_marker = Path(f"/proc/self/fd/{fd}").readlink().name == MARKER_NAME
        blocks = range(offset // 4096, -(-(offset + length) // 4096))
        if not is_marker and any(block % 2 for block in blocks):
            self.failures += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread(fd, length, offset)


def test_what_can_be_read_is_as_it_was_and_there_is_an_end_to_trying(tmp_path: Path) -> None:
    files = Ruined()
    create_volume(tmp_path, NODE, files, 0)
    data = noise(1000 * 4096)
    (tmp_path / "file").write_bytes(data)
    spots = BadSpots(files, Paths(tmp_path))
    fd = files.open(tmp_path / "file", Access.READ)
    for start, length in ((0, 40_000), (256, 40_000), (5000, 100), (4096 * 6 - 100, 300)):
        read = spots.pread(fd, length, start)
        assert len(read) == length
        for at in range(length):
            is_bad = (start + at) // 4096 % 2
            assert read[at] == (0xFF if is_bad else data[start + at])
    with pytest.raises(OSError, match="Input/output"):
        spots.pread(fd, len(data), 0)
    files.close(fd)
    assert spots.met == MET_MAX + 1
    assert files.failures < 8 * MET_MAX
