"""`farmer bench`: figures of a real farmer, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import call, environment
from tests.waiting import wait_until

SPACE = "300MB"


@pytest.mark.slow
def test_it_measures_and_leaves_nothing(tmp_path: Path) -> None:
    home, disk = tmp_path / "home", tmp_path / "disk"
    disk.mkdir()
    words = ("--dir", str(disk), "--space", SPACE, "--seconds", "0.2")
    told = call("farmer", home, "bench", *words, "--json", timeout_s=200)
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert document["schema"] == 1
    assert all(figure > 0 for figure in document["disk"].values())
    assert all(figure > 0 for figure in document["processor"].values())
    done = {(cell["what"], cell["size_bytes"], cell["at_once"]) for cell in document["cells"]}
    assert {what for what, _, _ in done} == {"store", "retrieve", "audit"}
    assert {(65536, 1), (65536, 16), (2 << 20, 16), (64 << 20, 1)} <= {one[1:] for one in done}
    assert all(cell["per_s"] > 0 and cell["processor_us"] >= 0 for cell in document["cells"])
    assert list(disk.iterdir()) == []
    assert not home.exists(), "no farmer was made by that"


@pytest.mark.slow
def test_it_says_in_plain_words_what_the_disk_allows(tmp_path: Path) -> None:
    words = ("--dir", str(tmp_path), "--space", SPACE, "--seconds", "0.1")
    told = call("farmer", tmp_path / "home", "bench", *words, timeout_s=200)
    assert told.returncode == 0, told.stderr
    assert "Your disk allows " in told.stdout
    assert "durable writes of 64 KiB a second" in told.stdout


@pytest.fixture
def hears_hang_ups() -> Iterator[None]:
    """Who began the tests (nohup) may not want to; what they begin would not hear them, either."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.usefixtures("hears_hang_ups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("late", [False, True], ids=["disk", "farmer"])
def test_who_ends_it_ends_its_farmer_and_finds_nothing(
    tmp_path: Path, number: signal.Signals, late: bool
) -> None:
    """While it is at the disk, and while renters are at work."""
    words = ("--dir", str(tmp_path), "--space", SPACE, "--seconds", "0.5")
    command = [sys.executable, "-m", "farmer.cli.owner", "--home", str(tmp_path / "home"), "bench"]
    waited_for = ".farmer-bench-*/" + ("renter1" if late else "disk")
    with subprocess.Popen([*command, *words], env=environment(), process_group=0) as process:
        wait_until(lambda: bool(list(tmp_path.glob(waited_for))), 60)
        runs = [
            json.loads(run.read_text()) for run in tmp_path.glob(".farmer-bench-*/home/run.json")
        ]
        # As a terminal does it.
        os.killpg(process.pid, number)
        process.wait(60)
    assert len(runs) == late
    wait_until(lambda: not list(tmp_path.iterdir()), 60)
    assert not [run for run in runs if Path(f"/proc/{run['pid']}").exists()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--space", "1MB"), "at least 300 MB are needed"),
        (("--space", "1000TB"), "as much again must be left"),
        (("--dir", "/nowhere/at/all"), "is no directory"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    dir_words = () if "--dir" in words else ("--dir", str(tmp_path))
    told = call("farmer", tmp_path / "home", "bench", *words, *dir_words)
    assert told.returncode != 0
    assert said in told.stderr
