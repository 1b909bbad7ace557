"""Renters that ask one thing after the other, and how long the farmer takes, over TLS."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import count
from typing import Final

from benchmarks.growth.points import Round
from benchmarks.rig.answers import CONNECT_S, PROOF_BYTES_MIN, Asked, data_bytes, expect
from benchmarks.rig.errors import MeasuringError
from benchmarks.rig.ground import Running
from benchmarks.rig.population import Population, shard_id
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import ShardId
from farmer.protocol.limits import DATA_BYTES_SENT
from farmer.protocol.messages import Message
from farmer.protocol.opening import End
from farmer.protocol.questions import Delete, Deleted, Ping, Pong
from farmer.protocol.transfers import Accept, Audit, Retrieve, Send, Store, Stored
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

AT_ONCE: Final = 48
"""Handshakes under way; a farmer turns strangers away beyond some number."""

CONNECTS_PER_S: Final = 20
"""Slower than this, and connecting is given up."""

_NEW: Final = count(1 << 64)
"""Numbers of shards that nobody stored before."""


class Asker:
    """
    Some connections, used in turn, one at a time; others may stay idle.

    What it stores it erases again in the same round, so that a round changes nothing.
    """

    def __init__(self, farmer: Running, held: Population, new_bytes: int, samples: int = 4):
        self._farmer = farmer
        self._crowd = Crowd(farmer.address)
        self._held = held
        self._new = Population(0, size_bytes=new_bytes)
        self._samples = samples
        self._lines: list[Line] = []
        self._of: dict[int, Line] = {}
        """One connection of each renter, by the renter's number."""
        self._greeted = 0
        self._random = random.Random(1)
        self._took_s: list[float] = []
        self._asked_s = 0.0
        self._done = False
        self._tour: Script | None = None
        self._stored: list[tuple[Line, int]] = []
        """What this round stored, and over which connection."""

    def connect(self, renters: Sequence[int]) -> None:
        """Connect these; returns when all were answered."""
        first, wanted = len(self._lines), len(self._lines) + len(renters)
        deadline = time.monotonic() + CONNECT_S + len(renters) / CONNECTS_PER_S
        while self._greeted < wanted:
            while len(self._lines) < wanted and len(self._lines) - self._greeted < AT_ONCE:
                renter = renters[len(self._lines) - first]
                line = self._crowd.call(identity_of(renter))
                line.script = self._greet(line)
                self._lines.append(line)
                self._of[renter] = line
            self._crowd.run(0.005)
            self._check()
            if time.monotonic() > deadline:
                raise MeasuringError(f"only {self._greeted} of {wanted} connections were answered")

    def use(self, lines: int) -> None:
        """Ask over the first so many connections from now on; the others stay idle."""
        self._lines = self._lines[:lines]
        self._of = {renter: line for renter, line in self._of.items() if line in self._lines}

    def round(self, operation: str, seconds: float, count_max: int) -> Round:
        """Do one kind of operation for a time, at least once and at most so many times."""
        self._took_s, self._done = [], False
        used_s = self._farmer.cpu_s()
        self._tour = self._touring(operation, time.monotonic() + seconds, count_max)
        self._tour.send(None)
        deadline = time.monotonic() + seconds + 120
        while not self._done:
            self._crowd.run(0.02)
            self._check()
            if time.monotonic() > deadline:
                raise MeasuringError(f"a {operation} was not answered within two minutes")
        return Round.of(self._took_s, self._farmer.cpu_s() - used_s)

    def close(self) -> None:
        """Hang up, all of them."""
        for line in list(self._crowd.lines.values()):
            line.close()

    def _check(self) -> None:
        if self._crowd.losses:
            raise MeasuringError(f"a connection was lost: {self._crowd.losses[0]}")

    def _greet(self, line: Line) -> Script:
        yield from greeting(line)
        line.say(Ping(1))
        event = yield EVENT
        expect(event, Pong)
        self._greeted += 1

    def _touring(self, operation: str, until: float, count_max: int) -> Script:
        """Ask over one connection after the other: this script takes each of them over."""
        ask = getattr(self, f"_{operation}")
        for turn in range(count_max):
            if not (yield from ask(turn)):
                break
            self._took_s.append(time.monotonic() - self._asked_s)
            if time.monotonic() > until:
                break
        self._done = True

    def _say_on(self, line: Line, message: Message) -> None:
        """Ask something: time counts from here, not from the hashing before it."""
        line.script = self._tour
        self._asked_s = time.monotonic()
        line.say(message)

    def _store(self, turn: int) -> Asked:
        line = self._lines[turn % len(self._lines)]
        number = next(_NEW)
        data = self._new.data(number)
        self._say_on(line, Store(shard_id(data), len(data)))
        expect((yield EVENT), Accept)
        for start in range(0, len(data), DATA_BYTES_SENT):
            line.data(data[start : start + DATA_BYTES_SENT])
        line.say(End())
        expect((yield EVENT), Stored)
        self._stored.append((line, number))
        return True

    def _erase(self, _turn: int) -> Asked:
        if not self._stored:
            return False
        line, number = self._stored.pop()
        self._say_on(line, Delete(shard_id(self._new.data(number)), erase=True))
        expect((yield EVENT), Deleted)
        return True

    def _retrieve(self, _turn: int) -> Asked:
        line, shard, size_bytes = self._any()
        self._say_on(line, Retrieve(shard, 0, size_bytes, proved=False))
        expect((yield EVENT), Send)
        got = yield from data_bytes()
        if got != size_bytes:
            raise MeasuringError(f"a retrieve gave {got} bytes instead of {size_bytes}")
        return True

    def _audit(self, _turn: int) -> Asked:
        line, shard, size_bytes = self._any()
        entry = AuditEntry(shard, size_bytes, self._samples)
        challenge = Challenge(self._random.randbytes(32), AuditKind.SAMPLE, (entry,))
        self._say_on(line, Audit(challenge))
        got = yield from data_bytes()
        if got < PROOF_BYTES_MIN:
            raise MeasuringError("an audit was not answered by a proof")
        return True

    def _any(self) -> tuple[Line, ShardId, int]:
        """Return a shard of anybody who is connected, and the connection."""
        while True:
            number = self._random.choice(self._held.numbers)
            line = self._of.get(self._held.owner(number))
            if line is not None:
                data = self._held.data(number)
                return line, shard_id(data), len(data)
