"""A contract database against what the volumes remember of it: what is news, and what is not."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.ids import NodeId
from farmer.storage.book import Book
from farmer.storage.generation import Generation
from farmer.storage.history import BookHistory
from tests.storage_contracts.world import ANNA, BERTA, DAY_MS, World

CARLA = NodeId(b"c" * 32)
STRANGE = Generation(b"x" * 16, 5, b"s" * 8)
OTHER = Generation(b"y" * 16, 5, b"s" * 8)


def history(world: World) -> BookHistory:
    return world.book.history


def is_in_doubt(world: World) -> bool:
    return bool(history(world).doubt)


def ahead(world: World) -> Generation:
    """Return a state of this database that it has not seen."""
    here = history(world).generation
    return replace(here, counter=here.counter + 1)


def test_what_the_database_was_itself_is_no_news(world: World) -> None:
    first = history(world).generation
    world.mint()
    second = history(world).generation
    assert second.counter > first.counter
    assert not history(world).meet([])
    assert not history(world).meet([second])
    assert not history(world).meet([first, second])
    assert (history(world).doubted_ms, history(world).doubt) == (0, "")
    assert len(world.book.open_invites()) == 1


@pytest.mark.parametrize("what", ["ahead", "another stamp", "another database"])
def test_what_it_never_was_withdraws_all_invites_durably(world: World, what: str) -> None:
    world.mint()
    here = history(world).generation
    seen = {
        "ahead": ahead(world),
        "another stamp": replace(here, stamp=b"s" * 8),
        "another database": replace(here, book=b"x" * 16),
    }[what]
    assert history(world).meet([here, seen])
    for _ in range(2):
        assert is_in_doubt(world)
        assert history(world).doubted_ms == world.wall_ms
        assert world.book.open_invites() == []
        world.restart()


def test_what_was_met_once_is_not_told_again(world: World) -> None:
    assert history(world).meet([STRANGE])
    assert not history(world).meet([STRANGE])
    world.mint()
    world.restart()
    assert not history(world).meet([STRANGE])
    assert len(world.book.open_invites()) == 1, "the invites that came after it hold"
    assert history(world).meet([STRANGE, OTHER])
    assert world.book.open_invites() == []


def test_the_doubt_counts_from_its_beginning(world: World) -> None:
    began_ms = world.wall_ms
    history(world).meet([STRANGE])
    world.sleep(DAY_MS)
    history(world).meet([OTHER])
    assert history(world).doubted_ms == began_ms
    assert world.restart().history.doubted_ms == began_ms


def test_a_doubt_that_begins_in_1970_is_one_all_the_same(world: World) -> None:
    world.wall_ms = 0
    history(world).meet([STRANGE])
    assert is_in_doubt(world)
    assert history(world).doubted_ms == 1
    assert world.restart().history.doubted_ms == 1


def test_what_was_settled_stays_settled_until_there_is_news(world: World) -> None:
    history(world).meet([STRANGE])
    history(world).settle()
    assert not is_in_doubt(world)
    world.restart()
    assert not is_in_doubt(world)
    history(world).settle()
    assert history(world).meet([OTHER])
    assert is_in_doubt(world)


def test_strangers_are_those_who_have_no_contract_here(world: World) -> None:
    world.join(ANNA)
    assert history(world).strangers([ANNA, BERTA, CARLA]) == [BERTA, CARLA]
    assert history(world).strangers([ANNA]) == []
    world.join(BERTA)
    assert history(world).strangers([ANNA, BERTA, CARLA]) == [CARLA]
    assert history(world).strangers([]) == []


def test_who_asks_may_change_the_answer_for_itself_alone(world: World) -> None:
    history(world).strangers([ANNA]).clear()
    assert history(world).strangers([ANNA]) == [ANNA]


def test_the_same_question_is_not_asked_of_the_disk_again(tmp_path: Path) -> None:
    """Every few seconds somebody asks; reading all contracts takes long."""
    asked: list[str] = []
    with closing(Book(tmp_path / "book.sqlite", bytes(32))) as book:
        known = BookHistory(book, lambda: 7)
        assert known.strangers([ANNA]) == [ANNA]
        with book.reading() as rows:
            rows.set_trace_callback(asked.append)
        assert known.strangers([ANNA]) == [ANNA]
        assert asked == []
        assert known.strangers([ANNA, BERTA]) == [ANNA, BERTA]
        assert asked
