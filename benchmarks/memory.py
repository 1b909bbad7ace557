"""Peak memory of the daemon under 16 parallel 64 MiB stores, then retrieves, over TLS."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import memory_bytes, report, reset_peak
from benchmarks.rig.entrance import enter
from tests.e2e.daemon import Daemon, Renter

PARALLEL = 16
SHARD_BYTES = 64 * 1024**2
ROUNDS = 3
MIB = 1024**2


def store_all(renter: Renter, files: list[Path]) -> float:
    """Store all files at once, each by a renter program of its own; return the seconds."""
    return run_all([program(renter, "store", str(path)) for path in files])


def retrieve_all(renter: Renter, shards: list[str], target: Path) -> float:
    """Retrieve all shards at once."""
    words = [("retrieve", shard, "-o", str(target / shard)) for shard in shards]
    return run_all([program(renter, *some) for some in words])


def program(renter: Renter, *words: str) -> list[str]:
    return [sys.executable, "-m", "farmer.cli.renter", "--home", str(renter.home), *words]


def run_all(commands: list[list[str]]) -> float:
    began = time.monotonic()
    processes = [subprocess.Popen(one, stdout=subprocess.DEVNULL) for one in commands]
    codes = [process.wait(600) for process in processes]
    assert not any(codes), codes
    return time.monotonic() - began


def main(_words: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with Daemon(base / "home", base / "volume", "16GB") as daemon:
            daemon.start()
            assert daemon.process is not None
            pid = daemon.process.pid
            idle = memory_bytes(pid, "VmRSS")
            renter = Renter(base / "renter")
            renter.join(daemon.invite("12GB"))
            target = base / "back"
            target.mkdir()
            stores, retrieves, seconds = [], [], []
            for _ in range(ROUNDS):
                files = [base / f"file-{number}" for number in range(PARALLEL)]
                for path in files:
                    path.write_bytes(os.urandom(SHARD_BYTES))
                known = {row["shard"] for row in renter.ask("list")["shards"]}
                reset_peak(pid)
                seconds.append(store_all(renter, files))
                stores.append(memory_bytes(pid, "VmHWM") - idle)
                shards = [
                    row["shard"]
                    for row in renter.ask("list")["shards"]
                    if row["shard"] not in known
                ]
                reset_peak(pid)
                seconds.append(retrieve_all(renter, shards, target))
                retrieves.append(memory_bytes(pid, "VmHWM") - idle)
                for path in target.iterdir():
                    path.unlink()
            report(
                "memory",
                {
                    "RSS idle at ready, MiB": round(idle / MIB, 1),
                    "stores: peak above idle, MiB, each round": [
                        round(x / MIB, 1) for x in stores
                    ],
                    "retrieves: peak above idle, MiB, each round": [
                        round(x / MIB, 1) for x in retrieves
                    ],
                    "seconds of each phase (16 client processes on the same cores)": [
                        round(one, 1) for one in seconds
                    ],
                    "aim, MiB": 32,
                },
            )
    return 0


if __name__ == "__main__":
    enter(main)
