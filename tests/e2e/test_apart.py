"""Tests that run in another process have the same outcome here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.apart import Elsewhere

ROOT = Path(__file__).parents[2]

MODULE = """
import os, pytest

def test_good():
    pass

def test_bad():
    print("what it printed")
    assert 1 == 2

@pytest.fixture
def untidy():
    yield
    assert 3 == 4

def test_bad_at_its_end(untidy):
    pass

@pytest.mark.skip(reason="the moon is full")
def test_skipped():
    pass

def test_crash():
    os._exit(1)

def test_never_run():
    pass
"""


def test_outcomes_come_back_and_what_never_ran_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "test_it.py").write_text(MODULE)
    elsewhere = Elsewhere(tmp_path)
    names = ("good", "bad", "bad_at_its_end", "skipped", "crash", "never_run")
    for name in names:
        elsewhere.add(f"test_it.py::test_{name}")

    rows = {name: elsewhere.rows(f"test_it.py::test_{name}") for name in names}

    assert {name: [row["outcome"] for row in of_one] for name, of_one in rows.items()} == {
        "good": ["passed"],
        "bad": ["failed"],
        "bad_at_its_end": ["passed", "failed"],
        "skipped": ["skipped"],
        "crash": ["failed"],
        "never_run": ["failed"],
    }
    assert "assert 1 == 2" in rows["bad"][0]["text"]
    assert "what it printed" in rows["bad"][0]["text"]
    assert "the moon is full" in rows["skipped"][0]["text"]
