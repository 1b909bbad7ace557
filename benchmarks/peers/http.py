"""
One HTTP/1.1 connection that stays open: what all peers but ours are asked over.

It moves bytes as the renter's client does (`farmer/client/wire.py`): steps of 256 KiB, one of
them in memory each way, the writer held back while the transport is full.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from benchmarks.peers.answers import AnswerReader, End, Event, Head
from farmer.client.limits import READ_AHEAD_BYTES
from farmer.protocol.limits import DATA_BYTES_SENT

SAID_BYTES_MAX: Final = 200
"""Of a refusal's body, for the message."""


class HttpError(Exception):
    """A peer did not do what it was asked."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked; a body of its own, or `sends_shard` for the shard at hand."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    sends_shard: bool = False

    def head(self, body_bytes: int) -> bytes:
        """Return the bytes before the body."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.method != "GET":
            lines.append(f"Content-Length: {body_bytes}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


Read = Callable[[int], Awaitable[bytes]]
"""Return the step of the body that begins there."""

Take = Callable[[bytes], Awaitable[None]]
"""Take the next step of an answer's body."""


@implementer(IHandshakeListener, IPushProducer)
class HttpConnection(Protocol):
    """A connection, used by one coroutine at a time."""

    def __init__(self) -> None:
        self.answers = AnswerReader()
        self._news: Deferred[None] | None = None
        self._lost: Failure | None = None
        self._clear = True
        self._reading = True
        self._secured = False

    async def until_secured(self) -> None:
        """Return when the TLS handshake is done; raises `HttpError`."""
        while not self._secured:
            await self._wait()

    async def exchange(
        self, request: Request, size_bytes: int, read: Read | None, take: Take
    ) -> None:
        """
        Send a request with its body, and take the body of a good answer.

        Raises:
            HttpError: another answer came, or the connection broke.

        """
        self._transport.write(request.head(size_bytes))
        at = 0
        while read is not None and at < size_bytes:
            part = await read(at)
            await self._until_clear()
            self._transport.write(part)
            at += len(part)
        head = await self._head()
        if not 200 <= head.status < 300:
            said = await self._said()
            raise HttpError(f"{head.status} to {request.method} {request.path}: {said}")
        ended = False
        while not ended:
            step, ended = await self._step()
            if step:
                await take(step)

    async def ask(self, request: Request) -> None:
        """Send a request with the body that it has itself; raises `HttpError`."""

        async def read(at: int) -> bytes:
            return request.body[at:]

        async def take(_step: bytes) -> None:
            """Nobody reads the answer."""

        await self.exchange(request, len(request.body), read, take)

    def close(self) -> None:
        """Hang up; everything has been answered."""
        if self._lost is None:
            self._transport.abortConnection()

    async def _head(self) -> Head:
        """Return the head of the answer, after those that only say "go on"."""
        while True:
            event = await self._next()
            assert isinstance(event, Head), event
            if event.status >= 200:
                return event
            await self._next()

    async def _step(self) -> tuple[bytes, bool]:
        """Return a step of the body, or what is left of it, and whether it was the last."""
        parts, size = [], 0
        event: Event | None = None
        while size < DATA_BYTES_SENT and not isinstance(event, End):
            event = await self._next()
            if isinstance(event, bytes):
                parts.append(event)
                size += len(event)
        return b"".join(parts), isinstance(event, End)

    async def _said(self) -> str:
        said, ended = b"", False
        while not ended:
            step, ended = await self._step()
            said += step[: SAID_BYTES_MAX - len(said)]
        return said.decode("utf-8", "replace")

    def _now(self) -> Event | None:
        event = self.answers.next_event()
        if not self._reading and self.answers.waiting_bytes < READ_AHEAD_BYTES:
            self._reading = True
            self._transport.resumeProducing()
        return event

    async def _next(self) -> Event:
        while (event := self._now()) is None:
            await self._wait()
        return event

    async def _until_clear(self) -> None:
        while not self._clear or self._lost:
            await self._wait()

    async def _wait(self) -> None:
        """Return when anything has happened."""
        assert self._news is None, "one coroutine at a time"
        if self._lost is not None:
            raise HttpError(f"the connection broke: {self._lost.getErrorMessage()}")
        news = self._news = Deferred()
        await news

    def connectionMade(self) -> None:
        """Begin."""
        self._transport.registerProducer(self, True)
        if hasattr(self._transport, "setTcpNoDelay"):
            self._transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        """TLS stands."""
        self._secured = True
        self._tell()

    def dataReceived(self, data: bytes) -> None:
        """Take bytes, and no more for now if a step is waiting."""
        self.answers.receive(data)
        if self._reading and self.answers.waiting_bytes >= READ_AHEAD_BYTES:
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
    def _transport(self) -> Any:
        assert self.transport is not None, "no transport before connectionMade"
        return self.transport

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.callback(None)
