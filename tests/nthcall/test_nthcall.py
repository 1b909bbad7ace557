"""A small part of the sweep (`python -m tests.nthcall` does all of it), and that it can fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nthcall import disk
from tests.nthcall.disk import Failure
from tests.nthcall.jobs import JOBS, Job
from tests.nthcall.sweep import sweep_errors, sweep_stops, workshop

NAMED = {job.name: job for job in JOBS}


@pytest.fixture
def folder() -> Iterator[Path]:
    with workshop() as folder:
        yield folder


@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("name", ["store small", "erase"])
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


def test_a_disk_that_never_syncs_is_found_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.Node, "sync", lambda _self: None)
    tally = sweep_stops(NAMED["store large"], folder, again=False)
    assert any("where {" in violation for violation in tally.violations)
