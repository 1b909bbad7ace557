"""One point of an axis: the rounds of every operation against a farmer that runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from benchmarks.growth.asking import Asker
from benchmarks.growth.points import OPERATIONS, Point, Round
from benchmarks.growth.scales import Scale
from benchmarks.rig.ground import MIB, Ground, Running
from benchmarks.rig.population import Population

COUNT_MAX: Final = 4000
"""Operations of a round; all rounds of all points stay within a renter's budget of audits."""

STORED_BYTES_MAX: Final = 256 * MIB
"""Of a round: what is stored is erased again, but it has to be written."""

REFERENCES: Final = 5

SHARED_LINES: Final = 48
"""Connections that are asked over in turn where there are many."""


def measure(
    ground: Ground,
    scale: Scale,
    x: float,
    held: Population,
    *,
    renters: Sequence[int] = (0,),
    active: int = 1,
    new_bytes: int = 1024,
) -> Point:
    """
    Start the farmer, connect *renters*, and let *active* of the connections be asked over in turn.

    *held* says what can be read.  *new_bytes* is the size of the shards stored meanwhile.
    """
    with ground.running() as farmer, _asker(farmer, held, new_bytes) as asker:
        standing = {
            "start_s": farmer.start_s,
            "memory_mib": farmer.memory_mib(),
            "index_bytes": float(ground.index_bytes()),
        }
        asker.connect(renters)
        standing["memory_connected_mib"] = farmer.memory_mib()
        asker.use(active)
        rounds = _rounds(asker, scale, STORED_BYTES_MAX // new_bytes)
        # At the end: a farmer that has just started has this and that to do.
        standing["idle_ms_per_s"] = farmer.idle_ms_per_s()
        standing["reference_ms"] = _reference_ms()
    return Point(x, rounds, standing)


@contextmanager
def _asker(farmer: Running, held: Population, new_bytes: int) -> Iterator[Asker]:
    asker = Asker(farmer, held, new_bytes)
    try:
        yield asker
    finally:
        asker.close()


def _reference_ms() -> float:
    """Return the processor time of some work that is always the same: how slow the machine is."""
    took_s = []
    for _ in range(REFERENCES):
        began_s = time.thread_time()
        for number in range(50):
            sha256(number.to_bytes(1 << 14, "big")).digest()
            sorted(range(1000), key=lambda one: -one)
        took_s.append(time.thread_time() - began_s)
    return statistics.median(took_s) * 1000


def _rounds(asker: Asker, scale: Scale, stores_max: int) -> dict[str, list[Round]]:
    """Do all kinds in each round, by turns, so that what passes strikes all alike."""
    found: dict[str, list[Round]] = {name: [] for name in OPERATIONS}
    # What is done for the first time in a process costs more, whatever the size.
    for name in OPERATIONS:
        asker.round(name, 0.1, min(50, stores_max))
    for _ in range(scale.rounds):
        for name in OPERATIONS:
            # All that was stored is erased, however long it takes.
            seconds = scale.seconds if name != "erase" else 60.0
            most = min(COUNT_MAX, stores_max) if name == "store" else COUNT_MAX
            found[name].append(asker.round(name, seconds, most))
    return found
