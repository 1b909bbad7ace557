"""At the end of a run with media faults: the scrub has found all damage, and it can be mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farmer.model.shard import ShardState
from farmer.storage.errors import CorruptShardError, ShardNotFoundError
from tests.simulation import mending
from tests.simulation.held import Held, Is, ViolationError
from tests.simulation.renters import Renter

if TYPE_CHECKING:
    from tests.simulation.world import World

STEPS_MAX = 100_000


def scrub_everything(world: World) -> None:
    """Make a whole pass; raises `ViolationError` for one that does not end."""
    assert world.house is not None
    scrubs = world.house.engine.scrubs
    for name in scrubs.begin_now():
        for _ in range(STEPS_MAX):
            if scrubs.turn(name, 0.0, world.now_ms(), 30.0).is_idle:
                break
        else:
            raise ViolationError("a scrub goes in circles")


def check_scrubbed(world: World) -> None:
    """What is damaged is told, no more than is; nothing harmed is silently unreadable."""
    for renter in world.renters:
        for held in renter.held.values():
            if held.harms and held.may == {Is.LIVE}:
                _check_told(world, renter, held)


def _check_told(world: World, renter: Renter, held: Held) -> None:
    assert world.house is not None
    engine = world.house.engine
    try:
        state = engine.stat(renter.node, held.shard).state
    except ShardNotFoundError:
        if not held.is_hurt:
            raise ViolationError(f"{held} is gone, though only a part of it is damaged") from None
        return
    bad = set(engine.examine(renter.node, held.shard).blocks)
    if not held.is_told(bad):
        raise ViolationError(f"{held}: {bad} are said to be damaged, {held.bad} are")
    if bool(bad) is not (state is ShardState.QUARANTINED):
        raise ViolationError(f"{held} is {state.name} with {len(bad)} damaged blocks")
    try:
        reader = engine.open(renter.node, held.shard)
        try:
            data = reader.read(0, held.size_bytes)
        finally:
            reader.close()
    except CorruptShardError as error:
        if not bad:
            raise ViolationError(f"{held} cannot be read, and nobody was told") from error
        return
    if bad or data != held.content.data:
        raise ViolationError(f"{held} is served with {len(bad)} damaged blocks")


def repair_everything(world: World) -> None:
    """Let the renters send again what is damaged."""
    for renter in world.renters:
        if renter.contract is None or renter.ended_s is not None:
            continue
        for held in list(renter.held.values()):
            line = world.chaos.quiet_line(renter)
            if held.harms and held.may == {Is.LIVE} and line is not None:
                talk = mending.repair(renter, line, held, wrongly=False)
                world.talk(renter, line, "repair", talk)
                world.finish_talks()
