"""
Before TLS: a connection costs little until its first words are here, and waits its turn.

OpenSSL takes 47 KiB for a connection that has said nothing, and a handshake takes our one
thread as long as several requests.  So TLS begins with a whole first record, not before (a
farmer has nothing to say until then), and handshakes pass a turnstile: those who are being
served wait for a few of them, not for a storm.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.interfaces import IProtocol, ISystemHandle, ITCPTransport, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from farmer.identity.records import WholeRecords
from farmer.node.deadlines import Patience
from farmer.node.origins import widest
from farmer.node.ports import CloseReason
from farmer.node.session import Session, Surroundings
from farmer.node.wire import Wire
from farmer.protocol.refusals import Refused

FIRST_BYTES_MAX: Final = 4096
"""Of a record not yet whole: ours have 1.5 KiB at most.  What is larger, OpenSSL may judge."""

HANDSHAKE_STEPS_MAX: Final = 16
"""
Turns that a handshake takes: ours two, others' some more.  A record may have a byte, and so each
packet could take one.
"""

UNSENT_BYTES: Final = 256 * 1024
"""What the kernel takes ahead of a peer's reading; without that it is megabytes each."""

_HANDSHAKE: Final = b"\x16"
"""The type of a first record (RFC 8446, 5.1)."""


class Arrival(Protocol):
    """
    One TCP connection from its accept on; as a guest it counts until a session does.

    What comes is kept until a record is whole, then waits its turn to go through TLS to the
    session; after the handshake it waits no more.
    """

    known = False
    has_unread = False

    def __init__(
        self,
        around: Surroundings,
        address: str,
        behind_tls: Callable[[Session], IProtocol],
    ) -> None:
        """*behind_tls* wraps a session in the farmer's side of TLS."""
        self.address = address
        self._around = around
        self._behind_tls = behind_tls
        self._patience = Patience(around.clock.seconds())
        self._early = bytearray()
        self._records = WholeRecords()
        self._has_whole = False
        """Whether a record has become whole that is kept still."""
        self._steps = 0
        self._session: Session | None = None
        self._tls: IProtocol | None = None
        self._is_waiting = False
        self._is_paused = False
        self._why: CloseReason | None = None

    # What Twisted tells us.

    def connectionMade(self) -> None:
        """Count it."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
            limit_unsent(cast(ISystemHandle, self.transport))
        self._around.meter.connection_opened()
        self._around.visitors.enter(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on; those of a handshake in their turn."""
        if self._session is not None and self._session.is_shaken:
            self._pass_on(data)
            return
        if self.over:
            return
        self._keep(data)
        if self._is_waiting or not self._may_be_judged():
            return
        self._is_waiting = True
        self._around.turnstile.ask(widest(self.address), self._go_on)
        if self._is_waiting:
            self._is_paused = True
            self._wire.pauseProducing()
            self._patience.stand_still(self._around.clock.seconds())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go."""
        self._ask_no_more()
        self._early.clear()
        if self._tls is not None:
            self._tls.connectionLost(reason)
            return
        why = self._why or CloseReason.LEFT
        self._around.visitors.leave(self)
        self._around.meter.handshake_failed(why.value)
        self._around.meter.connection_closed(why.value)

    # What admission asks of a guest.

    @property
    def over(self) -> bool:
        """Whether it was hung up on."""
        return self._why is not None

    def check(self) -> bool:
        """Hang up on who says nothing; called every second or so."""
        late = self._patience.late(self._around.clock.seconds())
        if late is not None:
            self.abort(late.reason)
        return late is not None

    def hang_up(self, _refused: Refused, reason: CloseReason) -> None:
        """Close at once: there is no way to say why."""
        self.abort(reason)

    def close(self, reason: CloseReason) -> None:
        """Close at once."""
        self.abort(reason)

    def abort(self, reason: CloseReason) -> None:
        """Close at once; its place is free from now on."""
        self._why = self._why or reason
        self._around.visitors.leave(self)
        self._ask_no_more()
        self._wire.abortConnection()

    # How it works.

    @property
    def _wire(self) -> Wire:
        assert self.transport is not None, "no wire before connectionMade"
        return cast(Wire, self.transport)

    def _go_on(self) -> None:
        """Do a step of the handshake; it is our turn."""
        self._is_waiting = False
        if self._is_paused:
            self._is_paused = False
            self._wire.resumeProducing()
            self._patience.run_on(self._around.clock.seconds())
        self._steps += 1
        if self._session is not None and self._steps > HANDSHAKE_STEPS_MAX:
            self._session.abort(CloseReason.HANDSHAKE)
            return
        if self._tls is None:
            self._begin_tls()
        early, self._early = bytes(self._early), bytearray()
        self._has_whole = False
        self._pass_on(early)

    def _keep(self, data: bytes) -> None:
        whole, _ = self._records.take(data, len(data) + 1)
        self._has_whole = self._has_whole or whole > 0
        self._early += data

    def _may_be_judged(self) -> bool:
        """Tell whether OpenSSL can get on: with a whole record, or with what is none."""
        is_none = self._tls is None and self._early[:1] != _HANDSHAKE
        return self._has_whole or is_none or len(self._early) >= FIRST_BYTES_MAX

    def _ask_no_more(self) -> None:
        """Give our turn up: whoever stays would wait for it."""
        self._around.turnstile.withdraw(widest(self.address), self._go_on)

    def _begin_tls(self) -> None:
        self._session = Session(self._around, self.address, self._patience)
        self._tls = self._behind_tls(self._session)
        self._tls.makeConnection(cast(ITransport, _Bare(self.transport)))
        # Only now: in between it would count as nobody.
        self._around.visitors.leave(self)

    def _pass_on(self, data: bytes) -> None:
        assert self._tls is not None
        self._tls.dataReceived(data)


class _Bare:
    """
    A transport that declares nothing of what it can, and sends at once.

    Twisted's TLS takes over each interface that is declared, which nobody here asks for, and
    which is a ninth of all that a connection costs.  Twisted's `write` waits for the next
    turn, with two calls to epoll, and joins what waits: of a small request's time that is a
    sixth, and of a large retrieve's more.
    """

    __slots__ = ("_socket", "_transport")

    def __init__(self, transport: object) -> None:
        self._transport: Any = transport
        self._socket: socket.socket | None = None
        if ISystemHandle.providedBy(transport):
            self._socket = cast(socket.socket, transport.getHandle())

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    @property
    def bufferSize(self) -> int:  # noqa: N802  # as Twisted has it
        """How much is read at once."""
        return cast(int, self._transport.bufferSize)

    @bufferSize.setter
    def bufferSize(self, size_bytes: int) -> None:  # noqa: N802
        self._transport.bufferSize = size_bytes

    def write(self, data: bytes) -> None:
        """Send what the kernel takes, if nothing waits to be sent before it."""
        self.write_from(memoryview(data))

    def write_from(self, room: memoryview) -> None:
        """Do the same with bytes that will be written over: what must wait is copied."""
        sent = 0
        if self._socket is not None and self._is_clear():
            try:
                sent = self._socket.send(room)
            except OSError:
                # Whatever is wrong: the transport will find out, and say so.
                sent = 0
        if sent < len(room):
            self._transport.write(bytes(room[sent:]))

    def _is_clear(self) -> bool:
        transport = self._transport
        has_unsent = transport.dataBuffer or transport._tempDataBuffer  # noqa: SLF001  # no other way
        return transport.connected and not (has_unsent or transport.disconnecting)


def limit_unsent(transport: ISystemHandle) -> None:
    """Let the kernel keep little that it cannot send yet, where it can be told so."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection = cast(socket.socket, transport.getHandle())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
