"""What a renter has sent and nobody has asked for yet; it is read no further than needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred

from farmer.identity.records import READ_BYTES
from farmer.model.shard import BLOCK_BYTES
from farmer.node.held import Account
from farmer.node.turnstile import Turnstile, Who
from farmer.node.wire import Wire
from farmer.protocol.connection import Event, FarmerConnection
from farmer.protocol.frames import Piece
from farmer.protocol.limits import (
    CONTROL_BYTES_MAX,
    DATA_BYTES_SENT,
    FRAME_HEADER_BYTES,
    HELLO_BYTES_MAX,
)
from farmer.protocol.state import State

READ_AHEAD_BYTES: Final = DATA_BYTES_SENT
"""Unread bytes at which a session stops reading: the next step gathers while one is written."""

BLOCK_READ_BYTES: Final = BLOCK_BYTES + 8 * 1024
"""Read at once in a transfer: a block, with what frames and TLS put around it."""

STRANGER_AHEAD_BYTES: Final = FRAME_HEADER_BYTES + CONTROL_BYTES_MAX
"""The same between transfers: one control frame always fits, a pile of them does not."""

FIRST_AHEAD_BYTES: Final = FRAME_HEADER_BYTES + HELLO_BYTES_MAX
"""The same until WELCOME: a HELLO always fits."""

TURN_BYTES: Final = BLOCK_BYTES + 1024
"""
With so much a transfer waits for its turn: a block with its frames' headers, or a large read.
"""

_BULK: Final = frozenset({State.RECEIVING, State.DISCARDING})


class Inbox:
    """The receiving half of a connection, and the pace at which its wire is read."""

    def __init__(
        self,
        connection: FarmerConnection,
        account: Account,
        turnstile: Turnstile,
        holds_up: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """*holds_up* hears when we keep the renter waiting for our turn, and when no more."""
        self.whose: Who = ""
        """Who waits when this waits for its turn."""
        self._connection = connection
        self._account = account
        self._turnstile = turnstile
        self._holds_up = holds_up
        self._unturned_bytes = 0
        """Of a transfer, since its last turn."""
        self._awaits_turn = False
        self._asked_as: Who = ""
        self._counted_bytes = 0
        """What stands in the account."""
        self._wire: Wire | None = None
        self._arrived: Deferred[None] | None = None
        self._reading = True
        self._read_bytes = READ_BYTES
        self._in_bulk = False
        """Whether it is read as a transfer is."""
        self._is_fast = False
        """Whether the transfer has brought a block by one read: then it may bring more."""
        self._is_dropped = False

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
        self._count_transfer(len(data))
        self._adjust_reading()
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.callback(None)

    def take(self) -> Event | None:
        """Return the next event if it has arrived; raises `RemoteProtocolError`."""
        event = self._connection.next_event()
        self._adjust_reading()
        return event

    def take_data(self, limit_bytes: int) -> Piece:
        """Return bytes of a store that have arrived; raises `RemoteProtocolError`."""
        data = self._connection.take_data(limit_bytes)
        if data:
            self._adjust_reading()
        return data

    def arrival(self) -> Deferred[None]:
        """Return a Deferred that fires when more has arrived; one at a time."""
        self._arrived = Deferred()
        return self._arrived

    def read_on(self) -> None:
        """
        Read whatever comes: the only thing of interest now is the peer's close.

        Nothing may be received or taken any more.
        """
        self.drop()
        self._read_at_most(READ_BYTES)
        if not self._reading:
            self._read(wanted=True)

    def drop(self) -> None:
        """Let go of what nobody will take: the work of a lost session may hang for long."""
        self._is_dropped = True
        if self._awaits_turn:
            self._turnstile.withdraw(self._asked_as, self._go_on)
            self._awaits_turn = False
            self._holds_up(False)
        self._connection.forget()
        self._count(0)
        self._account.claim_large_reads(in_transfer=False)

    def _adjust_reading(self) -> None:
        waiting_bytes = self._connection.waiting_bytes
        if waiting_bytes != self._counted_bytes:
            self._count(waiting_bytes)
        limit_bytes = STRANGER_AHEAD_BYTES
        state = self._connection.state
        if state is State.OPENED or state is State.GREETING:
            limit_bytes = FIRST_AHEAD_BYTES
        elif state in _BULK:
            limit_bytes = min(READ_AHEAD_BYTES, self._account.step_bytes)
            self._adjust_reads(limit_bytes - waiting_bytes)
        elif self._in_bulk:
            self._end_bulk()
        wanted = waiting_bytes < limit_bytes and not self._awaits_turn
        if wanted is not self._reading:
            self._read(wanted=wanted)

    def _count_transfer(self, size_bytes: int) -> None:
        """Read a block of a transfer, then wait for our turn: the others have theirs."""
        if self._connection.state not in _BULK:
            self._unturned_bytes = 0
            return
        self._is_fast = self._is_fast or size_bytes >= BLOCK_BYTES
        self._unturned_bytes += size_bytes
        if self._unturned_bytes > TURN_BYTES and not self._awaits_turn:
            self._unturned_bytes = 0
            self._awaits_turn = True
            self._holds_up(True)
            self._asked_as = self.whose
            self._turnstile.ask(self._asked_as, self._go_on)

    def _go_on(self) -> None:
        self._awaits_turn = False
        self._holds_up(False)
        self._adjust_reading()

    def _count(self, waiting_bytes: int) -> None:
        self._account.add(waiting_bytes - self._counted_bytes)
        self._counted_bytes = waiting_bytes

    def _adjust_reads(self, most_bytes: int) -> None:
        """Read by blocks in a transfer, by up to *most_bytes* where that is worth the room."""
        if self._is_dropped:
            self._end_bulk()
            return
        self._in_bulk = True
        size_bytes = BLOCK_READ_BYTES
        if self._account.claim_large_reads(in_transfer=True) and self._is_fast:
            size_bytes = max(size_bytes, most_bytes)
        self._read_at_most(size_bytes)

    def _end_bulk(self) -> None:
        self._in_bulk = self._is_fast = False
        self._account.claim_large_reads(in_transfer=False)
        self._read_at_most(READ_BYTES)

    def _read_at_most(self, size_bytes: int) -> None:
        if size_bytes != self._read_bytes and self._wire is not None:
            self._read_bytes = size_bytes
            self._wire.read_at_most(size_bytes)

    def _read(self, *, wanted: bool) -> None:
        if self._wire is None:
            return
        self._reading = wanted
        if wanted:
            self._wire.resumeProducing()
        else:
            self._wire.pauseProducing()
