"""How a farmer stops: new stores refused, what runs finished, then everybody out."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from farmer.node.admission import Places
from farmer.node.ports import CloseReason
from farmer.node.refusals import DRAINING_RETRY_MS
from farmer.node.service import BACKLOG, LAST_WORK_S, Doorkeeper, FarmerService, show_address
from farmer.node.session import Session
from farmer.protocol.messages import encode
from farmer.protocol.opening import End, Refuse
from farmer.protocol.questions import Ping, Pong, ShowContract
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import TO_THE_END, Retrieve, Store
from tests.fakes import shard_of
from tests.node.wires import NodeCase, Peer, StepByStepCase, pass_turn, stored

DATA = bytes(range(256)) * 10
LARGE = bytes(4 << 20)
STOPPING = Refused(Refusal.DRAINING, DRAINING_RETRY_MS)


@implementer(IOpenSSLServerConnectionCreator)
class NobodysSide:
    """Stands where the TLS side goes; never asked in these tests."""

    def serverConnectionForTLS(self, tlsProtocol: object) -> object:  # noqa: N803
        raise AssertionError


class DrainCase(NodeCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.clock = self.farm.clock = self.reactor
        self.service = FarmerService(
            self.reactor,
            self.farm,
            NobodysSide(),  # type: ignore[arg-type]
            [("127.0.0.1", 0), ("::1", 0)],
        )
        self.sessions = self.service.sessions
        self.tasks = self.service.tasks
        self.service.start()

    def call(self, renter: object = None, address: str = "192.0.2.1") -> Peer:
        # What is served is the service's own conversation, without TLS around it.
        inner = self.service.surroundings(lambda _: self.who)
        self.who = renter or self.who  # type: ignore[assignment]
        peer = Peer(Session(inner, address), self.clock)
        self.peers.append(peer)
        return peer

    def drain(self, grace_s: float = 30) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.service.drain(grace_s))

    def tick(self, seconds: int, *peers: Peer) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            for peer in peers:
                peer.pump()


class DrainTests(DrainCase):
    def test_the_kernel_holds_so_many_until_we_accept_them(self) -> None:
        """Limit: BACKLOG, on every address."""
        self.assertEqual([BACKLOG] * 2, [row[2] for row in self.reactor.tcpServers])

    def test_idle_sessions_are_closed_at_once(self) -> None:
        peer = self.greet()

        drained = self.drain()
        self.assertNoResult(drained)
        peer.pump()

        self.assertTrue(self.result(drained))
        self.assertEqual([CloseReason.DRAINED.value], self.meter.closed)
        self.assertEqual([], [call for call in self.clock.calls if call.active()])

    def test_a_running_store_is_finished_and_new_ones_are_refused(self) -> None:
        busy, idle = self.greet(), self.greet()
        self.begin_store(busy, DATA)
        drained = self.drain()

        idle.send(Store(shard_of(LARGE), len(LARGE)))
        self.assertEqual(Refusal.DRAINING, idle.refusal().refusal)
        self.assertNoResult(drained)
        busy.send_data(DATA)
        busy.send(End())
        idle.pump()

        stored(busy.answer())
        self.assertTrue(self.result(drained))
        self.assertTrue(busy.closed)

    def test_who_has_its_answer_need_not_wait_for_the_others(self) -> None:
        first, second = self.greet(), self.greet()
        self.begin_store(first, DATA)
        self.begin_store(second, LARGE)
        drained = self.drain()

        first.send_data(DATA)
        first.send(End())

        self.assertTrue(first.closed)
        self.assertFalse(second.closed)
        self.assertNoResult(drained)
        second.leave()
        self.assertTrue(self.result(drained))

    def test_requests_sent_ahead_are_served_before_goodbye(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(shard, 0, TO_THE_END, False), Ping(1))
        drained = self.drain()

        peer.takes = True
        peer.pump()

        self.assertIsInstance(peer.events[-1], Pong)
        self.assertTrue(peer.closed)
        self.assertTrue(self.result(drained))

    def test_requests_sent_ahead_that_wait_for_their_turn_are_served_before_goodbye(self) -> None:
        peer = self.greet()
        self.begin_store(peer, DATA)
        drained = self.drain()
        self.use_up_events(peer)
        peer.outgoing += peer.connection.send_data(DATA)
        peer.outgoing += peer.connection.send(End()) + peer.connection.send(Ping(99))
        peer._deliver()
        self.assertNoResult(drained)
        while not peer.events:
            pass_turn(self.clock)
            self.use_up_events(peer)
            peer._take()
        self.assertNoResult(drained)
        peer.pump()

        stored(peer.answer())
        self.assertIsInstance(peer.answer(), Pong)
        self.assertTrue(peer.closed)
        self.assertTrue(self.result(drained))

    def test_a_request_that_waits_for_its_turn_when_nobody_is_served_is_told_so(self) -> None:
        peer = self.greet()
        self.use_up_events(peer)
        peer.outgoing += peer.connection.send(Ping(99))
        peer._deliver()
        self.assertTrue(peer.session.has_unread)

        drained = self.drain()
        peer.pump()

        self.assertEqual(Refuse(STOPPING, final=True), peer.events[-1])
        self.assertTrue(self.result(drained))

    def use_up_events(self, peer: Peer) -> None:
        while peer.session._around.events.passes():
            pass

    def test_who_sent_ahead_what_is_no_request_is_let_go(self) -> None:
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(self.hold(LARGE), 0, TO_THE_END, False))
        peer.send_raw(b"\xee\0\0\0")
        drained = self.drain()

        peer.takes = True
        peer.pump()

        self.assertTrue(peer.closed)
        self.assertTrue(self.result(drained))

    def test_nobody_waits_for_the_rest_of_a_request(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(shard, 0, TO_THE_END, False))
        peer.send_raw(encode(Ping(1))[:5])
        drained = self.drain()

        peer.takes = True
        peer.pump()

        self.assertTrue(peer.closed)
        self.assertTrue(self.result(drained))

    def test_after_the_grace_who_is_not_done_is_told_so_and_closed_in_order(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        drained = self.drain(5)
        self.tick(4, peer)
        self.assertNoResult(drained)

        self.tick(1, peer)

        self.assertFalse(self.result(drained))
        self.assertEqual(Refuse(STOPPING, final=True), peer.answer())
        self.assertTrue(peer.wire.disconnecting)
        self.assertTrue(peer.closed)
        self.assertEqual({}, self.store.uploads)

    def test_who_takes_no_last_words_is_cut_off(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        peer.takes = False
        drained = self.drain(5)
        self.tick(6, peer)
        self.assertNoResult(drained)

        self.tick(6, peer)

        self.assertFalse(self.result(drained))
        self.assertEqual([CloseReason.DRAINED.value], self.meter.closed)

    def test_who_asked_and_was_not_heard_is_told_so(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(shard, 0, 70_000, False), Ping(1))
        self.assertEqual(0, self.sessions.busy)
        drained = self.drain(5)

        peer.takes = True
        peer.pump()

        self.assertEqual(Refuse(STOPPING, final=True), peer.events[-1])
        self.assertTrue(self.result(drained))

    def test_a_peer_that_does_not_close_does_not_hold_us_up(self) -> None:
        peer = self.greet()
        peer.takes = False
        peer.session._wire.write(b"x")
        drained = self.drain()
        self.assertNoResult(drained)

        self.tick(7, peer)

        self.assertTrue(self.result(drained))

    def test_addresses_are_written_as_people_write_them(self) -> None:
        self.assertEqual("[::1]:4646", show_address("::1", 4646))
        self.assertEqual("127.0.0.1:1", show_address("127.0.0.1", 1))
        self.assertEqual(2, len(self.service.addresses))

    def test_who_is_one_too_many_is_turned_away_and_counted(self) -> None:
        self.sessions._places = Places(0)
        door = Doorkeeper(self.sessions, self.meter, lambda _: self.fail("let in"))

        self.assertIsNone(door.buildProtocol(None))

        self.assertEqual(["TOO_MANY_SESSIONS"], self.meter.refusals)

    def test_a_stranger_makes_room_at_the_door(self) -> None:
        stranger = self.call()
        self.sessions._places = Places(1)
        door = Doorkeeper(self.sessions, self.meter, lambda _: stranger.session)

        self.assertIs(stranger.session, door.buildProtocol(None))
        stranger.pump()

        self.assertEqual([CloseReason.SHED.value], self.meter.closed)


class DrainWithThreadsTests(StepByStepCase, DrainCase):
    """The disk's door makes its steps when the test says so."""

    def test_a_thread_at_work_is_waited_for_even_beyond_the_grace(self) -> None:
        peer = self.greet_step_by_step()
        peer.send(Store(shard_of(LARGE), len(LARGE)))
        drained = self.drain(5)

        self.tick(6, peer)
        self.assertTrue(peer.closed)
        self.assertNoResult(drained)
        self.disk.run_all()

        self.assertFalse(self.result(drained))
        self.assertEqual({}, self.store.uploads)

    def test_a_thread_that_does_not_come_back_is_not_waited_for_without_end(self) -> None:
        peer = self.greet_step_by_step()
        peer.send(ShowContract())
        drained = self.drain(5)
        self.tick(6, peer)
        self.assertTrue(peer.closed)

        self.tick(int(LAST_WORK_S) - 2, peer)
        self.assertNoResult(drained)
        self.tick(2, peer)

        self.assertFalse(self.result(drained))
        self.disk.run_all()
        self.assertEqual(0, len(self.tasks))

    def test_a_renter_that_left_is_done_when_its_thread_is(self) -> None:
        peer = self.greet_step_by_step()
        peer.send(Store(shard_of(LARGE), len(LARGE)))
        drained = self.drain(1000)
        peer.leave()
        self.assertNoResult(drained)

        self.disk.run_all()

        self.assertTrue(self.result(drained))
