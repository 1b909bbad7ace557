"""A connection before TLS: what it costs, when it gets on, and how it ends."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import Any, cast

from twisted.internet.address import IPv6Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISystemHandle
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from farmer.node.admission import Places, Sessions
from farmer.node.arrival import FIRST_BYTES_MAX, HANDSHAKE_STEPS_MAX, Arrival, _Bare
from farmer.node.ports import CloseReason
from farmer.node.service import Doorkeeper
from farmer.node.session import Session, Surroundings
from farmer.node.turnstile import STEPS_PER_TURN
from farmer.protocol.limits import HANDSHAKE_S
from farmer.protocol.refusals import Refusal, Refused
from tests.node.wires import MemoryWire, NodeCase, pass_turn

HELLO = b"\x16\x03\x01\x00\x10" + bytes(range(16))
"""A first record: the header of a handshake, and as many bytes as it says."""

FINISHED = b"\x17\x03\x03\x00\x08finished"
"""One of those that end a handshake."""


class FakeTls(Protocol):
    """Stands where TLS goes: the session behind it is shaken after so many pieces."""

    def __init__(self, session: Session, shaken_after: int) -> None:
        self.session = session
        self.pieces: list[bytes] = []
        self._shaken_after = shaken_after

    def connectionMade(self) -> None:
        self.session.makeConnection(cast(Any, self.transport))

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        if len(self.pieces) == self._shaken_after:
            self.session.handshakeCompleted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.session.connectionLost(reason)


class ArrivalCase(NodeCase):
    def setUp(self) -> None:
        super().setUp()
        self.tls: list[FakeTls] = []
        self.arrivals: list[Arrival] = []
        self.shaken_after = 2

    def tearDown(self) -> None:
        for arrival in tuple(self.arrivals):
            self.lose(arrival)
        super().tearDown()

    def arrive(self, address: str = "192.0.2.1", around: Surroundings | None = None) -> Arrival:
        arrival = Arrival(around or self.around, address, self.behind_tls)
        self.arrivals.append(arrival)
        arrival.makeConnection(cast(Any, MemoryWire()))
        return arrival

    def behind_tls(self, session: Session) -> FakeTls:
        self.tls.append(FakeTls(session, self.shaken_after))
        return self.tls[-1]

    def lose(self, arrival: Arrival) -> None:
        self.arrivals.remove(arrival)
        arrival.connectionLost(Failure(ConnectionLost()))

    def wire(self, arrival: Arrival) -> MemoryWire:
        return cast(MemoryWire, arrival.transport)

    def occupy_this_turn(self, around: Surroundings | None = None) -> None:
        for _ in range(STEPS_PER_TURN):
            (around or self.around).turnstile.ask("another", lambda: None)


class BeforeTlsTests(ArrivalCase):
    def test_tls_costs_nothing_until_a_first_record_is_whole(self) -> None:
        arrival = self.arrive()
        for byte in HELLO[:-1]:
            arrival.dataReceived(bytes([byte]))
        self.assertEqual([], self.tls)

        arrival.dataReceived(HELLO[-1:] + b"more")

        self.assertEqual([HELLO + b"more"], self.tls[0].pieces)

    def test_what_is_no_record_is_for_tls_to_judge(self) -> None:
        self.arrive().dataReceived(b"G")

        self.assertEqual([b"G"], self.tls[0].pieces)

    def test_no_more_is_kept_than_a_first_record_may_have(self) -> None:
        arrival = self.arrive()
        arrival.dataReceived(b"\x16\x03\x01\xff\xff" + bytes(FIRST_BYTES_MAX - 6))
        self.assertEqual([], self.tls)

        arrival.dataReceived(b"x")

        self.assertEqual(FIRST_BYTES_MAX, len(self.tls[0].pieces[0]))

    def test_a_record_in_the_middle_of_a_handshake_is_waited_for_too(self) -> None:
        arrival = self.arrive()
        arrival.dataReceived(HELLO + FINISHED[:3])
        for byte in FINISHED[3:-1]:
            self.clock.advance(0)
            arrival.dataReceived(bytes([byte]))
        self.assertEqual(([HELLO + FINISHED[:3]], 0), (self.tls[0].pieces, len(self.clock.calls)))

        arrival.dataReceived(FINISHED[-1:])

        self.assertEqual([HELLO + FINISHED[:3], FINISHED[3:]], self.tls[0].pieces)

    def test_a_large_one_is_judged_in_parts(self) -> None:
        arrival = self.arrive()
        arrival.dataReceived(HELLO)
        self.clock.advance(0)
        arrival.dataReceived(b"\x17\x03\x03\x40\x00" + bytes(FIRST_BYTES_MAX - 6))
        self.assertEqual([HELLO], self.tls[0].pieces)

        arrival.dataReceived(b"x")

        self.assertEqual(FIRST_BYTES_MAX, len(self.tls[0].pieces[1]))

    def test_a_handshake_of_tiny_records_is_cut_off(self) -> None:
        """Each packet of a few bytes would be a turn for which all others wait."""
        self.shaken_after = HANDSHAKE_STEPS_MAX + 1
        arrival = self.arrive()
        for _ in range(HANDSHAKE_STEPS_MAX):
            arrival.dataReceived(b"\x16\x03\x01\x00\x01x")
            self.clock.advance(0)
        self.assertFalse(self.tls[0].session.over)

        arrival.dataReceived(b"\x16\x03\x01\x00\x01x")

        self.assertTrue(self.tls[0].session.over)
        self.assertIsNotNone(self.wire(arrival).lost)
        self.assertEqual((HANDSHAKE_STEPS_MAX, 0), (len(self.tls[0].pieces), len(self.sessions)))
        self.lose(arrival)
        self.assertEqual([CloseReason.HANDSHAKE.value], self.meter.closed)


class TurnTests(ArrivalCase):
    def test_a_handshake_waits_for_its_turn_and_is_not_read_meanwhile(self) -> None:
        arrival = self.arrive()
        self.occupy_this_turn()

        arrival.dataReceived(HELLO)
        self.assertEqual(([], False), (self.tls, self.wire(arrival).reading))
        self.clock.advance(0)

        self.assertEqual([HELLO], self.tls[0].pieces)
        self.assertTrue(self.wire(arrival).reading)

    def test_so_does_its_second_part_and_nothing_after_it(self) -> None:
        arrival = self.arrive()
        arrival.dataReceived(HELLO)
        self.occupy_this_turn()

        arrival.dataReceived(FINISHED)
        self.assertEqual([HELLO], self.tls[0].pieces)
        self.clock.advance(0)
        self.occupy_this_turn()
        arrival.dataReceived(b"requests")

        self.assertEqual([HELLO, FINISHED, b"requests"], self.tls[0].pieces)

    def test_who_waits_for_its_turn_is_not_late_meanwhile(self) -> None:
        """Hundreds of newcomers wait for us, not we for them."""
        arrival = self.arrive()
        self.pass_s(HANDSHAKE_S - 1)
        self.occupy_this_turn()
        arrival.dataReceived(HELLO)
        self.clock.rightNow += HANDSHAKE_S
        self.assertFalse(arrival.check())

        self.clock.advance(0)
        self.assertFalse(self.tls[0].session.check())
        self.clock.rightNow += 2

        self.assertTrue(self.tls[0].session.check())

    def test_who_leaves_before_its_turn_gets_none(self) -> None:
        arrival, hung_up_on = self.arrive(), self.arrive()
        self.occupy_this_turn()
        arrival.dataReceived(HELLO)
        hung_up_on.dataReceived(HELLO)

        self.lose(arrival)
        hung_up_on.abort(CloseReason.SHED)
        self.clock.advance(0)

        self.assertEqual([], self.tls)
        self.assertEqual(0, self.around.turnstile.waiting)

    def test_a_flood_that_is_shed_takes_no_turns_of_those_who_stay(self) -> None:
        places = 8
        guests = Sessions(Places(places))
        around = replace(self.around, visitors=guests)
        door = Doorkeeper(guests, self.meter, lambda origin: self.arrive(origin, around))
        self.occupy_this_turn(around)
        for number in range(10 * places):
            arrival = door.buildProtocol(IPv6Address("TCP", f"2001:db8:1:{number:x}::1", 1))
            assert isinstance(arrival, Arrival)
            arrival.dataReceived(HELLO)
            arrival.dataReceived(b"more, after it was hung up on")
        self.assertLessEqual(around.turnstile.waiting, places)

        done: list[str] = []
        around.turnstile.ask("renter", lambda: done.append("renter"))
        for _ in range(places + 1):
            pass_turn(self.clock)

        self.assertEqual(["renter"], done)


class GuestTests(ArrivalCase):
    def test_it_is_counted_once_from_the_accept_to_the_close(self) -> None:
        arrival = self.arrive()
        self.assertEqual((1, 1), (self.meter.opened, len(self.sessions)))

        arrival.dataReceived(HELLO)
        arrival.dataReceived(FINISHED)
        self.assertEqual([self.tls[0].session], list(self.sessions))
        self.lose(arrival)

        self.assertEqual((1, 0), (self.meter.opened, len(self.sessions)))
        self.assertEqual([CloseReason.LEFT.value], self.meter.closed)

    def test_silence_is_cut_off_and_counted_as_a_failed_handshake(self) -> None:
        arrival = self.arrive()
        self.pass_s(HANDSHAKE_S)
        self.assertFalse(arrival.over)

        self.pass_s(1)

        self.assertTrue(arrival.over)
        self.assertIsNotNone(self.wire(arrival).lost)
        self.assertEqual(0, len(self.sessions))
        self.lose(arrival)
        self.assertEqual([CloseReason.HANDSHAKE.value], self.meter.closed)
        self.assertEqual([CloseReason.HANDSHAKE.value], self.meter.handshakes)

    def test_time_before_tls_counts_for_the_session(self) -> None:
        arrival = self.arrive()
        self.pass_s(HANDSHAKE_S - 1)
        arrival.dataReceived(HELLO)

        self.pass_s(2)

        self.assertTrue(self.tls[0].session.over)
        self.lose(arrival)
        self.assertEqual([CloseReason.HANDSHAKE.value], self.meter.closed)

    def test_it_makes_room_as_any_stranger(self) -> None:
        arrival = self.arrive("192.0.2.7")
        self.assertEqual("192.0.2.7", arrival.address)
        self.assertFalse(arrival.known or arrival.has_unread or arrival.over)

        arrival.hang_up(Refused(Refusal.DRAINING), CloseReason.DRAINED)
        arrival.close(CloseReason.SHED)

        self.assertEqual(0, len(self.sessions))
        self.lose(arrival)
        self.assertEqual([CloseReason.DRAINED.value], self.meter.closed)


@implementer(ISystemHandle)
class HalfSent:
    """A transport with a real socket, whose own writes stay where they are."""

    def __init__(self, ours: socket.socket) -> None:
        self.connected, self.disconnecting = True, False
        self.bufferSize = 4
        self.dataBuffer, self._tempDataBuffer = b"", list[bytes]()
        self._ours = ours

    def getHandle(self) -> socket.socket:  # noqa: N802  # as Twisted has it
        return self._ours

    def write(self, data: bytes) -> None:
        self._tempDataBuffer.append(data)


class SendingTests(SynchronousTestCase):
    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        for end in (ours, self.theirs):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.transport = HalfSent(ours)
        self.bare = _Bare(self.transport)

    def test_what_is_written_is_sent_at_once(self) -> None:
        self.bare.write(b"answer")

        self.assertEqual(b"answer", self.theirs.recv(100))
        self.assertEqual([], self.transport._tempDataBuffer)

    def test_how_much_is_read_at_once_is_for_the_transport(self) -> None:
        self.bare.bufferSize = 5

        self.assertEqual((5, 5), (self.transport.bufferSize, self.bare.bufferSize))

    def test_nothing_overtakes_what_waits(self) -> None:
        much = bytes(range(256)) * 65536
        self.bare.write(much)
        self.bare.write(b"the end")
        rest, *end = self.transport._tempDataBuffer
        self.assertEqual([b"the end"], end)

        sent = bytearray()
        with contextlib.suppress(BlockingIOError):
            while part := self.theirs.recv(1 << 20):
                sent += part
        self.assertTrue(sent)
        self.assertEqual(much, bytes(sent) + rest)

        self.transport.dataBuffer, self.transport._tempDataBuffer = b"unsent", []
        self.bare.write(b"the end")
        self.assertEqual([b"the end"], self.transport._tempDataBuffer)

    def test_what_must_wait_is_a_copy(self) -> None:
        room = bytearray(16 << 20)
        self.bare.write_from(memoryview(room))
        room[:] = b"x" * len(room)

        (rest,) = self.transport._tempDataBuffer
        self.assertEqual(bytes(len(rest)), rest)

    def test_what_the_kernel_does_not_take_is_left_to_the_transport(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.transport.getHandle().send(b"x" * 65536):
                pass
        self.bare.write(b"late")

        self.assertEqual([b"late"], self.transport._tempDataBuffer)

    def test_a_lost_peer_is_for_the_transport_to_find(self) -> None:
        self.theirs.close()
        self.bare.write(b"answer")

        self.assertEqual([b"answer"], self.transport._tempDataBuffer)
