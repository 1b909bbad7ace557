"""
Connections a second, and what one costs the farmer: TLS 1.3 with the certificates of both.

A handshake is counted when HELLO is answered by WELCOME: in TLS 1.3 a client is through before
the farmer has seen its certificate.  So accepting the connection, the greeting and hanging up
are in the figures, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.harness import report, spread
from benchmarks.rig.crowding import HANDSHAKE, Job
from benchmarks.rig.entrance import enter, parser_of
from benchmarks.rig.ground import Ground
from benchmarks.rig.place import place
from benchmarks.rig.population import Population
from benchmarks.rig.together import Tally, measured, processes_usual, rows
from farmer.benching.processor import measure_processor

RENTERS: Final = 16
ROUNDS: Final = 5
SECONDS: Final = 2.0
QUOTA_BYTES: Final = 1_000_000_000
IN_MEMORY_S: Final = 0.5


def source(turn: int) -> str:
    """Return where a round connects from: a closed connection keeps its port for a minute."""
    return f"127.0.{1 + turn % 250}.1"


def measure(folder: Path, rounds: int, seconds: float, processes: int) -> list[Tally]:
    """Make a farmer and let renters come and go; raises `MeasuringError`."""
    renters = Population(0, renters=RENTERS)
    with Ground(folder, QUOTA_BYTES) as ground:
        ground.admit(range(RENTERS))
        with ground.running() as farmer:
            return [
                measured(
                    farmer.pid,
                    Job(farmer.address, HANDSHAKE, renters, tuple(range(RENTERS)), source(turn)),
                    seconds,
                    processes,
                )
                for turn in range(rounds)
            ]


def main(words: Sequence[str]) -> int:
    parser = parser_of("benchmarks.handshakes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--processes", type=int, default=processes_usual(), help="of renters")
    asked = parser.parse_args(words)
    with place(asked.dir) as folder:
        tallies = measure(folder, asked.rounds, asked.seconds, asked.processes)
    in_memory = [measure_processor(IN_MEMORY_S).handshakes_per_s for _ in range(asked.rounds)]
    report(
        "handshakes",
        {
            "at once": RENTERS,
            "processes of renters": asked.processes,
            **rows("handshakes with HELLO and WELCOME", tallies),
            "TLS alone, both ends in memory on one core, a second": spread(in_memory),
        },
    )
    return 0


if __name__ == "__main__":
    enter(main)
