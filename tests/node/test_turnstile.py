"""Costly steps a few at a time, and the others between them."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from farmer.model.ids import NodeId
from farmer.node.turnstile import STEPS_PER_TURN, Turnstile
from tests.node.wires import RENTER, ForgetfulClock, pass_turn


class Steps:
    """Notes what was done, and lets the reactor's turns pass."""

    def __init__(self, per_turn: int = STEPS_PER_TURN) -> None:
        self.clock = Clock()
        self.turnstile = Turnstile(self.clock, per_turn)
        self.done: list[str] = []

    def ask(self, who: str, times: int = 1) -> None:
        for _ in range(times):
            self.turnstile.ask(who, lambda: self.done.append(who))

    def turn(self) -> list[str]:
        """Let one turn pass; return who was let through."""
        before = len(self.done)
        pass_turn(self.clock)
        return self.done[before:]


def nothing_is_kept(turnstile: Turnstile) -> bool:
    return not turnstile._renters and not turnstile._others


def test_a_step_is_done_at_once_when_few_were() -> None:
    """Whoever comes alone waits for nobody."""
    steps = Steps()
    for _ in range(10):
        steps.ask("a", STEPS_PER_TURN)
        assert steps.turnstile.waiting == 0
        steps.turn()

    assert len(steps.done) == 10 * STEPS_PER_TURN


def test_no_turn_has_more_than_a_few() -> None:
    """The rest waits for the turns that follow, and the reactor sleeps when there is none."""
    steps = Steps(2)
    steps.ask("a", 7)

    assert [len(steps.done), *(len(steps.turn()) for _ in range(4))] == [2, 2, 2, 1, 0]
    assert not steps.clock.calls


def test_who_asks_for_much_delays_himself() -> None:
    """Each is served in his turn, and his own steps in the order asked."""
    steps = Steps(1)
    steps.ask("greedy", 50)
    steps.ask("honest")

    assert steps.turn() == ["greedy"]
    assert steps.turn() == ["honest"]


def test_strangers_of_many_networks_take_every_other_turn_from_a_renter() -> None:
    """Networks cost nothing: a renter among hundreds of them waits for one, not for all."""
    steps = Steps(1)
    for number in range(100):
        steps.ask(f"network {number}")
    steps.turnstile.ask(RENTER, lambda: steps.done.append("renter"))
    steps.turnstile.ask(RENTER, lambda: steps.done.append("renter"))

    assert [name for _ in range(5) for name in steps.turn()] == [
        "renter",
        "network 1",
        "renter",
        "network 2",
        "network 3",
    ]


def test_many_renters_take_every_other_turn_from_a_stranger() -> None:
    """Who has yet to show a contract waits no longer."""
    steps = Steps(1)
    steps.ask("first")
    for number in range(100):
        renter = NodeId(number.to_bytes(32, "big"))
        steps.turnstile.ask(renter, lambda: steps.done.append("renter"))
    steps.ask("stranger")

    assert "stranger" in steps.turn() + steps.turn()


def test_small_steps_are_done_without_asking_until_there_were_many() -> None:
    """The reactor is woken when half of them were done, and then there are all again."""
    steps = Steps(8)
    assert [steps.turnstile.passes() for _ in range(3)] == [True] * 3
    assert not steps.clock.calls
    assert [steps.turnstile.passes() for _ in range(6)] == [True] * 5 + [False]
    assert len(steps.clock.calls) == 1
    steps.ask("late")
    assert not steps.done

    assert steps.turn() == ["late"]
    assert [steps.turnstile.passes() for _ in range(8)] == [True] * 7 + [False]


def test_no_small_step_overtakes_those_who_wait() -> None:
    steps = Steps(3)
    steps.ask("a", 3)
    passed = []
    for who in ("b", "c"):
        steps.turnstile.ask(who, lambda: passed.append(steps.turnstile.passes()))
    steps.turn()

    assert passed == [False, True], "one waited, then nobody"


def test_a_step_may_ask_for_another() -> None:
    """It waits like everybody's."""
    steps = Steps(1)
    steps.turnstile.ask("a", lambda: steps.ask("a", 2))

    assert steps.done == []
    assert [steps.turn() for _ in range(3)] == [["a"], ["a"], []]


def test_whoever_goes_takes_its_steps_back() -> None:
    """They cost nobody a turn, and nothing is kept of who has none left."""
    steps = Steps(1)
    steps.ask("a")
    gone = [partial(steps.done.append, number) for number in ("gone 1", "gone 2")]
    for step in gone:
        steps.turnstile.ask("b", step)
    steps.ask("c")
    for step in (*gone, *gone):
        steps.turnstile.withdraw("b", step)

    assert steps.turnstile.waiting == 1
    assert steps.turn() == ["c"]
    assert nothing_is_kept(steps.turnstile)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 1)), max_size=60))
def test_every_step_is_done_once(asked: list[tuple[str, int]]) -> None:
    """However asking and turns are mixed, and nothing is kept of anybody afterwards."""
    steps = Steps(3)
    for who, turns in asked:
        steps.ask(who)
        assert all(len(steps.turn()) <= 3 for _ in range(turns))
    while steps.turn():
        pass

    assert sorted(steps.done) == sorted(who for who, _ in asked)
    assert nothing_is_kept(steps.turnstile) and not steps.clock.calls


def test_a_turn_that_could_not_be_planned_is_planned_by_whoever_asks_next() -> None:
    steps = Steps()
    steps.clock = ForgetfulClock(failures=1)
    steps.turnstile = Turnstile(steps.clock, 1)
    with pytest.raises(MemoryError):
        steps.ask("a")
    assert not steps.done
    steps.ask("b", 2)
    assert steps.done == ["b"]
    assert steps.turn() == ["b"]


def test_a_turn_that_has_no_memory_for_the_next_loses_no_step() -> None:
    steps = Steps()
    steps.clock = ForgetfulClock(failures=0)
    steps.turnstile = Turnstile(steps.clock, 1)
    steps.ask("a", 3)
    steps.clock.failures = 1
    with pytest.raises(MemoryError):
        steps.turn()
    steps.ask("b")
    assert sorted(steps.turn() + steps.turn() + steps.turn()) == ["a", "a", "b"]
