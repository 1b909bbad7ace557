"""Ordinary work for hours, people coming and going: memory, descriptors, leases stay flat."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from farmer.model.shard import charge_bytes
from farmer.protocol.connection import Event
from farmer.protocol.opening import End
from farmer.protocol.questions import Delete, Ping, Pong
from farmer.protocol.transfers import Accept, Store, Stored
from tests.fakes import shard_of
from tests.load.farm import Farm
from tests.load.honest import honest_process, percentile
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of

WORKER: Final = 3_000_000
GUESTS: Final = 200
RATE: Final = 15.0
WARM_PART: Final = 0.25
"""The first part of the run is not compared: caches fill, and the allocator finds its size."""
DRIFT_BYTES_MAX: Final = 8 << 20
DESCRIPTORS_MORE_MAX: Final = 24
LARGE_BYTES: Final = (1 << 20) + 4096


class Guests:
    """Renters who come, ask, leave in the middle of a large store, and come back to end it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.crowd = Crowd(address)
        self.visits = self.broken = self.wrong = 0
        self._next = 0

    def run(self, seconds: float) -> None:
        """Let some come and go."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while len(self.crowd.lines) < 16:
                number = self._next % GUESTS
                line = self.crowd.call(identity_of(number))
                line.script = self._visit(line, number, self._next // GUESTS % 2 == 0)
                self._next += 1
            self.crowd.run(0.05)

    def _visit(self, line: Line, number: int, breaks_off: bool) -> Script:
        yield from greeting(line)
        self.visits += 1
        line.say(Ping(number))
        self._expect(Pong, (yield EVENT))
        if number % 4 == 0:
            data = number.to_bytes(8, "big") * (LARGE_BYTES // 8)
            line.say(Store(shard_of(data), len(data)))
            event = yield EVENT
            if isinstance(event, Accept):
                rest = data[event.offset :]
                for at in range(0, len(rest) // (2 if breaks_off else 1), 1 << 16):
                    line.data(rest[at : at + (1 << 16)])
                while not line.drained:
                    yield 0.01
                yield 0.2
                if breaks_off:
                    self.broken += 1
                    line.close()
                    return
                line.say(End())
                self._expect(Stored, (yield EVENT))
            line.say(Delete(shard_of(data), erase=True))
            yield EVENT
        line.close()

    def _expect(self, kind: type, event: Event | None) -> None:
        self.wrong += not isinstance(event, kind)


def guest_process(told: Connection, address: tuple[str, int]) -> None:
    """Come and go until told to end; then say how often, and how much of it went wrong."""
    guests = Guests(address)
    while not told.poll():
        guests.run(0.5)
    told.send((guests.visits, guests.broken, guests.wrong, len(guests.crowd.losses)))


def run(minutes: float) -> int:
    """Work for so long; print the figures; return the exit code."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, Farm(Path(folder), 512, "40GB") as farm:
        farm.admit(range(GUESTS), space_bytes=16 << 20)
        farm.admit(range(WORKER, WORKER + 1), space_bytes=16 << 30)
        address = farm.start()
        worker, theirs = context.Pipe()
        guests, others = context.Pipe()
        processes = [
            context.Process(target=honest_process, args=(theirs, address, WORKER, RATE)),
            context.Process(target=guest_process, args=(others, address)),
        ]
        for process in processes:
            process.start()
        # Only theirs are left: who waits for what they say hears of their death.
        theirs.close()
        others.close()
        try:
            return _watch(farm, worker, guests, minutes * 60)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _watch(farm: Farm, worker: Connection, guests: Connection, seconds: float) -> int:
    began, rows = time.monotonic(), []
    worker.send(seconds)
    while not worker.poll(1.0):
        at = time.monotonic() - began
        rows.append((at, farm.memory_bytes(), farm.descriptors()))
    took, wrong = worker.recv()
    guests.send("end")
    visits, broken, wrong_too, lost = guests.recv()
    wrong += wrong_too
    later = [row for row in rows if row[0] >= WARM_PART * seconds]
    half = len(later) // 2
    drift = _median([row[1] for row in later[half:]]) - _median([row[1] for row in later[:half]])
    descriptors = max(row[2] for row in later[half:]) - max(row[2] for row in later[:half])
    leases = _leases(farm)
    asked = sum(map(len, took.values()))
    slow = percentile([one for row in took.values() for one in row], 0.99)
    good = (
        drift <= DRIFT_BYTES_MAX
        and descriptors <= DESCRIPTORS_MORE_MAX
        and not wrong
        and not lost
        # Who was good among nobody has shown nothing.
        and visits > 0
        and broken > 0
        and leases <= GUESTS // 4
    )
    print(
        f"soak: minutes {seconds / 60:.1f} requests {asked} wrong {wrong} p99 ms {slow:.0f}"
        f" visits {visits} broken off {broken} lost {lost} leases {leases}"
        f" MiB {rows[-1][1] / (1 << 20):.0f} drift MiB {drift / (1 << 20):+.1f}"
        f" descriptors {descriptors:+d} {'kept' if good else 'NOT KEPT'}"
    )
    return 0 if good else 1


def _median(sizes: list[int]) -> int:
    return sorted(sizes)[len(sizes) // 2]


def _leases(farm: Farm) -> int:
    """Return how many unfinished stores the farmer counts: at most one for each guest."""
    volumes = farm.daemon.status()["volumes"]
    return sum(volume["reserved_bytes"] for volume in volumes) // charge_bytes(LARGE_BYTES)
