"""Two transports joined in memory, with backpressure both ways, and moved on by the test."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionLost as Lost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

FULL_BYTES = 256 * 1024


class MemoryTransport:
    """One end: what is written lies here until the pipe carries it to the other."""

    def __init__(self):
        self.outgoing = bytearray()
        self.most_waiting = 0
        self.reading = True
        self.reads: list[int] = []
        """How much was to be read at once from then on."""
        self.closing = False
        self.aborted = False
        self.is_open = True
        self.producer = None
        self.held_back = False

    def write(self, data):
        if not self.is_open or self.closing:
            return
        self.outgoing += data
        self.most_waiting = max(self.most_waiting, len(self.outgoing))
        if self.producer is not None and not self.held_back and len(self.outgoing) > FULL_BYTES:
            self.held_back = True
            self.producer.pauseProducing()

    def take(self, most):
        part = bytes(self.outgoing[:most])
        del self.outgoing[:most]
        if self.held_back and not self.outgoing:
            self.held_back = False
            self.producer.resumeProducing()
        return part

    def pauseProducing(self):
        self.reading = False

    def resumeProducing(self):
        self.reading = True

    def read_at_most(self, size_bytes):
        self.reads.append(size_bytes)

    def registerProducer(self, producer, streaming):
        assert streaming
        self.producer = producer

    def unregisterProducer(self):
        self.producer, self.held_back = None, False

    def loseConnection(self):
        self.closing = True

    def abortConnection(self):
        self.aborted = True


class Pipe:
    """Carries bytes between two protocols; `slice_bytes` at a time."""

    def __init__(self, one, other, slice_bytes=65536):
        self.ends = ((one, MemoryTransport()), (other, MemoryTransport()))
        self.slice_bytes = slice_bytes
        for protocol, transport in self.ends:
            protocol.makeConnection(transport)

    def move(self):
        """Carry what there is once in each direction; tell whether anything happened."""
        (one, ours), (other, theirs) = self.ends
        if not ours.is_open:
            return False
        moved = self._carry(ours, other, theirs) | self._carry(theirs, one, ours)
        if ours.aborted or theirs.aborted:
            self.cut(Lost())
            return True
        if any(end.closing and not end.outgoing for end in (ours, theirs)) and not moved:
            self.cut(ConnectionDone())
            return True
        return moved

    def _carry(self, source, protocol, target):
        if not target.reading or not source.outgoing:
            return False
        protocol.dataReceived(source.take(self.slice_bytes))
        return True

    def cut(self, reason=None):
        """End the connection for both."""
        if self.ends[0][1].is_open:
            for _, transport in self.ends:
                transport.is_open = False
            for protocol, _ in self.ends:
                protocol.connectionLost(Failure(reason or Lost()))


class World:
    """A clock and all pipes: runs a coroutine until it is done, moving time only when stuck."""

    def __init__(self):
        self.clock = Clock()
        self.pipes: list[Pipe] = []

    def run(self, work: Coroutine[Any, Any, Any], until_s: float = 1000.0) -> Any:
        """Return what the coroutine returns, or raise what it raises."""
        results = []
        deferred = Deferred.fromCoroutine(work)
        deferred.addBoth(results.append)
        end_s = self.clock.seconds() + until_s
        while not results:
            if not self.settle_once():
                assert self.clock.seconds() < end_s, "nothing more happens"
                self.clock.advance(0.25)
        self.settle()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def settle_once(self) -> bool:
        moved = [pipe.move() for pipe in self.pipes]
        return any(moved)

    def settle(self) -> None:
        while self.settle_once():
            pass
