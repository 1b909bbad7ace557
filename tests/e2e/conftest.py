"""For the tests of this folder: a running farmer, a joined renter, and processes apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import recording
from tests.e2e.apart import stand_ins
from tests.e2e.daemon import Daemon, Renter
from tests.e2e.sick_disks import SharedDisk


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "apart: the module's tests run in another process")


@pytest.hookimpl(trylast=True)  # after those that were not selected are gone
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.has_plugin(recording.__name__):
        items[:] = stand_ins(items, config.rootpath)


@pytest.fixture(autouse=True)
def reactor_not_taken(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail who starts the client's reactor thread in a process that has other tests."""
    yield
    if not pytestconfig.pluginmanager.has_plugin(recording.__name__):
        names = [thread.name for thread in threading.enumerate()]
        assert "renter reactor" not in names, "this module needs pytestmark = pytest.mark.apart"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "home", tmp_path / "volume") as farmer:
        yield farmer.start()


@pytest.fixture
def renter(daemon: Daemon, tmp_path: Path) -> Renter:
    person = Renter(tmp_path / "renter")
    person.join(daemon.invite())
    return person


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SharedDisk]:
    """A disk that can hang, tire, die, or lose sectors."""
    made = SharedDisk(tmp_path)
    yield made
    made.end()
