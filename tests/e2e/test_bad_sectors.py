"""A bad sector in the log, and no index: what the owner is told, and how the rest comes back."""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from farmer.cli.exits import FAILED
from farmer.model.shard import RECORD_HEADER_BYTES
from farmer.storage.files import OsFiles
from farmer.storage.opening import rebuild_index
from tests.crash.disks import make_image, mounted, need
from tests.e2e.daemon import Daemon, Renter
from tests.e2e.sick_disks import SharedDisk, state_of, volume_at
from tests.storage.bench import MIB, NODE, Farm, noise, shard_of
from tests.storage.test_scrub import scrub

pytestmark = pytest.mark.slow

SIZES = (10, 1000, 70_000, 3_000_000, 2000)
BAD = 1
BLOCK = 4096


def test_what_lies_on_a_bad_sector_is_given_up_for_the_rest(
    tmp_path: Path, disk: SharedDisk
) -> None:
    """Nothing is changed until the owner says so; then one shard is lost, and no other."""
    volume = disk.mount / "volume"
    renter = Renter(tmp_path / "renter")
    files = [tmp_path / f"{number}.bin" for number in range(len(SIZES))]
    for path, size in zip(files, SIZES, strict=True):
        path.write_bytes(os.urandom(size))
    with Daemon(tmp_path / "home", volume) as farmer:
        farmer.start()
        renter.join(farmer.invite("100MB"))
        shards = [row["shard"] for row in renter.store(*files)]
        farmer.stop()
        for path in volume.glob("index.sqlite*"):
            path.unlink()
        at = offset_of(disk.behind / "volume/log/00000001.seg", files[BAD].read_bytes())
        disk.scratch("00000001.seg", at)
        farmer.start()
        assert state_of(farmer, volume) == "gone"
        assert f"farmer volume rebuild {volume} says" in volume_at(farmer, volume)["reason"]
        farmer.stop()

        refused = farmer.call("volume", "rebuild", str(volume))
        assert refused.returncode == FAILED
        assert "volume rebuild --overwrite-unreadable" in refused.stderr
        again = farmer.call("volume", "rebuild", str(volume))
        assert again.stderr == refused.stderr
        made = farmer.call("volume", "rebuild", "--overwrite-unreadable", str(volume))
        assert made.returncode == 0, made.stderr
        assert f"00000001.seg: 4096 bytes at {at} cannot be read" in made.stderr
        assert f"a new index of {len(SIZES) - 1} shards" in made.stdout

        farmer.start()
        assert state_of(farmer, volume) == "healthy"
        for number, (path, shard) in enumerate(zip(files, shards, strict=True)):
            got = tmp_path / f"{number}.got"
            fetched = renter.call("retrieve", shard, "-o", str(got))
            assert (fetched.returncode == 0) is (number != BAD)
            assert number == BAD or got.read_bytes() == path.read_bytes()


def offset_of(segment: Path, data: bytes) -> int:
    """Return where in the log the record of a shard begins."""
    return segment.read_bytes().index(data) - RECORD_HEADER_BYTES


def physical_of(path: Path, offset: int) -> int:
    """Return where on its disk a block of a file is."""
    listed = subprocess.run(
        ["filefrag", "-v", f"-b{BLOCK}", path], check=True, capture_output=True, text=True
    )
    for found in re.finditer(r"^ *\d+: +(\d+)\.\. +(\d+): +(\d+)\.\.", listed.stdout, re.M):
        first, last, there = map(int, found.groups())
        if first <= offset // BLOCK <= last:
            return (there + offset // BLOCK - first) * BLOCK
    raise AssertionError(listed.stdout)


@pytest.mark.parametrize("system", ["ext4", "xfs"])
def test_of_a_real_filesystem_no_more_is_given_up_than_is_bad(
    tmp_path: Path, disk: SharedDisk, system: str
) -> None:
    """The kernel reads many blocks at once, and of these none counts as read if one is bad."""
    need(system)
    image, folder = disk.mount / "disk.img", tmp_path / "mounted"
    folder.mkdir()
    make_image(image, system)
    data = [noise(60_000, number) for number in range(200)]
    with mounted(image, folder, system):
        farm = Farm(folder, quota_bytes=2048 * MIB)
        for one in data:
            farm.store(one)
        farm.engine.close()
        (folder / "volume0/index.sqlite").unlink()
        segment = folder / "volume0/log/00000001.seg"
        at = offset_of(segment, data[100])
        where = physical_of(segment, at)
    disk.scratch(image.name, where)
    told: list[tuple[str, int, int]] = []
    with mounted(image, folder, system):
        (settings,) = farm.settings
        remade = partial(rebuild_index, settings, NODE, OsFiles(), lambda _at, _of: None)
        with pytest.raises(OSError, match="Input/output"):
            remade()
        remade(overwritten=lambda path, offset, length: told.append((path.name, offset, length)))
    assert told == [(segment.name, at, BLOCK)]
    with mounted(image, folder, system):
        farm.open()
        for number, one in enumerate(data):
            if number != 100:
                assert farm.read(shard_of(one)) == one
        farm.engine.close()


@pytest.mark.parametrize("system", ["ext4", "xfs"])
def test_on_a_real_filesystem_the_shards_around_a_bad_sector_are_served_and_stay(
    tmp_path: Path, disk: SharedDisk, system: str
) -> None:
    need(system)
    image, folder = disk.mount / "disk.img", tmp_path / "mounted"
    folder.mkdir()
    make_image(image, system)
    data = [noise(5000, number) for number in range(200)]
    with mounted(image, folder, system):
        farm = Farm(folder, quota_bytes=2048 * MIB)
        for one in data:
            farm.store(one)
        farm.engine.close()
        segment = folder / "volume0/log/00000001.seg"
        where = physical_of(segment, offset_of(segment, data[100]))
    disk.scratch(image.name, where)
    with mounted(image, folder, system):
        farm.open()
        for number, one in enumerate(data):
            if number != 100:
                assert farm.read(shard_of(one)) == one
        scrub(farm)
        assert farm.engine.volumes()[0].quarantined == 1
        farm.engine.close()
