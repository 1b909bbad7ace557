"""Counting contracts and invites, and not counting them again in vain."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from farmer.model.contract import ContractStage
from farmer.model.ids import NodeId
from farmer.storage.census import Census
from tests.storage_contracts.world import ANNA, BERTA, DAY_MS, World

RENTERS = [NodeId(bytes([number]) * 32) for number in range(1, 6)]


def counted(world: World) -> Census:
    """Return what a count from nothing finds."""
    stages = Counter(stage for _, stage in world.book.contracts())
    return Census(
        tuple((stage, stages[stage]) for stage in ContractStage),
        len(world.book.open_invites()),
        world.book.promised_bytes(),
    )


def statements(world: World, work: Callable[[], object]) -> list[str]:
    """Return what is asked of the database meanwhile."""
    asked: list[str] = []
    world.book._book._rows.set_trace_callback(asked.append)
    work()
    world.book._book._rows.set_trace_callback(None)
    return asked


@pytest.mark.parametrize("seed", range(6))
def test_a_census_is_always_what_a_count_from_nothing_finds(tmp_path: Path, seed: int) -> None:
    """Whatever renters, owner and time do, also a clock that jumps, back too, or is in doubt."""
    folder = tmp_path / "home"
    folder.mkdir()
    world, dice = World(folder), random.Random(seed)

    def end() -> None:
        held = world.book.contracts()
        if held:
            world.book.end(dice.choice(held)[0].contract)

    def purge() -> None:
        for contract in world.book.to_purge():
            world.book.purged(contract.contract)

    def join() -> None:
        renter = dice.choice(RENTERS)
        if renter not in {contract.renter for contract in world.book.to_purge()}:
            world.join(renter, days=dice.randint(1, 12))

    steps = [
        *(world.mint, join, join, end, world.advance, purge, world.restart, world.tick),
        lambda: world.live(dice.randint(1, 9)),
        lambda: world.sleep(dice.randint(1, 60_000)),
        lambda: world.jump(dice.choice([-1, 1]) * dice.randint(1, 4 * DAY_MS)),
        lambda: world.book.clock.confirm(world.wall_ms),
    ]
    for _ in range(120):
        dice.choice(steps)()
        assert world.book.census() == counted(world)
    world.book.close()


def test_nothing_is_counted_again_while_nothing_happens(world: World) -> None:
    """Neither once, nor after a minute."""
    world.join(ANNA)
    world.mint()
    first = world.book.census()
    world.sleep(60_000)
    assert statements(world, world.book.census) == []
    assert world.book.census() is first


def test_what_ends_by_itself_ends_at_its_moment(world: World) -> None:
    """An invite after its seven days, a contract at its end: not a millisecond before."""
    world.join(ANNA, days=9)
    world.mint()
    assert world.book.census().open_invites == 1
    world.wall_ms += 7 * DAY_MS - 1
    assert world.book.census().open_invites == 1
    world.wall_ms += 1
    assert world.book.census().open_invites == 0
    assert dict(world.book.census().contracts)[ContractStage.ACTIVE] == 1
    world.wall_ms += 2 * DAY_MS
    assert dict(world.book.census().contracts)[ContractStage.GRACE] == 1


def test_strangers_are_looked_for_again_only_when_something_changed(world: World) -> None:
    """Another renter, or another contract; else nothing is read."""
    world.join(ANNA)
    strangers = world.book.history.strangers
    assert strangers([ANNA, BERTA]) == [BERTA]
    assert statements(world, lambda: strangers([ANNA, BERTA])) == []
    assert strangers([BERTA]) == [BERTA]
    world.join(BERTA)
    assert strangers([BERTA]) == []
    assert strangers([RENTERS[0]]) == [RENTERS[0]]
