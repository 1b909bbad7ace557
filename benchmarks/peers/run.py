"""
Rounds: in each, every peer does every cell, in an order that turns.

For each cell a peer is started anew with an empty directory, and is the only one that runs; no
peer's past weighs on another, nor on itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from benchmarks.harness import OUT, machine
from benchmarks.peers.job import Job, Target
from benchmarks.peers.peer import Peer, PeerError
from benchmarks.rig.level import level, supply

T = TypeVar("T")

ALONE_BYTES: Final = 16 * 1024**2
"""Shards larger than this are stored one at a time: two of them fill any pipe."""

CLIENT_S: Final = 180.0
"""For a client beyond the seconds it measures; one that takes longer hangs."""

SAID_BYTES_MAX: Final = 400
RESULT: Final = OUT / "peers.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    sizes: tuple[int, ...]
    at_once: tuple[int, ...]
    rounds: int
    seconds: float
    """Of stores in a cell, and as many of retrieves."""
    bytes_max: int
    """Stored in a cell."""

    @property
    def space_bytes_min(self) -> int:
        """So much is stored to warm up each line, and once more to measure it."""
        return 2 * max(size * number for size, number in self.works())

    def works(self) -> list[tuple[int, int]]:
        """Return size and number at once of each cell."""
        return [
            (size, number)
            for size in self.sizes
            for number in self.at_once
            if number == 1 or size <= ALONE_BYTES
        ]


def turned(ones: Sequence[T], turn: int) -> list[T]:
    """Return all of them, beginning with another one each turn."""
    at = turn % len(ones)
    return [*ones[at:], *ones[:at]]


class Run:
    """One run over all peers; the document grows with it and is written after each round."""

    def __init__(self, plan: Plan, folder: Path, told: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._told = told
        self._began = {"date": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[0]}
        self._peers: list[dict[str, Any]] = []
        self._cells: list[dict[str, Any]] = []

    def set_up(self, peers: Sequence[Peer], cache: Path) -> list[Peer]:
        """Return those that could be installed; the others are told of."""
        ready = []
        for peer in peers:
            entry: dict[str, Any] = asdict(peer.traits) | {"version": "", "left_out": ""}
            self._peers.append(entry)
            try:
                entry["version"] = peer.set_up(cache)
                ready.append(peer)
            except PeerError as error:
                self._leave_out(peer, str(error))
        return ready

    def measure(self, peers: Sequence[Peer]) -> None:
        """Run all rounds; a peer that fails is left out of those that follow."""
        left = list(peers)
        for number in range(self._plan.rounds):
            for turn, work in enumerate(self._plan.works(), number):
                for peer in turned(left, turn) if left else []:
                    try:
                        self._cell(peer, number, work)
                    except PeerError as error:
                        self._leave_out(peer, str(error))
                        left.remove(peer)
            self._write()

    def _cell(self, peer: Peer, number: int, work: tuple[int, int]) -> None:
        size_bytes, at_once = work
        self._told(f"round {number + 1}: {peer.traits.name}, {size_bytes >> 10} KiB x{at_once}")
        level()
        supply(self._folder, self._plan.bytes_max)
        with (
            TemporaryDirectory(dir=self._folder) as server,
            TemporaryDirectory(dir=self._folder) as client,
            peer.serving(Path(server)) as target,
        ):
            outcomes = _measured(self._job(target, client, work))
        where = {"peer": peer.traits.name, "round": number}
        where |= {"size_bytes": size_bytes, "at_once": at_once}
        self._cells += [where | outcome for outcome in outcomes]

    def _job(self, target: Target, folder: str, work: tuple[int, int]) -> Job:
        return Job(target, folder, *work, self._plan.seconds, self._plan.bytes_max)

    def _leave_out(self, peer: Peer, reason: str) -> None:
        self._told(f"{peer.traits.name} is left out: {reason}")
        for entry in self._peers:
            if entry["name"] == peer.traits.name:
                entry["left_out"] = reason

    def _write(self) -> None:
        document = {
            "machine": machine(),
            **self._began,
            "plan": asdict(self._plan),
            "peers": self._peers,
            "cells": self._cells,
        }
        OUT.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(document, indent=1) + "\n")


def _measured(job: Job) -> list[dict[str, Any]]:
    """Have a process of its own measure; raises `PeerError`."""
    try:
        told = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers.load"],
            check=False,
            input=job.to_json(),
            capture_output=True,
            text=True,
            timeout=CLIENT_S + 4 * job.seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError("its client hangs") from error
    if told.returncode:
        raise PeerError(f"its client failed: {told.stderr.strip()[-SAID_BYTES_MAX:]}")
    outcomes: list[dict[str, Any]] = json.loads(told.stdout)
    return outcomes
