"""
Start to ready, memory and file operations of a farmer with a million small shards, or more.

`python -m benchmarks.million --shards 10000000` takes ten million, 45 GB and an hour.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import report, spread
from benchmarks.rig.accounting import memory_bytes, pss_bytes
from benchmarks.rig.crowding import Job
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.listing import Listing, listing
from benchmarks.rig.place import place
from benchmarks.rig.population import Population
from benchmarks.rig.together import renters
from farmer.client import blocking
from farmer.client.dial import FarmerAddress
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from tests.e2e.daemon import Daemon, environment
from tests.load.farm import Farm
from tests.load.lines import identity_of

COUNT = 1_000_000
SHARD_QUOTA_BYTES = 6_500
"""A record takes 4 KiB, and a volume keeps some room for itself."""
INVITED_BYTES = 1_000_000_000
"""For a renter beside them."""
REBUILT_PER_SECOND_MIN = 10_000
"""Records; what is slower has hung."""
ROUNDS = 3
MIB = 1024**2
MB = 1_000_000

RENTERS = 16
"""At work at once, beside the one whose shards the million are."""
OWNER = RENTERS
"""The number of that one."""
WORK = Population(600 * RENTERS, renters=RENTERS, size_bytes=64 * 1024)
"""What they store at most, each shard to be retrieved and audited: 630 MB."""
WORK_S = 10.0
CONTRACT_BYTES = 50_000_000
"""Of each of them."""
LOOK_S = 0.2

CACHE = Path("/proc/sys/vm/drop_caches")
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


def cold_starts(daemon: Daemon) -> str:
    """Return what starts take of which nothing is in the page cache; only root can see to that."""
    took = []
    for _ in range(ROUNDS):
        daemon.stop()
        os.sync()
        try:
            CACHE.write_text("3")
        except OSError as error:
            start(daemon)
            return f"skipped: the page cache cannot be emptied ({error.strerror})"
        took.append(start(daemon))
    return spread(took)


def memory_at_work(daemon: Daemon) -> str:
    """
    Return the most memory that a farmer takes while 16 renters store, retrieve and audit.

    Of pages that are shared PSS counts a part, the smaller the more such programs there are:
    the renters' own, too.  So the peak of all pages since the start, RSS, stands beside it.
    """
    assert daemon.process is not None
    pid = daemon.process.pid
    job = Job(address_of(daemon), "all", WORK, tuple(range(RENTERS)))
    most, began = 0, time.monotonic()
    with renters(job) as clients:
        clients.begin(began, began + WORK_S)
        while clients.process.poll() is None:
            most = max(most, pss_bytes(pid))
            time.sleep(LOOK_S)
        done = clients.done()
    rss = memory_bytes(pid, "VmHWM") / MB
    did = f"each renter did all three {done / RENTERS:.0f} times"
    return f"{most / MB:.1f}; RSS {rss:.1f} ({did})"


def whole_list(daemon: Daemon) -> Listing:
    """Return what the owner of the million is told that he has, by a farmer that runs."""
    return listing(address_of(daemon), OWNER)


def address_of(daemon: Daemon) -> tuple[str, int]:
    host, _, port = daemon.status()["listen"][0].rpartition(":")
    return host, int(port)


def load(base: Path, quota: int, count: int) -> float:
    """Store the shards while no farmer runs, and end as by kill -9; return the seconds."""
    loader = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.rig.storing_many", str(base / "home")),
            *(str(base / "volume"), str(quota), str(count), identity_of(OWNER).node_id.raw.hex()),
        ],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert loader.stdout, loader.stderr
    return float(loader.stdout)


def starts(daemon: Daemon, count: int) -> dict[str, object]:
    """Return how long starts take after ends of several kinds, and the memory they need."""
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
    return {
        "ready after a clean stop, s": spread(clean),
        "ready after kill -9, s": spread(killed),
        "ready cold after a clean stop, s": cold_starts(daemon),
        "peak RSS at ready, MiB": spread(peaks),
    }


def rebuild(daemon: Daemon, volume: Path, count: int) -> str:
    """
    Delete the index and have it made again by a command; return the records a second.

    The farmer runs afterwards.  By the clock alone: the command works in a child, whose
    processor time nobody is told.
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
    assert shards > count, shards
    return f"{shards / wall:.0f}"


def measure(base: Path, count: int) -> dict[str, object]:
    """Fill a farmer and measure all of it; return the figures."""
    volume = base / "volume"
    quota = count * SHARD_QUOTA_BYTES + INVITED_BYTES + (1 + RENTERS) * CONTRACT_BYTES
    with Farm(base, RENTERS, f"{quota}B") as farm:
        farm.admit(range(1 + RENTERS), CONTRACT_BYTES)
        daemon = farm.daemon
        empty = calls_under(daemon, volume, base / "empty.trace")
        figures: dict[str, object] = {
            "shards stored (1 KiB, durable, 512 at once)": count,
            "seconds to store them": load(base, quota, count),
            **starts(daemon, count),
        }
        daemon.kill()
        cut = power_cut_like(daemon, volume)
        figures["ready with an index that stands where its last checkpoint was, s"] = cut
        answers = first_answers(daemon, base / "renter")
        figures["first store, retrieve, audit after that, ms"] = answers
        at_work = memory_at_work(daemon)
        figures["most memory (PSS) with 16 renters at work, MB"] = at_work
        before = whole_list(daemon)
        assert before.shards == count, before
        daemon.kill()
        figures["index deleted: records a second"] = rebuild(daemon, volume, count)
        assert whole_list(daemon) == before, "a rebuild changed what a renter has"
        figures["the owner's list after that"] = f"the same {before.shards} ids"
        daemon.kill()
        full = calls_under(daemon, volume, base / "full.trace")
    index = sum(path.stat().st_size for path in volume.glob("index.sqlite*"))
    return figures | {
        "file calls on the volume at start, empty / full": f"{empty[0]} / {full[0]}",
        "directory listings among them": f"{empty[1]} / {full[1]}",
        "index, MiB": round(index / MIB, 1),
    }


def main(words: Sequence[str]) -> int:
    parser = parser_of("benchmarks.million")
    parser.add_argument("--shards", type=int, default=COUNT)
    asked = parser.parse_args(words)
    count: int = asked.shards
    with place(asked.dir) as folder:
        figures = measure(folder, count)
    report("million" if count == COUNT else f"million-{count}", figures)
    return 0


if __name__ == "__main__":
    enter(main)
