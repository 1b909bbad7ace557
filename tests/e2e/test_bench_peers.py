"""`make bench-peers`: processes that are started and ended, and a short run of our own part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.peers import run
from benchmarks.peers.install import words
from benchmarks.peers.ours import Ours
from benchmarks.peers.peer import PeerError
from benchmarks.peers.run import Plan, Run
from benchmarks.peers.running import free_port, running
from benchmarks.rig import accounting

SERVER_WITH_A_CHILD = textwrap.dedent(
    """
    import signal, socket, subprocess, sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else signal.SIG_DFL)
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        listener.accept()
    """
)


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
def test_a_server_ends_with_its_children(tmp_path: Path, monkeypatch, manner: str) -> None:
    """Whether it listens to a polite word or not; and its children are counted while it lives."""
    monkeypatch.setattr("benchmarks.peers.running.STOP_S", 0.5)
    port = free_port()
    command = (sys.executable, "-c", SERVER_WITH_A_CHILD, str(port), manner)
    with running(command, tmp_path, port) as pid:
        family = accounting.tree(pid)
        assert len(family) == 2
        before = accounting.family_processor_s(pid)
        while accounting.family_processor_s(pid) == before:
            assert family[1] in accounting.alive_in_group(pid), "the child uses the processor"
        assert accounting.pss_bytes(pid) > 1_000_000
    assert not accounting.alive_in_group(pid)


def test_one_that_ends_at_once_is_told_of_with_its_last_words(tmp_path: Path) -> None:
    """The reason stands in the message."""
    command = (sys.executable, "-c", "raise SystemExit('no such setting')")
    with (
        pytest.raises(PeerError, match="ended at once: no such setting"),
        running(command, tmp_path, free_port()),
    ):
        pass


def test_an_installation_that_fails_says_why() -> None:
    """So does a program that is not there."""
    with pytest.raises(PeerError, match="pip failed: it said this"):
        words("pip", "sh", "-c", "echo it said this; exit 1")
    with pytest.raises(PeerError, match=r"pip: .*No such file"):
        words("pip", "/no/such/program")


@pytest.mark.slow
def test_our_own_cells_are_measured(tmp_path: Path, monkeypatch) -> None:
    """A farmer, its client in a process of its own, and nothing left behind."""
    monkeypatch.setattr(run, "OUT", tmp_path / "out")
    monkeypatch.setattr(run, "RESULT", tmp_path / "out" / "peers.json")
    work = tmp_path / "work"
    work.mkdir()
    told: list[str] = []
    one = Run(Plan((65536,), (1, 16), 1, 0.2, 50_000_000), work, told.append)
    one.measure(one.set_up([Ours(16)], tmp_path))
    document = json.loads((tmp_path / "out" / "peers.json").read_text())
    assert [(cell["what"], cell["at_once"]) for cell in document["cells"]] == [
        *(("store", 1), ("retrieve", 1)),
        *(("store", 16), ("retrieve", 16)),
    ], told
    assert all(cell["count"] > 0 and cell["pss_bytes"] > 0 for cell in document["cells"])
    assert not list(work.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--only", "farmer,apache"), "no such peer: apache"),
        (("--space", "1000TB"), "are free"),
        (("--space", "100MB"), "at least 134 MB"),
        (("--sizes", "64"), "has no unit"),
        (("--rounds", "0"), "at least 1"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    """Before anything is installed."""
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", "--dir", str(tmp_path), *given],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert told.returncode != 0
    assert said in told.stderr
