"""What may be in memory, or at work, at once: who comes too many waits in a queue."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred

SHARES: Final = 4
"""One renter holds at most this part of a gate: its idle sessions do not lock the others out."""


@dataclass(frozen=True, slots=True)
class _Place:
    who: Hashable
    size_bytes: int
    turn: Deferred[None]


class Gate:
    """
    Lets in up to a number of bytes, in the order of arrival.

    Invariant: `inside_bytes` <= limit.  Somebody larger than the limit waits until nobody
    is inside and then counts as the limit.  Whoever holds a share of the gate (or something
    larger than a share) waits for itself, and is overtaken meanwhile.  Of the others whoever
    holds least goes first, then who came first: sessions sent ahead gain nobody a place.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._queue: deque[_Place] = deque()
        self._held: Counter[Hashable] = Counter()
        self.inside_bytes = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def is_wanted(self, besides: Hashable) -> bool:
        """Tell whether somebody else than *besides* waits."""
        return any(place.who != besides for place in self._queue)

    def enter(self, who: Hashable, size_bytes: int) -> Deferred[None]:
        """
        Return a Deferred that fires once these bytes are inside.

        Cancel it to give up the place in the queue.  Whoever got in must `leave`.
        """
        place = _Place(who, min(size_bytes, self._limit), Deferred(self._give_up))
        if self._queue or self._waits_for_itself(place) or not self._has_room_for(place):
            self._queue.append(place)
            self._let_in()
        else:
            self._take_in(place)
        return place.turn

    def leave(self, who: Hashable, size_bytes: int) -> None:
        """Take bytes out that had got in, and let the next in."""
        size_bytes = min(size_bytes, self._limit)
        self.inside_bytes -= size_bytes
        self._held[who] -= size_bytes
        assert self.inside_bytes >= 0 and self._held[who] >= 0, (self.inside_bytes, who)
        if not self._held[who]:
            del self._held[who]
        self._let_in()

    def _let_in(self) -> None:
        while self._queue and (place := self._next()) is not None:
            self._queue.remove(place)
            self._take_in(place)

    def _take_in(self, place: _Place) -> None:
        self.inside_bytes += place.size_bytes
        self._held[place.who] += place.size_bytes
        place.turn.callback(None)

    def _next(self) -> _Place | None:
        """Return whose turn it is, if the gate has room for it."""
        able = [place for place in self._queue if not self._waits_for_itself(place)]
        place = min(able, key=lambda place: self._held[place.who], default=None)
        return None if place is None or not self._has_room_for(place) else place

    def _has_room_for(self, place: _Place) -> bool:
        return self.inside_bytes + place.size_bytes <= self._limit

    def _waits_for_itself(self, place: _Place) -> bool:
        held = self._held[place.who]
        return bool(held) and held + place.size_bytes > self._limit // SHARES

    def _give_up(self, turn: Deferred[None]) -> None:
        self._queue = deque(place for place in self._queue if place.turn is not turn)
        self._let_in()
