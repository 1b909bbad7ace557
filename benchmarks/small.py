"""
What small requests cost, 16 renters at once, over TLS: pings, audits, durable stores of 1 KiB.

The stores stand beside the syncs of a single file on the same disk, measured in the same round:
many at once share a sync, so there can be more of them than of syncs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.harness import report, spread
from benchmarks.rig.crowding import Job
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.ground import Ground, Running
from benchmarks.rig.place import place
from benchmarks.rig.population import Population
from benchmarks.rig.together import Tally, measured, processes_usual, rows
from farmer.benching.disk import PIECE_BYTES, measure_disk

RENTERS: Final = 16
ROUNDS: Final = 5
SECONDS: Final = 2.0
"""For each kind of work in a round."""

QUOTA_BYTES: Final = 8_000_000_000
"""No more than a number: what is stored is bounded by the time."""

AUDITED: Final = Population(64 * RENTERS, renters=RENTERS, size_bytes=64 * 1024)
STORED_BYTES: Final = 1024
STORES_MAX: Final = 1 << 20
"""Of a round: four gigabytes, by far more than there is time for."""

FLUSH_FILE_BYTES: Final = 8 * PIECE_BYTES
FLUSH_S: Final = 0.5


@dataclass(slots=True)
class Found:
    """What came out, round by round."""

    pings: list[Tally] = field(default_factory=list)
    audits: list[Tally] = field(default_factory=list)
    stores: list[Tally] = field(default_factory=list)
    flushes_per_s: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, object]:
        """Return them for people."""
        ratios = [
            one.per_s / flushes
            for one, flushes in zip(self.stores, self.flushes_per_s, strict=True)
        ]
        return {
            **rows("pings", self.pings),
            "pings, aim, us": "<= 50",
            **rows("audits of a shard of 64 KiB, k = 1", self.audits),
            "audits, aim": "7000 a second, <= 140 us",
            **rows("durable stores of 1 KiB", self.stores),
            "fdatasyncs of 4 KiB, one after the other, a second": spread(self.flushes_per_s),
            "stores for one such fdatasync": spread(ratios),
            "stores, aim, for one fdatasync": 1.2,
        }


def stored_in(turn: int) -> Population:
    """Return the shards that are stored in a round; nobody has stored them before."""
    return Population(STORES_MAX, RENTERS, STORED_BYTES, first=(1 + turn) * STORES_MAX * 2)


def measure(folder: Path, rounds: int, seconds: float, processes: int) -> Found:
    """Make a farmer and let its renters work, each kind in each round; raises `MeasuringError`."""
    with Ground(folder, QUOTA_BYTES) as ground:
        ground.admit(range(RENTERS))
        ground.fill(("store", AUDITED))
        with ground.running() as farmer:
            return _rounds(farmer, folder, rounds, seconds, processes)


def _rounds(farmer: Running, folder: Path, rounds: int, seconds: float, processes: int) -> Found:
    found = Found()
    for turn in range(rounds):
        for what, shards, kept in (
            ("ping", AUDITED, found.pings),
            ("audit", AUDITED, found.audits),
            ("store", stored_in(turn), found.stores),
        ):
            job = Job(farmer.address, what, shards, tuple(range(RENTERS)))
            kept.append(measured(farmer.pid, job, seconds, processes))
        disk = measure_disk(folder, FLUSH_FILE_BYTES, FLUSH_S)
        found.flushes_per_s.append(disk.flushes_per_s)
    return found


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for."""
    parser = parser_of("benchmarks.small")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each kind of work")
    parser.add_argument("--processes", type=int, default=processes_usual(), help="of renters")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    asked = arguments(words)
    with place(asked.dir) as folder:
        found = measure(folder, asked.rounds, asked.seconds, asked.processes)
    processes = {"processes of renters": asked.processes}
    report("small", {"renters at once": RENTERS, **processes, **found.figures()})
    return 0


if __name__ == "__main__":
    enter(main)
