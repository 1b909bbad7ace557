"""The axes: what grows, and how it is made to grow; each yields its points one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.growth.measuring import SHARED_LINES, measure
from benchmarks.growth.points import Point
from benchmarks.growth.scales import Scale
from benchmarks.rig.ground import Ground
from benchmarks.rig.population import MIXED, Population

QUOTA_BYTES: Final = 4_000_000_000
RECORD_BYTES: Final = 4096
"""What a shard of 1 KiB takes in the log."""

SHARDS_QUOTA_BYTES: Final = 8000
"""For each shard of 1 KiB: its record, and what is kept beside it."""

SEGMENT_HEADER_BYTES: Final = 4096
SMALL_QUOTA_BYTES: Final = 600_000_000


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that grows."""

    name: str
    label: str
    about: str
    points: Callable[[Path, Scale], Iterator[Point]]
    per_x: bool = False


def shards(folder: Path, scale: Scale) -> Iterator[Point]:
    """More and more shards of one renter."""
    quota = QUOTA_BYTES + SHARDS_QUOTA_BYTES * max(scale.shards)
    with Ground(folder, quota) as ground:
        ground.admit(range(1))
        before = 0
        for count in scale.shards:
            ground.fill(("store", Population(count - before, first=before)))
            before = count
            yield measure(ground, scale, count, Population(count))


def renters(folder: Path, scale: Scale) -> Iterator[Point]:
    """The same shards, dealt out to more and more renters; some of them are connected."""
    for count in scale.renters:
        with Ground(folder / str(count), QUOTA_BYTES) as ground:
            ground.admit(range(count))
            held = Population(max(scale.held, count), renters=count)
            ground.fill(("store", held))
            few = range(min(count, SHARED_LINES))
            yield measure(ground, scale, count, held, renters=few, active=len(few))


def contracts(folder: Path, scale: Scale) -> Iterator[Point]:
    """One renter who is active; more and more others who have a contract and nothing else."""
    with Ground(folder, QUOTA_BYTES) as ground:
        held = Population(scale.held)
        ground.fill(("store", held))
        before = 0
        for count in scale.contracts:
            ground.admit(range(before, count))
            before = count
            yield measure(ground, scale, count, held)


def connections(folder: Path, scale: Scale) -> Iterator[Point]:
    """One connection that is active; more and more others that are idle, each of a renter."""
    most = max(scale.connections)
    with Ground(folder, QUOTA_BYTES, sessions=most + 10) as ground:
        ground.admit(range(most))
        held = Population(scale.held)
        ground.fill(("store", held))
        for count in scale.connections:
            yield measure(ground, scale, count, held, renters=range(count))


def sizes(folder: Path, scale: Scale) -> Iterator[Point]:
    """Larger and larger shards."""
    for size_bytes in scale.sizes:
        with Ground(folder / str(size_bytes), QUOTA_BYTES) as ground:
            ground.admit(range(1))
            count = max(4, min(scale.held, 200_000_000 // size_bytes))
            held = Population(count, size_bytes=size_bytes)
            ground.fill(("store", held))
            yield measure(ground, scale, size_bytes, held, new_bytes=size_bytes)


def tombstones(folder: Path, scale: Scale) -> Iterator[Point]:
    """More and more deletions of which a second volume, which is away, has not heard."""
    with Ground(folder, QUOTA_BYTES, volumes=2) as ground:
        ground.admit(range(1))
        held = Population(scale.held)
        ground.volumes[1].rename(folder / "away")
        ground.fill(("store", held), volumes=ground.volumes)
        before = 0
        for count in scale.tombstones:
            more = Population(count - before, first=scale.held + before)
            ground.fill(("store", more), ("erase", more))
            before = count
            yield measure(ground, scale, count, held)


def trash(folder: Path, scale: Scale) -> Iterator[Point]:
    """More and more shards in the trash."""
    with Ground(folder, QUOTA_BYTES) as ground:
        ground.admit(range(1))
        held = Population(scale.held)
        ground.fill(("store", held))
        before = 0
        for count in scale.trash:
            more = Population(count - before, first=scale.held + before)
            ground.fill(("store", more), ("trash", more))
            before = count
            yield measure(ground, scale, count, held)


def segments(folder: Path, scale: Scale) -> Iterator[Point]:
    """The same shards in more and more segments of the log, which are smaller for that."""
    for count in scale.segments:
        with Ground(folder / str(count), QUOTA_BYTES) as ground:
            ground.admit(range(1))
            held = Population(max(scale.held, count))
            each = -(-held.count // count)
            ground.fill(("store", held), segment_bytes=SEGMENT_HEADER_BYTES + each * RECORD_BYTES)
            yield measure(ground, scale, count, held)


def volumes(folder: Path, scale: Scale) -> Iterator[Point]:
    """The same shards on more and more volumes."""
    for count in scale.volumes:
        with Ground(folder / str(count), SMALL_QUOTA_BYTES, volumes=count) as ground:
            ground.admit(range(1))
            held = Population(scale.held)
            ground.fill(("store", held))
            yield measure(ground, scale, count, held)


def age(folder: Path, scale: Scale) -> Iterator[Point]:
    """The same shards of mixed sizes, stored anew again and again in random order."""
    with Ground(folder, QUOTA_BYTES) as ground:
        ground.admit(range(1))
        held = Population(scale.held, size_bytes=MIXED)
        ground.fill(("store", held))
        done = 0
        for turnovers in scale.turnovers:
            ground.fill(*[("turn_over", held)] * (turnovers - done))
            done = turnovers
            yield measure(ground, scale, 1 + turnovers, held, new_bytes=16 * 1024)


_ALL: Final = (
    Axis("shards", "shards", "Shards of 1 KiB that one renter holds.", shards),
    Axis(
        "size",
        "bytes of a shard",
        "Stores, retrieves and sample audits of shards of one size; what counts is the cost of "
        "a byte. The times contain the renter's own TLS, not its hashing.",
        sizes,
        per_x=True,
    ),
    Axis(
        "renters",
        "renters",
        "The same number of shards, dealt out to so many renters, 48 of whom are connected and "
        "ask in turn.",
        renters,
    ),
    Axis(
        "contracts",
        "contracts",
        "One renter who is active, while so many have a contract and nothing else.",
        contracts,
    ),
    Axis(
        "connections",
        "connections",
        "One connection that is active, while so many are open, each of another renter.",
        connections,
    ),
    Axis(
        "tombstones",
        "tombstones",
        "Deletions of which a second volume, which is away, has not heard.",
        tombstones,
    ),
    Axis("trash", "shards in the trash", "Deleted shards that wait in the trash.", trash),
    Axis(
        "segments",
        "segments of the log",
        "The same number of shards, in so many segments.",
        segments,
    ),
    Axis("volumes", "volumes", "The same number of shards, on so many volumes.", volumes),
    Axis(
        "age",
        "times that everything was stored",
        "Shards of 1 to 64 KiB, all of them erased and stored anew in random order; 11 is ten "
        "turnovers.",
        age,
    ),
)

AXES: Final = {axis.name: axis for axis in _ALL}
