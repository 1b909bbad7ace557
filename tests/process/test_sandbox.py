"""The socket-activated unit: hardened, and a farmer serves from inside what it allows."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.crash.live import free_port
from tests.e2e.daemon import Daemon, Renter
from tests.process import sandbox


def need_sandbox() -> None:
    if reason := sandbox.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.tool("systemd-analyze")
def test_a_farmer_serves_without_network_capabilities_or_a_writable_system(
    tmp_path: Path,
) -> None:
    """Join, store, audit, retrieve, page and status, all from inside the unit's sandbox."""
    need_sandbox()
    ports = [free_port(), free_port()]
    # A short path: that of a UNIX socket may have 107 bytes.
    with (
        Daemon(tmp_path / "home", tmp_path / "volume") as farmer,
        tempfile.TemporaryDirectory(prefix="f-") as run,
    ):
        _serve_and_look(farmer, ports, run, tmp_path)


def _serve_and_look(farmer: Daemon, ports: list[int], run: str, tmp_path: Path) -> None:
    places = f"{tmp_path / 'home'},{tmp_path / 'volume'},{run}"
    words = (",".join(map(str, ports)), places)
    farmer.start(sys.executable, "-m", "tests.process.sandbox", *words)
    assert farmer.process is not None
    status = Path(f"/proc/{farmer.process.pid}/status").read_text()
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", f"CapEff:\t{0:016x}", "Umask:\t0077"):
        assert line in status, status
    ours, theirs = (Path(f"/proc/{pid}/ns/net") for pid in ("self", farmer.process.pid))
    assert ours.readlink() != theirs.readlink()
    assert farmer.status()["listen"] == [f"127.0.0.1:{ports[0]}"]
    renter = Renter(tmp_path / "renter")
    renter.join(farmer.invite())
    files = [tmp_path / "small", tmp_path / "large"]
    for path, size in zip(files, (1000, 2_500_000), strict=True):
        path.write_bytes(os.urandom(size))
    rows = renter.store(*files)
    assert all(row["stored"] for row in rows)
    assert renter.ask("audit", "--all")["failed"] == 0
    for row, path in zip(rows, files, strict=True):
        assert renter.call("retrieve", row["shard"], "-o", str(tmp_path / "b")).returncode == 0
        assert (tmp_path / "b").read_bytes() == path.read_bytes()
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/healthz", timeout=5) as answer:
        assert answer.status == 200
    assert farmer.stop() == 0


def test_a_socket_of_an_unknown_name_is_refused_in_words(tmp_path: Path) -> None:
    """A mistake in a .socket unit is said, with the line to write."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as farmer, socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update("
            "LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='what');"
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        os.set_inheritable(one.fileno(), True)
        ended = subprocess.run(
            [
                *(sys.executable, "-c", script, str(one.fileno()), sys.executable, "-m"),
                *("farmer.cli.owner", "--home", str(farmer.home), "run"),
            ],
            check=False,
            capture_output=True,
            text=True,
            pass_fds=[one.fileno()],
            timeout=60,
        )
    assert ended.returncode == 1
    assert "FileDescriptorName=shards" in ended.stderr
