"""Whatever a system lacks is said where somebody looks: skipped by word, in CI failed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.needs import lack, need

TESTS = Path(__file__).parent

SKIPS = re.compile(r"pytest\.(skip|importorskip|mark\.skip\w*)\(")

THEIR_OWN = {"needs.py", "e2e/apart.py", "e2e/test_apart.py"}
"""The helper itself, and where outcomes of another process come back."""


def test_what_is_lacking_skips_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs the moon"):
        lack("the moon")


def test_what_is_lacking_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs the moon, which CI must have"):
        need(None, "the moon")


def test_what_is_there_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    need("the sun", "the sun")


def test_nobody_skips_in_another_way() -> None:
    """Such a test would be passed over in CI, and nobody would see it."""
    skipping = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if SKIPS.search(path.read_text())
    }
    assert skipping == THEIR_OWN
