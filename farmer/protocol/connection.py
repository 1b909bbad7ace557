"""
One side of a connection without any I/O: bytes in, events out; messages in, bytes out.

Both sides follow the table of `farmer.protocol.state`.  They differ in one thing: a
renter may send requests before earlier ones are answered, so its state is that of the
oldest open exchange and the others wait in a queue; the farmer simply leaves later
requests unread in its buffer until it has answered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from farmer.protocol.frames import (
    Chunk,
    ControlFrame,
    DataPart,
    FrameReader,
    Piece,
    data_header,
)
from farmer.protocol.limits import (
    DATA_BYTES_SENT,
    HELLO_BYTES_MAX,
    PIPELINE_MAX,
)
from farmer.protocol.messages import Message, decode, encode
from farmer.protocol.opening import End, Refuse
from farmer.protocol.refusals import (
    LocalProtocolError,
    Refusal,
    Refused,
    RemoteProtocolError,
)
from farmer.protocol.state import RENTERS_TURN, REQUESTS, Side, State, advance, may
from farmer.protocol.types import Type


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Some bytes of a transfer, in order; at most one DATA frame's worth."""

    data: Piece


@dataclass(frozen=True, slots=True)
class UnknownReceived:
    """A whole frame of a type that this release does not know; the farmer refuses it."""

    kind: int


Event = Message | DataReceived | UnknownReceived


_TYPES: Final = {kind.value: kind for kind in Type}


class _Connection:
    """What both sides share: the state, the frames, the translation of faults."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._peer = Side.FARMER if side is Side.RENTER else Side.RENTER
        self._frames = FrameReader()
        self.state = State.OPENED

    @property
    def waiting_bytes(self) -> int:
        """Bytes that have arrived and were not yet turned into events."""
        return self._frames.waiting_bytes

    @property
    def has_whole(self) -> bool:
        """Whether a whole step of the peer's waits to be turned into an event."""
        return self._frames.has_whole

    def receive(self, data: bytes) -> None:
        """Take bytes from the wire; `next_event` says what they meant."""
        self._frames.feed(data)

    def forget(self) -> None:
        """Let go of bytes that nobody will ask for any more."""
        self._frames.clear()

    def send_data(self, data: Chunk) -> bytes:
        """Return one DATA frame: 1 B to 256 KiB, so that a step needs little memory."""
        assert 0 < len(data) <= DATA_BYTES_SENT, len(data)
        self.state = advance(self.state, Type.DATA, self._side)
        return b"".join((data_header(len(data)), data))

    def _next(self) -> Event | None:
        frame = self._frames.take()
        match frame:
            case None:
                return None
            case ControlFrame(kind, body):
                return self._control(kind, body)
            case DataPart(data):
                self._check(Type.DATA)
                self._received(Type.DATA)
                return DataReceived(data)

    def _control(self, raw_kind: int, body: bytes) -> Event:
        kind = _TYPES.get(raw_kind)
        if kind is None:
            return self._unknown(raw_kind)
        self._check(kind)
        message = decode(kind, body)
        self._received(kind)
        return message

    def _unknown(self, raw_kind: int) -> Event:
        raise RemoteProtocolError(Refused(Refusal.UNKNOWN_MESSAGE, raw_kind))

    def _check(self, kind: Type) -> None:
        if not may(self.state, kind, self._peer):
            raise RemoteProtocolError(
                Refused(Refusal.OUT_OF_ORDER, kind), f"{kind.name} in {self.state.name}"
            )

    def _received(self, kind: Type) -> None:
        """Follow in the table what was checked."""
        self.state = advance(self.state, kind, self._peer)


class FarmerConnection(_Connection):
    """The farmer's side."""

    def __init__(self) -> None:
        super().__init__(Side.FARMER)

    def next_event(self) -> Event | None:
        """
        Return what the renter did next; None if no whole step has arrived.

        None also while the last request is still to be answered.

        Raises:
            RemoteProtocolError: the renter broke the protocol; tell it why and hang up.

        """
        if self.state not in RENTERS_TURN:
            return None
        if self.state is State.OPENED:
            self._check_first()
        return self._next()

    def take_data(self, limit_bytes: int) -> Piece:
        """
        Return bytes of the store being received: a short way for `DataReceived`.

        Empty if none have arrived, or if it is `next_event` that says what came.

        Raises:
            RemoteProtocolError: as `next_event`.

        """
        return self._frames.take_data(limit_bytes) if self.state is State.RECEIVING else b""

    def send(self, message: Message) -> bytes:
        """Return the frame of an answer and follow it in the table."""
        self.state = advance(self.state, message.TYPE, self._side)
        return encode(message)

    def send_last(self, data: bytes, head: Message | None = None) -> bytes:
        """Return *head*, if an answer has one, then its last or only DATA, then END."""
        assert 0 < len(data) <= DATA_BYTES_SENT, len(data)
        first = b"" if head is None else self.send(head)
        self.state = advance(self.state, Type.DATA, self._side)
        # Joined once: a step is worth no second copy.
        return b"".join((first, data_header(len(data)), data, self.send(End())))

    def _check_first(self) -> None:
        """Do not wait for the rest of a first frame that is no HELLO."""
        kind = self._frames.peek()
        if kind == Type.HELLO:
            self._frames.check_length(HELLO_BYTES_MAX)
        elif kind is not None:
            raise RemoteProtocolError(Refused(Refusal.OUT_OF_ORDER, kind))

    def refuse(self, refused: Refused) -> bytes:
        """Return a refusal of the open exchange."""
        return self.send(Refuse(refused))

    def hang_up(self, refused: Refused) -> bytes:
        """Return the last words to a peer that broke the protocol, whatever the state."""
        return encode(Refuse(refused, final=True))

    def _unknown(self, raw_kind: int) -> Event:
        if self.state is not State.IDLE:
            raise RemoteProtocolError(Refused(Refusal.OUT_OF_ORDER, raw_kind))
        return UnknownReceived(raw_kind)


class RenterConnection(_Connection):
    """The renter's side."""

    def __init__(self) -> None:
        super().__init__(Side.RENTER)
        self._asked: deque[Type] = deque()

    def send(self, message: Message) -> bytes:
        """
        Return the frame of a HELLO, a request, or the END of a store.

        Requests may be sent before earlier ones are answered; nothing may follow a STORE
        or a REPAIR until it is refused, answered or ended.

        Raises:
            LocalProtocolError: not possible now.

        """
        kind = message.TYPE
        if kind in REQUESTS and (self.state is not State.IDLE or self._asked):
            if not self._may_pipeline():
                raise LocalProtocolError(f"{kind.name} must wait for the open exchange")
            self._asked.append(kind)
        else:
            self.state = advance(self.state, kind, self._side)
        return encode(message)

    def next_event(self) -> Event | None:
        """
        Return what the farmer did next, or None until more arrives.

        Raises:
            RemoteProtocolError: the farmer broke the protocol; hang up.

        """
        event = self._next()
        if self.state is State.IDLE and self._asked:
            self.state = advance(self.state, self._asked.popleft(), self._side)
        return event

    def _may_pipeline(self) -> bool:
        last_brings_data = bool(self._asked) and self._asked[-1] in (Type.STORE, Type.REPAIR)
        full = len(self._asked) >= PIPELINE_MAX
        return self.state not in _NOTHING_FOLLOWS and not last_brings_data and not full

    def _check(self, kind: Type) -> None:
        # A final refusal may come at any time: the farmer's last words before it hangs up.
        if kind is not Type.REFUSE:
            super()._check(kind)

    def _received(self, kind: Type) -> None:
        if kind is Type.REFUSE and not may(self.state, kind, self._peer):
            return
        super()._received(kind)


_NOTHING_FOLLOWS: Final = frozenset(
    {
        *(State.OPENED, State.GREETING, State.OFFERED, State.REPAIRING),
        *(State.RECEIVING, State.DISCARDING),
    }
)
"""Where a renter's next request has to wait: shard data may have to come first."""
