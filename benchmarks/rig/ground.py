"""A real farmer that is filled while it does not run, and measured while it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.rig.accounting import memory_bytes, processor_s
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.population import Population
from benchmarks.rig.storing_many import endless_contract
from farmer.model.contract import Contract, ContractStage
from farmer.storage import book_rows
from farmer.storage.lifetime import HeldContract
from tests.e2e.daemon import environment
from tests.load.farm import Farm
from tests.load.lines import identity_of

SPACE_BYTES: Final = 1 << 40
"""Of every contract: never the limit."""

FILL_S: Final = 7200.0
LOOK_S: Final = 5.5
"""Longer than the five seconds between two looks of a farmer at itself."""

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """The farmer while it runs."""

    address: tuple[str, int]
    page: str
    pid: int
    start_s: float
    """From the command to the line that says `ready`."""

    def cpu_s(self) -> float:
        """Return the processor time of all its threads so far."""
        return processor_s(self.pid)

    def idle_ms_per_s(self) -> float:
        """Return how much processor time it takes in a second in which nobody asks anything."""
        began, used_s = time.monotonic(), self.cpu_s()
        time.sleep(LOOK_S)
        return (self.cpu_s() - used_s) / (time.monotonic() - began) * 1000

    def memory_mib(self) -> float:
        """Return what it holds in memory now (RSS)."""
        return memory_bytes(self.pid, "VmRSS") / MIB

    def metrics(self) -> str:
        """Return its page of metrics."""
        with urllib.request.urlopen(f"http://{self.page}/metrics", timeout=30) as answer:
            return str(answer.read().decode())


class Ground:
    """
    One farmer with one or more volumes, in a folder that somebody else removes.

    Raises:
        MeasuringError: the filling failed, or another volume could not be added.

    """

    def __init__(self, folder: Path, quota_bytes: int, sessions: int = 64, volumes: int = 1):
        self._farm = Farm(folder, sessions, f"{quota_bytes}B")
        self._quota_bytes = quota_bytes
        self.home = folder / "home"
        self.volumes = [folder / "volume"]
        for number in range(1, volumes):
            self._add(folder / f"volume{number}")

    def admit(self, renters: range) -> None:
        """Make a contract for each of these renters; while it does not run."""
        self._farm.admit(renters, SPACE_BYTES)

    def expire(self, renter: int) -> None:
        """Enter a contract that is gone, whose shards are still there."""
        with self._farm._book() as book, book._changing() as rows:
            node = identity_of(renter).node_id
            gone = _gone_contract(endless_contract(node), book.farmer_key)
            held = HeldContract(gone, ContractStage.GONE, 0)
            book_rows.put_contract(rows, held)

    def fill(
        self,
        *steps: tuple[str, Population],
        segment_bytes: int = 0,
        volumes: Sequence[Path] | None = None,
        holeless: bool = False,
    ) -> float:
        """Have steps of `filling.Filler` done in a process of their own; return the seconds."""
        job = {
            "home": str(self.home),
            "volumes": [(str(path), self._quota_bytes) for path in volumes or self.volumes],
            "steps": [(what, shards.to_fields()) for what, shards in steps],
            "segment_bytes": segment_bytes,
            "holeless": holeless,
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.rig.filling"],
            input=json.dumps(job),
            check=False,
            capture_output=True,
            text=True,
            timeout=FILL_S,
            env=environment(),
        )
        if done.returncode:
            raise MeasuringError(f"the filling failed: {done.stderr[-1000:].strip()}")
        # Else the disk still writes the last of it while the first points are measured.
        os.sync()
        return float(done.stdout)

    @contextmanager
    def running(self, *prefix: str) -> Iterator[Running]:
        """Run it within the block, and stop it in order; it scrubs only if it is told to."""
        daemon = self._farm.daemon
        began = time.monotonic()
        daemon.start(*prefix)
        start_s = time.monotonic() - began
        # Else a new volume is read at once, and that would count as the price of what is asked.
        self.call("scrub", "pause")
        status = daemon.status()
        host, _, port = status["listen"][0].rpartition(":")
        yield Running((host, int(port)), status["page"], self._farm.pid, start_s)
        daemon.stop()

    def status(self) -> dict[str, Any]:
        """Return `farmer status --json` of the running farmer."""
        return self._farm.daemon.status()

    def call(self, *words: str) -> None:
        """Run a verb of `farmer`; raises `MeasuringError`."""
        done = self._farm.daemon.call(*words)
        if done.returncode:
            raise MeasuringError(f"farmer {' '.join(words)}: {done.stderr.strip()}")

    def index_bytes(self) -> int:
        """Return the size of all indexes."""
        return sum(
            path.stat().st_size for root in self.volumes for path in root.glob("index.sqlite*")
        )

    def sealed(self) -> list[Path]:
        """Return the segments of all logs that are not appended to."""
        logs = [sorted((root / "log").iterdir()) for root in self.volumes]
        return [path for log in logs for path in log[:-1]]

    def _add(self, path: Path) -> None:
        self.call("volume", "add", f"{path}={self._quota_bytes}B")
        self.volumes.append(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._farm.__exit__(kind, error, traceback)


def _gone_contract(contract: Contract, farmer_key: bytes) -> Contract:
    return replace(contract, farmer_key=farmer_key, space_bytes=SPACE_BYTES, until_ms=1)
