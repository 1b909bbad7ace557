"""A farmer that runs on while another build of the program is put in the place of its own."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

import farmer
from tests.e2e.daemon import Daemon, Renter


@pytest.fixture
def replaced(tmp_path: Path) -> Iterator[Daemon]:
    """A farmer whose files are gone, and others there that nobody can import."""
    package = tmp_path / "site" / "farmer"
    shutil.copytree(farmer.__path__[0], package)
    (package / "only_here.py").write_text("")
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        # Where it is installed to be edited, a late import would find it all the same.
        daemon.start("env", "-C", str(package.parent), "PYTHONPROFILEIMPORTTIME=1")
        shutil.rmtree(package)
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('of another build')\n")
        yield daemon


@pytest.mark.slow
def test_it_serves_renters_owner_and_page_as_before(replaced: Daemon, tmp_path: Path) -> None:
    """It has read all of itself by then; and its status says that it is not what lies there."""
    started = replaced.logs.read_text()
    assert "import time:" in started, "else no late import would be seen"
    renter = Renter(tmp_path / "renter")
    renter.join(replaced.invite())
    files = [tmp_path / "small", tmp_path / "large"]
    for file, size in zip(files, (70_000, 3_000_000), strict=True):
        file.write_bytes(b"x" * size)
    small, large = (row["shard"] for row in renter.store(*files))
    for words in (
        f"retrieve {large} -o {tmp_path / 'back'}",
        f"audit --full {large}",
        f"delete {small}",
        f"undelete {small}",
        f"delete --erase {small}",
        f"repair {large}",
        "list",
        "contract",
    ):
        asked = renter.call(*words.split())
        assert asked.returncode == 0, (words, asked.stderr)
    page = replaced.status()["page"]
    for path in ("/", "/status.json", "/metrics", "/style.css", "/healthz"):
        with urlopen(f"http://{page}{path}") as answer:
            assert answer.status == 200, path
    assert replaced.process is not None
    replaced.process.send_signal(signal.SIGHUP)
    for words in (
        "invite list",
        "contract list",
        "contract recover",
        "volume check",
        "scrub now",
        "clock confirm",
        f"volume move {replaced.volume} {tmp_path / 'moved'}",
        "volume list",
        "status",
    ):
        asked = replaced.call(*words.split())
        assert asked.returncode == 0, (words, asked.stderr)
    assert ": if you have upgraded, restart the farmer\n" in asked.stdout
    assert replaced.stop() == 0
    logs = replaced.logs.read_text().removeprefix(started)
    assert not [line for line in logs.splitlines() if "import time:" in line and "farmer" in line]
    assert "of another build" not in logs
    assert "Traceback" not in logs
