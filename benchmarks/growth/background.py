"""
What a renter feels while many shards are deleted, expire, are compacted or scrubbed.

Each work has a farmer of its own.  The same renter asks at the same rate before it and while
it lasts, in one run; twice the p99 is allowed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.growth.foreground import RENTER, Foreground
from benchmarks.rig.accounting import memory_bytes, reset_peak
from benchmarks.rig.crowding import Job
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.ground import MIB, Ground, Running
from benchmarks.rig.population import Population
from benchmarks.rig.together import renters

QUOTA_BYTES: Final = 8_000_000_000
SHARDS_QUOTA_BYTES: Final = 8000
"""For each shard of 1 KiB: its record, and what is kept beside it."""

FIRST_SWEEP_S: Final = 60.0
"""After the start a farmer's first sweep comes."""

BASELINE_S: Final = 45.0
"""Of the renter alone; ends before the first sweep."""

STORING_RENTERS: Final = 16
STORED_BYTES: Final = 64 * 1024
STORING_S: Final = 40.0
DELETING_RENTERS: Final = 4
STABLE_LOOKS: Final = 2
"""So many looks at segments that do not shrink any more, and the sweep is over."""

SHRUNK: Final = 0.7
"""The share of its space that a segment with every second record has afterwards, at most."""

SEGMENTS: Final = 16
"""Of what is compacted, at least; the last one, which is appended to, never is."""

SEGMENT_BYTES: Final = (1 << 20, 1 << 28)
"""Of a segment, least and most."""

Over = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that goes on in the background."""

    about: str
    renters: int
    fill: tuple[str, ...]
    """What is done with the shards before the farmer starts."""
    begin: Callable[[Ground, Running, Population, float], Any]
    """A context manager: begins, and yields what tells that it is over."""
    by_sweep: bool = False
    """Whether it begins by itself with the first sweep."""
    holeless: bool = False
    """Whether the filling leaves given-up records on the disk for the sweep."""
    prefix: tuple[str, ...] = ()
    """Before the farmer's command."""


def measure(name: str, folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """Have one work done with so many shards, for so long at most; return the figures."""
    work = WORKS[name]
    shards = Population(count, renters=work.renters)
    with Ground(folder, QUOTA_BYTES + SHARDS_QUOTA_BYTES * count) as ground:
        ground.admit(range(RENTER, RENTER + 1))
        if name == "expire":
            ground.expire(0)
        else:
            ground.admit(range(work.renters))
        size_bytes = min(max(4096 * count // SEGMENTS, SEGMENT_BYTES[0]), SEGMENT_BYTES[1])
        steps = [(step, shards) for step in work.fill]
        ground.fill(*steps, segment_bytes=size_bytes, holeless=work.holeless)
        with ground.running(*work.prefix) as farmer:
            began = time.monotonic()
            foreground = Foreground(farmer)
            alone = foreground.watch(BASELINE_S)
            reset_peak(farmer.pid)
            if work.by_sweep:
                time.sleep(max(0.0, began + FIRST_SWEEP_S - 1 - time.monotonic()))
            with work.begin(ground, farmer, shards, seconds) as is_over:
                meanwhile = foreground.watch(seconds, is_over)
                finished = is_over()
            meanwhile["peak_mib"] = memory_bytes(farmer.pid, "VmHWM") / MIB
    return {
        "about": work.about,
        "shards": count,
        "finished": finished,
        "alone": alone,
        "meanwhile": meanwhile,
    }


@contextmanager
def _deleting(
    _ground: Ground, farmer: Running, shards: Population, seconds: float
) -> Iterator[Over]:
    with _crowding(farmer, "delete", shards, seconds) as is_over:
        yield is_over


@contextmanager
def _storing(
    _ground: Ground, farmer: Running, _shards: Population, seconds: float
) -> Iterator[Over]:
    many = Population(1 << 40, renters=STORING_RENTERS, size_bytes=STORED_BYTES)
    with _crowding(farmer, "store", many, min(seconds, STORING_S)) as is_over:
        yield is_over


@contextmanager
def _crowding(farmer: Running, what: str, shards: Population, seconds: float) -> Iterator[Over]:
    job = Job(farmer.address, what, shards, tuple(range(shards.renters)))
    with renters(job) as clients:
        began = time.monotonic()
        clients.begin(began, began + seconds)
        yield lambda: clients.process.poll() is not None
        if clients.process.poll():
            raise MeasuringError(f"the renters in the background failed: {what}")


@contextmanager
def _expiring(
    _ground: Ground, farmer: Running, shards: Population, _seconds: float
) -> Iterator[Over]:
    yield lambda: _metric(farmer, 'farmer_shards_purged_total{cause="expired"}') >= shards.count


@contextmanager
def _scrubbing(
    ground: Ground, farmer: Running, _shards: Population, _seconds: float
) -> Iterator[Over]:
    ground.call("scrub", "now")
    done = "farmer_volume_scrub_last_success_timestamp_seconds"
    # It is not there before the first has ended.
    yield lambda: f'{done}{{volume="volume"}}' in farmer.metrics()


@contextmanager
def _tidying(
    ground: Ground, _farmer: Running, _shards: Population, _seconds: float
) -> Iterator[Over]:
    """The sweep gives space back; the sealed segments say so, for nothing else does."""
    segments = ground.sealed()
    sizes = [allocated_bytes(segments)]

    def is_over() -> bool:
        sizes.append(allocated_bytes(segments))
        is_still = len(sizes) > STABLE_LOOKS and len(set(sizes[-1 - STABLE_LOOKS :])) == 1
        return is_still and sizes[-1] < SHRUNK * sizes[0]

    yield is_over


def allocated_bytes(paths: Iterable[Path]) -> int:
    """Return what files take on the disk; those that are gone take nothing."""
    taken = 0
    for path in paths:
        with suppress(FileNotFoundError):
            taken += path.stat().st_blocks * 512
    return taken


def _metric(farmer: Running, name: str) -> float:
    for line in farmer.metrics().splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    raise MeasuringError(f"the farmer has no metric {name}")


WORKS: Final = {
    "delete": Work(
        "Four other renters put their shards into the trash as fast as they can.",
        DELETING_RENTERS,
        ("store",),
        _deleting,
    ),
    "expire": Work(
        "The shards of a contract that is gone are removed by the sweep.",
        1,
        ("store",),
        _expiring,
        by_sweep=True,
    ),
    "holes": Work(
        "Every second shard was given up; the sweep gives their space back as holes.",
        1,
        ("store", "thin"),
        _tidying,
        by_sweep=True,
        holeless=True,
    ),
    "compact": Work(
        "The same on a filesystem without holes: the sweep writes what is alive again.",
        1,
        ("store", "thin"),
        _tidying,
        by_sweep=True,
        holeless=True,
        prefix=(sys.executable, "-m", "benchmarks.rig.holeless"),
    ),
    "scrub": Work("Everything is read again and checked.", 1, ("store",), _scrubbing),
    "stores": Work(
        "Sixteen renters store shards of 64 KiB as fast as they can.",
        STORING_RENTERS,
        ("store",),
        _storing,
    ),
}
