"""Fixtures of the engine's tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmer.storage import syscalls
from tests.storage.bench import Farm

EXT4 = 0xEF53


@pytest.fixture(autouse=True, scope="package")
def holes_are_made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    Have holes made wherever the temporary files are, also on btrfs or a container's overlay.

    Tests look at what a file takes, which shrinks there all the same; `test_holes` asks disks
    that are mounted for it.
    """
    with tempfile.TemporaryFile(dir=tmp_path_factory.getbasetemp()) as file:
        device = os.fstat(file.fileno()).st_dev
    really = syscalls.filesystem_number

    def number(fd: int) -> int:
        return EXT4 if os.fstat(fd).st_dev == device else really(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(syscalls, "filesystem_number", number)
        yield


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    yield farm
    farm.engine.close()
