"""A campaign that is broken off goes on, and comes to the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.simulation import __main__ as campaign
from tests.simulation.journal import Campaign, ForeignJournalError, Journal, Progress

OPERATIONS = "12"


def last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *asked: str
) -> str:
    """Run a campaign of very short seeds and return what it came to."""
    words = ["simulation", "--ops", OPERATIONS, "--jobs", "1", *asked]
    monkeypatch.setattr(sys, "argv", words)
    assert campaign.main() == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_two_pieces_come_to_what_one_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "long.journal"
    whole = last_line(monkeypatch, capsys, "--seeds", "4")
    first = last_line(monkeypatch, capsys, "--seeds", "3", "--journal", str(journal))
    assert first.startswith("seeds 3 ops 36 ")
    assert last_line(monkeypatch, capsys, "--seeds", "4", "--journal", str(journal)) == whole
    # Nothing is left to be done, and nothing is counted twice.
    assert last_line(monkeypatch, capsys, "--seeds", "4", "--journal", str(journal)) == whole


@pytest.mark.parametrize(
    "other", [Campaign(2, 400, "code"), Campaign(1, 300, "code"), Campaign(1, 400, "changed")]
)
def test_a_journal_of_something_else_is_not_added_to(tmp_path: Path, other: Campaign) -> None:
    path = tmp_path / "journal"
    Journal(path, Campaign(1, 400, "code")).keep(Progress(101))
    assert Journal(path, Campaign(1, 400, "code")).read().next_seed == 101
    with pytest.raises(ForeignJournalError, match="remove it"):
        Journal(path, other).read()


def test_a_foreign_journal_is_a_sentence_for_who_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal"
    Journal(path, Campaign(1, 400, "code")).keep(Progress(101))
    monkeypatch.setattr(sys, "argv", ["simulation", "--journal", str(path)])
    assert campaign.main() == 2
    assert "remove it" in capsys.readouterr().err
