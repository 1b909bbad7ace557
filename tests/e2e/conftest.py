"""A running farmer and a joined renter for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Renter


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "home", tmp_path / "volume") as farmer:
        yield farmer.start()


@pytest.fixture
def renter(daemon: Daemon, tmp_path: Path) -> Renter:
    person = Renter(tmp_path / "renter")
    person.join(daemon.invite())
    return person
