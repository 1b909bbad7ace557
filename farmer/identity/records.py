# mypy: allow-untyped-calls
"""
TLS over Twisted, with fewer calls into OpenSSL.

Each call gives Python's lock away, and while threads hash and read the reactor waits until it
has it back.  Twisted asks OpenSSL for more until there is none, record by record; here it is
known how many records are whole.  Of what is written, two records are made by one call.  A
store of 2 MiB took a fifth less of the processor: see docs/decisions/speed.md.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, cast

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

HEADER_BYTES: Final = 5
"""Type, version and length of a TLS record (RFC 8446, 5.1)."""

PIECE_BYTES: Final = 2 * 16 * 1024
"""
Written at once: two full records.  OpenSSL keeps the room for it as long as the connection.
"""

RECORD_BYTES: Final = 16 * 1024
"""Plain bytes in one record."""

SLICE_BYTES: Final = 32 * 1024
"""What OpenSSL is given at once: it keeps the room for the largest piece as long as it lives."""

TAIL_BYTES: Final = 64
"""What may be left over at the end of what is written, say for a frame's header, goes with it."""

_SENT_BYTES_MAX: Final = PIECE_BYTES + 1024


class WholeRecords:
    """How many records of a stream are whole; keeps a header at most."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        """Bytes of the record that has begun which are still to come."""

    def take(self, data: bytes) -> int:
        """Take the next bytes; return how many records they complete."""
        at, size, whole = 0, len(data), 0
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                at += step
                self._left -= step
            else:
                header = self._header + data[at : at + HEADER_BYTES - len(self._header)]
                at += len(header) - len(self._header)
                if len(header) < HEADER_BYTES:
                    self._header = header
                    break
                self._header = b""
                self._left = int.from_bytes(header[-2:], "big")
            whole += not self._left
        return whole


class RecordTLS(BufferingTLSTransport):
    """
    See the module; for the `protocol` of a `TLSMemoryBIOFactory`.

    What is overridden is Twisted's own affair: the tests of TLS say if it changes.
    """

    def __init__(self, *words: Any, **named: Any) -> None:  # noqa: ANN401  # as Twisted has it
        super().__init__(*words, **named)
        self._records = WholeRecords()
        self._whole = 0
        self._plain: list[bytes] = []
        """What has come out of OpenSSL and is still to be passed on, all of it at once."""

    def dataReceived(self, data: bytes) -> None:
        """Count what is whole, ask OpenSSL for as much, and pass it on."""
        if len(data) <= SLICE_BYTES:
            self._receive(data)
        else:
            for at in range(0, len(data), SLICE_BYTES):
                # A slice before it may have ended all of it.
                if not self._lostTLSConnection:
                    self._receive(data[at : at + SLICE_BYTES])
        self._deliver()

    def _receive(self, data: bytes) -> None:
        self._whole += self._records.take(data)
        super().dataReceived(data)

    def write_now(self, data: bytes) -> None:
        """Write, with what waits for company, in this turn: nothing follows for now."""
        if getattr(self._aggregator, "_buffer", None):
            self._aggregator.write(data)
            self._aggregator.flush()
        else:
            TLSMemoryBIOProtocol.write(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let OpenSSL say whether its stream had ended."""
        self._whole += 1
        try:
            super().connectionLost(reason)
        except MemoryError:
            if not self.connected:
                raise
            # For what there was still to say.  Whoever is above has to hear of the end.
            self._lostTLSConnection = True
            super().connectionLost(reason)

    def _flushReceiveBIO(self) -> None:  # noqa: N802  # as Twisted has it
        """Ask for no more records than are whole; fewer of them may hold anything for us."""
        while self._whole and not self._lostTLSConnection:
            error = self._gather()
            if error is not None:
                self._deliver()
                if not self._lostTLSConnection:
                    self._no_data(error)

    def _gather(self) -> Error | None:
        """Take what whole records hold; return what came instead of the last."""
        while self._whole:
            self._whole -= 1
            try:
                self._plain.append(self._tlsConnection.recv(RECORD_BYTES))
            except Error as error:
                self._whole = 0
                return error
        return None

    def _deliver(self) -> None:
        plain = self._plain
        if plain:
            self._plain = []
            if not self._aborted:
                ProtocolWrapper.dataReceived(self, b"".join(plain))

    def _no_data(self, why: Error) -> None:
        """Hear that TLS spoke for itself, or that it is over."""
        if isinstance(why, ZeroReturnError):
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        elif not isinstance(why, WantReadError):
            self._tlsShutdownFinished(Failure(why))
        self._flushSendBIO()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:  # noqa: N802  # as Twisted has it
        """Let the connection close once all is sent, and nobody work for it until then."""
        if self._producer is not None:
            # What it writes goes nowhere.  A transport that had paused it would, when all is
            # sent, ask it for more instead of closing, and hear of nothing any more.
            self._producer.pauseProducing()
            self.unregisterProducer()
        super()._tlsShutdownFinished(reason)

    def _write(self, data: bytes) -> None:
        """Write several records by one call, and pass them all on by another."""
        view, at = memoryview(data), 0
        sealed: list[bytes] = []
        try:
            while at < len(view) and not self._lostTLSConnection:
                left = len(view) - at
                size = left if left <= PIECE_BYTES + TAIL_BYTES else PIECE_BYTES
                try:
                    at += self._tlsConnection.send(view[at : at + size])
                except WantReadError:
                    self._bufferedWrite(bytes(view[at:]))
                    break
                except Error:
                    self._pass_on(sealed)
                    self._tlsShutdownFinished(Failure())
                    return
                sealed.append(self._tlsConnection.bio_read(_SENT_BYTES_MAX))
            self._pass_on(sealed)
        except BaseException:
            # Say, no memory.  A record may be lost between OpenSSL and the wire, and Twisted
            # writes the same bytes again: whatever followed, the peer would be told wrong.
            self._break_off()
            raise

    def _break_off(self) -> None:
        """Hang up without a word, and write nothing more."""
        self._lostTLSConnection = self._aborted = self.disconnecting = True
        cast(ITCPTransport, self.transport).abortConnection()

    def _pass_on(self, sealed: list[bytes]) -> None:
        assert self.transport is not None
        if len(sealed) > 1:
            self.transport.writeSequence(sealed)
        elif sealed:
            self.transport.write(sealed[0])

    def _flushSendBIO(self) -> None:  # noqa: N802  # as Twisted has it
        """Pass on what OpenSSL has to send."""
        assert self.transport is not None
        with suppress(WantReadError):
            self.transport.write(self._tlsConnection.bio_read(_SENT_BYTES_MAX))
