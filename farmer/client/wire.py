"""Twisted's side of a connection to a farmer: moves bytes and waits, decides nothing."""

from __future__ import annotations

from typing import Protocol as Shape
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from farmer.client.errors import (
    ConnectionLostError,
    FarmerBrokeProtocolError,
    FarmerTooSlowError,
)
from farmer.client.limits import READ_AHEAD_BYTES
from farmer.client.patience import Patience
from farmer.protocol.connection import Event, RenterConnection
from farmer.protocol.limits import CLOSE_S
from farmer.protocol.messages import Message
from farmer.protocol.refusals import RemoteProtocolError


class Transport(Shape):
    """All that is asked of a transport; TCP, TLS and fakes have it."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def pauseProducing(self) -> None:
        """Read no more for now: the farmer feels our pace."""

    def resumeProducing(self) -> None:
        """Read again."""

    def read_at_most(self, size_bytes: int) -> None:
        """Take so much at once from now on."""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Tell *producer* when to stop and go on writing."""

    def unregisterProducer(self) -> None:
        """Tell it no more."""

    def loseConnection(self) -> None:
        """Say good-bye, then hang up."""

    def abortConnection(self) -> None:
        """Hang up at once."""


@implementer(IHandshakeListener, IPushProducer)
class Wire(Protocol):
    """
    One connection, used by one coroutine at a time.

    At most one step of a stream lies here in either direction: reading stops when
    `READ_AHEAD_BYTES` are waiting, and `until_clear` holds a writer back.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.connection = RenterConnection()
        self._clock = clock
        self._news: Deferred[None] | None = None
        self._lost: Failure | None = None
        self._clear = True
        self._reading = True
        self.is_secured = False
        """Whether the TLS handshake is done."""
        self._closing = False

    @property
    def is_quiet(self) -> bool:
        """True while the connection stands and nothing unread lies here."""
        return self._lost is None and not self._closing and not self.connection.waiting_bytes

    def read_at_most(self, size_bytes: int) -> None:
        """Take so much at once from now on: each read has a price, and so has room for it."""
        self._transport.read_at_most(size_bytes)

    def send(self, message: Message) -> None:
        """Send a message; raises `LocalProtocolError` if the state forbids it."""
        self._transport.write(self.connection.send(message))

    def send_data(self, data: bytes) -> None:
        """Send one DATA frame; ask `until_clear` before the next."""
        self._transport.write(self.connection.send_data(data))

    async def until_secured(self, patience: Patience) -> None:
        """Return when the TLS handshake is done; raises `ConnectionLostError`."""
        while not self.is_secured:
            await self._wait(patience)

    def event_now(self) -> Event | None:
        """
        Return what the farmer did next if it has arrived, without waiting.

        Raises:
            FarmerBrokeProtocolError: what came is not of the protocol.

        """
        try:
            event = self.connection.next_event()
        except RemoteProtocolError as error:
            self.abort()
            raise FarmerBrokeProtocolError(f"the farmer broke the protocol: {error}") from error
        if not self._reading and self.connection.waiting_bytes < READ_AHEAD_BYTES:
            self._reading = True
            self._transport.resumeProducing()
        return event

    async def next_event(self, patience: Patience) -> Event:
        """
        Return what the farmer did next.

        Raises:
            ConnectionLostError: it hung up, or *patience* ended.
            FarmerBrokeProtocolError: what came is not of the protocol.

        """
        while (event := self.event_now()) is None:
            await self._wait(patience)
        return event

    async def until_clear(self, patience: Patience) -> Event | None:
        """
        Return when the transport takes more, or earlier with what the farmer did.

        Raises as `next_event`.
        """
        while (event := self.event_now()) is None and (not self._clear or self._lost):
            await self._wait(patience)
        return event

    async def close(self) -> None:
        """
        Say good-bye and read on until the farmer does, so that nothing sent is lost.

        TLS would reset a connection that is closed with bytes unread, and the farmer could
        lose what we sent last.
        """
        if self._lost is not None:
            return
        self._closing = True
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        self._transport.resumeProducing()
        patience = Patience(CLOSE_S)
        try:
            while self._lost is None:
                await self._wait(patience)
        except ConnectionLostError:
            return

    def abort(self) -> None:
        """Hang up at once."""
        self._closing = True
        if self._lost is None:
            self._transport.abortConnection()

    def connectionMade(self) -> None:
        """Begin."""
        self._transport.registerProducer(self, True)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)

    def handshakeCompleted(self) -> None:
        """TLS stands."""
        self.is_secured = True
        self._tell()

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; those of a farmer that we have said good-bye to are dropped."""
        if self._closing:
            return
        self.connection.receive(data)
        if self._reading and self.connection.waiting_bytes >= READ_AHEAD_BYTES:
            self._reading = False
            self._transport.pauseProducing()
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing more will come."""
        self._lost = reason
        self._tell()

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._clear = False

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._clear = True
        self._tell()

    def stopProducing(self) -> None:
        """The transport takes nothing any more; `connectionLost` follows."""

    @property
    def _transport(self) -> Transport:
        assert self.transport is not None, "no transport before connectionMade"
        return cast(Transport, self.transport)

    async def _wait(self, patience: Patience) -> None:
        """Return when anything has happened."""
        assert self._news is None, "one coroutine at a time"
        if self._lost is not None:
            raise ConnectionLostError(_how_it_ended(self._lost))
        if patience.left_s <= 0:
            self.abort()
            raise FarmerTooSlowError("the farmer did not answer in time; try again later")
        news = self._news = Deferred()
        alarm = self._clock.callLater(patience.left_s, self._tell)
        started_s = self._clock.seconds()
        try:
            await news
        finally:
            self._news = None
            patience.waited(self._clock.seconds() - started_s)
            if alarm.active():
                alarm.cancel()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.callback(None)


def _how_it_ended(reason: Failure) -> str:
    match reason.value:
        case ConnectionDone():
            return "the farmer hung up"
        case ConnectionLost():
            return "the connection to the farmer broke"
        case error:
            return f"the connection to the farmer broke: {error}"
