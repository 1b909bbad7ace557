"""
Renters at once, in processes of their own, and what a farmer does for them in a given time.

The processes ask as little of the processor as such a client can (`crowding.py`): what
they take, the farmer beside them cannot have.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.harness import spread
from benchmarks.rig.accounting import processor_s
from benchmarks.rig.crowding import Job
from benchmarks.rig.errors import MeasuringError
from tests.e2e.daemon import environment

WARM_S: Final = 1.5
"""Before it counts: a farmer looks once a second whether it is asked much (`one_core`)."""

BUSY: Final = 0.9
"""Of a core: whoever takes more of it can do no more."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was done in a round."""

    count: int
    seconds: float
    farmer_s: float
    """Processor time of the farmer, all its threads."""
    clients_s: tuple[float, ...]
    """Of each client's process."""

    @property
    def per_s(self) -> float:
        """How many were done in a second."""
        return self.count / self.seconds

    @property
    def farmer_us(self) -> float:
        """Processor time of the farmer for one."""
        return self.farmer_s / max(1, self.count) * 1e6

    @property
    def farmer_cores(self) -> float:
        """How much of a core the farmer took."""
        return self.farmer_s / self.seconds

    @property
    def client_cores(self) -> float:
        """How much of a core the busiest client took."""
        return max(self.clients_s) / self.seconds


class Clients:
    """A process of renters, connected."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._hear("connected")

    def begin(self, counts_from: float, until: float) -> None:
        """Let them begin at once; what they do from the first to the second moment counts."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps([counts_from, until])}\n")
        self.process.stdin.flush()

    def done(self) -> int:
        """Wait for their end; return how many they did; raises `MeasuringError`."""
        return int(self._hear())

    def _hear(self, wanted: str = "") -> str:
        assert self.process.stdout is not None
        # It never waits for ever itself.
        said = self.process.stdout.readline().strip()
        if not said or (wanted and said != wanted):
            raise MeasuringError("the renters failed; what they said of it stands above")
        return said


@contextmanager
def renters(job: Job) -> Iterator[Clients]:
    """Connect the renters of a job, from `with` to its end; raises `MeasuringError`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.rig.crowding"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(f"{job.to_json()}\n")
        process.stdin.flush()
        yield Clients(process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def measured(farmer_pid: int, job: Job, seconds: float, processes: int) -> Tally:
    """Have the renters of a job work, dealt out to some processes; raises `MeasuringError`."""
    with ExitStack() as stack:
        clients = [stack.enter_context(renters(part)) for part in dealt(job, processes)]
        pids = [farmer_pid, *(one.process.pid for one in clients)]
        counts_from = time.monotonic() + WARM_S
        until = counts_from + seconds
        for one in clients:
            one.begin(counts_from, until)
        before = _used_at(counts_from, pids)
        after = _used_at(until, pids)
        used_s = [late - early for early, late in zip(before, after, strict=True)]
        count = sum(one.done() for one in clients)
    return Tally(count, seconds, used_s[0], tuple(used_s[1:]))


def dealt(job: Job, processes: int) -> list[Job]:
    """Deal the renters of a job out to some processes."""
    parts = [job.renters[at::processes] for at in range(processes)]
    return [replace(job, renters=part) for part in parts if part]


def processes_usual() -> int:
    """Return how many client processes leave the farmer a core of its own."""
    return max(1, min(4, (os.cpu_count() or 2) - 1))


def rows(called: str, tallies: Sequence[Tally]) -> dict[str, object]:
    """Return figures for people: how many, what each cost the farmer, and who was busy."""
    return {
        f"{called}, a second": spread([one.per_s for one in tallies]),
        f"{called}, processor of the farmer for one, us": spread(
            [one.farmer_us for one in tallies]
        ),
        f"{called}, cores taken by the farmer": spread([one.farmer_cores for one in tallies]),
        f"{called}, cores taken by the busiest client": spread(
            [one.client_cores for one in tallies]
        ),
        f"{called}, what set the limit": " or ".join(sorted({limit(one) for one in tallies})),
    }


def limit(tally: Tally) -> str:
    """Say what let no more be done."""
    if tally.client_cores > BUSY:
        return "the client: a farmer alone does more than this"
    return "the farmer" if tally.farmer_cores > BUSY else "neither: both wait, for disk or core"


def _used_at(moment: float, pids: Sequence[int]) -> list[float]:
    time.sleep(max(0.0, moment - time.monotonic()))
    return [processor_s(pid) for pid in pids]
