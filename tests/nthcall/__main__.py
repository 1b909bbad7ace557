"""
`python -m tests.nthcall [--every N] [--jobs NAME,...] [--faults NAME,...]`: the whole sweep.

The last line is `points N operations N faults N violations N`; exits with 1 on a violation.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.nthcall.book_jobs import BOOK_JOBS
from tests.nthcall.failures import Failure
from tests.nthcall.jobs import JOBS
from tests.nthcall.part import SQL, STOPS, part
from tests.nthcall.sqlite_disk import SqlFailure
from tests.nthcall.sweep import Tally

OPENING = {"book opened", "read", *(job.name for job in JOBS if job.opens)}
WHILE_OPENING = {
    failure.value for failure in (SqlFailure.EROFS, SqlFailure.ESTALE, SqlFailure.EMFILE)
}
"""Once its files are open, SQLite says the same of all of these as of an EIO."""
MEMORY_JOBS = {"store small", "store large", "store resumed", "erase", "read", "recovery"}
"""A MemoryError in a call of the port is an ENOMEM to all others, by one and the same line."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nthcall", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only each Nth call")
    parser.add_argument("--jobs", default="", help="only these operations, with commas")
    parser.add_argument("--faults", default="", help="only these, with commas")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--floor", type=int, default=0, help="fail below so many points")
    options = parser.parse_args(arguments)
    every_job = [*(job.name for job in JOBS), *BOOK_JOBS]
    wanted = options.jobs.split(",") if options.jobs else every_job
    faults = [STOPS, *(failure.value for failure in Failure), *SQL]
    chosen = options.faults.split(",") if options.faults else faults
    work = [
        (name, fault, options.every)
        for name in wanted
        for fault in (SQL if name in BOOK_JOBS else faults)
        if fault in chosen and _differs(name, fault)
    ]
    started, tally = time.monotonic(), Tally()
    with ProcessPoolExecutor(options.processes) as pool:
        for found in pool.map(part, work):
            tally.add(found)
    _print(tally)
    for violation in tally.violations[:40]:
        print(violation)
    points = sum(tally.points.values())
    print(f"{time.monotonic() - started:.0f} s")
    print(
        f"points {points} operations {len({job for job, _ in tally.points})} "
        f"faults {len({fault for _, fault in tally.points})} violations {len(tally.violations)}"
    )
    return 1 if tally.violations or points < options.floor else 0


def _differs(name: str, fault: str) -> bool:
    """Say whether this operation can react to it in a way of its own."""
    if fault in WHILE_OPENING:
        return name in OPENING
    return fault != Failure.MEMORY.value or name in MEMORY_JOBS


def _print(tally: Tally) -> None:
    columns = sorted({fault for _, fault in tally.points})
    print(f"{'':16}" + "".join(f"{column:>14}" for column in columns))
    for job in dict.fromkeys(name for name, _ in tally.points):
        row = "".join(f"{tally.points[job, column] or '':>14}" for column in columns)
        print(f"{job:16}{row}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
