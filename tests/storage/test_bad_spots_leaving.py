"""A disk with bad spots is just what one empties: what lies on them stays, the rest goes."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from farmer.storage.directory import VolumeSettings
from farmer.storage.files import OsFiles
from farmer.storage.quota import SMALL_BYTES_MAX
from tests.storage.bench import MIB, Farm, crash_copy, noise
from tests.storage.test_moving import Street
from tests.storage.test_scrub import scrub


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
        inode = os.fstat(fd).st_ino
        if any(one == inode and offset <= at < offset + length for one, at in self.bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.dead and self.dead in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread(fd, length, offset)


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


@pytest.mark.parametrize("is_lease", [False, True])
def test_a_bad_spot_under_a_header_in_staging_shuts_no_volume(
    tmp_path: Path, *, is_lease: bool
) -> None:
    files = Spotty()
    farm = Farm(tmp_path, files=files)
    other = farm.store(noise(5000)).shard
    if is_lease:
        upload = farm.begin(noise(10 * MIB))
        upload.write(noise(10 * MIB)[: 9 * MIB])
        upload.abandon()
    else:
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
        (told,) = farm.engine.trouble()
        assert told.name == "LogDamaged"
        assert part.name in told.message


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
