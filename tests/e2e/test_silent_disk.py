"""A disk that does not answer when something is asked of it for the first time."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.sick_disks import BACK_S, SharedDisk, state_of, volume_at
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

READY_S = 20.0
"""Of a start beside such a disk: what tells a hang from a sleep, and more."""

VERB_S = 20.0
"""Of a command, beside the ten seconds that it leaves a disk to spin up."""

WAITS = ("request_wait_answer", "d_alloc_parallel", "fuse_lock_inode")
"""Where the kernel waits for FUSE, and for others who wait for it."""


@pytest.fixture
def daemon(tmp_path: Path, disk: SharedDisk) -> Iterator[Daemon]:
    """A farmer that does not run yet, whose settings name a volume that was never made."""
    with Daemon(tmp_path / "home", tmp_path / "plain") as farmer:
        settings = farmer.home / "farmer.yaml"
        line = f"  - path: {disk.mount / 'new'}\n    quota: 500MB\n"
        settings.write_text(settings.read_text().replace("volumes:\n", f"volumes:\n{line}"))
        disk.hang()
        yield farmer
        disk.answer()


def timed(daemon: Daemon, *words: str) -> tuple[subprocess.CompletedProcess[str], float]:
    began = time.monotonic()
    done = daemon.call(*words)
    return done, time.monotonic() - began


def test_a_new_volume_on_it_holds_no_start_up_and_is_made_when_it_answers(
    daemon: Daemon, disk: SharedDisk
) -> None:
    began = time.monotonic()
    daemon.start()
    ready_s = time.monotonic() - began
    path = disk.mount / "new"
    assert state_of(daemon, path) == "gone"
    assert "does not answer" in volume_at(daemon, path)["reason"]
    assert not (disk.behind / "new").exists()
    daemon.invite()
    disk.answer()
    back_s = wait_until(
        lambda: state_of(daemon, path) == "healthy",
        BACK_S,
        lambda: f"{volume_at(daemon, path)} {daemon.logs.read_text()}",
    )
    print(f"ready in {ready_s:.1f} s, healthy {back_s:.1f} s after it answered")
    assert ready_s < READY_S
    assert volume_at(daemon, path)["quota_bytes"] == 500_000_000
    assert volume_at(daemon, path)["free_bytes"]
    assert daemon.stop() == 0
    assert "VolumeNotMade" not in daemon.logs.read_text()
    daemon.start()
    assert state_of(daemon, path) == "healthy"


def test_where_it_was_unmounted_nothing_is_made(daemon: Daemon, disk: SharedDisk) -> None:
    """The empty mount point answers at once, and lies on another disk."""
    daemon.start()
    subprocess.run(["umount", "-l", disk.mount], check=True)
    disk.die()
    path = disk.mount / "new"
    wait_until(lambda: "no farmer-volume.json" in volume_at(daemon, path)["reason"], BACK_S)
    time.sleep(15)
    assert state_of(daemon, path) == "gone"
    assert not list(disk.mount.iterdir())


def stuck_threads(daemon: Daemon) -> int:
    """Return how many threads the kernel has waiting for the disk's answer."""
    assert daemon.process is not None
    tasks = Path(f"/proc/{daemon.process.pid}/task").glob("*/wchan")
    return sum(task.read_text() in WAITS for task in tasks)


def test_a_disk_that_stays_silent_costs_no_more_and_more_threads(
    daemon: Daemon, disk: SharedDisk
) -> None:
    daemon.start()
    time.sleep(5)
    before = stuck_threads(daemon)
    assert before
    time.sleep(25)
    assert stuck_threads(daemon) <= before


def test_no_command_waits_for_it(daemon: Daemon, disk: SharedDisk) -> None:
    path = disk.mount / "new"
    plain = daemon.volume
    for is_running in (False, True):
        if is_running:
            daemon.start()
        for words in (
            ("volume", "list", "--json"),
            ("volume", "check", str(plain)),
            ("config", "check"),
            ("config", "show"),
            ("invite", "--space", "10MB", "--for", "30d"),
            ("contract", "list"),
        ):
            if words[0] == "invite" and not is_running:
                # Nobody knows an address yet.
                continue
            done, took_s = timed(daemon, *words)
            assert done.returncode == 0, (words, done.stderr)
            assert took_s < VERB_S, words
        for words in (
            ("status",),
            ("volume", "check"),
            ("volume", "check", str(path)),
            ("volume", "add", f"{disk.mount / 'other'}=100MB"),
            ("volume", "rebuild", str(path)),
            ("volume", "forget", str(path)),
        ):
            done, took_s = timed(daemon, *words)
            assert done.returncode != 0, words
            assert took_s < VERB_S, words
            if words[1:2] in {("check",), ("add",)}:
                assert "does not answer" in done.stdout + done.stderr, words
        listed = json.loads(daemon.call("volume", "list", "--json").stdout)["volumes"]
        states = {row["path"]: row["state"] for row in listed}
        assert states[str(path)] == ("gone" if is_running else "new")
        assert "other" not in (daemon.home / "farmer.yaml").read_text()
