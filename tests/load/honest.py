"""An honest renter at a fixed rate: a request counts from when it was due, not when it went."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from multiprocessing.connection import Connection
from typing import Final

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import ShardId
from farmer.protocol.connection import DataReceived, Event
from farmer.protocol.opening import End
from farmer.protocol.questions import Ping, Pong
from farmer.protocol.transfers import Accept, Audit, Retrieve, Send, Store, Stored
from tests.fakes import shard_of
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

CONNECTIONS: Final = 8
SHARD_BYTES: Final = 32 * 1024
OPERATIONS: Final = ("ping", "store", "retrieve", "audit")


class Honest:
    """One renter, eight connections, an open loop."""

    def __init__(self, address: tuple[str, int], number: int, rate: float) -> None:
        self._crowd = Crowd(address)
        self._who = identity_of(number)
        self._rate = rate
        self._free: deque[Line] = deque()
        """Those that rest, the longest first: one that is never used is hung up on."""
        self._due: deque[tuple[float, str]] = deque()
        self._held: list[tuple[ShardId, int]] = []
        self._noise = random.Random(number)
        self.took_ms: dict[str, list[float]] = {name: [] for name in OPERATIONS}
        self.answers: Counter[str] = Counter()
        """What came instead of the right answers."""
        self.wrong = 0
        """Answers that were none, or not the right ones, and connections lost."""
        self._crowd.on_lost = self._lost
        for _ in range(CONNECTIONS):
            self._connect()
        self._crowd.run(1.0)

    def _connect(self) -> None:
        line = self._crowd.call(self._who)
        line.script = self._greet(line)

    def _greet(self, line: Line) -> Script:
        yield from greeting(line)
        self._rest(line)

    def _lost(self, _line: Line) -> None:
        self.wrong += 1
        self.answers["a connection was lost"] += 1
        self._free = deque(line for line in self._free if not line.over)
        self._connect()

    def run(self, seconds: float) -> None:
        """Ask at the fixed rate for a time, then wait for what is under way."""
        for one in self.took_ms.values():
            one.clear()
        began = time.monotonic()
        for number in range(int(seconds * self._rate)):
            due = began + number / self._rate
            self._crowd.run(max(0.0, due - time.monotonic()))
            self._due.append((due, OPERATIONS[number % 4] if self._held else "store"))
            self._dispatch()
        end = time.monotonic() + 30
        while (self._due or len(self._free) < CONNECTIONS) and time.monotonic() < end:
            self._crowd.run(0.05)
            self._dispatch()
        self.wrong += len(self._due)

    def _dispatch(self) -> None:
        while self._due and self._free:
            line = self._free.popleft()
            due, name = self._due.popleft()
            line.script = self._timed(line, due, name)
            line.script.send(None)

    def _rest(self, line: Line) -> None:
        self._free.append(line)

    def _timed(self, line: Line, due: float, name: str) -> Script:
        event = yield from getattr(self, f"_{name}")(line)
        self.took_ms[name].append((time.monotonic() - due) * 1000)
        if event is not None:
            self.wrong += 1
            self.answers[f"{name}: {event}"[:80]] += 1
        self._rest(line)

    def _ping(self, line: Line) -> Script:
        line.say(Ping(7))
        event = yield EVENT
        return None if isinstance(event, Pong) else event

    def _store(self, line: Line) -> Script:
        data = self._noise.randbytes(SHARD_BYTES)
        shard = shard_of(data)
        line.say(Store(shard, len(data)))
        event = yield EVENT
        if not isinstance(event, Accept):
            return event
        line.data(data)
        line.say(End())
        event = yield EVENT
        if not isinstance(event, Stored):
            return event
        self._held.append((shard, len(data)))
        return None

    def _retrieve(self, line: Line) -> Script:
        shard, size = self._noise.choice(self._held)
        line.say(Retrieve(shard, 0, size, proved=False))
        event = yield EVENT
        if not isinstance(event, Send):
            return event
        got, event = yield from _data()
        return None if isinstance(event, End) and got == size else event

    def _audit(self, line: Line) -> Script:
        shard, size = self._noise.choice(self._held)
        entry = AuditEntry(shard, size, 4)
        nonce = self._noise.randbytes(32)
        line.say(Audit(Challenge(nonce, AuditKind.SAMPLE, (entry,))))
        got, event = yield from _data()
        return None if isinstance(event, End) and got > 4 * 4096 else event


def _data() -> Script:
    got, event = 0, (yield EVENT)
    while isinstance(event, DataReceived):
        got += len(event.data)
        event = yield EVENT
    result: tuple[int, Event | None] = got, event
    return result


def honest_process(told: Connection, address: tuple[str, int], number: int, rate: float) -> None:
    """Do as the parent says: run for a time, and tell how long each request took."""
    renter = Honest(address, number, rate)
    while True:
        while not told.poll():
            renter._crowd.run(0.1)
        seconds = told.recv()
        if not seconds:
            return
        renter.run(seconds)
        for answer, times in renter.answers.most_common(5):
            print(f"{times} times: {answer}", flush=True)
        told.send((renter.took_ms, renter.wrong))


def percentile(values: list[float], part: float) -> float:
    """Return the value below which this part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
