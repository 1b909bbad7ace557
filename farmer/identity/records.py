# mypy: allow-untyped-calls
"""
TLS over Twisted, with fewer calls into OpenSSL, and less around each.

Each call gives Python's lock away, and while threads hash and read the reactor waits until it
has it back.  Twisted asks OpenSSL for more until there is none, record by record; here it is
known how many records are whole.  Of what is written, two records are made by one call.

Records of a connection that stands are opened and sealed one behind the other in one room, and
copied out of it once.  pyOpenSSL would take room for each of them, and ask for an error after
each that went well: so OpenSSL is called through the binding below it, as Twisted does for what
pyOpenSSL lacks, and whatever did not go well is left to pyOpenSSL to name.  See
docs/decisions/speed.md.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, cast

from OpenSSL._util import ffi, lib
from OpenSSL.SSL import Connection, Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from farmer.protocol.limits import DATA_BYTES_SENT

HEADER_BYTES: Final = 5
"""Type, version and length of a TLS record (RFC 8446, 5.1)."""

PIECE_BYTES: Final = 2 * 16 * 1024
"""
Written at once: two full records.  OpenSSL keeps the room for it as long as the connection.
"""

READ_BYTES: Final = 64 * 1024
"""Read at once unless `RecordTLS.read_at_most` says otherwise: what Twisted reads by itself."""

RECORD_BYTES: Final = 16 * 1024
"""Plain bytes in one record."""

SLICE_BYTES: Final = 32 * 1024
"""What OpenSSL is given at once: it keeps the room for the largest piece as long as it lives."""

SILENT_RECORDS_MAX: Final = 64
"""
Records of one connection that bring nothing for us, the last of its handshake among them; and how
many OpenSSL is given at once.  A peer may ask for new keys (RFC 8446, 4.6.3), which costs us keys
and an answer, and it 27 bytes; ours never does, and others once in many gigabytes.
"""

TAIL_BYTES: Final = 64
"""What may be left over at the end of what is written, say for a frame's header, goes with it."""

_SENT_BYTES_MAX: Final = PIECE_BYTES + 1024
"""What OpenSSL makes of a piece, with its tail."""

_ROOM_BYTES: Final = DATA_BYTES_SENT + 2 * _SENT_BYTES_MAX
"""All that one read, or the writing of one frame, makes; with more, it is used several times."""

_OPENED: Final = ffi.new("char[]", _ROOM_BYTES)
"""Where records are opened; empty again before anybody hears of them."""

_SEALED: Final = ffi.new("char[]", _ROOM_BYTES)
"""Where records are sealed; empty again before they are passed on."""

_LEANT_ON: Final = (
    *(lib.SSL_read, lib.SSL_write, lib.BIO_read, lib.BIO_write),
    *(Connection._raise_ssl_error, Connection._handle_bio_errors),  # noqa: SLF001
)
"""Named here, so that a pyOpenSSL without one of them is noticed at the start."""


class WholeRecords:
    """How many records of a stream are whole; keeps a header at most."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        """Bytes of the record that has begun which are still to come."""

    def take(self, data: bytes | memoryview, most: int) -> tuple[int, int]:
        """
        Take the next bytes, but none behind the *most*-th record that they complete.

        Return how many records they complete, and how many bytes were taken.
        """
        known_bytes = len(self._header)
        if known_bytes:
            data, self._header = self._header + data, b""
        at, size = self._left, len(data)
        whole = int(0 < at <= size)
        while whole < most and at + HEADER_BYTES <= size:
            at += HEADER_BYTES + (data[at + 3] << 8 | data[at + 4])
            whole += at <= size
        if whole == most:
            size = at
        elif at < size:
            self._header = bytes(data[at:])
        self._left = max(at - size, 0)
        return whole, size - known_bytes


class RecordTLS(BufferingTLSTransport):
    """
    See the module; for the `protocol` of a `TLSMemoryBIOFactory`.

    What is overridden is Twisted's own affair: the tests of TLS say if it changes.
    """

    def __init__(self, *words: Any, **named: Any) -> None:  # noqa: ANN401  # as Twisted has it
        super().__init__(*words, **named)
        self._records = WholeRecords()
        self._whole = 0
        self._silent = 0
        """Records that brought nothing, since the handshake."""
        self._opened_bytes = 0
        """What lies in `_OPENED`, to be passed on all at once."""

    def read_at_most(self, size_bytes: int) -> None:
        """
        Ask the kernel for so much at once from now on; it is made room for each time.

        Twisted counts by it, too, how much may lie unsent before a producer has to pause.
        """
        transport: Any = self.transport
        transport.bufferSize = size_bytes

    def dataReceived(self, data: bytes) -> None:
        """Count what is whole, ask OpenSSL for as much, and pass it on."""
        view = memoryview(data)
        try:
            with ffi.from_buffer(data) as address:
                at = 0
                # A slice before it may have ended all of it.
                while at < len(data) and not self._lostTLSConnection:
                    at += self._take(address + at, view[at : at + SLICE_BYTES])
            self._deliver()
        except BaseException:
            # Say, no memory.  What lies in the room is lost, and will be another connection's.
            self._opened_bytes = 0
            self._break_off()
            raise

    def _take(self, address: Any, part: memoryview) -> int:  # noqa: ANN401  # a pointer of cffi
        """Open what a slice makes whole, or the first of it; return how many bytes were taken."""
        whole, size_bytes = self._records.take(part, SILENT_RECORDS_MAX)
        self._whole += whole
        if self._handshakeDone and not self._appSendBuffer:
            bio = self._tlsConnection._into_ssl  # noqa: SLF001
            if lib.BIO_write(bio, address, size_bytes) != size_bytes:
                self._tlsConnection._handle_bio_errors(bio, -1)  # noqa: SLF001
            self._flushReceiveBIO()
        else:
            self._deliver()
            super().dataReceived(bytes(part[:size_bytes]))
        return size_bytes

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
        """Open whole records; return what came instead of the last."""
        connection, opened_bytes = self._tlsConnection, self._opened_bytes
        while self._whole:
            if opened_bytes > _ROOM_BYTES - RECORD_BYTES:
                self._opened_bytes = opened_bytes
                self._deliver()
                opened_bytes = 0
            self._whole -= 1
            result = lib.SSL_read(connection._ssl, _OPENED + opened_bytes, RECORD_BYTES)  # noqa: SLF001
            if result > 0:
                opened_bytes += result
            else:
                # All of those that are left, and this one, brought nothing.
                self._count_silent(self._whole + 1)
                self._whole, self._opened_bytes = 0, opened_bytes
                return _reason(connection, result)
        self._opened_bytes = opened_bytes
        return None

    def _count_silent(self, records: int) -> None:
        """Hang up on a peer that keeps us busy with TLS itself."""
        if not self._handshakeDone:
            return
        self._silent += records
        if self._silent > SILENT_RECORDS_MAX:
            self._reason = Failure(Error("too many records that bring nothing"))
            self._break_off()

    def _deliver(self) -> None:
        size_bytes, self._opened_bytes = self._opened_bytes, 0
        if size_bytes and not self._aborted:
            ProtocolWrapper.dataReceived(self, ffi.buffer(_OPENED, size_bytes)[:])

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
        at = sealed_bytes = 0
        why: Error | None = None
        try:
            with ffi.from_buffer(data) as address:
                while at < len(data) and not (why or self._lostTLSConnection):
                    left = len(data) - at
                    size = left if left <= PIECE_BYTES + TAIL_BYTES else PIECE_BYTES
                    if sealed_bytes > _ROOM_BYTES - _SENT_BYTES_MAX:
                        self._pass_on(sealed_bytes)
                        sealed_bytes = 0
                    why = self._seal(address + at, size)
                    if why is None:
                        at += size
                        sealed_bytes += self._sealed(sealed_bytes)
            self._pass_on(sealed_bytes)
            if why is not None:
                self._not_written(data[at:], why)
        except BaseException:
            # Say, no memory.  A record may be lost between OpenSSL and the wire, and Twisted
            # writes the same bytes again: whatever followed, the peer would be told wrong.
            self._break_off()
            raise

    def _seal(self, address: Any, size_bytes: int) -> Error | None:  # noqa: ANN401  # as above
        """Have OpenSSL take all of it, or return why it takes none."""
        connection = self._tlsConnection
        result = lib.SSL_write(connection._ssl, address, size_bytes)  # noqa: SLF001
        return None if result == size_bytes else _reason(connection, result)

    def _sealed(self, at: int) -> int:
        """Put what OpenSSL made of it into the room; return how much that is."""
        connection = self._tlsConnection
        size_bytes = int(lib.BIO_read(connection._from_ssl, _SEALED + at, _ROOM_BYTES - at))  # noqa: SLF001
        if size_bytes <= 0:
            connection._handle_bio_errors(connection._from_ssl, size_bytes)  # noqa: SLF001
        return size_bytes

    def _not_written(self, rest: bytes, why: Error) -> None:
        """Keep what TLS cannot take before it has read something, or hear that it is over."""
        if isinstance(why, WantReadError):
            self._bufferedWrite(rest)
        else:
            self._tlsShutdownFinished(Failure(why))

    def _break_off(self) -> None:
        """Hang up without a word, and write nothing more."""
        self._lostTLSConnection = self._aborted = self.disconnecting = True
        cast(ITCPTransport, self.transport).abortConnection()

    def _pass_on(self, sealed_bytes: int) -> None:
        if not sealed_bytes:
            return
        sealed = memoryview(ffi.buffer(_SEALED, sealed_bytes))
        write_from = getattr(self.transport, "write_from", None)
        if write_from is not None:
            write_from(sealed)
        else:
            assert self.transport is not None
            self.transport.write(bytes(sealed))

    def _flushSendBIO(self) -> None:  # noqa: N802  # as Twisted has it
        """Pass on what OpenSSL has to send."""
        assert self.transport is not None
        with suppress(WantReadError):
            self.transport.write(self._tlsConnection.bio_read(_SENT_BYTES_MAX))


def _reason(connection: Connection, result: int) -> Error:
    """Return what pyOpenSSL says of a call that did not work."""
    try:
        connection._raise_ssl_error(connection._ssl, result)  # noqa: SLF001
    except Error as error:
        return error
    raise AssertionError(result)
