"""
Ten thousand renters who come with an invite each, redeem it and stay; one in a hundred works.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.protocol.connection import DataReceived
from farmer.protocol.opening import End
from farmer.protocol.questions import ContractShown, Ping, Pong, Redeem
from farmer.protocol.transfers import Accept, Audit, Store, Stored
from tests.fakes import shard_of
from tests.load.farm import Farm
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

MEMORY_BYTES_MAX: Final = 512 << 20
SESSION_BYTES_MAX: Final = 44 * 1024
ENOUGH: Final = 1000
"""With fewer sessions, what the first one costs counts too much to say what each costs."""
PING_S: Final = 60.0
SAMPLE_S: Final = 0.5
"""Between two looks at the farmer's memory: the kernel walks over all of it for each."""
AT_ONCE: Final = 48
SHARD_BYTES: Final = 64 * 1024


def run(sessions: int, hold_s: float, ping_s: float = PING_S) -> int:
    """Hold so many sessions, each of which pings so often; print the figures; return the code."""
    with tempfile.TemporaryDirectory() as folder, Farm(Path(folder), sessions + 100) as farm:
        began = time.monotonic()
        invites = farm.mint(sessions, space_bytes=1 << 20)
        print(f"{sessions} invites made in {time.monotonic() - began:.0f} s", flush=True)
        address = farm.start()
        before = farm.memory_bytes()
        parent, child = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=crowd_process, args=(child, address, invites, ping_s)
        )
        process.start()
        # Only its own is left: who waits for what it says hears of its death.
        child.close()
        try:
            return _watch(farm, parent, sessions, hold_s, ping_s, before)
        finally:
            with suppress(OSError):
                parent.send(("end", 0.0))
            process.join(30)
            process.kill()


def _watch(
    farm: Farm, told: Connection, sessions: int, hold_s: float, ping_s: float, before: int
) -> int:
    began, cpu = time.monotonic(), farm.cpu_s()
    held, redeemed, lost = told.recv()
    took, spent = time.monotonic() - began, farm.cpu_s() - cpu
    print(
        f"{held} sessions, {redeemed} invites redeemed, in {took:.0f} s,"
        f" {spent / max(1, held) * 1e3:.2f} ms of the daemon each",
        flush=True,
    )
    told.send(("hold", hold_s))
    (pinged, lost), idle = _answer(told, farm)
    each = (idle - before) / max(1, held)
    print(
        f"memory: {_mib(before)} ready, at most {_mib(idle)} with {held} sessions,"
        f" {each / 1024:.1f} KiB each; {pinged} pinged in {hold_s:.0f} s"
    )
    told.send(("work", 60.0))
    (stored, audited, lost), working = _answer(told, farm)
    print(f"{stored} stored and {audited} audited; memory then at most {_mib(working)}")
    good = (
        held == redeemed == sessions
        and lost == 0
        and (pinged == sessions or hold_s < ping_s)
        and (each <= SESSION_BYTES_MAX or sessions < ENOUGH)
        and max(idle, working) <= MEMORY_BYTES_MAX
        and stored == audited == max(1, sessions // 100)
    )
    print(
        f"idle: sessions {held} redeemed {redeemed} pinged {pinged} lost {lost}"
        f" KiB each {each / 1024:.1f} in all {_mib(max(idle, working))}"
        f" descriptors {farm.descriptors()} {'kept' if good else 'NOT KEPT'}"
    )
    return 0 if good else 1


def _answer(told: Connection, farm: Farm) -> tuple[tuple[int, ...], int]:
    """Return what the process at the other end says at last, and the most memory until then."""
    peak = farm.memory_bytes()
    while not told.poll(SAMPLE_S):
        peak = max(peak, farm.memory_bytes())
    answer: tuple[int, ...] = told.recv()
    return answer, max(peak, farm.memory_bytes())


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


class Pingers:
    """The sessions of one process, one for each invite."""

    def __init__(self, address: tuple[str, int], invites: list[bytes], ping_s: float) -> None:
        self.crowd = Crowd(address)
        self.lines: list[Line] = []
        self.redeemed = self.greeted = self.stored = self.audited = 0
        self.pinged: set[int] = set()
        """Those that had an answer to a ping since all are held."""
        self._invites = invites
        self._ping_s = ping_s

    def connect(self) -> None:
        """Connect all, a few at a time; ends when all have had an answer to a ping."""
        sessions = len(self._invites)
        deadline = time.monotonic() + 60 + sessions / 20
        while self.greeted < sessions and time.monotonic() < deadline:
            while len(self.lines) < sessions and len(self.lines) - self.greeted < AT_ONCE:
                line = self.crowd.call(identity_of(len(self.lines)))
                line.script = self._idle(line, len(self.lines))
                self.lines.append(line)
            self.crowd.run(0.005)
            if self.crowd.losses:
                print("lost:", self.crowd.losses[:3], flush=True)
                return

    def _idle(self, line: Line, number: int) -> Script:
        yield from greeting(line)
        line.say(Redeem(self._invites[number]))
        event = yield EVENT
        assert isinstance(event, ContractShown), event
        self.redeemed += 1
        line.say(Ping(number))
        event = yield EVENT
        assert isinstance(event, Pong), event
        self.greeted += 1
        yield self._ping_s * (number % 997) / 997
        while True:
            line.say(Ping(number))
            event = yield EVENT
            assert isinstance(event, Pong), event
            self.pinged.add(number)
            yield self._ping_s

    def work(self, seconds: float) -> None:
        """Let one in a hundred store a shard and audit it."""
        few = self.lines[:: max(1, min(100, len(self.lines)))]
        for number, line in enumerate(few):
            line.script = self._work(line, number)
            line.script.send(None)
        deadline = time.monotonic() + seconds
        while self.audited < len(few) and time.monotonic() < deadline and not self.crowd.losses:
            self.crowd.run(0.1)

    def _work(self, line: Line, number: int) -> Script:
        data = number.to_bytes(8, "big") * (SHARD_BYTES // 8)
        shard = shard_of(data)
        line.say(Store(shard, len(data)))
        event = yield EVENT
        while isinstance(event, Pong):
            event = yield EVENT
        assert isinstance(event, Accept), event
        line.data(data)
        line.say(End())
        event = yield EVENT
        assert isinstance(event, Stored), event
        self.stored += 1
        entry = AuditEntry(shard, len(data), 4)
        line.say(Audit(Challenge(number.to_bytes(32, "big"), AuditKind.SAMPLE, (entry,))))
        event = yield EVENT
        proof = 0
        while isinstance(event, DataReceived):
            proof += len(event.data)
            event = yield EVENT
        assert isinstance(event, End) and proof > 4 * 4096, event
        self.audited += 1


def crowd_process(
    told: Connection, address: tuple[str, int], invites: list[bytes], ping_s: float
) -> None:
    """Hold the renters' ends; do what the parent says."""
    pingers = Pingers(address, invites, ping_s)
    pingers.connect()
    told.send((pingers.greeted, pingers.redeemed, len(pingers.crowd.losses)))
    while True:
        while not told.poll():
            pingers.crowd.run(0.2)
        what, seconds = told.recv()
        match what:
            case "hold":
                pingers.pinged.clear()
                pingers.crowd.run(seconds)
                told.send((len(pingers.pinged), len(pingers.crowd.losses)))
            case "work":
                pingers.work(seconds)
                told.send((pingers.stored, pingers.audited, len(pingers.crowd.losses)))
            case _:
                return
