"""
A disk that takes calls and never answers: the kernel keeps a process whose thread waits for it.

Nothing can end such a thread, also no SIGKILL; what a farmer held must be free all the same.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Renter
from tests.e2e.sick_disks import BACK_S, SharedDisk, end_of, let_go_of, state_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

STOPPED_S = 45.0


@pytest.fixture
def daemon(tmp_path: Path, disk: SharedDisk) -> Iterator[Daemon]:
    """A farmer with a healthy and a dead disk, and a port that does not change."""
    with Daemon(tmp_path / "home", tmp_path / "plain") as farmer:
        assert farmer.call("volume", "add", f"{disk.mount / 'sick'}=500MB").returncode == 0
        farmer.start()
        settings = farmer.home / "farmer.yaml"
        shards, page = farmer.ready_line.split()[1], farmer.ready_line.split()[3]
        text = settings.read_text().replace("127.0.0.1:0", shards, 1)
        settings.write_text(text.replace("127.0.0.1:0", page.removeprefix("http://").strip("/")))
        disk.fall_silent()
        wait_until(lambda: state_of(farmer, disk.mount / "sick") == "gone", BACK_S)
        yield farmer
        disk.speak()


def is_kept(process: subprocess.Popen[str]) -> bool:
    """Say whether it has ended, and the kernel keeps it."""
    stat = Path(f"/proc/{process.pid}/stat").read_bytes()
    return process.poll() is None and stat.rpartition(b")")[2].split()[0] == b"Z"


def test_after_a_stop_in_order_another_one_starts_at_once(
    daemon: Daemon, disk: SharedDisk, tmp_path: Path
) -> None:
    """On the same home, port and healthy volume, while the kernel still keeps the first."""
    renter = Renter(tmp_path / "renter")
    renter.join(daemon.invite(space="10MB"))
    (tmp_path / "file").write_bytes(b"kept")
    assert renter.store(tmp_path / "file")[0]["stored"]
    first = let_go_of(daemon)
    first.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert first.stdout is not None
    assert "ready" not in first.stdout.read(), "its output ends"
    print(f"stopped in {time.monotonic() - began:.1f} s")
    wait_until(lambda: is_kept(first), STOPPED_S)
    assert "the kernel may keep this process" in daemon.logs.read_text()
    before = daemon.ready_line
    daemon.start()
    assert is_kept(first)
    assert daemon.ready_line == before
    assert state_of(daemon, daemon.volume) == "healthy"
    assert renter.ask("audit", "--all")["passed"] == 1
    disk.speak()
    assert end_of(first) == 0
    wait_until(lambda: state_of(daemon, disk.mount / "sick") == "healthy", BACK_S)


def test_a_killed_one_is_named_and_what_helps(daemon: Daemon, disk: SharedDisk) -> None:
    """Of what a kill leaves behind, the kernel lets nothing go."""
    first = let_go_of(daemon)
    first.kill()
    wait_until(lambda: is_kept(first), STOPPED_S)
    refused = daemon.call("run")
    assert refused.returncode == 1
    assert f"process {first.pid}, which has ended but is kept by the kernel" in refused.stderr
    assert "umount -f" in refused.stderr
    disk.speak()
    assert end_of(first) == -signal.SIGKILL
    daemon.start()
    wait_until(lambda: state_of(daemon, disk.mount / "sick") == "healthy", BACK_S)
