"""One seed, from the first boot to the last check."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from farmer.storage import index
from tests.simulation import accounts, after_media, oracle
from tests.simulation.held import ViolationError
from tests.simulation.strands import installed
from tests.simulation.world import World

RECOVER_EVERY = 130
"""Operations after which all faults end for a while, and everything must be well."""


@dataclass
class Outcome:
    """What one seed came to."""

    seed: int
    operations: int = 0
    faults: int = 0
    trace: str = ""
    violation: str = ""
    simulated_s: float = 0.0
    crashes: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    times: Counter[str] = field(default_factory=Counter)
    struck: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def settle_in() -> None:
    """Let no collection of garbage look at what stays for ever: modules, classes, code."""
    gc.collect()
    gc.freeze()


def run(seed: int, operations: int) -> Outcome:
    """Run one seed; a broken promise is in the outcome."""
    with _folder() as root:
        world = World(seed, root)
        outcome = Outcome(seed)
        try:
            with installed(world.strands, world.replacements()), _few_readers():
                try:
                    _live(world, operations)
                except ViolationError as broken:
                    outcome.violation = str(broken)
                except Exception as error:
                    import traceback

                    outcome.violation = f"{error!r}\n{traceback.format_exc()}"
                finally:
                    _end(world)
        finally:
            outcome.operations = operations
            outcome.faults = world.faults
            outcome.trace = world.trace_hash
            outcome.crashes, outcome.counts = world.crashes, world.counts
            outcome.times, outcome.struck = world.times, world.struck_counts
            outcome.simulated_s = world.run_s
        return outcome


def _live(world: World, operations: int) -> None:
    rng = world.rng
    world.begin()
    for number in range(operations):
        world.chaos.operation()
        for _ in range(int(rng.random() * 25)):
            if not world.turn():
                break
        if rng.random() < 0.35 or len(world.talks) > 5:
            world.settle()
            world.pass_s(rng.random() * 3)
        if number % 16 == 0:
            accounts.check_space(world)
        if number % RECOVER_EVERY == RECOVER_EVERY - 1:
            world.finish_talks()
            world.recover()
            accounts.check_reservations(world)
    _last_checks(world)


def _last_checks(world: World) -> None:
    world.chaos.calm()
    world.finish_talks()
    world.recover()
    accounts.check_reservations(world)
    world.chaos.is_over = True
    world.plan_crash(booting=False)
    world.restart()
    world.settle()
    oracle.check_all(world, thorough=True)
    if world.chaos.profile.media:
        after_media.scrub_everything(world)
        after_media.check_scrubbed(world)
        after_media.repair_everything(world)
        oracle.check_all(world, thorough=True)
    _give_back(world)
    accounts.check_reservations(world)
    if not world.chaos.profile.media:
        accounts.check_accounts(world, given_back=True)
    if world.rng.random() < 0.5:
        oracle.check_rebuild(world)
    if world.house is not None:
        world.stop()


def _give_back(world: World) -> None:
    """Give back what can be given back; twice, since what one run frees the next may use."""
    house = world.house
    assert house is not None
    for _ in range(2):
        for volume in house.engine._slots.opened():
            house.door.run(volume.reclaim).addErrback(lambda _: None)
            world.settle()


def _end(world: World) -> None:
    """Leave no strand, no file."""
    world.strands.is_dead = True
    world.strands.reap()
    world.strands.is_dead = True
    if world.house is not None:
        world.house.die()
    for connection in list(world.databases._open):
        connection.close_really()


@contextmanager
def _few_readers() -> Iterator[None]:
    """
    Let an index have two connections to read with, instead of four.

    A strand never hands the baton on while it has one, so that any number gives the same run;
    but each costs its opening, and prepares every query for itself.
    """
    was, index._READERS = index._READERS, 2  # type: ignore[misc]
    try:
        yield
    finally:
        index._READERS = was  # type: ignore[misc]


@contextmanager
def _folder() -> Iterator[Path]:
    """Lend a directory in memory; its name is no part of the run."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="sim-", dir=place))
    try:
        yield root
    finally:
        shutil.rmtree(root)
