"""A campaign makes as many executions as were asked for, or says that it did not."""

from __future__ import annotations

import re

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import shares_of
from tests.fuzz.decoders import ALL, target_of
from tests.fuzz.runner import Counts


def row(name: str, executions: int, passed: int | None = None) -> Counts:
    return Counts(name, executions, passed=executions if passed is None else passed)


def verdict(*rows: Counts, floor: int) -> int:
    """Return the exit code where each decoder's share is what it had, but for rounding."""
    shares = {row.name: row.executions + 1 for row in rows}
    return campaign._verdict(list(rows), shares, floor, 1.0)


@pytest.mark.parametrize("executions", [1, 1999, 2_000_000, 10_000_000])
def test_shares_are_enough_together(executions: int) -> None:
    """None is rounded away, and none has more than one beside its part."""
    shares = shares_of(list(ALL), executions)
    assert executions <= sum(shares.values()) <= executions + len(ALL)
    whole = sum(target_of(name).executions for name in ALL)
    for name, share in shares.items():
        part = target_of(name).executions * executions / whole
        assert part <= share < part + 1


@pytest.mark.parametrize(("floor", "code"), [(2000, 0), (2001, 2)])
def test_a_campaign_that_is_one_short_has_failed(
    floor: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Although each of its decoders is within its own floor."""
    assert verdict(row("this", 1000), row("that", 1000), floor=floor) == code
    said = capsys.readouterr().out
    assert ("2000 executions in all, where 2001 is the floor" in said) is (code == 2)


def test_a_fault_is_worse_than_too_few() -> None:
    found = row("this", 5)
    found.failures["ValueError at here.py:1"] = "this.bin"
    assert verdict(found, floor=1000) == 1


def test_a_decoder_has_a_floor_of_its_own() -> None:
    """Many runs of others do not make up for it; nor do runs that stop at the door."""
    rows = [row("this", 100), row("that", 900)]
    assert campaign._verdict(rows, {"this": 200, "that": 800}, 1000, 1.0) == 2
    assert verdict(row("this", 100, passed=29), row("that", 900), floor=1000) == 2


def test_all_that_is_asked_for_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.campaign(["marks", "segment-header"], 1001, "suite", 2) == 0
    ran = re.search(r"^decoders 2 executions (\d+) ", capsys.readouterr().out, re.MULTILINE)
    assert ran is not None and int(ran[1]) >= 1001
