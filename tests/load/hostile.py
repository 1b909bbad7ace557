"""Two thousand slow and silent peers on many addresses, and one renter who just wants service."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from tests.load.farm import Farm
from tests.load.honest import honest_process, percentile
from tests.load.mob import mob_process

GROWTH_BYTES_MAX: Final = 112 << 20
FLAT_BYTES_MAX: Final = 6 << 20
"""What a minute may add later: what glibc does with freed pieces moves by that much."""
THERE_MIN: Final = 0.9
"""The part of the peers that must be there; the others wait to be let in again."""
SLOWER_MAX: Final = 2.0
NOISE_MS: Final = 15.0
"""A p99 below this says more about the machine's scheduler than about the farmer."""
RATE: Final = 20.0
FIRST_S: Final = 60.0


def run(peers: int, seconds: float, baseline_s: float, *, timed: bool = True) -> int:
    """
    Measure the honest renter alone, then among the peers; return the exit code.

    Without *timed* what the requests took is told, and not judged.
    """
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
        # Only theirs are left: who waits for what they say hears of their death.
        theirs.close()
        mobs.close()
        try:
            found = _measure(farm, honest, mob, peers, seconds, baseline_s)
        finally:
            for told in (honest, mob):
                with suppress(OSError):
                    told.send(0.0)
            for process in processes:
                process.join(20)
                process.kill()
    return found.tell(timed=timed)


def _measure(
    farm: Farm, honest: Connection, mob: Connection, peers: int, seconds: float, baseline_s: float
) -> Found:
    honest.send(baseline_s)
    alone, wrong_alone = honest.recv()
    before = farm.memory_bytes()
    mob.send(1.0)
    there, came_back, memory, began = 0, 0, [], time.monotonic()
    # The first connections are made before the renter is measured: it is them that it meets.
    while there < THERE_MIN * peers and time.monotonic() - began < 60:
        there, came_back = mob.recv()
    began, cpu, presence = time.monotonic(), farm.cpu_s(), [there]
    honest.send(seconds)
    while not honest.poll():
        there, came_back = mob.recv()
        presence.append(there)
        memory.append((time.monotonic() - began, farm.memory_bytes()))
    among, wrong = honest.recv()
    busy = (farm.cpu_s() - cpu) / (time.monotonic() - began)
    # What was wrong alone counts among them, too.
    if wrong:
        print(farm.complaints(), flush=True)
    _print_table(alone, among)
    return Found(
        peers=peers,
        there=sorted(presence)[len(presence) // 2],
        came_back=came_back,
        p99_ms=(_p99(alone), _p99(among)),
        growth_bytes=max(size for _, size in memory) - before,
        drift_bytes=_drift(memory),
        wrong=(wrong_alone, wrong - wrong_alone),
        busy=busy,
    )


def _p99(took: dict[str, list[float]]) -> float:
    return percentile([one for row in took.values() for one in row], 0.99)


def _drift(memory: list[tuple[float, int]]) -> int:
    """Return how much more was taken at the end than in the middle, after the first minute."""
    later = [size for moment, size in memory if moment >= FIRST_S]
    half = len(later) // 2
    return max(later[half:]) - max(later[:half]) if half else 0


def _print_table(alone: dict[str, list[float]], among: dict[str, list[float]]) -> None:
    print(f"{'request':10} {'alone p50':>10} {'p99':>8} {'among p50':>10} {'p99':>8}  ms")
    for name in alone:
        row = [percentile(took[name], part) for took in (alone, among) for part in (0.5, 0.99)]
        print(f"{name:10} {row[0]:10.1f} {row[1]:8.1f} {row[2]:10.1f} {row[3]:8.1f}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a run has shown."""

    peers: int
    """That were to be there."""
    there: int
    """Connected, at half of all moments at least."""
    came_back: int
    p99_ms: tuple[float, float]
    """Of all requests of the honest renter, alone and among them."""
    growth_bytes: int
    drift_bytes: int
    wrong: tuple[int, int]
    """Answers and connections of the honest renter, alone and among them."""
    busy: float
    """The part of a processor that the farmer took."""

    def broken(self, *, timed: bool) -> list[str]:
        """Return the limits that were not kept."""
        alone, among = self.p99_ms
        wrong_alone, wrong_among = self.wrong
        limits = {
            # Who was good among nobody has shown nothing.
            "peers": self.there >= THERE_MIN * self.peers,
            "came back": self.came_back > 0,
            "p99": among <= max(SLOWER_MAX * alone, NOISE_MS) or not timed,
            "memory": self.growth_bytes <= GROWTH_BYTES_MAX,
            "drift": self.drift_bytes <= FLAT_BYTES_MAX,
            # A renter that fares badly alone is nothing to compare with.
            "answers alone": wrong_alone == 0,
            "answers": wrong_among == 0,
        }
        return [name for name, is_kept in limits.items() if not is_kept]

    def tell(self, *, timed: bool) -> int:
        """Print the last line; return the exit code."""
        broken, judged = self.broken(timed=timed), "" if timed else " (not judged)"
        verdict = f"NOT KEPT: {', '.join(broken)}" if broken else "kept"
        print(
            f"hostile: peers {self.there} of {self.peers} came back {self.came_back}"
            f" p99 ms {self.p99_ms[0]:.1f} -> {self.p99_ms[1]:.1f}{judged}"
            f" MiB more {self.growth_bytes / (1 << 20):.0f}"
            f" drift MiB {self.drift_bytes / (1 << 20):.1f}"
            f" wrong {self.wrong[0]} -> {self.wrong[1]}"
            f" processor {self.busy:.0%} {verdict}"
        )
        return 1 if broken else 0
