from __future__ import annotations

import pytest

from farmer.protocol.refusals import LocalProtocolError
from farmer.protocol.state import (
    FARMER_SENDS,
    RENTER_SENDS,
    RENTERS_TURN,
    REQUESTS,
    TRANSITIONS,
    Side,
    State,
    advance,
    may,
    sender_of,
)
from farmer.protocol.types import Type


def test_every_message_has_its_sender() -> None:
    assert RENTER_SENDS | FARMER_SENDS | {Type.DATA, Type.END} == set(Type)
    assert not RENTER_SENDS & FARMER_SENDS


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.OPENED}
    while more := {to for (at, _), to in TRANSITIONS.items() if at in reached} - reached:
        reached |= more
    assert reached == set(State)
    assert {at for at, _ in TRANSITIONS} == set(State)


def test_every_exchange_can_be_refused_and_comes_back() -> None:
    for request in REQUESTS:
        assert (TRANSITIONS[State.IDLE, request], Type.REFUSE) in TRANSITIONS, request


def test_only_the_side_whose_turn_it_is_has_something_to_say() -> None:
    """In a state of the farmer's turn the renter owes nothing, so the farmer need not read."""
    for state, kind in TRANSITIONS:
        if state not in RENTERS_TURN:
            assert sender_of(state, kind) is Side.FARMER, (state, kind)
        elif kind is not Type.REFUSE and (state, kind) != (State.GREETING, Type.WELCOME):
            assert sender_of(state, kind) is Side.RENTER, (state, kind)


@pytest.mark.parametrize("side", list(Side))
def test_what_the_table_does_not_have_is_our_own_fault(side: Side) -> None:
    for state in State:
        for kind in Type:
            allowed = (state, kind) in TRANSITIONS and sender_of(state, kind) is side
            assert may(state, kind, side) is allowed
            if allowed:
                assert advance(state, kind, side) is TRANSITIONS[state, kind]
            else:
                with pytest.raises(LocalProtocolError, match=kind.name):
                    advance(state, kind, side)
