"""
The process that measures one cell: `python -m benchmarks.peers.load` with a job on its input.

Connections are made and a few operations done before the clock begins; then stores, then
retrieves of what was stored.  Hashing before a store and checking after a retrieve are inside
the clock.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import react

from benchmarks.harness import percentile
from benchmarks.peers.clients import Client, Held
from benchmarks.peers.connecting import connected
from benchmarks.peers.job import Job, Outcome
from benchmarks.rig.accounting import family_processor_s, pss_bytes

WARM_S: Final = 0.3
"""Each way: code is loaded, connections grow their windows, directories are made."""

UNIQUE_BYTES: Final = 16
"""Of each shard; the rest is the same noise, so that making it costs next to nothing."""


class Line:
    """Does one operation after the other over one connection."""

    def __init__(self, client: Client, noise: bytes) -> None:
        self._client = client
        self._source = io.BytesIO(noise)
        self._target = io.BytesIO()
        self._retrieved = 0
        self.held: list[Held] = []

    async def store(self) -> None:
        """Store a shard that nobody has seen."""
        self._source.seek(0)
        self._source.write(os.urandom(UNIQUE_BYTES))
        self._source.seek(0)
        self.held.append(await self._client.store(self._source))

    async def retrieve(self) -> None:
        """Retrieve the next of those that this line has stored."""
        self._target.seek(0)
        held = self.held[self._retrieved % len(self.held)]
        self._retrieved += 1
        await self._client.retrieve(held, self._target)


class Load:
    """All lines of a job together."""

    def __init__(self, job: Job, lines: list[Line]) -> None:
        self._job = job
        self._lines = lines
        self._left = job.bytes_max // job.size_bytes

    async def warm_up(self) -> None:
        """Do each kind of work a little, at least once a line, a tenth of what may be stored."""
        left, self._left = self._left, max(len(self._lines), self._left // 10)
        before = self._left
        await self._work(Line.store, WARM_S)
        self._left = left - (before - self._left)
        await self._work(Line.retrieve, WARM_S)

    async def measured(self, what: str, seconds: float) -> Outcome:
        """Work so long and return what came out."""
        pid = self._job.target.pid
        server_s, client_s, began = (
            family_processor_s(pid),
            time.process_time(),
            time.perf_counter(),
        )
        took = await self._work(getattr(Line, what), seconds)
        lasted = time.perf_counter() - began
        return Outcome(
            what=what,
            count=len(took),
            seconds=lasted,
            client_s=time.process_time() - client_s,
            server_s=family_processor_s(pid) - server_s,
            pss_bytes=pss_bytes(pid),
            median_ms=statistics.median(took) * 1000,
            p99_ms=percentile(took, 0.99) * 1000,
        )

    async def _work(self, step: Callable[[Line], Awaitable[None]], seconds: float) -> list[float]:
        until, took = time.perf_counter() + seconds, []

        async def work(line: Line) -> None:
            while True:
                if step is Line.store:
                    if not self._left:
                        return
                    self._left -= 1
                now = time.perf_counter()
                await step(line)
                ended = time.perf_counter()
                took.append(ended - now)
                if ended >= until:
                    return

        works = [Deferred.fromCoroutine(work(line)) for line in self._lines]
        try:
            await gatherResults(works, consumeErrors=True)
        except FirstError as first:
            first.subFailure.raiseException()
        return took


async def run(reactor: Any, job: Job) -> None:
    """Measure, and print the outcomes as JSON."""
    noise = os.urandom(job.size_bytes)
    async with connected(job.target, Path(job.folder), job.at_once, reactor) as clients:
        load = Load(job, [Line(client, noise) for client in clients])
        await load.warm_up()
        outcomes = [await load.measured(what, job.seconds) for what in ("store", "retrieve")]
    sys.stdout.write(json.dumps([asdict(outcome) for outcome in outcomes]) + "\n")


if __name__ == "__main__":
    given = Job.from_json(sys.stdin.read())
    react(lambda reactor: Deferred.fromCoroutine(run(reactor, given)))
