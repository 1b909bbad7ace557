"""The figures of the process are the same whether or not /proc shows more than processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from farmer.monitor.own_process import tell_of_process
from tests.odd_name import named_oddly


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """What /proc shows where it shows processes alone."""
    (tmp_path / "self").symlink_to("/proc/self")
    return tmp_path


def test_it_says_what_prometheus_client_says_where_it_can(bare: Path) -> None:
    """Each family by the same name, kind and help, and nearly the same value."""
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    ProcessCollector(registry=theirs)
    tell_of_process(ours, bare)
    expected = {family.name: family for family in theirs.collect()}
    found = {family.name: family for family in ours.collect()}
    assert expected.keys() == found.keys() != set()
    for name, family in found.items():
        assert (family.type, family.documentation) == (
            expected[name].type,
            expected[name].documentation,
        )
        (sample,), (theirs_sample,) = family.samples, expected[name].samples
        assert (sample.name, sample.labels) == (theirs_sample.name, theirs_sample.labels)
        assert sample.value == pytest.approx(theirs_sample.value, rel=0.1, abs=1.0)


def test_it_says_so_of_a_process_whose_name_is_no_text(bare: Path) -> None:
    registry = CollectorRegistry()
    with named_oddly():
        tell_of_process(registry, bare)
    assert registry.get_sample_value("process_start_time_seconds") > 0


def test_nothing_is_said_twice() -> None:
    """Where prometheus_client says it, we do not."""
    registry = CollectorRegistry()
    tell_of_process(registry)
    assert list(registry.collect()) == []


def test_nothing_is_said_where_there_is_no_proc(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    tell_of_process(registry, tmp_path)
    assert list(registry.collect()) == []
