"""
Start to ready, memory and file operations of a farmer with a million small shards, or more.

`python -m benchmarks.million --shards 10000000` takes ten million, 45 GB and an hour.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import memory_bytes, report, spread
from farmer.client import blocking
from farmer.client.dial import FarmerAddress
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from tests.e2e.daemon import Daemon, environment

COUNT = 1_000_000
SHARD_QUOTA_BYTES = 6_500
"""A record takes 4 KiB, and a volume keeps some room for itself."""
INVITED_BYTES = 1_000_000_000
"""For a renter beside them."""
REBUILT_PER_SECOND_MIN = 10_000
"""Records; what is slower has hung."""
ROUNDS = 3
MIB = 1024**2
CALLS = "openat,getdents64,stat,newfstatat,statx,unlink,rename"


def start(daemon: Daemon) -> float:
    """Return the seconds from the command to the `ready` line."""
    began = time.monotonic()
    daemon.start()
    return time.monotonic() - began


def peak_mib(daemon: Daemon) -> float:
    assert daemon.process is not None
    return memory_bytes(daemon.process.pid, "VmHWM") / MIB


def calls_under(daemon: Daemon, volume: Path, trace: Path) -> tuple[int, int]:
    """Start under strace; return file calls that name the volume, and directory listings."""
    # -D: strace stands aside, so that the process we kill is the daemon itself.
    daemon.start("strace", "-D", "-f", "-y", "-e", f"trace={CALLS}", "-o", str(trace))
    daemon.kill()
    while "+++ killed" not in trace.read_text():
        time.sleep(0.1)
    lines = [line for line in trace.read_text().splitlines() if str(volume) in line]
    return len(lines), sum("getdents64" in line for line in lines)


def power_cut_like(daemon: Daemon, volume: Path) -> float:
    """Start with the index as a power cut may leave it: without its write-ahead log."""
    for name in ("index.sqlite-wal", "index.sqlite-shm"):
        (volume / name).unlink(missing_ok=True)
    return start(daemon)


def first_answers(daemon: Daemon, home: Path) -> str:
    """Return how long the very first exchanges of each kind take, over TLS, hand-shaken."""
    link = parse_link(daemon.invite(f"{INVITED_BYTES}B"))
    data = os.urandom(1024)
    identity = Identity.create(home)
    with blocking.connect(link, identity) as farmer:
        farmer.redeem(link.invite)
        farmer.store(io.BytesIO(data + b"before"))
        daemon.kill()
        start(daemon)
        address = FarmerAddress(link.farmer, tuple(daemon.status()["listen"]))
    took = []
    with blocking.connect(address, identity) as farmer:
        farmer.contract()
        began = time.monotonic()
        receipt = farmer.store(io.BytesIO(data))
        took.append(time.monotonic() - began)
        began = time.monotonic()
        farmer.retrieve(receipt.shard, io.BytesIO())
        took.append(time.monotonic() - began)
        began = time.monotonic()
        assert farmer.audit([receipt]).is_pass
        took.append(time.monotonic() - began)
    return " / ".join(f"{seconds * 1000:.1f}" for seconds in took)


def rebuild(daemon: Daemon, volume: Path, count: int) -> str:
    """
    Delete the index and have it made again by a command; return the records a second.

    By the clock alone: the command works in a child, whose processor time nobody is told.
    """
    for path in volume.glob("index.sqlite*"):
        path.unlink()
    began = time.monotonic()
    timeout_s = 60 + count / REBUILT_PER_SECOND_MIN
    done = daemon.call("volume", "rebuild", str(volume), timeout_s=timeout_s)
    wall = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    start(daemon)
    shards = daemon.status()["volumes"][0]["shards"]
    daemon.kill()
    assert shards > count, shards
    return f"{shards / wall:.0f}"


def main(words: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million")
    parser.add_argument("--shards", type=int, default=COUNT)
    count: int = parser.parse_args(words).shards
    quota = count * SHARD_QUOTA_BYTES + INVITED_BYTES
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        volume = base / "volume"
        with Daemon(base / "home", volume, f"{quota}B") as daemon:
            empty = calls_under(daemon, volume, base / "empty.trace")
            loader = subprocess.run(
                [
                    *(sys.executable, "-m", "benchmarks.loading", str(base / "home")),
                    *(str(volume), str(quota), str(count)),
                ],
                check=False,
                capture_output=True,
                text=True,
                env=environment(),
            )
            assert loader.stdout, loader.stderr
            killed = [start(daemon)]
            peaks = [peak_mib(daemon)]
            shards = daemon.status()["volumes"][0]["shards"]
            assert shards == count, shards
            clean = []
            for _ in range(ROUNDS):
                daemon.stop()
                clean.append(start(daemon))
                daemon.kill()
                killed.append(start(daemon))
                peaks.append(peak_mib(daemon))
            daemon.kill()
            cut = power_cut_like(daemon, volume)
            answers = first_answers(daemon, base / "renter")
            daemon.kill()
            rebuilt = rebuild(daemon, volume, count)
            full = calls_under(daemon, volume, base / "full.trace")
            index = sum(path.stat().st_size for path in volume.glob("index.sqlite*"))
            report(
                "million" if count == COUNT else f"million-{count}",
                {
                    "shards stored (1 KiB, durable, 512 at once)": shards,
                    "seconds to store them": float(loader.stdout),
                    "ready after a clean stop, s": spread(clean),
                    "ready after kill -9, s": spread(killed),
                    "ready with an index that stands where its last checkpoint was, s": cut,
                    "first store, retrieve, audit after that, ms": answers,
                    "index deleted: records a second": rebuilt,
                    "peak RSS at ready, MiB": spread(peaks),
                    "file calls on the volume at start, empty / full": f"{empty[0]} / {full[0]}",
                    "directory listings among them": f"{empty[1]} / {full[1]}",
                    "index, MiB": round(index / MIB, 1),
                },
            )


if __name__ == "__main__":
    main(sys.argv[1:])
