"""The campaigns in small; `python -m tests.crash` runs them at length."""

from __future__ import annotations

from itertools import chain, repeat
from pathlib import Path

import pytest

from farmer.storage.files import OsFiles
from tests.crash import killing
from tests.crash.belief import Belief, Held, Item


def test_an_engine_killed_at_random_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """Twelve kills in sequence: nothing acknowledged is lost, nothing given up comes back."""
    line, wrong = killing.campaign(tmp_path, 12, seed=3)
    assert not wrong, "\n".join([line, *wrong])


def test_belief_is_what_was_acknowledged_and_what_was_begun() -> None:
    """An operation of which nothing was heard leaves two states possible."""
    item = Item(1, 2, 3)
    belief = Belief()
    belief.hear_all([f"begin store {item}", f"done store {item}", f"begin delete {item}"])
    assert belief.possible[item] == {Held.LIVE, Held.TRASH}
    belief.hear(f"done delete {item}")
    assert belief.possible[item] == {Held.TRASH}


def test_files_that_only_pretend_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that acknowledges what it never wrote is found out by the campaign."""
    real = OsFiles.pwritev
    dropped = chain([False] * 3, repeat(True))

    def forgetful(self, fd, buffers, offset):  # type: ignore[no-untyped-def]
        if not next(dropped):
            real(self, fd, buffers, offset)

    monkeypatch.setattr(OsFiles, "pwritev", forgetful)
    line, wrong = killing.campaign(tmp_path, 4, seed=3)
    assert wrong, line
