"""
One part of the sweep, as a process of its own does it.

Not in `__main__`: of that such a process knows nothing, but where it was forked.
"""

from __future__ import annotations

from tests.nthcall.book_jobs import BOOK_JOBS, sweep_book
from tests.nthcall.failures import Failure
from tests.nthcall.jobs import JOBS
from tests.nthcall.sqlite_disk import SqlFailure
from tests.nthcall.sweep import Tally, sweep_errors, sweep_index, sweep_stops, workshop

STOPS = "stops"
SQL = [failure.value for failure in SqlFailure]


def part(work: tuple[str, str, int]) -> Tally:
    """Do one operation with one kind of fault."""
    name, fault, every = work
    with workshop() as folder:
        if name in BOOK_JOBS:
            return sweep_book(name, SqlFailure(fault), folder, every)
        job = next(one for one in JOBS if one.name == name)
        if fault == STOPS:
            return sweep_stops(job, folder, every)
        if fault in SQL:
            return sweep_index(job, SqlFailure(fault), folder, every)
        return sweep_errors(job, Failure(fault), folder, every)
