"""
Fills volumes through the engine's real write path, in a process of its own, while no farmer runs.

Told on standard input, as JSON, what to do; says on standard output how many seconds it took.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.rig.holeless import WithoutHoles
from benchmarks.rig.population import Population, shard_id
from benchmarks.rig.storing_many import endless_contract, store_many
from farmer.identity.keys import Identity
from farmer.model.ids import NodeId
from farmer.storage import writer
from farmer.storage.directory import VolumeSettings
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import OsFiles
from farmer.storage.reclaim import Reclaimer
from tests.load.lines import identity_of

AT_ONCE: Final = 512
DELETED_OBSERVED_MS: Final = 1
"""The observed running time of our deletions; the trash never ends while it is measured."""


@dataclass(frozen=True, slots=True)
class Renters:
    """Node ids by number, made once."""

    known: dict[int, NodeId]

    def of(self, number: int) -> NodeId:
        """Return a renter's."""
        if number not in self.known:
            self.known[number] = identity_of(number).node_id
        return self.known[number]


class Filler:
    """Carries out the steps on an open engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._renters = Renters({})

    def store(self, shards: Population) -> None:
        """Store all of them, many at once; each is durable when this returns."""
        self._store(shards, shards.numbers)

    def erase(self, shards: Population) -> None:
        """Give all of them up for good."""
        self._delete(shards, shards.numbers, erase=True)

    def trash(self, shards: Population) -> None:
        """Put all of them into the trash."""
        self._delete(shards, shards.numbers, erase=False)

    def thin(self, shards: Population) -> None:
        """Give every second one up for good."""
        self._delete(shards, shards.numbers[1::2], erase=True)

    def turn_over(self, shards: Population) -> None:
        """Store each of them anew in random order, then tidy up as a farmer does hourly."""
        order = list(shards.numbers)
        random.Random(shards.count).shuffle(order)
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            self._delete(shards, some, erase=True)
            self._store(shards, some)
        now_ms = time.time_ns() // 1_000_000
        self._engine.sweep(now_ms, DELETED_OBSERVED_MS)

    def _store(self, shards: Population, numbers: Iterable[int]) -> None:
        uploads = (
            (endless_contract(self._renters.of(shards.owner(number))), shards.data(number))
            for number in numbers
        )
        store_many(self._engine, uploads, AT_ONCE)

    def _delete(self, shards: Population, numbers: Iterable[int], *, erase: bool) -> None:
        waiting: deque[Future[Any]] = deque()
        for number in numbers:
            renter = self._renters.of(shards.owner(number))
            shard = shard_id(shards.data(number))
            waiting.append(self._engine.delete(renter, shard, erase=erase))
            if len(waiting) >= AT_ONCE:
                waiting.popleft().result()
        for future in waiting:
            future.result()


def main() -> None:
    """Do what standard input says."""
    job = json.load(sys.stdin)
    if job["segment_bytes"]:
        # As on a volume of many terabytes, whose log has many segments.
        writer.segment_bytes = lambda _quota_bytes: job["segment_bytes"]
    if job["holeless"]:
        # Nothing is tidied up while it is filled: the farmer's sweep is to find all of it.
        Reclaimer.run = lambda _reclaimer, **_: 0  # type: ignore[method-assign]
    engine = Engine(
        [VolumeSettings(Path(path), quota_bytes) for path, quota_bytes in job["volumes"]],
        Identity.load(Path(job["home"]) / "identity").node_id,
        WithoutHoles() if job["holeless"] else OsFiles(),
        clock_ms=lambda: time.time_ns() // 1_000_000,
        observed_ms=lambda: DELETED_OBSERVED_MS,
        limits=EngineLimits(uploads_per_renter_max=2 * AT_ONCE),
    )
    filler = Filler(engine)
    began = time.monotonic()
    try:
        for what, fields in job["steps"]:
            getattr(filler, what)(Population.from_fields(fields))
    finally:
        engine.close()
    sys.stdout.write(f"{time.monotonic() - began:.2f}\n")


if __name__ == "__main__":
    main()
