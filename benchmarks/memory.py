"""Peak memory of the daemon under 16 parallel 64 MiB stores, then retrieves, over TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import report
from benchmarks.rig.accounting import memory_bytes, reset_peak
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.place import place
from tests.e2e.daemon import Daemon, Renter

PARALLEL = 16
SHARD_BYTES = 64 * 1024**2
ROUNDS = 3
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Round:
    """One round: the farmer's peak of memory in each phase, and how long it took."""

    store_bytes: int
    retrieve_bytes: int
    seconds: tuple[float, float]


def store_all(renter: Renter, files: list[Path]) -> float:
    """Store all files at once, each by a renter program of its own; return the seconds."""
    return run_all([program(renter, "store", str(path)) for path in files])


def retrieve_all(renter: Renter, shards: Iterable[str], target: Path) -> float:
    """Retrieve all shards at once."""
    words = [("retrieve", shard, "-o", str(target / shard)) for shard in shards]
    return run_all([program(renter, *some) for some in words])


def program(renter: Renter, *words: str) -> list[str]:
    return [sys.executable, "-m", "farmer.cli.renter", "--home", str(renter.home), *words]


def run_all(commands: list[list[str]]) -> float:
    began = time.monotonic()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.extend(subprocess.Popen(one, stdout=subprocess.DEVNULL) for one in commands)
        codes = [process.wait(600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(codes):
        raise MeasuringError(f"some renters failed; how they ended: {codes}")
    return time.monotonic() - began


def round_of(renter: Renter, base: Path, pid: int) -> Round:
    """Store new files, all at once, then retrieve all of them; what is stored stays."""
    files = [base / f"file-{number}" for number in range(PARALLEL)]
    for path in files:
        path.write_bytes(os.urandom(SHARD_BYTES))
    known = shards_of(renter)
    reset_peak(pid)
    store_s = store_all(renter, files)
    store_bytes = memory_bytes(pid, "VmHWM")
    new, target = shards_of(renter) - known, base / "back"
    target.mkdir()
    reset_peak(pid)
    retrieve_s = retrieve_all(renter, new, target)
    retrieve_bytes = memory_bytes(pid, "VmHWM")
    shutil.rmtree(target)
    return Round(store_bytes, retrieve_bytes, (store_s, retrieve_s))


def shards_of(renter: Renter) -> set[str]:
    return {row["shard"] for row in renter.ask("list")["shards"]}


def measure(base: Path) -> dict[str, object]:
    """Make a farmer and measure all rounds; return the figures."""
    with Daemon(base / "home", base / "volume", "16GB") as daemon:
        daemon.start()
        assert daemon.process is not None
        pid = daemon.process.pid
        idle = memory_bytes(pid, "VmRSS")
        renter = Renter(base / "renter")
        renter.join(daemon.invite("12GB"))
        rounds = [round_of(renter, base, pid) for _ in range(ROUNDS)]
    return {
        "RSS idle at ready, MiB": round(idle / MIB, 1),
        "stores: peak above idle, MiB, each round": [
            round((one.store_bytes - idle) / MIB, 1) for one in rounds
        ],
        "retrieves: peak above idle, MiB, each round": [
            round((one.retrieve_bytes - idle) / MIB, 1) for one in rounds
        ],
        "seconds of each phase (16 client processes on the same cores)": [
            round(seconds, 1) for one in rounds for seconds in one.seconds
        ],
        "aim, MiB": 32,
    }


def main(words: Sequence[str]) -> int:
    with place(parser_of("benchmarks.memory").parse_args(words).dir) as base:
        report("memory", measure(base))
    return 0


if __name__ == "__main__":
    enter(main)
