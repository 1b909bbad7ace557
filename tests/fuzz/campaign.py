"""A campaign: all decoders, split over processes, with floors and a verdict."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time

from tests.fuzz.decoders import target_of
from tests.fuzz.runner import Counts, run_many

MEMORY_BYTES_MAX = 3 << 30
"""Of address space, for a process: what is allocated by a lie then fails at once."""
FLOOR = 0.9
"""Each decoder must have had so much of its executions."""
PASSING = 0.3
"""So many of the inputs must get past the door, of each decoder."""


def campaign(names: list[str], executions: int, seed: str, processes: int) -> int:
    """Run all, split over processes, no fewer in all than asked; print a table and a verdict."""
    shares = shares_of(names, executions)
    began = time.monotonic()
    work = [
        (name, -(-shares[name] // processes), f"{seed}/{number}")
        for name in sorted(names, key=lambda name: -target_of(name).cost)
        for number in range(processes)
    ]
    with multiprocessing.get_context("spawn").Pool(processes, _prepared) as pool:
        parts = pool.starmap(_one, work, chunksize=1)
    rows = [_sum(name, parts) for name in names]
    return _verdict(rows, shares, executions, time.monotonic() - began)


def shares_of(names: list[str], executions: int) -> dict[str, int]:
    """Return how many runs each decoder has; rounded up, so that together they are enough."""
    wanted = {name: target_of(name).executions for name in names}
    whole = sum(wanted.values())
    return {name: -(-each * executions // whole) for name, each in wanted.items()}


def _prepared() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _one(name: str, executions: int, seed: str) -> Counts:
    target = target_of(name)
    try:
        return run_many(target, executions, seed)
    finally:
        target.close()


def _sum(name: str, parts: list[Counts]) -> Counts:
    total = Counts(name)
    for part in parts:
        if part.name == name:
            total.executions += part.executions
            total.mended += part.mended
            total.passed += part.passed
            total.seconds += part.seconds
            total.failures.update(part.failures)
    return total


def _verdict(rows: list[Counts], shares: dict[str, int], floor: int, seconds: float) -> int:
    print(f"{'decoder':26} {'runs':>9} {'mended':>7} {'past':>6} {'µs':>7}  failures")
    for row in rows:
        runs = max(1, row.executions)
        print(
            f"{row.name:26} {row.executions:9} {row.mended / runs:7.0%} {row.passed / runs:6.0%}"
            f" {row.seconds / runs * 1e6:7.0f}  {len(row.failures) or '-'}"
        )
    runs, passed = sum(row.executions for row in rows), sum(row.passed for row in rows)
    failures = sum(len(row.failures) for row in rows)
    short = [row.name for row in rows if row.executions < FLOOR * shares[row.name]]
    outside = [row.name for row in rows if row.passed < PASSING * row.executions]
    for name in short:
        print(f"{name}: fewer executions than its floor")
    if runs < floor:
        print(f"{runs} executions in all, where {floor} is the floor")
    for name in outside:
        print(f"{name}: fewer than {PASSING:.0%} of its inputs got past the door")
    print(
        f"decoders {len(rows)} executions {runs} past the door {passed / max(1, runs):.0%}"
        f" failures {failures} seconds {seconds:.0f}"
    )
    return 1 if failures else 2 if short or outside or runs < floor else 0
