"""A small part of the sweep (`python -m tests.nthcall` does all of it), and that it can fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nthcall import platter
from tests.nthcall.book_jobs import sweep_book
from tests.nthcall.failures import Failure
from tests.nthcall.jobs import JOBS, Job
from tests.nthcall.sqlite_disk import SqlFailure
from tests.nthcall.sweep import sweep_errors, sweep_index, sweep_stops, workshop

NAMED = {job.name: job for job in JOBS}


@pytest.fixture
def folder() -> Iterator[Path]:
    with workshop() as folder:
        yield folder


CREATES_NOTHING = [("erase", Failure.NO_INODES)]
IN_THIS_PROCESS = [failure for failure in SqlFailure if failure is not SqlFailure.MEMORY]


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        (name, failure)
        for name in ("store rolls", "erase")
        for failure in Failure
        if (name, failure) not in CREATES_NOTHING
    ],
)
def test_every_failing_call_of_a_small_operation(
    folder: Path, name: str, failure: Failure
) -> None:
    tally = sweep_errors(NAMED[name], failure, folder)
    assert not tally.violations
    assert tally.points


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_stop_at_some_calls_of_each_operation(folder: Path, job: Job) -> None:
    tally = sweep_stops(job, folder, every=5, again=False)
    assert not tally.violations
    assert tally.points[job.name, "killed"] == tally.points[job.name, "power"] > 0


def test_a_compaction_that_failed_behind_its_unlink_ends_in_the_next_run(folder: Path) -> None:
    tally = sweep_errors(NAMED["compact"], Failure.LATE, folder)
    assert not tally.violations


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("store small", SqlFailure.EIO),
        ("erase", SqlFailure.SHORT),
        ("sweep", SqlFailure.DEAD),
        ("recovery", SqlFailure.FULL),
        ("erase", SqlFailure.EDQUOT),
        ("read", SqlFailure.ESTALE),
        ("recovery", SqlFailure.EMFILE),
    ],
)
def test_every_failing_call_of_the_index(folder: Path, name: str, failure: SqlFailure) -> None:
    tally = sweep_index(NAMED[name], failure, folder)
    assert not tally.violations
    assert tally.points


@pytest.mark.parametrize("failure", IN_THIS_PROCESS)
@pytest.mark.parametrize("name", ["redeem", "extend", "book opened"])
def test_every_failing_call_of_the_contract_database(
    folder: Path, name: str, failure: SqlFailure
) -> None:
    """What is answered, then or at a later try, outlives a power cut; an invite is spent once."""
    assert not sweep_book(name, failure, folder).violations


def test_where_sqlite_has_no_memory_nothing_is_lost() -> None:
    """In a process of its own: SQLite must be shut down for that."""
    words = ["--jobs", "store small,redeem", "--faults", SqlFailure.MEMORY.value, "--floor", "4"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.nthcall", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout


def test_a_disk_that_never_syncs_is_found_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platter.Node, "sync", lambda _self: None)
    tally = sweep_stops(NAMED["store large"], folder, again=False)
    assert any("where {" in violation for violation in tally.violations)
