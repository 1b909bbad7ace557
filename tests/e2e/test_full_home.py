"""
A real farmer with home and volume on one disk that others have filled to the last byte.

Into what is kept for root, too, which others take and the farmer cannot: of what it gives up
itself it gets nothing back.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.crash.disks import MIB, make_image, mounted, need
from tests.e2e.daemon import Daemon, Renter
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.tool("setpriv"), pytest.mark.tool("tune2fs")]

PRIVILEGED = 12_345
"""The user for whom this disk keeps blocks."""

AS_NOBODY_SPECIAL = ("setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    need("ext4")
    image, folder = tmp_path / "image", tmp_path / "disk"
    make_image(image, "ext4", 300 * MIB)
    subprocess.run(["tune2fs", "-u", str(PRIVILEGED), image], check=True, capture_output=True)
    folder.mkdir()
    with mounted(image, folder, "ext4"):
        yield folder


@pytest.fixture
def daemon(disk: Path) -> Iterator[Daemon]:
    with Daemon(disk / "home", disk / "volume", "100MB") as farmer:
        yield farmer.start(*AS_NOBODY_SPECIAL)


def fill(disk: Path) -> None:
    """Take what there is, and what little comes free while that is done."""
    for number in range(12):
        fd = os.open(disk / f"others{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.seteuid(PRIVILEGED)
        try:
            for size in (MIB, 4096):
                _write_all_that_fits(fd, size)
        finally:
            os.seteuid(0)
            os.close(fd)
    assert os.statvfs(disk).f_bavail == 0


def _write_all_that_fits(fd: int, size: int) -> None:
    with suppress(OSError):
        while True:
            os.write(fd, bytes(size))


def empty(disk: Path) -> None:
    for path in disk.glob("others*"):
        path.unlink()


def test_it_starts_serves_what_it_has_and_hears_its_owner(
    daemon: Daemon, disk: Path, tmp_path: Path
) -> None:
    renter = Renter(tmp_path / "renter")
    renter.join(daemon.invite(space="20MB"))
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    assert all(row["stored"] for row in renter.store(file))
    fill(disk)
    daemon.stop()
    fill(disk)

    daemon.start(*AS_NOBODY_SPECIAL)
    assert renter.ask("audit", "--all")["passed"] == 1
    status = daemon.status()
    assert status["clean_start"]
    assert status["volumes"][0]["state"] == "full"
    daemon.kill()
    daemon.start(*AS_NOBODY_SPECIAL)
    assert not daemon.status()["clean_start"]
    assert renter.ask("audit", "--all")["passed"] == 1

    empty(disk)
    assert daemon.stop() == 0
    daemon.start(*AS_NOBODY_SPECIAL)
    assert daemon.status()["clean_start"]
    assert not (disk / "home" / "run.json").is_symlink()
    assert all(row["stored"] for row in renter.store(file))


def test_what_would_empty_it_says_what_is_wanted_first_and_the_reserve_is_kept(
    daemon: Daemon, disk: Path, tmp_path: Path
) -> None:
    renter = Renter(tmp_path / "renter")
    renter.join(daemon.invite(space="20MB"))
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(file.name)
    shard = renter.store(*files)[0]["shard"]
    fill(disk)
    while renter.call("delete", shard).returncode == 0:
        # There was a little left in blocks that it had; or what it freed was enough.
        assert renter.call("undelete", shard).returncode in {0, 1}
        fill(disk)
    for _ in range(3):
        refused = renter.call("delete", shard)
        assert "Ask the farmer's owner to free space there" in refused.stderr
    drained = daemon.call("volume", "drain", "--force", str(daemon.volume))
    assert "Free space on that disk" in drained.stderr
    assert "Errno" not in drained.stderr
    reserve = (daemon.volume / "reserve").stat().st_size
    assert reserve >= 7 * 256 * 1024, "no more than a step went to those who fill the disk"
    assert "VolumeTooFull" in {alert["name"] for alert in daemon.status()["alerts"]}

    empty(disk)
    wait_until(lambda: "VolumeTooFull" not in str(daemon.status()["alerts"]), 60)
    assert renter.call("delete", shard).returncode == 0
