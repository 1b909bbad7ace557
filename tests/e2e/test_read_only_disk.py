"""A real farmer whose disk takes no writes any more, also after a restart: it is emptied."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Renter
from tests.e2e.sick_disks import state_of, volume_at
from tests.e2e.test_owner import ask
from tests.needs import need
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SIZES = (0, 5000, 70_000, 400_000, 3_000_000)


class Disk:
    """An ext4 of its own, which can be made to fail as a kernel does that has lost faith in it."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "disk"
        self._image = folder / "image"
        self.mount.mkdir()
        with self._image.open("wb") as made:
            made.truncate(300 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)
        self.plug()

    def plug(self, *, read_only: bool = False) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.mount], check=True)
        if read_only:
            # In a second step: the filesystem's own journal had to be replayed.
            subprocess.run(["mount", "-o", "remount,ro", self.mount], check=True)

    def pull(self) -> None:
        subprocess.run(["umount", self.mount], check=True)

    def abort(self) -> None:
        """Do what the kernel does after an error: read only from now on, files open or not."""
        subprocess.run(["mount", "-o", "remount,abort", self.mount], check=False)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    need(os.geteuid() == 0 and shutil.which("mkfs.ext4"), "mkfs.ext4 and to be root")
    made = Disk(tmp_path)
    yield made
    subprocess.run(["umount", "-l", made.mount], check=False)


@pytest.fixture
def daemon(tmp_path: Path, disk: Disk) -> Iterator[Daemon]:
    with Daemon(tmp_path / "home", disk.mount / "volume", "200MB") as farmer:
        yield farmer.start()


@pytest.fixture
def renter(daemon: Daemon, tmp_path: Path) -> Renter:
    person = Renter(tmp_path / "renter")
    person.join(daemon.invite(space="100MB"))
    return person


def store(renter: Renter, folder: Path, first: int) -> bool:
    """Store some files, and say whether all were taken."""
    files = []
    for number, size in enumerate(SIZES, first):
        files.append(folder / f"file{number}")
        files[-1].write_bytes(bytes([number % 251 + 1]) * (size + number))
    return all(row["stored"] for row in renter.store(*files))


def passed(renter: Renter) -> int:
    audited = renter.ask("audit", "--all")
    assert audited["failed"] == 0, audited
    number: int = audited["passed"]
    return number


def test_it_is_retired_over_a_restart_and_its_shards_are_there_once(
    daemon: Daemon, renter: Renter, disk: Disk, tmp_path: Path
) -> None:
    path, other = daemon.volume, tmp_path / "other"
    assert store(renter, tmp_path, 0)
    total = len(SIZES)
    disk.abort()
    added = daemon.call("volume", "add", f"{other}=200MB")
    assert added.returncode == 0, added.stderr
    wait_until(lambda: passed(renter) == total, 30)
    # Until a store has tried, nobody knows.
    wait_until(lambda: store(renter, tmp_path, 100), 30)
    total += len(SIZES)
    wait_until(lambda: state_of(daemon, path) in {"read-only", "failing"}, 30)
    assert passed(renter) == total
    held = volume_at(daemon, path)["shards"]
    assert held == len(SIZES)

    daemon.stop()
    disk.pull()
    disk.plug(read_only=True)
    daemon.start()
    assert state_of(daemon, path) == "read-only"
    assert passed(renter) == total
    begun = daemon.call("volume", "retire", str(path), "--rate", "1MB")
    assert begun.returncode == 0, begun.stderr
    wait_until(lambda: volume_at(daemon, path)["shards"] < held, 30)
    daemon.kill()
    listed = ask(daemon, "volume", "list")["volumes"]
    assert sum(row["shards"] for row in listed) == total, "seen from outside"
    assert daemon.call("volume", "check").returncode == 0
    daemon.start()
    assert passed(renter) == total
    assert sum(volume["shards"] for volume in daemon.status()["volumes"]) == total
    # What does not go at once is tried again a minute later.
    wait_until(lambda: is_retired(daemon, path), 150)
    assert passed(renter) == total
    wait_until(lambda: "the home remembers it" in daemon.logs.read_text(), 10)

    check_that_it_stays_retired(daemon, disk)
    assert volume_at(daemon, other)["shards"] == total
    assert passed(renter) == total


def is_retired(daemon: Daemon, path: Path) -> bool:
    """For a moment it is among neither the open nor the retired."""
    volumes = daemon.status()["volumes"]
    return any((one["path"], one["state"]) == (str(path), "retired") for one in volumes)


def check_that_it_stays_retired(daemon: Daemon, disk: Disk) -> None:
    """Plugged in again, by somebody who has forgotten: nothing is there twice."""
    path = daemon.volume
    for _ in range(2):
        again = daemon.call("volume", "add", f"{path}=200MB")
        assert again.returncode == 1
        assert "no volume any more: its owner retired it" in again.stderr
        daemon.stop()
        disk.pull()
        disk.plug()
        daemon.start()
