"""
Renters in a process of their own who store, or delete, as fast as the farmer lets them.

Told on standard input, as JSON, what to do; says on standard output how many they did.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Final

from benchmarks.growth.asking import expect
from benchmarks.growth.errors import GrowthError
from benchmarks.growth.population import Population, shard_id
from farmer.protocol.opening import End
from farmer.protocol.questions import Delete, Deleted
from farmer.protocol.transfers import Accept, Store, Stored
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

STEP_S: Final = 0.05


class Crowding:
    """One connection for each renter of a population; each does its share of the shards."""

    def __init__(self, address: tuple[str, int], shards: Population, until: float) -> None:
        self._crowd = Crowd(address)
        self._shards = shards
        self._until = until
        self._working = 0
        self.done = 0

    def run(self, what: str) -> None:
        """Do it until all is done, or the time is over; raises `GrowthError`."""
        for renter in range(self._shards.renters):
            line = self._crowd.call(identity_of(renter))
            line.script = self._work(what, line, renter)
            self._working += 1
        while self._working:
            self._crowd.run(STEP_S)
            if self._crowd.losses:
                raise GrowthError(self._crowd.losses[0])

    def _work(self, what: str, line: Line, renter: int) -> Script:
        yield from greeting(line)
        ask = getattr(self, f"_{what}")
        for number in self._numbers_of(renter):
            if time.monotonic() > self._until:
                break
            yield from ask(line, self._shards.data(number))
            self.done += 1
        self._working -= 1

    def _numbers_of(self, renter: int) -> Iterator[int]:
        first = self._shards.first + renter
        return iter(range(first, self._shards.numbers.stop, self._shards.renters))

    @staticmethod
    def _store(line: Line, data: bytes) -> Script:
        line.say(Store(shard_id(data), len(data)))
        expect((yield EVENT), Accept)
        line.data(data)
        line.say(End())
        expect((yield EVENT), Stored)

    @staticmethod
    def _delete(line: Line, data: bytes) -> Script:
        line.say(Delete(shard_id(data), erase=False))
        expect((yield EVENT), Deleted)


def main() -> None:
    """Do what standard input says."""
    job = json.load(sys.stdin)
    host, port = job["address"]
    shards = Population.from_fields(job["shards"])
    crowding = Crowding((host, port), shards, time.monotonic() + job["seconds"])
    crowding.run(job["what"])
    sys.stdout.write(f"{crowding.done}\n")


if __name__ == "__main__":
    main()
