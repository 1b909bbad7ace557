"""Running out of file descriptors: fewer places from the start, and no death when it happens."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from pathlib import Path

import pytest

from farmer.running.process import OTHER_DESCRIPTORS, allow_many_sessions
from tests.e2e.daemon import Daemon, Renter


@pytest.mark.parametrize(
    ("descriptors", "places"),
    [(100_000, 512), (1024, (1024 - OTHER_DESCRIPTORS) // 2), (OTHER_DESCRIPTORS, 1), (64, 1)],
)
def test_places_fit_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, places: int
) -> None:
    """Limit: a socket and a file for each session, and some for the rest of the house."""
    limits = [descriptors, descriptors]

    def change(_which: int, wanted: tuple[int, int]) -> None:
        limits[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _which: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", change)

    assert allow_many_sessions(512) == places


def flood(daemon: Daemon, connections: int) -> list[socket.socket]:
    host, _, port = daemon.ready_line.split()[1].rpartition(":")
    sockets = []
    for n in range(connections):
        source = (f"127.6.{n // 200}.{n % 200 + 1}", 0)
        with contextlib.suppress(OSError):
            sockets.append(socket.create_connection((host, int(port)), 5, source))
    return sockets


@pytest.mark.tool("prlimit")
def test_few_descriptors_mean_fewer_places_and_a_warning(tmp_path: Path) -> None:
    """The farmer says what it allows instead, and why, and serves."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start("prlimit", f"--nofile={OTHER_DESCRIPTORS + 40}:{OTHER_DESCRIPTORS + 40}")
        renter = Renter(tmp_path / "renter")
        renter.join(daemon.invite())
        (tmp_path / "file").write_bytes(b"precious")

        sockets = flood(daemon, 100)
        assert daemon.status()["sessions"] <= 20
        (row,) = renter.store(tmp_path / "file")

        assert row["stored"]
        assert "only 20 connections at once instead of 512" in daemon.logs.read_text()
        for one in sockets:
            one.close()


@pytest.mark.tool("prlimit")
def test_no_descriptor_left_at_all_ends_nothing(tmp_path: Path) -> None:
    """EMFILE at accept, and in the middle of stores: it serves again when there are some."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        assert daemon.process is not None
        pid = daemon.process.pid
        renter = Renter(tmp_path / "renter")
        renter.join(daemon.invite())
        (tmp_path / "file").write_bytes(bytes(3 << 20))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        in_use = len(list(Path(f"/proc/{pid}/fd").iterdir()))

        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 3, before[1]))
        sockets = flood(daemon, 60)
        renter.call("store", str(tmp_path / "file"))
        assert daemon.process.poll() is None
        for one in sockets:
            one.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

        deadline_s, stored = time.monotonic() + 60, False
        while not stored and time.monotonic() < deadline_s:
            stored = renter.call("store", str(tmp_path / "file")).returncode == 0
        assert stored
        assert daemon.status()["state"] in {"running", "degraded"}
