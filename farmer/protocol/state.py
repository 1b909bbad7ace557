"""
What may happen when on one connection, as one table.

Rule 1: whatever decides "is this allowed now?" stands in this file.
Rule 2: this file does not know which side it serves: both sides advance the same state
by every message, sent or received, of the oldest open exchange.

docs/protocol.md prints TRANSITIONS; a test compares.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from farmer.protocol.refusals import LocalProtocolError
from farmer.protocol.types import Type


class Side(Enum):
    """Who sends a message."""

    __hash__ = object.__hash__
    """There is one of each; Enum's own hash runs in Python, at every look-up in the table."""

    RENTER = auto()
    FARMER = auto()


class State(Enum):
    """Where a connection stands."""

    __hash__ = object.__hash__
    """There is one of each; Enum's own hash runs in Python, at every look-up in the table."""

    OPENED = auto()
    GREETING = auto()
    IDLE = auto()
    REDEEMING = auto()
    SHOWING = auto()
    OFFERED = auto()
    RECEIVING = auto()
    DISCARDING = auto()
    SETTLING = auto()
    LOOKING_UP = auto()
    SENDING = auto()
    AUDITING = auto()
    STATING = auto()
    LISTING = auto()
    DELETING = auto()
    UNDELETING = auto()
    EXAMINING = auto()
    REPAIRING = auto()
    PINGING = auto()


TRANSITIONS: Final[dict[tuple[State, Type], State]] = {
    (State.OPENED, Type.HELLO): State.GREETING,
    (State.GREETING, Type.WELCOME): State.IDLE,
    (State.GREETING, Type.REFUSE): State.OPENED,
    # Contracts
    (State.IDLE, Type.REDEEM): State.REDEEMING,
    (State.REDEEMING, Type.CONTRACT): State.IDLE,
    (State.REDEEMING, Type.REFUSE): State.IDLE,
    (State.IDLE, Type.SHOW_CONTRACT): State.SHOWING,
    (State.SHOWING, Type.CONTRACT): State.IDLE,
    (State.SHOWING, Type.REFUSE): State.IDLE,
    # Store.  After a refusal in mid-transfer the data already on its way is thrown away,
    # up to the END that the renter owes.
    (State.IDLE, Type.STORE): State.OFFERED,
    (State.OFFERED, Type.ACCEPT): State.RECEIVING,
    (State.OFFERED, Type.STORED): State.IDLE,
    (State.OFFERED, Type.REFUSE): State.IDLE,
    (State.RECEIVING, Type.DATA): State.RECEIVING,
    (State.RECEIVING, Type.END): State.SETTLING,
    (State.RECEIVING, Type.REFUSE): State.DISCARDING,
    (State.DISCARDING, Type.DATA): State.DISCARDING,
    (State.DISCARDING, Type.END): State.IDLE,
    (State.SETTLING, Type.STORED): State.IDLE,
    (State.SETTLING, Type.REFUSE): State.IDLE,
    # Repair: a store of some blocks.
    (State.IDLE, Type.REPAIR): State.REPAIRING,
    (State.REPAIRING, Type.BAD_BLOCKS): State.RECEIVING,
    (State.REPAIRING, Type.STORED): State.IDLE,
    (State.REPAIRING, Type.REFUSE): State.IDLE,
    # Retrieve
    (State.IDLE, Type.RETRIEVE): State.LOOKING_UP,
    (State.LOOKING_UP, Type.SEND): State.SENDING,
    (State.LOOKING_UP, Type.REFUSE): State.IDLE,
    (State.SENDING, Type.DATA): State.SENDING,
    (State.SENDING, Type.END): State.IDLE,
    (State.SENDING, Type.REFUSE): State.IDLE,
    # Audit
    (State.IDLE, Type.AUDIT): State.AUDITING,
    (State.AUDITING, Type.DATA): State.AUDITING,
    (State.AUDITING, Type.END): State.IDLE,
    (State.AUDITING, Type.REFUSE): State.IDLE,
    # Small questions
    (State.IDLE, Type.STAT): State.STATING,
    (State.STATING, Type.STATED): State.IDLE,
    (State.STATING, Type.REFUSE): State.IDLE,
    (State.IDLE, Type.LIST): State.LISTING,
    (State.LISTING, Type.LISTED): State.IDLE,
    (State.LISTING, Type.REFUSE): State.IDLE,
    (State.IDLE, Type.DELETE): State.DELETING,
    (State.DELETING, Type.DELETED): State.IDLE,
    (State.DELETING, Type.REFUSE): State.IDLE,
    (State.IDLE, Type.UNDELETE): State.UNDELETING,
    (State.UNDELETING, Type.STATED): State.IDLE,
    (State.UNDELETING, Type.REFUSE): State.IDLE,
    (State.IDLE, Type.EXAMINE): State.EXAMINING,
    (State.EXAMINING, Type.BAD_BLOCKS): State.IDLE,
    (State.EXAMINING, Type.REFUSE): State.IDLE,
    (State.IDLE, Type.PING): State.PINGING,
    (State.PINGING, Type.PONG): State.IDLE,
    (State.PINGING, Type.REFUSE): State.IDLE,
    # An unknown request, or one that came too early, is turned down without a state of its own.
    (State.IDLE, Type.REFUSE): State.IDLE,
    (State.OPENED, Type.REFUSE): State.OPENED,
}

RENTER_SENDS: Final = frozenset(
    {
        *(Type.HELLO, Type.REDEEM, Type.SHOW_CONTRACT, Type.STORE, Type.RETRIEVE, Type.AUDIT),
        *(Type.STAT, Type.LIST, Type.DELETE, Type.UNDELETE, Type.PING),
        *(Type.EXAMINE, Type.REPAIR),
    }
)
"""Messages that only a renter sends."""

FARMER_SENDS: Final = frozenset(
    {
        *(Type.WELCOME, Type.REFUSE, Type.CONTRACT, Type.ACCEPT, Type.STORED, Type.SEND),
        *(Type.STATED, Type.LISTED, Type.DELETED, Type.PONG, Type.BAD_BLOCKS),
    }
)
"""Messages that only a farmer sends."""

RENTERS_TURN: Final = frozenset({State.OPENED, State.IDLE, State.RECEIVING, State.DISCARDING})
"""States in which the farmer has nothing to say and reads on; in all others it answers."""

REQUESTS: Final = frozenset(
    kind for (state, kind) in TRANSITIONS if state is State.IDLE and kind is not Type.REFUSE
)
"""Messages that open an exchange."""


def sender_of(state: State, kind: Type) -> Side:
    """Return which side sends *kind* in *state*; DATA and END go both ways."""
    if kind in (Type.DATA, Type.END):
        return Side.RENTER if state in RENTERS_TURN else Side.FARMER
    return Side.RENTER if kind in RENTER_SENDS else Side.FARMER


_NEXT: Final = {
    (state, kind, sender_of(state, kind)): after for (state, kind), after in TRANSITIONS.items()
}


def may(state: State, kind: Type, side: Side) -> bool:
    """Tell whether *side* may send *kind* in *state*."""
    return (state, kind, side) in _NEXT


def advance(state: State, kind: Type, side: Side) -> State:
    """
    Return the state after *side* has sent *kind*.

    Raises:
        LocalProtocolError: the table has no such row, or it is the other side's.

    """
    after = _NEXT.get((state, kind, side))
    if after is None:
        raise LocalProtocolError(f"{side.name} may not send {kind.name} in {state.name}")
    return after
