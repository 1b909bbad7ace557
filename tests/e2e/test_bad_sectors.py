"""A bad sector in the log, and no index: what the owner is told, and how the rest comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.cli.exits import FAILED
from farmer.model.shard import RECORD_HEADER_BYTES
from tests.e2e.daemon import Daemon, Renter
from tests.e2e.sick_disks import SharedDisk, state_of, volume_at

pytestmark = pytest.mark.slow

SIZES = (10, 1000, 70_000, 3_000_000, 2000)
BAD = 1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SharedDisk]:
    made = SharedDisk(tmp_path)
    yield made
    made.end()


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
        assert f"00000001.seg: 4096 bytes at {at} could not be read" in made.stderr
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
