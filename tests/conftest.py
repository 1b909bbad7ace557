"""Hypothesis profiles, and tests that need something of the system."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from xdist.scheduler import LoadScopeScheduling

from tests.needs import is_in_ci, need

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# For planted bugs: that a test fails is enough, nobody looks for the smallest example.
settings.register_profile("planted", deadline=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile("ci" if is_in_ci() else "dev")

HERE = Path(__file__).parent
ALONE = "alone"
UNTRACED = frozenset(
    {"benchmarks", "budgets", "cli", "client", "config", "e2e", "hostile", "load", "monitor"}
    | {"node", "process", "running"}
)
"""Folders whose tests are about other parts than those with a floor in `.ci/run`."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests go to one process, but for the planted bugs, each of which is a whole run."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return nodeid if file.endswith("test_planted.py") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """See xdist; only asked where several processes run (`-n`)."""
    return ByFile(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """In CI only tests of what has a floor there are traced: that takes them twice the time."""
    if is_in_ci() and UNTRACED.intersection(item.path.relative_to(HERE).parts[:1]):
        item.add_marker("no_cover")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out, unread, the files without a test that runs alone, if only such are wanted."""
    wanted = str(config.option.markexpr).split()
    if wanted[:1] != [ALONE] or "or" in wanted or collection_path.suffix != ".py":
        return None
    return None if has_alone_mark(collection_path) else True


def has_alone_mark(file: Path) -> bool:
    return f"mark.{ALONE}" in file.read_text()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that is marked otherwise than in its own file would run neither alone nor beside."""
    files = {item.path for item in items if item.get_closest_marker(ALONE)}
    unseen = [str(file) for file in files if not has_alone_mark(file)]
    if unseen:
        raise pytest.UsageError(f"mark.{ALONE} has to stand in {', '.join(unseen)}")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where the inode of whatever is made durable from now on is noted, in order."""
    inodes: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        inodes.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    return inodes


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that lacks something, but never in CI."""
    for mark in item.iter_markers("tool"):
        need(shutil.which(mark.args[0]), f"the program {mark.args[0]!r}")
    for mark in item.iter_markers("needs"):
        need(*mark.args)
