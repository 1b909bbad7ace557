"""How far each axis goes: quickly, as usual, and as far as is claimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The points of all axes, and how long to measure at each."""

    name: str
    rounds: int
    seconds: float
    """For each kind of operation in each round."""
    shards: tuple[int, ...]
    renters: tuple[int, ...]
    contracts: tuple[int, ...]
    connections: tuple[int, ...]
    sizes: tuple[int, ...]
    tombstones: tuple[int, ...]
    trash: tuple[int, ...]
    segments: tuple[int, ...]
    volumes: tuple[int, ...]
    turnovers: tuple[int, ...]
    """How many times everything was stored anew, ascending."""
    held: int
    """Shards that are there while something else grows."""
    background: int
    """Shards that something is done with in the background."""


QUICK: Final = Scale(
    name="quick",
    rounds=2,
    seconds=0.3,
    shards=(1000, 3000, 10_000, 30_000),
    renters=(1, 10, 100, 1000),
    contracts=(1, 100, 1000, 10_000),
    connections=(1, 10, 100, 500),
    sizes=(KIB, 16 * KIB, 256 * KIB, 4 * MIB),
    tombstones=(100, 1000, 3000, 10_000),
    trash=(100, 1000, 3000, 10_000),
    segments=(1, 10, 100, 1000),
    volumes=(1, 2, 4, 8),
    turnovers=(0, 1, 2, 4),
    held=2000,
    background=10_000,
)

USUAL: Final = Scale(
    name="usual",
    rounds=3,
    seconds=0.5,
    shards=(1000, 10_000, 100_000, 1_000_000),
    renters=(1, 10, 100, 1000, 10_000),
    contracts=(1, 10, 100, 1000, 10_000, 100_000),
    connections=(1, 10, 100, 1000, 10_000),
    sizes=(KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB),
    tombstones=(100, 1000, 10_000, 100_000),
    trash=(100, 1000, 10_000, 100_000),
    segments=(1, 10, 100, 1000, 10_000),
    volumes=(1, 2, 4, 8, 16, 32),
    turnovers=(0, 1, 2, 5, 10),
    held=20_000,
    background=200_000,
)

LARGE: Final = Scale(
    name="large",
    rounds=5,
    seconds=1.0,
    shards=(1000, 10_000, 100_000, 1_000_000, 10_000_000),
    renters=USUAL.renters,
    contracts=USUAL.contracts,
    connections=USUAL.connections,
    sizes=USUAL.sizes,
    tombstones=(*USUAL.tombstones, 1_000_000),
    trash=(*USUAL.trash, 1_000_000),
    segments=USUAL.segments,
    volumes=USUAL.volumes,
    turnovers=USUAL.turnovers,
    held=100_000,
    background=1_000_000,
)
