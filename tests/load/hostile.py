"""Two thousand slow and silent peers on many addresses, and one renter who just wants service."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from farmer.model.ids import ShardId
from farmer.protocol.opening import End
from farmer.protocol.questions import List, Ping
from farmer.protocol.transfers import Accept, Retrieve, Store, Stored
from tests.fakes import shard_of
from tests.load.farm import Farm
from tests.load.honest import honest_process, percentile
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

GROWTH_BYTES_MAX: Final = 112 << 20
FLAT_BYTES_MAX: Final = 6 << 20
"""What a minute may add later: what glibc does with freed pieces moves by that much."""
SLOWER_MAX: Final = 2.0
NOISE_MS: Final = 15.0
"""A p99 below this says more about the machine's scheduler than about the farmer."""
STANDS_BACK: Final = 19
"""How nice their process is: real ones have processors of their own, and take none of ours."""
ADDRESSES: Final = 500
RATE: Final = 20.0
BACK_S: Final = 0.5
FIRST_S: Final = 60.0
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


def run(peers: int, seconds: float, baseline_s: float) -> int:
    """Measure the honest renter alone, then among the peers; return the exit code."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, Farm(Path(folder), peers + 200, "8GB") as farm:
        farm.admit(range(1, peers, 2), space_bytes=4 << 20)
        farm.admit(range(2_000_000, 2_000_001), space_bytes=4 << 30)
        address = farm.start()
        honest, theirs = context.Pipe()
        mob, mobs = context.Pipe()
        processes = [
            context.Process(target=honest_process, args=(theirs, address, 2_000_000, RATE)),
            context.Process(target=mob_process, args=(mobs, address, peers)),
        ]
        for process in processes:
            process.start()
        try:
            return _measure(farm, honest, mob, peers, seconds, baseline_s)
        finally:
            honest.send(0.0)
            mob.send(0.0)
            for process in processes:
                process.join(20)
                process.kill()


def mob_process(told: Connection, address: tuple[str, int], peers: int) -> None:
    """Be hostile from the first word on until told to end."""
    if not told.recv():
        return
    os.nice(STANDS_BACK)
    mob = Mob(address, peers)
    while not told.poll():
        mob.run(0.5)
        told.send((len(mob.crowd.lines), mob.came_back))


def _measure(
    farm: Farm, honest: Connection, mob: Connection, peers: int, seconds: float, baseline_s: float
) -> int:
    honest.send(baseline_s)
    alone, wrong_alone = honest.recv()
    before = farm.memory_bytes()
    mob.send(1.0)
    there, came_back, memory, began = 0, 0, [], time.monotonic()
    # The first connections are made before the renter is measured: it is them that it meets.
    while there < 0.9 * peers and time.monotonic() - began < 60:
        there, came_back = mob.recv()
    began, cpu = time.monotonic(), farm.cpu_s()
    honest.send(seconds)
    while not honest.poll():
        there, came_back = mob.recv()
        memory.append((time.monotonic() - began, farm.memory_bytes()))
    among, wrong = honest.recv()
    busy = (farm.cpu_s() - cpu) / (time.monotonic() - began)
    if wrong:
        print(farm.complaints(), flush=True)
    return _verdict(alone, among, wrong - wrong_alone, before, memory, (there, came_back, busy))


def _verdict(
    alone: dict[str, list[float]],
    among: dict[str, list[float]],
    wrong: int,
    before: int,
    memory: list[tuple[float, int]],
    there: tuple[int, int, float],
) -> int:
    print(f"{'request':10} {'alone p50':>10} {'p99':>8} {'among p50':>10} {'p99':>8}  ms")
    for name in alone:
        row = [percentile(took[name], part) for took in (alone, among) for part in (0.5, 0.99)]
        print(f"{name:10} {row[0]:10.1f} {row[1]:8.1f} {row[2]:10.1f} {row[3]:8.1f}")
    p99 = [
        percentile([one for row in took.values() for one in row], 0.99) for took in (alone, among)
    ]
    growth = max(size for _, size in memory) - before
    later = [size for moment, size in memory if moment >= FIRST_S]
    half = len(later) // 2
    drift = max(later[half:]) - max(later[:half]) if half else 0
    good = (
        p99[1] <= max(SLOWER_MAX * p99[0], NOISE_MS)
        and growth <= GROWTH_BYTES_MAX
        and drift <= FLAT_BYTES_MAX
        and not wrong
    )
    print(
        f"hostile: peers {there[0]} came back {there[1]} p99 ms {p99[0]:.1f} -> {p99[1]:.1f}"
        f" MiB more {growth / (1 << 20):.0f} drift MiB {drift / (1 << 20):.1f} wrong {wrong}"
        f" processor {there[2]:.0%} {'kept' if good else 'NOT KEPT'}"
    )
    return 0 if good else 1
