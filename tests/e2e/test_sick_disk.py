"""A real farmer with a healthy and a sick disk: the one never suffers from the other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.sick_disks import (
    BACK_S,
    NOTICED_S,
    P99_S,
    SharedDisk,
    address_of,
    end_of,
    figures,
    let_go_of,
    noticed_s,
    p99,
    renters,
    state_of,
    two_disks,
    volumes_of,
)
from tests.needs import need
from tests.waiting import wait_until

pytestmark = [pytest.mark.apart, pytest.mark.slow]


@pytest.mark.alone
def test_a_disk_that_hangs_hurts_no_other_and_comes_back(tmp_path: Path) -> None:
    disk = SharedDisk(tmp_path)
    try:
        with two_disks(tmp_path, disk.mount / "volume") as (daemon, path):
            with renters(daemon, tmp_path, disk.answer) as workers:
                time.sleep(4)
                began = time.monotonic()
                disk.hang()
                seen_s = noticed_s(daemon, path, "gone")
                gone = time.monotonic()
                time.sleep(6)
                until = time.monotonic()
                disk.answer()
                back_s = wait_until(lambda: state_of(daemon, path) == "healthy", BACK_S)
                time.sleep(2)
            before = figures(workers, 0, began)
            onset = figures(workers, began, gone)
            while_gone = figures(workers, gone, until - P99_S)
            print(
                f"noticed {seen_s:.1f} s, back {back_s:.1f} s; before {len(before)} in "
                f"p99 {p99(before):.3f} s; onset {len(onset)} {max(onset, default=0):.1f} s; "
                f"gone {len(while_gone)} p99 {p99(while_gone):.3f} s; refused "
                f"{[worker.refused for worker in workers]}"
            )
            assert seen_s <= NOTICED_S
            assert len(while_gone) > 20
            assert p99(while_gone) <= P99_S
            for worker in workers:
                worker.check_all(address_of(daemon, worker))
            assert all(one["reserved_bytes"] == 0 for one in daemon.status()["volumes"])
    finally:
        disk.end()


def test_a_farmer_starts_and_stops_beside_a_disk_that_hangs(tmp_path: Path) -> None:
    """It is ready, serves from the other one, takes the sick one in when it answers, and ends."""
    disk = SharedDisk(tmp_path)
    try:
        with two_disks(tmp_path, disk.mount / "volume") as (daemon, path):
            assert daemon.stop() == 0
            disk.hang()
            began = time.monotonic()
            daemon.start()
            print(f"ready in {time.monotonic() - began:.1f} s")
            assert state_of(daemon, path) == "gone"
            with renters(daemon, tmp_path, disk.answer) as workers:
                wait_until(lambda: all(len(worker.took) > 4 for worker in workers), 20)
                disk.answer()
                wait_until(lambda: state_of(daemon, path) == "healthy", BACK_S)
                # Its size was not known at the start: nothing was promised of it till now.
                wait_until(lambda: all(one["free_bytes"] for one in volumes_of(daemon)), BACK_S)
            for worker in workers:
                worker.check_all(address_of(daemon, worker))

            disk.hang()
            wait_until(lambda: state_of(daemon, path) == "gone", 30)
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGTERM)
            # The kernel may keep a process that holds files of a dead disk from ending; all
            # that we can do is done when this is said.
            stopped_s = wait_until(lambda: stops_of(daemon) == 2, 45)
            print(f"stopped in {stopped_s:.1f} s")
            disk.answer()
            assert end_of(let_go_of(daemon)) == 0
            daemon.start()
            wait_until(lambda: state_of(daemon, path) == "healthy", BACK_S)
            for worker in workers:
                worker.check_all(address_of(daemon, worker))
    finally:
        disk.end()


def stops_of(daemon: Daemon) -> int:
    return daemon.logs.read_text().count('"stopped; ')


@pytest.mark.alone
def test_a_disk_that_is_pulled_out_is_noticed_and_comes_back(tmp_path: Path) -> None:
    """`umount -l` under load: what shows through is never written to."""
    need(os.geteuid() == 0 and shutil.which("mount"), "to be root, and mount")
    mount = tmp_path / "disk"
    image = tmp_path / "image"
    mount.mkdir()
    with image.open("wb") as made:
        made.truncate(400 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)

    def plug() -> None:
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)

    plug()
    try:
        with two_disks(tmp_path, mount / "volume") as (daemon, path):
            with renters(daemon, tmp_path, lambda: None) as workers:
                time.sleep(3)
                subprocess.run(["umount", "-l", mount], check=True)
                pulled = time.monotonic()
                seen_s = noticed_s(daemon, path, "gone")
                time.sleep(4)
                assert not list(mount.iterdir())
                plug()
                back_s = wait_until(lambda: state_of(daemon, path) == "healthy", BACK_S)
                time.sleep(2)
            after = figures(workers, pulled + seen_s, pulled + seen_s + 4)
            print(f"noticed {seen_s:.1f} s, back {back_s:.1f} s, p99 {p99(after):.3f} s")
            assert seen_s <= NOTICED_S
            assert p99(after) <= P99_S
            for worker in workers:
                worker.check_all(address_of(daemon, worker))
    finally:
        subprocess.run(["umount", "-l", mount], check=False)
