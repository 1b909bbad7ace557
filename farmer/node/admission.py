"""Who may come in: how many connections there are, whose, and who goes when all is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from twisted.internet.defer import Deferred

from farmer.model.ids import NodeId
from farmer.node.crowds import Crowd
from farmer.node.origins import networks
from farmer.node.ports import CloseReason
from farmer.node.refusals import DRAINING_RETRY_MS
from farmer.node.session import Guest, Session
from farmer.protocol.limits import (
    SESSIONS_MAX,
    SESSIONS_PER_ADDRESS_MAX,
    SESSIONS_PER_RENTER_MAX,
    STRANGERS_PART,
)
from farmer.protocol.refusals import Refusal, Refused

K = TypeVar("K")

NETWORK_PARTS: Final = (2, 4)
"""
Of all places strangers of one IPv6 /48 get at most the first part (a half), those of a /56 the
second: who owns such a network leaves room for others, who need not make it first.
"""

_STOPPING: Final = Refused(Refusal.DRAINING, DRAINING_RETRY_MS)


@dataclass(frozen=True, slots=True)
class Welcomed:
    """There is room; *instead* is whom to hang up on first, if anybody."""

    instead: Guest | None = None


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """There is no room: how many there are, and how many are allowed."""

    have: int
    allowed: int


@dataclass(frozen=True, slots=True)
class Places:
    """How many sessions there may be."""

    most: int = SESSIONS_MAX
    per_address: int = SESSIONS_PER_ADDRESS_MAX
    per_renter: int = SESSIONS_PER_RENTER_MAX

    @property
    def per_network(self) -> tuple[int, ...]:
        """How many strangers there may be of a network, the widest first."""
        return tuple(max(self.per_address, self.most // part) for part in NETWORK_PARTS)

    @property
    def for_renters(self) -> int:
        """How many renters with a contract fill at most; the others are for strangers."""
        return max(1, self.most - self.most // STRANGERS_PART - 1)


class Sessions:
    """
    The sessions there are, and which of them are being served.

    A session counts from its accept until its connection is closed or was cut; it is busy
    from a request to its answer, also when the renter has left and a thread is still at it.
    To its renter it counts as long as either is true: who hangs up on a disk that hangs, and
    comes again, gains no more of our memory; nor do all renters together, beyond as many of
    those as there are places.
    """

    def __init__(self, places: Places = Places()) -> None:
        self._places = places
        self._open: dict[Guest, None] = {}
        """The one that was served longest ago first."""
        self._from: Counter[str] = Counter()
        self._strangers = Crowd()
        self._whose: dict[Guest, NodeId] = {}
        """Of those that said HELLO, also of those that have left and are busy still."""
        self._of: Counter[NodeId] = Counter()
        self._busy: set[Guest] = set()
        self._asking: set[Guest] = set()
        """When draining: those that had sent more before their last answer."""
        self._draining = False
        self._watching: list[tuple[Deferred[None], bool]] = []

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Guest]:
        """Go through those that are here now; who leaves before it is reached is passed over."""
        return (guest for guest in tuple(self._open) if guest in self._open)

    @property
    def busy(self) -> int:
        """How many are being served."""
        return len(self._busy)

    @property
    def departed(self) -> int:
        """How many have left while a thread was at work for them, and it still is."""
        return sum(session not in self._open for session in self._busy)

    def decide(self, address: str) -> Welcomed | TurnedAway:
        """
        Say what to do with a new connection from an `origin`.

        When all is full, a stranger makes room: the oldest of the network that has most.  In a
        network that has all it may have, it is one of its own.
        """
        here = self._from[address]
        if here >= self._places.per_address:
            return TurnedAway(here, self._places.per_address)
        if (crowd := self._crowded(address)) is not None:
            return Welcomed(crowd.oldest())
        if len(self) < self._places.most:
            return Welcomed()
        instead = self._strangers.oldest() or self._idlest(self._open)
        if instead is None:
            return TurnedAway(len(self), self._places.most)
        return Welcomed(instead)

    def _crowded(self, address: str) -> Crowd | None:
        """Return the strangers of a network around an `origin` that has all it may have."""
        where = networks(address)[:-1]
        for depth, most in zip(range(1, len(where) + 1), self._places.per_network, strict=False):
            crowd = self._strangers.part(where[:depth])
            if crowd is not None and crowd.size >= most:
                return crowd
        return None

    def introduce(self, session: Session, renter: NodeId, *, known: bool) -> Welcomed | TurnedAway:
        """
        Say what to do with a session whose renter has said HELLO, or has a contract since.

        One with a contract may have to take the place of another such: the idlest session
        of the renter who has most.
        """
        is_counted = session in self._whose
        have = self._of[renter]
        if have >= self._places.per_renter and not is_counted:
            return TurnedAway(have, self._places.per_renter)
        answer = self._among_renters(session) if known else Welcomed()
        if isinstance(answer, TurnedAway):
            return answer
        if known:
            self._strangers.discard(session, networks(session.address))
        if not is_counted:
            self._whose[session] = renter
            self._of[renter] += 1
        return answer

    def _among_renters(self, session: Session) -> Welcomed | TurnedAway:
        """Say whether there is a place among the renters' with a contract."""
        if (departed := self.departed) >= self._places.most:
            return TurnedAway(departed, self._places.most)
        allowed = self._places.for_renters
        if len(self) <= allowed:
            return Welcomed()
        others = [other for other in self._open if other.known and other is not session]
        if len(others) < allowed:
            return Welcomed()
        instead = self._idlest(others)
        return TurnedAway(len(others), allowed) if instead is None else Welcomed(instead)

    def _idlest(self, sessions: Iterable[Guest]) -> Guest | None:
        """Return the session of whoever has most that was served longest ago and is not now."""
        idle = (one for one in sessions if one in self._whose and one not in self._busy)
        return max(idle, key=lambda session: self._of[self._whose[session]], default=None)

    def enter(self, guest: Guest) -> None:
        """Note one that has come."""
        self._open[guest] = None
        self._from[guest.address] += 1
        if not guest.known:
            self._strangers.add(guest, networks(guest.address))

    def leave(self, guest: Guest) -> None:
        """Note that it is over; safe twice."""
        if guest not in self._open:
            return
        del self._open[guest]
        self._asking.discard(guest)
        _less(self._from, guest.address)
        self._strangers.discard(guest, networks(guest.address))
        self._forget(guest)
        self._tell()

    def began(self, session: Session) -> None:
        """Note that a request is being served."""
        self._asking.discard(session)
        self._busy.add(session)

    def ended(self, session: Session) -> None:
        """Note its answer; when draining, that is the moment to say goodbye."""
        self._busy.discard(session)
        if session in self._open:
            self._open[session] = self._open.pop(session)
        self._forget(session)
        if self._draining and not session.over:
            if session.has_unread:
                self._asking.add(session)
            else:
                session.close(CloseReason.DRAINED)
        self._tell()

    def _forget(self, session: Guest) -> None:
        """Give the renter its place back when nothing of the session is left."""
        if session not in self._open and session not in self._busy and session in self._whose:
            _less(self._of, self._whose.pop(session))

    def check(self) -> None:
        """Hang up on renters that are late; called every second or so."""
        for session in self:
            session.check()

    def drain(self) -> Deferred[None]:
        """Close each session after its next answer; return what fires once none is busy."""
        self._draining = True
        return self._watch(closed=False)

    def close(self) -> Deferred[None]:
        """Close all, with a word to who awaits an answer; return what fires when all are gone."""
        for session in self:
            if session in self._busy or session.has_unread:
                session.hang_up(_STOPPING, CloseReason.DRAINED)
            else:
                session.close(CloseReason.DRAINED)
        return self._watch(closed=True)

    def _watch(self, *, closed: bool) -> Deferred[None]:
        watching: Deferred[None] = Deferred()
        self._watching.append((watching, closed))
        self._tell()
        return watching

    def _tell(self) -> None:
        """Fire what has come true."""
        for watching, closed in tuple(self._watching):
            if not (self._open if closed else self._busy or self._asking):
                self._watching.remove((watching, closed))
                watching.callback(None)


def _less(counted: Counter[K], key: K) -> None:
    """Count one less, and keep no zeros."""
    counted[key] -= 1
    if not counted[key]:
        del counted[key]
