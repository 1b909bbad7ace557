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
from typing import Any, Final

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport
from twisted.python.failure import Failure

HEADER_BYTES: Final = 5
"""Type, version and length of a TLS record (RFC 8446, 5.1)."""

PIECE_BYTES: Final = 2 * 16 * 1024
"""
Written at once: two full records.  OpenSSL keeps the room for it as long as the connection.
"""

RECORD_BYTES_MAX: Final = 16 * 1024
"""Plain bytes in one record."""

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

    def dataReceived(self, data: bytes) -> None:
        """Count what is whole, then pass on as usual."""
        self._whole += self._records.take(data)
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let OpenSSL say whether its stream had ended."""
        self._whole += 1
        super().connectionLost(reason)

    def _flushReceiveBIO(self) -> None:  # noqa: N802  # as Twisted has it
        """Ask for no more records than are whole; fewer of them may hold anything for us."""
        while self._whole and not self._lostTLSConnection:
            pieces, error = self._pieces()
            if pieces and not self._aborted:
                ProtocolWrapper.dataReceived(self, b"".join(pieces))
            if error is not None and not self._lostTLSConnection:
                self._no_data(error)

    def _pieces(self) -> tuple[list[bytes], Error | None]:
        """Return what whole records hold, and what came instead of the last."""
        pieces = []
        while self._whole:
            self._whole -= 1
            try:
                pieces.append(self._tlsConnection.recv(RECORD_BYTES_MAX))
            except Error as error:
                self._whole = 0
                return pieces, error
        return pieces, None

    def _no_data(self, why: Error) -> None:
        """Hear that TLS spoke for itself, or that it is over."""
        if isinstance(why, ZeroReturnError):
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        elif not isinstance(why, WantReadError):
            self._tlsShutdownFinished(Failure(why))
        self._flushSendBIO()

    def _write(self, data: bytes) -> None:
        """Write several records by one call."""
        view, at = memoryview(data), 0
        while at < len(view) and not self._lostTLSConnection:
            try:
                at += self._tlsConnection.send(view[at : at + PIECE_BYTES])
            except WantReadError:
                self._bufferedWrite(bytes(view[at:]))
                return
            except Error:
                self._tlsShutdownFinished(Failure())
                return
            self._flushSendBIO()

    def _flushSendBIO(self) -> None:  # noqa: N802  # as Twisted has it
        """Pass on what OpenSSL has to send."""
        assert self.transport is not None
        with suppress(WantReadError):
            self.transport.write(self._tlsConnection.bio_read(_SENT_BYTES_MAX))
