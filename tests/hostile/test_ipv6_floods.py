"""Floods over real IPv6, from one household and from many, against the daemon itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from farmer.node.admission import NETWORK_PARTS
from farmer.protocol.limits import SESSIONS_MAX, SESSIONS_PER_ADDRESS_MAX
from tests.e2e.daemon import Daemon, call, environment
from tests.hostile.networks import FARMER, cable

ANSWER_S_MAX = 20.0
"""What an honest renter waits at most, on a machine that does other things as well."""
GROWTH_BYTES_MAX = 64 << 20


def memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def shed(metrics: str) -> float:
    """Return how many connections made room for others."""
    found = re.search(r'^farmer_connections_closed_total\{reason="shed"\} (\S+)$', metrics, re.M)
    assert found is not None, metrics
    return float(found[1])


def made(root: Path) -> Daemon:
    daemon = Daemon(root / "home", root / "volume", with_init=False)
    words = ("--listen", f"[{FARMER}]:4646", "--page", "127.0.0.1:0", "--name", "test")
    done = daemon.call("init", "--yes", "--volume", f"{daemon.volume}=1GB", *words)
    assert done.returncode == 0, done.stderr
    return daemon


@pytest.mark.slow
def test_floods_from_one_network_and_from_many_leave_renters_served(tmp_path: Path) -> None:
    """Limits: SESSIONS_PER_ADDRESS_MAX for a /64, NETWORK_PARTS for a /48, SESSIONS_MAX in all."""
    with cable() as ends, made(tmp_path) as daemon:
        daemon.start(*ends.farmer)
        assert daemon.process is not None
        joined = subprocess.run(
            [
                *(*ends.world, sys.executable, "-m", "farmer.cli.renter"),
                *("--home", str(tmp_path / "renter"), "join", daemon.invite()),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
        )
        assert joined.returncode == 0, joined.stderr
        before = memory_bytes(daemon.process.pid)

        ended = subprocess.run(
            [
                *(*ends.world, sys.executable, "-m", "tests.hostile.crowd"),
                *(f"[{FARMER}]:4646", str(tmp_path / "renter")),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )

        assert ended.returncode == 0, ended.stderr[-3000:]
        told = json.loads(ended.stdout)
        assert 0 < told["one network"] <= SESSIONS_PER_ADDRESS_MAX
        assert SESSIONS_PER_ADDRESS_MAX < told["one provider"] <= SESSIONS_MAX // NETWORK_PARTS[0]
        assert SESSIONS_MAX // NETWORK_PARTS[0] < told["networks"] <= SESSIONS_MAX
        assert told["early"], "who has a contract stays"
        assert max(told["newcomers_s"]) < ANSWER_S_MAX
        assert memory_bytes(daemon.process.pid) - before < GROWTH_BYTES_MAX
        assert shed(call("farmer", daemon.home, "metrics").stdout) > 0, "strangers made room"
