"""What the simulation excuses after a disk has put a record over another, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.storage.files import Access
from farmer.storage.records import Kind, RecordHeader
from tests.simulation.held import Harm, Held, Is, ViolationError
from tests.simulation.nodes import BLOCK, Node
from tests.simulation.shards import content
from tests.simulation.world import World

INDEX = "volume0/index.sqlite"
SEGMENT = "log/00000001.seg"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return one with drives and renters, that has not begun."""
    world = World(1, tmp_path)
    world.chaos.furnish()
    return world


def a_segment(world: World) -> Node:
    log = world.root / "volume0" / "log"
    world.disk.make_directory(log)
    world.disk.open(log / "00000001.seg", Access.CREATE)
    return world.disk.drives["volume0"].nodes()[0]


def hold(world: World, *harms: Harm) -> Held:
    """Let a renter have a shard that a disk has damaged so far."""
    held = Held(content(1, len(world.renters[0].held)), {Is.LIVE}, harms=list(harms))
    world.renters[0].held[held.shard] = held
    return held


def a_record() -> bytes:
    header = RecordHeader(
        kind=Kind.MARKS,
        segment=bytes(16),
        sequence=1,
        payload_bytes=0,
        trailer_bytes=0,
        trailer_crc=0,
    )
    return header.encode().ljust(BLOCK, b"\0")


@pytest.mark.parametrize(("records", "times"), [(0, 1), (1, 2), (3, 4)])
def test_an_index_is_given_up_for_what_lies_in_a_wrong_place_and_not_for_ever(
    world: World, records: int, times: int
) -> None:
    """Once for what that lies over, and once for each record that lies there."""
    node = a_segment(world)
    raw = (a_record() * records).ljust(BLOCK, b"\0")
    with pytest.raises(ViolationError):
        world.index_is_given_up(INDEX)
    world.betrayed(node, SEGMENT, (BLOCK, raw), 8 * BLOCK)
    for _ in range(times):
        world.index_is_given_up(INDEX)
        world.index_is_made(INDEX)
    with pytest.raises(ViolationError):
        world.index_is_given_up(INDEX)


def test_who_says_it_again_before_the_index_is_made_gives_up_no_other(world: World) -> None:
    world.betrayed(a_segment(world), SEGMENT, (BLOCK, bytes(BLOCK)), 8 * BLOCK)
    world.index_is_given_up(INDEX)
    world.index_is_given_up(INDEX)


@pytest.mark.parametrize(
    ("where", "instead"),
    [(SEGMENT, -1), ("staging/part", 8 * BLOCK), ("shards/00/whole", 8 * BLOCK)],
)
def test_no_other_write_that_a_disk_betrayed_excuses_that(
    world: World, where: str, instead: int
) -> None:
    world.betrayed(a_segment(world), where, (BLOCK, bytes(BLOCK)), instead)
    with pytest.raises(ViolationError):
        world.index_is_given_up(INDEX)


def test_a_volume_may_be_away_once_its_index_is_given_up(world: World) -> None:
    world.betrayed(a_segment(world), SEGMENT, (BLOCK, bytes(BLOCK)), 8 * BLOCK)
    assert not world.has_trouble
    world.index_is_given_up(INDEX)
    assert world.has_trouble


def test_an_index_made_again_may_know_no_more_of_damage_but_of_all_that_is_sound(
    world: World,
) -> None:
    """A sound older record counts instead of a damaged copy, and so no block of it is bad."""
    damaged, sound = hold(world, Harm(block=0)), hold(world)
    world.index_is_made(INDEX)
    assert not damaged.is_told(set())
    world.betrayed(a_segment(world), SEGMENT, (BLOCK, bytes(BLOCK)), 8 * BLOCK)
    world.index_is_made(INDEX)
    assert damaged.is_told(set())
    assert not sound.is_told({0})
    assert not sound.is_hurt
