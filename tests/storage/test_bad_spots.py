"""Spots that cannot be read, on a disk that is sound otherwise: all else is still given back."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from farmer.model.ids import ShardId
from farmer.model.shard import RECORD_HEADER_BYTES, ShardState
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access, Filesystem
from farmer.storage.places import Doomed, Place
from farmer.storage.volume import Volume
from tests.storage.bench import ALICE, Farm, finished, noise
from tests.storage.recording import RecordingFiles
from tests.storage.rot import is_spoiled
from tests.storage.test_moving import Street

NOBODY_AFTER = ShardId(bytes(32))
LARGEST = 200_000


class Scratched(RecordingFiles):
    """A disk on which one page cannot be read, and what is read with it."""

    spot: Place | None = None
    error = errno.EIO

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._check(fd, length, offset, apart=False)
        return super().pread(fd, length, offset)

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        self._check(fd, length, offset, apart=True)
        return super().pread_apart(fd, length, offset)

    def _check(self, fd: int, length: int, offset: int, *, apart: bool) -> None:
        spot = self.spot
        is_there = spot is not None and self._names[fd] == f"{spot.segment:08}.seg"
        if spot is not None and is_there and is_spoiled(spot.offset, offset, length, apart=apart):
            raise OSError(self.error, os.strerror(self.error))


class Locked(RecordingFiles):
    """Files of which some cannot be opened for reading, by name."""

    refused: Mapping[str, int] = {}

    def open(self, path: Path, access: Access) -> int:
        if access is Access.READ and (error := self.refused.get(path.name)):
            raise OSError(error, os.strerror(error), str(path))
        return super().open(path, access)


def opened(farm: Farm) -> Volume:
    (volume,) = farm.engine.opened()
    return volume


def lose_index(farm: Farm) -> None:
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()
    farm.open()


def trashed_often(farm: Farm) -> tuple[ShardId, list[Doomed]]:
    """Put a shard into the trash again and again; return it, and all that was said of it."""
    shard = farm.store(noise(10)).shard
    for _ in range(100):
        farm.delete(shard)
        farm.engine.undelete(ALICE, shard).result(5)
    farm.delete(shard)
    return shard, opened(farm).ground.index.marks()


def test_marks_that_cannot_be_read_stay_and_the_others_go(tmp_path: Path) -> None:
    """Nothing is known of what they say: they are condensed when they can be read again."""
    files = Scratched()
    farm = Farm(tmp_path, files=files)
    shard, marks = trashed_often(farm)
    files.spot = marks[7].place
    assert opened(farm).reclaim() > 500_000
    left = opened(farm).ground.index.marks()
    assert [one for one in left if one in marks] == [marks[7]]
    assert dict(farm.engine.volumes()[0].errors) == {"reclaim": 1}
    files.spot = None
    lose_index(farm)
    assert farm.engine.stat(ALICE, shard).state is ShardState.TRASH
    assert farm.engine.undelete(ALICE, shard).result(5).state is ShardState.LIVE
    farm.engine.close()


def sparse_segments(farm: Farm) -> list[ShardId]:
    """Fill more than two segments, and give most of it up; return what is left, in order."""
    shards = [farm.store(noise(LARGEST, number)).shard for number in range(60)]
    rows = opened(farm).page(ALICE, NOBODY_AFTER, 100)
    kept, gone = shards[::4], {shard for number, shard in enumerate(shards) if number % 4}
    assert opened(farm).remove([row for row in rows if row.shard in gone]) == 45
    return kept


@pytest.mark.parametrize("behind_bytes", [0, RECORD_HEADER_BYTES + 100_000])
def test_a_segment_that_cannot_be_read_stays_and_the_others_go(
    tmp_path: Path, behind_bytes: int
) -> None:
    """Whether it is a header or the bytes of a shard; it goes when it can be read again."""
    files = Scratched(can_punch=False)
    farm = Farm(tmp_path, files=files)
    kept = sparse_segments(farm)
    row = opened(farm).find(ALICE, kept[1])
    assert row is not None
    files.spot = Place(row.place.segment, row.place.offset + behind_bytes)
    assert opened(farm).reclaim() > 2_500_000
    assert (farm.path / "log/00000001.seg").exists()
    assert not (farm.path / "log/00000002.seg").exists()
    assert dict(farm.engine.volumes()[0].errors) == {"reclaim": 1}
    files.spot = None
    opened(farm).reclaim()
    assert not (farm.path / "log/00000001.seg").exists()
    lose_index(farm)
    assert {row.shard for row in farm.engine.page(ALICE, NOBODY_AFTER, 100)} == set(kept)
    for number, shard in enumerate(kept):
        assert farm.read(shard) == noise(LARGEST, 4 * number)
    farm.engine.close()


def test_a_segment_whose_marks_cannot_be_read_is_not_removed(tmp_path: Path) -> None:
    """What they say of records elsewhere would be lost with them."""
    files = Scratched(can_punch=False)
    farm = Farm(tmp_path, files=files)
    shard, marks = trashed_often(farm)
    kept = sparse_segments(farm)
    files.spot = marks[-1].place
    opened(farm).reclaim()
    assert (farm.path / "log/00000001.seg").exists()
    files.spot = None
    opened(farm).reclaim()
    assert not (farm.path / "log/00000001.seg").exists()
    lose_index(farm)
    states = {row.shard: row.state for row in farm.engine.page(ALICE, NOBODY_AFTER, 100)}
    assert states == {**dict.fromkeys(kept, ShardState.LIVE), shard: ShardState.TRASH}
    farm.engine.close()


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM])
def test_a_segment_that_the_system_does_not_let_us_read_stays_and_the_others_go(
    tmp_path: Path, error: int
) -> None:
    """With the marks in it, of which nothing is known meanwhile; its owner is told, once."""
    files = Locked(can_punch=False)
    farm = Farm(tmp_path, files=files)
    shard, marks = trashed_often(farm)
    kept = sparse_segments(farm)
    log = farm.path / "log"
    opened(farm).handles.forget(Place(1, 0))
    files.refused = {"00000001.seg": error}
    for _ in range(2):
        opened(farm).reclaim()
        assert (log / "00000001.seg").exists()
        assert not (log / "00000002.seg").exists()
    assert set(marks) <= set(opened(farm).ground.index.marks())
    assert dict(farm.engine.volumes()[0].errors) == {"reclaim": 1}
    (alert,) = farm.engine.trouble()
    assert alert.name == "FilesUnreadable"
    assert str(log / "00000001.seg") in alert.message
    files.refused = {}
    farm.engine.look_after_disks()
    assert not farm.engine.trouble()
    opened(farm).reclaim()
    assert not (log / "00000001.seg").exists()
    lose_index(farm)
    states = {row.shard: row.state for row in farm.engine.page(ALICE, NOBODY_AFTER, 100)}
    assert states == {**dict.fromkeys(kept, ShardState.LIVE), shard: ShardState.TRASH}
    farm.engine.close()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENODEV])
def test_what_is_no_bad_spot_ends_the_run(tmp_path: Path, error: int) -> None:
    """The system's limits, and a disk that went: what is read next would fail as well."""
    files = Scratched(can_punch=False)
    farm = Farm(tmp_path, files=files)
    _shard, marks = trashed_often(farm)
    files.spot, files.error = marks[7].place, error
    with pytest.raises(VolumeUnavailableError):
        opened(farm).reclaim()
    assert opened(farm).ground.index.marks() == marks
    farm.engine.close()


class Untidy(RecordingFiles):
    """A disk that never removes a segment, and counts who asks how large it is."""

    asked = 0

    def unlink(self, path: Path) -> None:
        if path.parent.name == "log":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        super().unlink(path)

    def filesystem(self, path: Path) -> Filesystem:
        self.asked += 1
        return super().filesystem(path)


def test_a_tidying_that_fails_does_not_fail_what_it_comes_after(tmp_path: Path) -> None:
    """A purge has removed all, and a sweep still learns how much room there is."""
    files = Untidy(can_punch=False)
    farm = Farm(tmp_path, files=files)
    for number in range(8):
        farm.store(noise(900_000, number))
    assert farm.engine.purge(ALICE) == 8
    asked = files.asked
    opened(farm).sweep(farm.clocks.now_ms, farm.clocks.observed_ms)
    assert files.asked == asked + 1
    errors = dict(farm.engine.volumes()[0].errors)
    assert errors == {"reclaim": 2}
    farm.engine.close()


def test_what_cannot_go_is_given_up_although_nothing_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume is about to go, with all the space that was to come free."""
    street = Street(tmp_path)
    with closing(street.farm.engine) as engine:
        row = street.source.find(ALICE, list(street.data)[3])
        assert row is not None
        street.source.quarantine(row)

        def fails(*, hurried: bool) -> int:
            del hurried
            raise VolumeUnavailableError("the disk failed")

        monkeypatch.setattr(street.source, "reclaim", fails)
        engine.mover.begin(street.source, Duty(verb=Leaving.RETIRE, since_ms=1, force=True))
        street.steps()
        work = engine.volumes()[0].work
        assert work is not None
        assert (work.left_shards, work.problem) == (1, "")
        assert finished(engine.mover) == [street.source]


def test_an_empty_segment_whose_own_header_cannot_be_read_stays_and_the_others_go(
    tmp_path: Path,
) -> None:
    """It says where the one before it ended, which would not be known any more."""
    files = Scratched(can_punch=False)
    farm = Farm(tmp_path, files=files)
    shards = [farm.store(noise(LARGEST, number)).shard for number in range(60)]
    rows = opened(farm).page(ALICE, NOBODY_AFTER, 100)
    files.spot = Place(1, 0)
    assert opened(farm).remove([row for row in rows if row.shard != shards[-1]]) == 59
    opened(farm).reclaim()
    assert (farm.path / "log/00000001.seg").exists()
    assert not (farm.path / "log/00000002.seg").exists()
    files.spot = None
    opened(farm).reclaim()
    assert not (farm.path / "log/00000001.seg").exists()
    assert farm.read(shards[-1]) == noise(LARGEST, 59)
    farm.engine.close()
