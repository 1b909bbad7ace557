"""
Renters in a process of their own, who all do one thing as fast as the farmer lets them.

Told on standard input, a line of JSON, who they are and what they do; says `connected` on
standard output once all of them are.  A second line says from when to when (on the monotonic
clock, which all processes of a machine share) counts what they do; they begin at once, and say
at the end how many of it were done in that time.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from itertools import count, cycle
from typing import Any, Final, Self

from benchmarks.rig.answers import CONNECT_S, PROOF_BYTES_MIN, Asked, data_bytes, expect
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.population import Population, shard_id
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import ShardId
from farmer.protocol.opening import End
from farmer.protocol.questions import Delete, Deleted, Ping, Pong
from farmer.protocol.transfers import Accept, Audit, Retrieve, Send, Store, Stored
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

STEP_S: Final = 0.05
ANSWER_S: Final = 60.0
"""For the last answers, after the time is over."""

SAMPLES: Final = 1
HANDSHAKE: Final = "handshake"
"""The only work that begins without connections."""

KINDS: Final = ("ping", "audit", "store", "delete", "all", HANDSHAKE)


@dataclass(frozen=True, slots=True)
class Job:
    """Who does what."""

    address: tuple[str, int]
    what: str
    """One of `KINDS`; `all` is to store, retrieve and audit by turns."""
    shards: Population
    """What is stored, deleted or audited; it also says how many renters there are."""
    renters: tuple[int, ...]
    """Those of them that this process stands for, one connection each."""
    source: str = ""
    """An address of this machine to connect from; "": any."""

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` gave."""
        fields = json.loads(text)
        return cls(
            **fields
            | {
                "address": tuple(fields["address"]),
                "shards": Population.from_fields(fields["shards"]),
                "renters": tuple(fields["renters"]),
            }
        )


class Crowding:
    """One connection for each renter; each does its share of the shards, one after the other."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._crowd = Crowd(job.address)
        self._lines: dict[int, Line] = {}
        self._working = 0
        self._counts_from = self._until = 0.0
        self._random = random.Random(1)
        self._known: dict[int, tuple[ShardId, int]] = {}
        self.done = 0
        """What was done from the first to the second moment."""

    def connect(self) -> None:
        """Connect all of them; raises `MeasuringError`."""
        if self._job.what == HANDSHAKE:
            return
        for renter in self._job.renters:
            line = self._call(renter)
            line.script = self._greet(line)
            self._lines[renter] = line
            self._working += 1
        self._run(time.monotonic() + CONNECT_S)

    def work(self, counts_from: float, until: float) -> None:
        """Do it until all is done, or the time is over; raises `MeasuringError`."""
        self._counts_from, self._until = counts_from, until
        self._working = len(self._job.renters)
        for renter in self._job.renters:
            if self._job.what == HANDSHAKE:
                self._shake_hands(renter)
            else:
                line = self._lines[renter]
                script = line.script = self._work(line, renter)
                # One that has nothing to do is over at once.
                next(script, None)
        self._run(until + ANSWER_S)

    def _call(self, renter: int) -> Line:
        return self._crowd.call(identity_of(renter), self._job.source)

    def _run(self, until: float) -> None:
        while self._working:
            self._crowd.run(STEP_S)
            if self._crowd.losses:
                raise MeasuringError(f"a connection was lost: {self._crowd.losses[0]}")
            if time.monotonic() > until:
                raise MeasuringError(f"{self._working} renters have waited too long for an answer")

    def _greet(self, line: Line) -> Script:
        yield from greeting(line)
        self._working -= 1

    def _work(self, line: Line, renter: int) -> Script:
        ask = getattr(self, f"_{self._job.what}")
        for number in self._numbers_of(renter):
            if time.monotonic() > self._until:
                break
            yield from ask(line, number)
            self._count()
        self._working -= 1

    def _count(self) -> None:
        self.done += self._counts_from <= time.monotonic() < self._until

    def _numbers_of(self, renter: int) -> Iterator[int]:
        shards = self._job.shards
        own = range(shards.first + renter, shards.numbers.stop, shards.renters)
        if self._job.what == "ping":
            return count()
        return cycle(own) if self._job.what == "audit" else iter(own)

    def _shake_hands(self, renter: int) -> None:
        line = self._call(renter)
        line.script = self._hand_shaken(line, renter)

    def _hand_shaken(self, line: Line, renter: int) -> Script:
        # Only an answer says that the farmer, too, has come to the end of the handshake.
        yield from greeting(line)
        self._count()
        line.close()
        if time.monotonic() < self._until:
            self._shake_hands(renter)
        else:
            self._working -= 1

    @staticmethod
    def _ping(line: Line, number: int) -> Asked:
        line.say(Ping(number))
        expect((yield EVENT), Pong)

    def _store(self, line: Line, number: int) -> Asked:
        data = self._job.shards.data(number)
        line.say(Store(shard_id(data), len(data)))
        expect((yield EVENT), Accept)
        line.data(data)
        line.say(End())
        expect((yield EVENT), Stored)

    def _delete(self, line: Line, number: int) -> Asked:
        line.say(Delete(shard_id(self._job.shards.data(number)), erase=False))
        expect((yield EVENT), Deleted)

    def _retrieve(self, line: Line, number: int) -> Asked:
        shard, size_bytes = self._shard(number)
        line.say(Retrieve(shard, 0, size_bytes, proved=False))
        expect((yield EVENT), Send)
        got = yield from data_bytes()
        if got != size_bytes:
            raise MeasuringError(f"a retrieve gave {got} bytes instead of {size_bytes}")

    def _audit(self, line: Line, number: int) -> Asked:
        entry = AuditEntry(*self._shard(number), SAMPLES)
        line.say(Audit(Challenge(self._random.randbytes(32), AuditKind.SAMPLE, (entry,))))
        if (yield from data_bytes()) < PROOF_BYTES_MIN:
            raise MeasuringError("an audit was not answered by a proof")

    def _shard(self, number: int) -> tuple[ShardId, int]:
        """Return id and size; made once, for who asks should not be busy with hashing."""
        if number not in self._known:
            data = self._job.shards.data(number)
            self._known[number] = shard_id(data), len(data)
        return self._known[number]

    def _all(self, line: Line, number: int) -> Generator[float, Any, None]:
        yield from self._store(line, number)
        yield from self._retrieve(line, number)
        yield from self._audit(line, number)


def main() -> None:
    """Do what standard input says."""
    crowding = Crowding(Job.from_json(sys.stdin.readline()))
    crowding.connect()
    _say("connected")
    counts_from, until = json.loads(sys.stdin.readline())
    crowding.work(counts_from, until)
    _say(str(crowding.done))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
