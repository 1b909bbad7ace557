"""What a renter has sent and nobody has asked for yet; it is read no further than needed."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from farmer.node.held import Account
from farmer.node.wire import Wire
from farmer.protocol.connection import Event, FarmerConnection
from farmer.protocol.limits import CONTROL_BYTES_MAX, DATA_BYTES_SENT, FRAME_HEADER_BYTES
from farmer.protocol.state import State

READ_AHEAD_BYTES: Final = DATA_BYTES_SENT
"""Unread bytes at which a session stops reading: the next step gathers while one is written."""

STRANGER_AHEAD_BYTES: Final = FRAME_HEADER_BYTES + CONTROL_BYTES_MAX
"""The same between transfers: one control frame always fits, a pile of them does not."""

_BULK: Final = frozenset({State.RECEIVING, State.DISCARDING})


class Inbox:
    """The receiving half of a connection, and the pace at which its wire is read."""

    def __init__(self, connection: FarmerConnection, account: Account) -> None:
        self._connection = connection
        self._account = account
        self._counted_bytes = 0
        """What stands in the account."""
        self._wire: Wire | None = None
        self._arrived: Deferred[None] | None = None
        self._reading = True

    @property
    def is_empty(self) -> bool:
        """Whether everything that has arrived was taken."""
        return not self._connection.waiting_bytes

    def attach(self, wire: Wire) -> None:
        """Pause and resume this one, which is reading."""
        self._wire = wire

    def receive(self, data: bytes) -> None:
        """Take bytes from the wire, and wake who waits for them."""
        self._connection.receive(data)
        self._adjust_reading()
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.callback(None)

    def take(self) -> Event | None:
        """Return the next event if it has arrived; raises `RemoteProtocolError`."""
        event = self._connection.next_event()
        self._adjust_reading()
        return event

    def arrival(self) -> Deferred[None]:
        """Return a Deferred that fires when more has arrived; one at a time."""
        self._arrived = Deferred()
        return self._arrived

    def read_on(self) -> None:
        """Read whatever comes: the only thing of interest now is the peer's close."""
        self._read(wanted=True)

    def drop(self) -> None:
        """Let go of what nobody will take: the work of a lost session may hang for long."""
        self._connection.forget()
        self._count(0)

    def _adjust_reading(self) -> None:
        waiting_bytes = self._connection.waiting_bytes
        self._count(waiting_bytes)
        bulk = self._connection.state in _BULK
        self._read(wanted=waiting_bytes < (READ_AHEAD_BYTES if bulk else STRANGER_AHEAD_BYTES))

    def _count(self, waiting_bytes: int) -> None:
        if waiting_bytes != self._counted_bytes:
            self._account.add(waiting_bytes - self._counted_bytes)
            self._counted_bytes = waiting_bytes

    def _read(self, *, wanted: bool) -> None:
        if wanted is self._reading or self._wire is None:
            return
        self._reading = wanted
        if wanted:
            self._wire.resumeProducing()
        else:
            self._wire.pauseProducing()
