"""Costly steps a few at a time, and the others between them."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from farmer.node.turnstile import STEPS_PER_TURN, Turnstile
from tests.node.wires import ForgetfulClock, pass_turn


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
    assert not steps.turnstile._waiting


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
    assert not steps.turnstile._waiting and not steps.clock.calls


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
