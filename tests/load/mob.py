"""The slow and silent peers of the hostile run, in a process of their own."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

from farmer.model.ids import ShardId
from farmer.protocol.opening import End
from farmer.protocol.questions import List, Ping
from farmer.protocol.transfers import Accept, Retrieve, Store, Stored
from tests.fakes import shard_of
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

STANDS_BACK: Final = 19
"""How nice their process is: real ones have processors of their own, and take none of ours."""
ADDRESSES: Final = 500
BACK_S: Final = 0.5
LARGE_BYTES: Final = 1 << 20
LARGE_SHARD: Final = shard_of(bytes(LARGE_BYTES))


class Mob:
    """All hostile peers of the run; each comes back when it is thrown out."""

    def __init__(self, address: tuple[str, int], peers: int) -> None:
        self.crowd = Crowd(address)
        self.crowd.on_lost = self._again
        self.kinds: Counter[str] = Counter()
        self.came_back = 0
        self._numbers: dict[Line, int] = {}
        self._waiting: list[tuple[float, int]] = []
        self._to_come = list(range(peers))

    @property
    def there(self) -> int:
        """How many are connected, those with TLS through their handshake."""
        return sum(line.is_up for line in self.crowd.lines.values())

    def run(self, seconds: float) -> None:
        """Be hostile for a time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = time.monotonic()
            for number in self._to_come[:8]:
                self._come(number)
            del self._to_come[:8]
            ready = [number for moment, number in self._waiting if moment <= now][:20]
            self._waiting = [row for row in self._waiting if row[1] not in ready]
            for number in ready:
                self.came_back += 1
                self._come(number)
            self.crowd.run(0.05)

    def _come(self, number: int) -> None:
        has_contract = number % 2 == 1
        behaviours = KNOWN if has_contract else STRANGERS
        kind, needs_tls = behaviours[number // 2 % len(behaviours)]
        where = number % ADDRESSES
        source = f"127.1.{where // 250}.{1 + where % 250}"
        # Strangers have keys of their own, too: numbers that were never admitted.
        who = identity_of(number if has_contract else 1_000_000 + number) if needs_tls else None
        line = self.crowd.call(who, source)
        line.script = kind(line)
        self._numbers[line] = number
        self.kinds[kind.__name__.strip("_")] += 1

    def _again(self, line: Line) -> None:
        number = self._numbers.pop(line, None)
        if number is not None:
            self._waiting.append((time.monotonic() + BACK_S, number))


def _says_nothing(line: Line) -> Script:
    while True:
        yield 1000.0


def _dribbles_a_handshake(line: Line) -> Script:
    for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500):
        line.raw(bytes([byte]))
        yield 1.0


def _never_greets(line: Line) -> Script:
    while True:
        yield 1000.0


def _only_greets(line: Line) -> Script:
    yield from greeting(line)
    while True:
        yield 1000.0


def _half_a_frame(line: Line) -> Script:
    yield from greeting(line)
    line.raw(b"\x40\x00\xff\xff")
    while True:
        line.raw(b"\0")
        yield 1.0


def _dribbles_a_store(line: Line) -> Script:
    yield from greeting(line)
    size = 64 * 1024
    line.say(Store(ShardId(id(line).to_bytes(32, "big")), size))
    event = yield EVENT
    if not isinstance(event, Accept):
        line.raw(b"\0")
        yield 1000.0
    while True:
        line.data(b"x")
        yield 1.0


def _never_reads(line: Line) -> Script:
    yield from greeting(line)
    line.say(Store(LARGE_SHARD, LARGE_BYTES))
    event = yield EVENT
    if isinstance(event, Accept):
        for _ in range(4):
            line.data(bytes(LARGE_BYTES // 4))
        line.say(End())
        event = yield EVENT
    if isinstance(event, Stored):
        line.read_no_more()
        for _ in range(30):
            line.say(Retrieve(LARGE_SHARD, 0, LARGE_BYTES, proved=False))
    while True:
        yield 1000.0


def _asks_and_never_reads(line: Line) -> Script:
    yield from greeting(line)
    line.read_no_more()
    for number in range(60):
        line.say(List(ShardId(bytes(32)), 1000) if number % 2 else Ping(number))
    while True:
        yield 1000.0


Behaviour = Callable[[Line], Script]
STRANGERS: Final[tuple[tuple[Behaviour, bool], ...]] = (
    (_says_nothing, False),
    (_dribbles_a_handshake, False),
    (_never_greets, True),
    (_only_greets, True),
)
KNOWN: Final[tuple[tuple[Behaviour, bool], ...]] = (
    (_only_greets, True),
    (_half_a_frame, True),
    (_dribbles_a_store, True),
    (_asks_and_never_reads, True),
    (_never_greets, True),
    (_never_reads, True),
)


def mob_process(told: Connection, address: tuple[str, int], peers: int) -> None:
    """Be hostile from the first word on until told to end."""
    if not told.recv():
        return
    os.nice(STANDS_BACK)
    mob = Mob(address, peers)
    while not told.poll():
        mob.run(0.5)
        told.send((mob.there, mob.came_back))
