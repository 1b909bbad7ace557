"""TLS with fewer calls: every byte comes through, however the wire cuts the stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL._util import lib
from OpenSSL.SSL import Error
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from farmer.identity import records
from farmer.identity.keys import Identity
from farmer.identity.records import (
    HEADER_BYTES,
    PIECE_BYTES,
    READ_BYTES,
    RECORD_BYTES,
    SILENT_RECORDS_MAX,
    SLICE_BYTES,
    RecordTLS,
    WholeRecords,
)
from farmer.identity.tls import farmer_side, renter_side
from tests.identity.test_tls import End

SEED = 20

MUCH_BYTES = 2 * FileDescriptor.bufferSize
"""More than a transport keeps before it has its producer pause."""


def record(size_bytes: int) -> bytes:
    return b"\x17\x03\x03" + size_bytes.to_bytes(2, "big") + b"x" * size_bytes


def cut(data: bytes, chance: random.Random, most: int) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        step = chance.randint(1, most)
        yield data[at : at + step]
        at += step


@given(
    st.lists(st.integers(0, 300), max_size=8),
    st.integers(),
    st.integers(1, 400),
    st.integers(1, 3),
)
def test_records_are_counted_when_they_are_whole_however_they_are_cut(
    sizes: list[int], seed: int, most_bytes: int, most: int
) -> None:
    stream, ends, whole = b"".join(map(record, sizes)), [], 0
    for size in sizes:
        ends.append((ends[-1] if ends else 0) + HEADER_BYTES + size)
    counter, at = WholeRecords(), 0
    for piece in cut(stream, random.Random(seed), most_bytes):
        end = at + len(piece)
        while at < end:
            more, taken = counter.take(stream[at:end], most)
            whole, at = whole + more, at + taken
            assert more <= most
            assert more == most or at == end
            assert whole == sum(end <= at for end in ends)
            assert more < most or at in ends


class Watched:
    """The binding to OpenSSL, with one function replaced."""

    def __init__(self, name: str, replaced: Callable[[Any, Any, int], int]) -> None:
        setattr(self, name, replaced)

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)


class Wire(StringTransport):
    """A transport whose bytes are carried by the test, and which can be lost."""

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnected = True


class Buffered(FileDescriptor):
    """Twisted's own buffer before a wire that takes something only when the test says so."""

    connected = 1

    def __init__(self) -> None:
        super().__init__(MemoryReactor())

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802  # as Twisted has it
        return len(data)


@implementer(IPushProducer)
class Worker:
    """Would write more; says whether it may."""

    may_write = True

    def pauseProducing(self) -> None:
        self.may_write = False

    def resumeProducing(self) -> None:
        self.may_write = True

    def stopProducing(self) -> None:
        self.may_write = False


class RecordTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.chance = Clock(), random.Random(SEED)
        self.ends, self.wires = [], []
        sides = (
            (farmer_side(Identity.of_key(Ed25519PrivateKey.generate())), False),
            (renter_side(Identity.of_key(Ed25519PrivateKey.generate())), True),
        )
        for creator, is_client in sides:
            end = End()
            factory = Factory.forProtocol(lambda end=end: end)
            tls = TLSMemoryBIOFactory(creator, is_client, factory, self.clock)
            tls.protocol = RecordTLS
            wire = tls.buildProtocol(None)
            self.ends.append(end)
            self.wires.append(wire)
        for wire in self.wires:
            wire.makeConnection(Wire())
        self.carry()

    def carry(self, most: int = 5000) -> None:
        """Take what each has written to the other, in pieces of any size."""
        for _ in range(12):
            self.clock.advance(0)
            for ours, theirs in (self.wires, self.wires[::-1]):
                sent = ours.transport.value()
                ours.transport.clear()
                for piece in cut(sent, self.chance, most):
                    theirs.dataReceived(piece)

    def test_all_bytes_come_through_in_both_directions(self) -> None:
        farmer, renter = self.ends
        up, down = self.chance.randbytes(300_000), self.chance.randbytes(200_000)
        for most in (7, 16_500, 100_000):
            farmer.received = renter.received = b""
            renter.transport.write(up)
            farmer.transport.write(down)
            self.carry(most)
            self.assertEqual((up, down), (farmer.received, renter.received))

    def test_openssl_is_asked_once_for_each_record(self) -> None:
        asked = []

        def counted(ssl: object, room: object, size_bytes: int) -> int:
            asked.append(size_bytes)
            return lib.SSL_read(ssl, room, size_bytes)

        self.patch(records, "lib", Watched("SSL_read", counted))
        self.ends[1].transport.write(bytes(64_000))
        self.carry(10_000)

        self.assertEqual(4, len(asked))

    def test_two_records_are_written_by_one_call_and_a_short_end_goes_with_them(self) -> None:
        wire, given, passed_on = self.wires[1].transport, [], []

        def counted(ssl: object, data: object, size_bytes: int) -> int:
            given.append(size_bytes)
            return lib.SSL_write(ssl, data, size_bytes)

        self.patch(records, "lib", Watched("SSL_write", counted))
        on = wire.write
        wire.write = lambda sealed: passed_on.append(len(sealed)) or on(sealed)
        data = self.chance.randbytes(3 * PIECE_BYTES + 4)
        self.ends[1].transport.write(data)
        self.carry()

        self.assertEqual([PIECE_BYTES, PIECE_BYTES, PIECE_BYTES + 4], given)
        self.assertEqual(1, len(passed_on))
        self.assertEqual(data, self.ends[0].received)

    def test_what_nothing_follows_is_written_in_this_turn_with_what_was_waiting(self) -> None:
        wire = self.wires[1]
        wire.write(b"some")
        self.assertEqual(b"", wire.transport.value())

        wire.write_now(b" more")
        self.assertNotEqual(b"", wire.transport.value())
        self.carry()
        wire.write_now(b", and again")
        self.assertNotEqual(b"", wire.transport.value())
        self.carry()

        self.assertEqual(b"some more, and again", self.ends[0].received)

    def test_large_reads_reach_openssl_in_pieces_and_are_passed_on_whole(self) -> None:
        pieces, passed_on, end = [], [], self.ends[0]
        received = end.dataReceived

        def counted(bio: object, data: object, size_bytes: int) -> int:
            pieces.append(size_bytes)
            return lib.BIO_write(bio, data, size_bytes)

        self.patch(records, "lib", Watched("BIO_write", counted))
        end.dataReceived = lambda data: passed_on.append(len(data)) or received(data)
        sent = self.chance.randbytes(100_000)
        self.ends[1].transport.write(sent)
        self.carry(10**9)

        self.assertEqual(sent, end.received)
        self.assertEqual(SLICE_BYTES, max(pieces))
        self.assertEqual([len(sent)], passed_on)

    def test_what_comes_before_a_close_in_one_read_is_passed_on(self) -> None:
        sent = self.chance.randbytes(90_000)
        self.ends[1].transport.write(sent)
        self.ends[1].transport.loseConnection()
        self.carry(10**9)

        self.assertEqual(sent, self.ends[0].received)
        self.assertTrue(self.wires[0].transport.disconnecting)

    def test_so_many_records_may_bring_nothing_and_no_more(self) -> None:
        """Those of the whole connection together, however they come."""
        tls, wire = self.wires[0], self.wires[0].transport
        tls._silent = 0
        for count in (1, SILENT_RECORDS_MAX - 1):
            tls._count_silent(count)
            self.assertFalse(wire.disconnected)

        tls._count_silent(1)

        self.assertTrue(wire.disconnected)

    def test_a_close_is_in_order(self) -> None:
        self.ends[1].transport.loseConnection()
        self.carry()

        self.assertTrue(self.wires[0].transport.disconnecting)
        self.wires[0].connectionLost(Failure(ConnectionDone()))
        self.ends[0].lost.trap(ConnectionDone)

    def test_a_stream_that_ends_without_a_word_was_lost(self) -> None:
        self.wires[0].connectionLost(Failure(ConnectionDone()))

        self.ends[0].lost.trap(ConnectionLost)

    def test_what_is_no_tls_ends_it(self) -> None:
        self.wires[0].dataReceived(record(40))

        self.assertTrue(self.wires[0].transport.disconnecting)

    def write_without_memory(self, piece: int, *, is_lost: bool) -> bytes:
        """Have memory run out at a piece that OpenSSL keeps, or is rid of; return the write."""
        left = iter(range(piece))

        def short_of_memory(bio: object, room: object, size_bytes: int) -> int:
            if next(left, None) is not None:
                return lib.BIO_read(bio, room, size_bytes)
            if is_lost:
                lib.BIO_read(bio, room, size_bytes)
            raise MemoryError

        patch = self.patch(records, "lib", Watched("BIO_read", short_of_memory))
        data = self.chance.randbytes(3 * PIECE_BYTES)
        with self.assertRaises(MemoryError):
            self.ends[0].transport.write(data)
        patch.restore()
        return data

    def test_a_write_that_breaks_off_ends_the_connection_and_nothing_follows_it(self) -> None:
        for piece, is_lost in product(range(3), (False, True)):
            self.setUp()
            data = self.write_without_memory(piece, is_lost=is_lost)
            self.assertTrue(self.wires[0].transport.disconnected)

            self.ends[0].transport.write(b"more")
            self.carry()
            self.ends[0].transport.loseConnection()
            self.carry()

            self.assertTrue(data.startswith(self.ends[1].received), "sent twice")
            self.assertFalse(self.wires[1].transport.disconnecting, "sent behind a gap")

    def test_who_wrote_hears_of_the_end_after_a_write_that_broke_off(self) -> None:
        self.write_without_memory(1, is_lost=True)

        self.wires[0].connectionLost(Failure(ConnectionAborted()))

        self.assertEqual(b"", self.wires[0].transport.value())
        self.ends[0].lost.trap(ConnectionAborted)

    def test_an_end_for_which_openssl_has_no_memory_is_heard_of(self) -> None:
        def short_of_memory(_ssl: object, _room: object, _size_bytes: int) -> int:
            raise MemoryError

        self.patch(records, "lib", Watched("SSL_read", short_of_memory))

        self.wires[0].connectionLost(Failure(ConnectionAborted()))

        self.ends[0].lost.trap(ConnectionAborted)

    def test_what_was_opened_for_one_that_broke_off_comes_to_nobody(self) -> None:
        left = iter(range(1))

        def short_of_memory(bio: object, data: object, size_bytes: int) -> int:
            if next(left, None) is None:
                raise MemoryError
            return lib.BIO_write(bio, data, size_bytes)

        self.patch(records, "lib", Watched("BIO_write", short_of_memory))
        self.ends[1].transport.write(bytes(2 * SLICE_BYTES))
        self.clock.advance(0)
        with self.assertRaises(MemoryError):
            self.wires[0].dataReceived(self.wires[1].transport.value())

        self.wires[0].connectionLost(Failure(ConnectionAborted()))

        self.assertEqual(b"", self.ends[0].received)

    def test_what_openssl_does_not_take_or_give_ends_the_connection(self) -> None:
        def fails(_bio: object, _room: object, _size_bytes: int) -> int:
            return -1

        for name in ("BIO_write", "BIO_read"):
            self.setUp()
            self.ends[1].transport.write(b"some")
            self.clock.advance(0)
            sent = self.wires[1].transport.value()
            patch = self.patch(records, "lib", Watched(name, fails))
            with self.assertRaises(Error):
                if name == "BIO_write":
                    self.wires[0].dataReceived(sent)
                else:
                    self.wires[0].write_now(b"answer")
            patch.restore()

            self.assertTrue(self.wires[0].transport.disconnected)
            self.assertEqual(b"", self.ends[0].received)

    def test_nothing_is_delivered_behind_a_gap(self) -> None:
        left = iter(range(1))

        def short_of_memory(ssl: object, room: object, size_bytes: int) -> int:
            if next(left, None) is None:
                raise MemoryError
            return lib.SSL_read(ssl, room, size_bytes)

        self.ends[1].transport.write(bytes(RECORD_BYTES + 10))
        self.clock.advance(0)
        patch = self.patch(records, "lib", Watched("SSL_read", short_of_memory))
        with self.assertRaises(MemoryError):
            self.wires[0].dataReceived(self.wires[1].transport.value())
        patch.restore()

        self.wires[0].connectionLost(Failure(ConnectionAborted()))

        self.assertEqual(b"", self.ends[0].received)

    def test_twisted_reads_as_much_as_we_think(self) -> None:
        self.assertEqual(READ_BYTES, FileDescriptor.bufferSize)

    def leave_unsent(self, size_bytes: int) -> Worker:
        """Have the farmer write something that the wire does not take yet."""
        worker, wire = Worker(), self.wires[0]
        wire.transport = Buffered()
        wire.registerProducer(worker, True)
        wire.write_now(bytes(size_bytes))
        return worker

    def last_of_renter(self) -> bytes:
        """Return what the renter sends when it closes."""
        self.ends[1].transport.loseConnection()
        return self.wires[1].transport.value()

    def test_a_close_while_the_wire_is_full_is_ours_too_once_all_is_sent(self) -> None:
        worker = self.leave_unsent(MUCH_BYTES)
        self.assertFalse(worker.may_write)

        self.wires[0].dataReceived(self.last_of_renter())

        self.assertIs(CONNECTION_DONE, self.wires[0].transport.doWrite())
        self.assertFalse(worker.may_write)

    def test_what_is_no_tls_while_the_wire_is_full_ends_it_once_all_is_sent(self) -> None:
        worker = self.leave_unsent(MUCH_BYTES)

        self.wires[0].dataReceived(record(40))

        self.assertIs(CONNECTION_DONE, self.wires[0].transport.doWrite())
        self.assertFalse(worker.may_write)

    def test_nobody_works_for_tls_that_has_ended_however_little_is_unsent(self) -> None:
        worker = self.leave_unsent(1000)
        self.assertTrue(worker.may_write)

        self.wires[0].dataReceived(self.last_of_renter())

        self.assertFalse(worker.may_write)
        self.assertIs(CONNECTION_DONE, self.wires[0].transport.doWrite())
