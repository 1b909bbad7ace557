"""
The campaign: many seeds, their tables, and the command that replays each one that failed.

    python -m tests.simulation --seeds 1000 --ops 400 --jobs 2
    python -m tests.simulation --seed 17 --ops 400          one seed, again
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context

from tests.pools import to_its_end
from tests.simulation.report import Report
from tests.simulation.run import Outcome, run, settle_in

SEEDS_PER_PROCESS = 40
"""What a process has taken for its disks it does not give back."""

TOLD_EVERY = 500
"""Seeds, after which a long run says how far it is: what is broken off goes on by `--first`."""


def main() -> int:
    """Run; 0 if no promise was broken and every floor was reached."""
    asked = _arguments()
    report, began_s = Report(), time.monotonic()
    first = asked.first if asked.seed is None else asked.seed
    seeds = range(first, first + (asked.seeds if asked.seed is None else 1))
    for done, outcome in enumerate(
        _outcomes(seeds, asked.ops, 1 if len(seeds) == 1 else asked.jobs), start=1
    ):
        report.add(outcome)
        if outcome.violation:
            print(f"seed {outcome.seed}: {outcome.violation}")
            print(f"  again: python -m tests.simulation --seed {outcome.seed} --ops {asked.ops}")
            sys.stdout.flush()
        if asked.seed is not None:
            print(f"trace {outcome.trace}")
        if asked.until_found and report.violations:
            break
        if done % TOLD_EVERY == 0 and done < len(seeds):
            print(f"up to seed {outcome.seed}: {report.last_line()}", flush=True)
    for line in report.lines():
        print(line)
    unmet = [] if asked.until_found else report.unmet()
    for floor in unmet:
        print(f"floor not reached: {floor}")
    print(f"{time.monotonic() - began_s:.0f} s")
    print(report.last_line())
    return 1 if unmet or report.violations else 0


def _outcomes(seeds: range, ops: int, jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        settle_in()
        yield from (run(seed, ops) for seed in seeds)
        return
    # What all of them need is imported once, where they are forked off.
    context = get_context("forkserver")
    context.set_forkserver_preload([run.__module__])
    # Not an executor: that one may hang for ever where its processes have a number of tasks.
    processes = context.Pool(jobs, settle_in, maxtasksperchild=SEEDS_PER_PROCESS)
    with to_its_end(processes) as pool:
        yield from pool.imap(partial(run, operations=ops), seeds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--ops", type=int, default=400, help="operations of each")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--until-found", action="store_true", help="stop at the first violation")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
