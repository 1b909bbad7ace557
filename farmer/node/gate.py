"""Bytes that may be in memory at once: who comes too many waits in a queue."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred


class Gate:
    """
    Lets in up to a number of bytes, in the order of arrival.

    Invariant: `inside_bytes` <= limit.  Somebody larger than the limit waits until nobody
    is inside and then counts as the limit.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._queue: deque[tuple[int, Deferred[None]]] = deque()
        self.inside_bytes = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def enter(self, size_bytes: int) -> Deferred[None]:
        """
        Return a Deferred that fires once these bytes are inside.

        Cancel it to give up the place in the queue.  Whoever got in must `leave`.
        """
        turn: Deferred[None] = Deferred(self._give_up)
        self._queue.append((min(size_bytes, self._limit), turn))
        self._let_in()
        return turn

    def leave(self, size_bytes: int) -> None:
        """Take bytes out that had got in, and let the next in."""
        self.inside_bytes -= min(size_bytes, self._limit)
        assert self.inside_bytes >= 0, self.inside_bytes
        self._let_in()

    def _let_in(self) -> None:
        while self._queue and self.inside_bytes + self._queue[0][0] <= self._limit:
            size_bytes, turn = self._queue.popleft()
            self.inside_bytes += size_bytes
            turn.callback(None)

    def _give_up(self, turn: Deferred[None]) -> None:
        self._queue = deque(place for place in self._queue if place[1] is not turn)
        self._let_in()
