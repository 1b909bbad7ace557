from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage_contracts.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "home"
    folder.mkdir()
    made = World(folder)
    yield made
    made.close()
