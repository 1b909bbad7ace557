"""The network between renters and the farmer: bytes on their way, and all that befalls them."""

from __future__ import annotations

from random import Random
from typing import Any
from zlib import crc32

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from farmer.node.session import Session
from farmer.protocol.connection import Event, RenterConnection
from farmer.protocol.messages import Message

WIRE_BYTES = 64 * 1024


class Line:
    """
    One connection, both ends: a transport for the session, sans-IO for the renter.

    Bytes wait on the line until the world delivers them, so they may be late, cut anywhere,
    overtaken by those of other lines, or never arrive.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection = RenterConnection()
        self.session: Session | None = None
        self.to_farmer = bytearray()
        self.unsent = bytearray()
        self.stalled_until_s = 0.0
        self.is_half_open = False
        """The renter has vanished and the farmer was not told."""
        self.is_lost = False
        """Both ends know that it is over."""
        self.is_served = True
        """The farmer's coroutine for it has not ended."""
        self._reading = True
        self._producer: Any = None
        self._closing = False
        self._aborted = False
        self.is_ending = False
        """One of the two."""
        self.hangs_up = False
        """The renter goes as soon as the farmer has what was sent."""
        self.asks = 0
        """Which request, counted over all lines, is on its way to the farmer; 0 for none."""

    # The transport, as the session sees it.

    def write(self, data: bytes) -> None:
        if self.is_lost:
            return
        self.unsent += data
        if len(self.unsent) > WIRE_BYTES and self._producer is not None:
            self._producer.pauseProducing()

    write_now = write

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True

    def read_at_most(self, _size_bytes: int) -> None:
        """Read whatever the network brings at once."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def loseConnection(self) -> None:
        self._closing = self.is_ending = True

    def abortConnection(self) -> None:
        self._aborted = self.is_ending = True

    # The renter's end.

    def send(self, message: Message) -> None:
        self.to_farmer += self.connection.send(message)

    def send_data(self, data: bytes) -> None:
        self.to_farmer += self.connection.send_data(data)

    # What the world does with it.

    def can_move(self, now_s: float) -> bool:
        """Say whether something could be delivered now."""
        if self.is_lost:
            return False
        if self._aborted:
            return True
        if self.is_half_open or now_s < self.stalled_until_s:
            return False
        if self.to_farmer and self._reading:
            return True
        return bool(self.unsent) or self._closing

    def move(self, rng: Random, trace: Any) -> list[Event]:
        """Deliver something; return what the renter hears."""
        assert self.session is not None
        if self._aborted or (self._closing and not self.unsent):
            self.cut(ConnectionLost() if self._aborted else ConnectionDone())
            return []
        if self.to_farmer and self._reading and (not self.unsent or rng.random() < 0.5):
            part = _part(self.to_farmer, rng)
            trace("to farmer", self.number, len(part), crc32(part))
            self.session.dataReceived(part)
            if self.hangs_up and not self.to_farmer:
                self.cut(ConnectionLost())
            return []
        if not self.unsent:
            return []
        part = _part(self.unsent, rng)
        trace("to renter", self.number, len(part), crc32(part))
        if not self.unsent and self._producer is not None and self._producer.full:
            self._producer.resumeProducing()
        self.connection.receive(part)
        events = []
        while (event := self.connection.next_event()) is not None:
            events.append(event)
        return events

    def has_overtaken(self, others: list[Line]) -> bool:
        """Say, once, whether its request has arrived before one that was sent earlier."""
        if not self.asks or self.to_farmer:
            return False
        sent, self.asks = self.asks, 0
        return any(
            0 < other.asks < sent and not (other.is_lost or other.is_half_open) for other in others
        )

    def cut(self, reason: Exception) -> None:
        """End it on both sides."""
        if not self.is_lost:
            self.is_lost = True
            assert self.session is not None
            self.session.connectionLost(Failure(reason))


def _part(waiting: bytearray, rng: Random) -> bytes:
    size = len(waiting)
    if size > 1 and rng.random() < 0.1:
        size = 1 + int(rng.random() * size)
    part = bytes(waiting[:size])
    del waiting[:size]
    return part
