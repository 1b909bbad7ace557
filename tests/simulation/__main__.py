"""
The campaign: many seeds, their tables, and the command that replays each one that failed.

    python -m tests.simulation --seeds 1000 --ops 400 --jobs 2
    python -m tests.simulation --seed 17 --ops 400          one seed, again
    python -m tests.simulation --seeds 50000 --journal long.journal
                                                            hours, also in pieces
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.pools import to_its_end
from tests.simulation.journal import (
    KEPT_EVERY,
    Campaign,
    ForeignJournalError,
    Journal,
    Progress,
)
from tests.simulation.run import Outcome, run, settle_in

SEEDS_PER_PROCESS = 40
"""What a process has taken for its disks it does not give back."""

TOLD_EVERY = 500
"""Seeds, after which a long run says how far it is."""


def main() -> int:
    """Run; 0 if no promise was broken and every floor was reached."""
    asked = _arguments()
    first = asked.first if asked.seed is None else asked.seed
    end = first + (asked.seeds if asked.seed is None else 1)
    journal = Journal(asked.journal, Campaign(first, asked.ops)) if asked.journal else None
    try:
        progress = journal.read() if journal else Progress(first)
    except ForeignJournalError as error:
        print(error, file=sys.stderr)
        return 2
    for outcome in _told(progress, asked.ops, _outcomes(progress, end, asked.ops, asked.jobs)):
        if asked.seed is not None:
            print(f"trace {outcome.trace}")
        if asked.until_found and outcome.violation:
            break
        if journal and progress.report.seeds % KEPT_EVERY == 0:
            journal.keep(progress)
    if journal:
        journal.keep(progress)
    return _judged(progress, floors=not asked.until_found)


def _told(progress: Progress, ops: int, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Take outcomes into the sum, and say what is of interest while it grows."""
    began_s = time.monotonic() - progress.took_s
    for outcome in outcomes:
        progress.report.add(outcome)
        progress.next_seed = outcome.seed + 1
        progress.took_s = time.monotonic() - began_s
        if outcome.violation:
            print(f"seed {outcome.seed}: {outcome.violation}")
            print(f"  again: python -m tests.simulation --seed {outcome.seed} --ops {ops}")
            sys.stdout.flush()
        if progress.report.seeds % TOLD_EVERY == 0:
            print(f"up to seed {outcome.seed}: {progress.report.last_line()}", flush=True)
        yield outcome


def _judged(progress: Progress, *, floors: bool) -> int:
    """Print what it came to; 0 if all is well."""
    report = progress.report
    for line in report.lines():
        print(line)
    unmet = report.unmet() if floors else []
    for floor in unmet:
        print(f"floor not reached: {floor}")
    print(f"{progress.took_s:.0f} s")
    print(report.last_line())
    return 1 if unmet or report.violations else 0


def _outcomes(progress: Progress, end: int, ops: int, jobs: int) -> Iterator[Outcome]:
    seeds = range(progress.next_seed, end)
    if min(jobs, len(seeds)) <= 1:
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
    parser.add_argument("--journal", type=Path, help="go on from what this file has")
    parser.add_argument("--until-found", action="store_true", help="stop at the first violation")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
