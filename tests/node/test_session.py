"""What a session does with bytes, time and rude peers."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from farmer.identity.signing import make_invite
from farmer.identity.tls import PeerCertificateError
from farmer.model.contract import ContractStage
from farmer.model.ids import NodeId
from farmer.model.shard import BLOCK_BYTES
from farmer.node.admission import Places
from farmer.node.held import STEP_BYTES
from farmer.node.inbox import READ_AHEAD_BYTES, TURN_BYTES
from farmer.node.ports import CloseReason, Result, Verb
from farmer.node.session import Session
from farmer.node.turnstile import EVENTS_PER_TURN, STEPS_PER_TURN
from farmer.protocol.documents import invite_bytes
from farmer.protocol.limits import CONTROL_BYTES_MAX, IDLE_S, SESSIONS_PER_RENTER_MAX
from farmer.protocol.messages import encode
from farmer.protocol.opening import End, Hello, Refuse, Welcome
from farmer.protocol.questions import Ping, Pong, Redeem, Stat
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.state import State
from farmer.protocol.transfers import TO_THE_END, Retrieve, Store, Stored
from farmer.protocol.types import Type
from farmer.storage.errors import StorageError
from tests.fakes import SteppingDisk, shard_of
from tests.node.wires import OFFER, OTHER, RENTER, SERIAL, STRANGER, NodeCase, Peer, pass_turn

DATA = bytes(range(256)) * 10


def last_words(peer: Peer) -> Refuse:
    event = peer.events[-1]
    assert isinstance(event, Refuse), event
    return event


class GreetingTests(NodeCase):
    def test_a_hello_is_welcomed_with_our_limits(self) -> None:
        peer = self.call()

        peer.send(Hello(1, 9, "other software"))

        welcome = peer.answer()
        assert isinstance(welcome, Welcome)
        self.assertEqual((1, 1_000_000, 64 << 20), tuple(_limits(welcome)))
        self.assertTrue(peer.session.known)

    def test_a_connection_too_many_of_a_renter_is_told_so(self) -> None:
        peers = [self.call(address=f"192.0.2.{n}") for n in range(SESSIONS_PER_RENTER_MAX + 1)]
        for peer in peers:
            peer.send(Hello(1, 1, "many"))

        most = SESSIONS_PER_RENTER_MAX
        words = last_words(peers[-1])
        self.assertEqual(Refused(Refusal.TOO_MANY_SESSIONS, most, most), words.refused)
        self.assertTrue(words.final and peers[-1].closed)
        self.assertEqual([CloseReason.CROWD.value], self.meter.closed)
        self.assertIsInstance(peers[-2].answer(), Welcome)

    def test_a_version_from_the_future_is_refused_with_ours(self) -> None:
        peer = self.call()

        peer.send(Hello(2, 9, "newer"))

        words = last_words(peer)
        self.assertEqual(Refused(Refusal.UNSUPPORTED_VERSION, 1, 1), words.refused)
        self.assertTrue(words.final)
        self.assertTrue(peer.closed)
        self.assertEqual([CloseReason.VERSION.value], self.meter.handshakes)

    def test_a_version_from_the_past_is_refused_with_ours(self) -> None:
        """Whoever speaks nothing newer would not understand what follows."""
        peer = self.call()

        peer.send(Hello(0, 0, "older"))

        self.assertEqual(Refused(Refusal.UNSUPPORTED_VERSION, 1, 1), last_words(peer).refused)
        self.assertTrue(peer.closed)

    def test_whoever_speaks_something_else_is_told_and_left(self) -> None:
        for raw in (
            b"GET / HTTP/1.1\r\n\r\n",
            encode(Ping(1)),
            encode(End()),
            b"\x01\0\0\x09EVIL\0\1\0\1\0",
            b"\x7f\0\0\0",
        ):
            peer = self.call()
            peer.send_raw(raw)
            self.assertTrue(last_words(peer).final, raw)
            self.assertTrue(peer.closed)
        self.assertEqual([CloseReason.PROTOCOL.value] * 5, self.meter.closed)

    def test_silence_is_cut_off(self) -> None:
        peer = self.call()
        self.pass_s(10, peer)
        self.assertFalse(peer.closed)

        self.pass_s(1, peer)

        self.assertTrue(peer.closed)
        self.assertEqual([CloseReason.HANDSHAKE.value], self.meter.handshakes)
        self.assertEqual([CloseReason.HANDSHAKE.value], self.meter.closed)

    def test_a_dribbled_hello_gains_no_time(self) -> None:
        peer = self.call()
        for byte in encode(Hello(1, 1, "slow")):
            if not peer.closed:
                peer.send_raw(bytes([byte]))
                self.pass_s(1, peer)

        self.assertTrue(peer.closed)

    def test_a_certificate_that_names_nobody_ends_it_before_a_word(self) -> None:
        def nobody(_: object) -> NodeId:
            raise PeerCertificateError("RSA")

        peer = Peer(Session(replace(self.around, identify=nobody), "192.0.2.1"), self.clock)
        peer.pump()

        self.assertTrue(peer.closed)
        self.assertEqual([], peer.events)
        self.assertEqual([CloseReason.CERTIFICATE.value], self.meter.handshakes)
        self.assertEqual([CloseReason.CERTIFICATE.value], self.meter.closed)

    def test_a_bug_ends_it_with_a_word_and_is_logged(self) -> None:
        peer = self.call()

        def broken() -> None:
            raise ZeroDivisionError

        peer.session.renter = broken  # type: ignore[method-assign, assignment]
        peer.send(Hello(1, 1, "x"))

        self.assertEqual(Refused(Refusal.INTERNAL), last_words(peer).refused)
        self.assertEqual([CloseReason.ERROR.value], self.meter.closed)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_a_bug_after_the_answer_ends_it_rather_than_refusing_the_next(self) -> None:
        shard = self.hold(bytes(BLOCK_BYTES + 1))
        peer = self.greet()
        self.store.fail_next["close"] = ZeroDivisionError()

        peer.send(Retrieve(shard, 0, TO_THE_END, False), Ping(1))

        self.assertEqual(Refused(Refusal.INTERNAL), last_words(peer).refused)
        self.assertTrue(last_words(peer).final)
        self.assertEqual([CloseReason.ERROR.value], self.meter.closed)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_a_book_that_cannot_be_read_ends_it_with_a_word(self) -> None:
        peer = self.call()
        self.book.fail_next = StorageError("locked")

        peer.send(Hello(1, 1, "x"))

        self.assertEqual(Refusal.INTERNAL, last_words(peer).refused.refusal)
        self.assertTrue(peer.closed)


class LateContractTests(NodeCase):
    """A contract that came after HELLO takes one of the renters' places, too."""

    def setUp(self) -> None:
        super().setUp()
        self.sessions._places = Places(4)
        self.assertEqual(3, self.sessions._places.for_renters)
        self.others = [self.greet(RENTER), self.greet(RENTER), self.greet(OTHER)]
        self.stranger = self.greet(STRANGER)

    def serve_all_others(self) -> None:
        for other in self.others:
            self.sessions.began(other.session)

    def test_it_takes_the_place_of_the_idlest_of_who_has_most(self) -> None:
        self.give_contract(STRANGER)

        self.stranger.send(Stat(shard_of(DATA)))

        self.assertTrue(self.stranger.session.known)
        self.assertEqual([CloseReason.SHED.value], self.lost())
        known = [session for session in self.sessions if session.known]
        self.assertEqual(3, len(known))

    def test_it_is_hung_up_on_if_there_is_none(self) -> None:
        self.serve_all_others()
        self.give_contract(STRANGER)

        self.stranger.send(Stat(shard_of(DATA)))

        self.assertEqual(
            Refused(Refusal.TOO_MANY_SESSIONS, 3, 3), last_words(self.stranger).refused
        )
        self.assertTrue(self.stranger.closed)
        self.assertEqual([CloseReason.CROWD.value], self.meter.closed)

    def test_an_invite_gives_no_place_of_another_either(self) -> None:
        """The contract is made all the same, and its renter may come again."""
        self.serve_all_others()
        self.book.mint(SERIAL, OFFER)
        invite = invite_bytes(make_invite(self.signer, SERIAL, OFFER))

        self.stranger.send(Redeem(invite))

        self.assertEqual(Refusal.TOO_MANY_SESSIONS, last_words(self.stranger).refused.refusal)
        self.assertIn(STRANGER, self.book.contracts)

    def lost(self) -> list[str]:
        for other in self.others:
            other.pump()
        return self.meter.closed


class AnswerTests(NodeCase):
    def test_an_answer_does_not_wait_for_the_next_turn_unless_another_is_to_come(self) -> None:
        peer = self.greet()
        before = peer.wire.hurried
        peer.send(Ping(1))
        self.assertEqual(before + 1, peer.wire.hurried)

        peer.send(Ping(2), Ping(3), Ping(4))
        self.assertEqual(before + 2, peer.wire.hurried)
        self.assertEqual(4, sum(isinstance(event, Pong) for event in peer.events))


class RudeTests(NodeCase):
    def test_an_unknown_message_is_refused_and_the_talk_goes_on(self) -> None:
        peer = self.greet()

        peer.connection.state = State.PINGING
        peer.send_raw(b"\xee\0\0\x02ab")
        self.assertEqual(Refused(Refusal.UNKNOWN_MESSAGE, 0xEE), peer.refusal())
        peer.connection.state = State.IDLE
        peer.send(Ping(3))

        self.assertIsInstance(peer.answer(), Pong)

    def test_what_breaks_the_protocol_ends_it_with_a_word(self) -> None:
        for raw, refusal in (
            (encode(Hello(1, 1, "again")), Refusal.OUT_OF_ORDER),
            (encode(End()), Refusal.OUT_OF_ORDER),
            (b"\x04\0\0\1x", Refusal.OUT_OF_ORDER),
            (b"\x20\0\0\1x", Refusal.MALFORMED),
            (b"\x60\0\0\x09" + bytes(9), Refusal.MALFORMED),
            (b"\x60\xff\xff\xff", Refusal.FRAME_TOO_LARGE),
            (b"\xee\x01\0\1", Refusal.FRAME_TOO_LARGE),
            (encode(Pong(1, 1, 1, self.farm.terms.price, "")), Refusal.OUT_OF_ORDER),
        ):
            peer = self.greet()
            peer.send_raw(raw)
            self.assertEqual(refusal, last_words(peer).refused.refusal, raw)
            self.assertTrue(peer.closed, raw)

    def test_a_request_in_mid_store_ends_it_and_gives_the_space_back(self) -> None:
        peer = self.greet()
        self.begin_store(peer, DATA)

        peer.send_raw(encode(Ping(1)))

        self.assertEqual(Refused(Refusal.OUT_OF_ORDER, Type.PING), last_words(peer).refused)
        self.assertEqual(0, self.store.reserved())
        self.assertEqual(0, len(self.tasks))

    def test_a_store_that_dribbles_is_cut_off(self) -> None:
        peer = self.greet()
        self.begin_store(peer, bytes(4 << 20))
        for _ in range(40):
            if not peer.closed:
                peer.send_data(b"\0")
                self.pass_s(1, peer)

        self.assertEqual(["TOO_SLOW"], self.meter.refusals)
        self.assertEqual({}, self.store.uploads)

    def test_empty_frames_end_it_at_once(self) -> None:
        """A flood of them would never be waited for, and so never be too slow."""
        peer = self.greet()
        self.begin_store(peer, DATA)

        peer.send_raw(bytes((Type.DATA, 0, 0, 0)))

        self.assertEqual(Refused(Refusal.MALFORMED, Type.DATA), last_words(peer).refused)
        self.assertTrue(peer.closed)

    def test_our_slow_disk_is_not_the_renters_fault(self) -> None:
        self.store.commits = []
        peer = self.greet()
        self.begin_store(peer, DATA)
        peer.send_data(DATA)
        peer.send(End())

        self.pass_s(3600, peer)
        self.assertFalse(peer.closed)
        self.store.sync()

        peer.pump()
        self.assertEqual(1, len(peer.events))

    def test_what_follows_a_refusal_is_thrown_away_for_a_minute_at_most(self) -> None:
        peer = self.greet()
        peer.send(Store(shard_of(DATA), 1))
        peer.answer()
        peer.send_data(b"xx")
        self.assertEqual(Refusal.WRONG_SIZE, peer.refusal().refusal)
        for _ in range(59):
            peer.send_data(bytes(250_000))
            self.pass_s(1, peer)
        self.assertFalse(peer.closed)

        for _ in range(10):
            if not peer.closed:
                peer.send_data(bytes(250_000))
                self.pass_s(1, peer)

        self.assertTrue(peer.closed)
        self.assertEqual([CloseReason.SLOW.value], self.meter.closed)

    def test_who_owes_the_end_too_long_is_told_true_numbers(self) -> None:
        peer = self.greet()
        self.begin_store(peer, DATA)
        self.pass_s(7, peer)
        peer.send_data(DATA + b"x")
        self.assertEqual(Refusal.WRONG_SIZE, peer.refusal().refusal)
        peer.send_data(bytes(1000))

        self.pass_s(62, peer)

        moved_bytes, waited_s = len(DATA) + 1 + 1000, 7 + 61
        words = last_words(peer)
        self.assertEqual(Refused(Refusal.TOO_SLOW, moved_bytes, waited_s), words.refused)
        self.assertTrue(words.final)

    def test_after_the_owed_end_there_is_all_the_time_again(self) -> None:
        peer = self.greet()
        peer.send(Store(shard_of(DATA), 1))
        peer.answer()
        peer.send_data(b"xx")
        peer.send(End())

        self.pass_s(200, peer)

        self.assertFalse(peer.closed)

    def test_an_idle_renter_is_closed_without_a_word(self) -> None:
        peer = self.greet()
        self.pass_s(IDLE_S, peer)
        self.assertFalse(peer.closed)
        peer.send(Ping(1))
        self.pass_s(IDLE_S, peer)
        self.assertFalse(peer.closed)

        self.pass_s(2, peer)

        self.assertTrue(peer.closed)
        self.assertEqual([Pong], [type(event) for event in peer.events])
        self.assertEqual([CloseReason.IDLE.value], self.meter.closed)

    def test_a_dribbled_request_gains_no_time(self) -> None:
        peer = self.greet()
        for byte in encode(Ping(1))[:10]:
            if not peer.closed:
                peer.send_raw(bytes([byte]))
                self.pass_s(IDLE_S / 5, peer)

        self.assertTrue(peer.closed)

    def test_a_stranger_may_not_sit_around(self) -> None:
        peer = self.greet(STRANGER)

        self.pass_s(12, peer)

        self.assertTrue(peer.closed)

    def test_a_peer_that_does_not_close_is_cut(self) -> None:
        peer = self.greet()
        peer.takes = False
        peer.send_raw(encode(End()))
        self.assertTrue(peer.wire.disconnecting)
        self.assertFalse(peer.closed)

        self.pass_s(6, peer)

        self.assertTrue(peer.closed)
        self.assertEqual([CloseReason.PROTOCOL.value], self.meter.closed)

    def test_nothing_is_heard_after_the_last_words(self) -> None:
        peer = self.greet()
        peer.takes = False
        peer.send_raw(encode(End()))
        unsent = bytes(peer.wire.unsent)

        peer.send_raw(encode(Ping(1)) * 10_000)

        self.assertEqual(unsent, bytes(peer.wire.unsent))
        self.assertTrue(peer.wire.reading)
        self.assertFalse(peer.session.has_unread)


class PacingTests(NodeCase):
    def test_a_peer_that_reads_no_answers_is_answered_no_more(self) -> None:
        peer = self.greet()
        peer.takes = False

        peer.send_raw(encode(Ping(1)) * 200_000)

        self.assertFalse(peer.wire.reading)
        self.assertLess(peer.wire.most_unsent, 70 * 1024)
        self.assertGreater(len(peer.outgoing), 1_000_000)

    def test_one_session_leaves_turns_to_the_others(self) -> None:
        flood, other = self.greet(), self.greet()
        flood.outgoing += encode(Ping(1)) * 5000
        flood._deliver()

        self.assertLessEqual(self.meter.finished[Verb.PING, Result.OK], EVENTS_PER_TURN)
        other.send(Ping(2))
        self.assertIsInstance(other.answer(), Pong)

    def test_many_sessions_of_one_address_share_their_turns(self) -> None:
        """Or each would answer a burst in every turn, and the others wait for all of them."""
        self.book.stages[RENTER] = ContractStage.GONE
        floods = [self.greet() for _ in range(8)]
        self.clock.advance(0)
        for flood in floods:
            flood.outgoing += encode(Ping(1)) * 500
            flood._deliver()

        def answered() -> int:
            return self.meter.finished[Verb.PING, Result.OK]

        for _ in range(20):
            before = answered()
            pass_turn(self.clock)
            self.assertLessEqual(answered() - before, EVENTS_PER_TURN)
        self.assertGreater(answered(), 19 * EVENTS_PER_TURN)

    def test_all_sessions_together_have_so_many_frames_in_a_turn(self) -> None:
        """And a renter with a contract waits for a turn or two, not for all strangers."""
        strangers = [
            self.call(NodeId(n.to_bytes(32, "big")), f"10.0.{n // 200}.{n % 200}")
            for n in range(300)
        ]
        for stranger in strangers:
            stranger.hello()
        renter = self.greet()
        self.clock.advance(0)
        before = self.meter.finished[Verb.PING, Result.OK]
        for stranger in strangers:
            stranger.outgoing += encode(Ping(1)) * 30
            stranger._deliver()
        self.assertLessEqual(self.meter.finished[Verb.PING, Result.OK] - before, EVENTS_PER_TURN)

        renter.outgoing += encode(Ping(2))
        renter._deliver()
        self.assertFalse(renter.wire.unsent)
        pass_turn(self.clock)

        self.assertTrue(renter.wire.unsent)
        answered = self.meter.finished[Verb.PING, Result.OK] - before
        self.assertGreater(answered, EVENTS_PER_TURN)
        self.assertLessEqual(answered, 2 * EVENTS_PER_TURN)

    def test_a_few_frames_wake_the_reactor_for_nothing(self) -> None:
        peer = self.greet()
        self.clock.advance(0)
        for _ in range(EVENTS_PER_TURN // 4):
            peer.send(Ping(1))

        self.assertEqual([], self.clock.calls)

    def occupy_this_turn(self) -> None:
        for _ in range(STEPS_PER_TURN):
            self.around.turnstile.ask("another", lambda: None)

    def test_a_transfer_waits_for_its_turn_after_each_block(self) -> None:
        peer = self.greet()
        self.begin_store(peer, bytes(4 << 20))
        self.occupy_this_turn()

        peer.outgoing += peer.connection.send_data(bytes(TURN_BYTES + 1))
        peer._deliver()
        self.assertFalse(peer.wire.reading)
        self.clock.advance(0)

        self.assertTrue(peer.wire.reading)

    def test_who_waits_for_its_turn_is_not_late_meanwhile(self) -> None:
        peer = self.greet()
        self.begin_store(peer, bytes(4 << 20))
        self.occupy_this_turn()
        peer.outgoing += peer.connection.send_data(bytes(TURN_BYTES + 1))
        peer._deliver()
        # A turn of the reactor that takes very long.
        self.clock.rightNow += 10 * IDLE_S

        self.assertFalse(peer.session.check())

    def test_a_shard_of_one_step_waits_for_no_turn(self) -> None:
        peer = self.greet()
        data = bytes(BLOCK_BYTES)
        shard = shard_of(data)
        self.begin_store(peer, data)
        self.occupy_this_turn()

        peer.outgoing += peer.connection.send_data(data) + peer.connection.send(End())
        peer._deliver()
        peer.outgoing += peer.connection.send(Retrieve(shard, 0, TO_THE_END, False))
        peer._deliver()
        peer._take()

        self.assertIsInstance(peer.events[0], Stored)
        self.assertIsInstance(peer.events[-1], End)

    def test_a_shard_of_many_steps_waits_before_each(self) -> None:
        shard = self.hold(bytes(4 << 20))
        peer = self.greet()
        self.occupy_this_turn()

        peer.outgoing += peer.connection.send(Retrieve(shard, 0, TO_THE_END, False))
        peer._deliver()
        self.assertEqual(0, self.store.bytes_read)
        self.clock.advance(0)

        self.assertGreater(self.store.bytes_read, 0)

    def test_who_leaves_while_waiting_for_its_turn_is_served_no_more(self) -> None:
        shard = self.hold(bytes(4 << 20))
        peer = self.greet()
        self.occupy_this_turn()
        peer.outgoing += peer.connection.send(Retrieve(shard, 0, TO_THE_END, False))
        peer._deliver()

        peer.leave()
        self.assertEqual(0, self.around.turnstile.waiting, "it takes nobody's turn")
        self.clock.advance(0)

        self.assertEqual((0, 0), (self.store.bytes_read, self.store.readers_open))

    def test_a_session_that_closes_reads_on_to_hear_the_peers_close(self) -> None:
        peer = self.greet()
        peer.takes = False
        peer.send_raw(encode(Ping(1)) * 200_000)
        self.assertFalse(peer.wire.reading)

        peer.session.close(CloseReason.DRAINED)

        self.assertTrue(peer.wire.reading)
        self.assertIsNone(peer.wire.producer)

    def test_it_reads_on_too_when_it_waits_for_its_turn_with_much_unread(self) -> None:
        peer = self.greet()
        self.begin_store(peer, bytes(4 << 20))
        disk = self.farm.disk = SteppingDisk()
        peer.send_data(bytes(READ_AHEAD_BYTES))
        self.assertEqual(1, len(disk.waiting))
        self.occupy_this_turn()
        peer.outgoing += peer.connection.send_data(bytes(READ_AHEAD_BYTES))
        peer._deliver()
        self.assertFalse(peer.wire.reading)

        peer.session.hang_up(Refused(Refusal.DRAINING), CloseReason.DRAINED)
        self.assertTrue(peer.wire.reading)
        self.assertEqual(0, self.around.turnstile.waiting, "it takes nobody's turn")
        self.assertEqual(STEP_BYTES, self.around.held.total_bytes, "what the disk has yet to take")
        self.clock.advance(0)

        self.assertTrue(peer.wire.reading)
        disk.run_all()
        self.assertEqual(0, self.around.held.total_bytes)

    def test_reading_stops_at_one_control_frame_between_transfers(self) -> None:
        self.store.commits = []
        peer = self.greet()
        self.begin_store(peer, DATA)
        peer.send_data(DATA)
        peer.send(End())
        peer.slice_bytes = 1000

        peer.send_raw(encode(Ping(1)) * 20_000)

        self.assertFalse(peer.wire.reading)
        self.assertLess(peer.session._connection.waiting_bytes, CONTROL_BYTES_MAX + 1004)

    def test_any_slicing_of_requests_gives_the_same_answers(self) -> None:
        @given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
        def check(cuts: list[int]) -> None:
            peer = self.greet()
            raw = b"".join(peer.connection.send(Ping(n)) for n in range(20))
            for size in cuts:
                peer.send_raw(raw[:size])
                raw = raw[size:]
            peer.send_raw(raw)
            tokens = [event.token for event in peer.events if isinstance(event, Pong)]
            self.assertEqual(list(range(20)), tokens)
            peer.leave()

        check()

    def test_nothing_is_left_of_a_session_that_ended(self) -> None:
        """Not even for the collector: full collections are rare, and sessions are many."""
        self.hold(DATA)
        self.addCleanup(gc.enable)
        gc.collect()
        gc.disable()
        peer = self.greet()
        peer.send(Retrieve(shard_of(DATA), 0, TO_THE_END, False), Ping(1))
        peer.events.clear()
        self.begin_store(peer, bytes(4 << 20))
        peer.send_data(bytes(TURN_BYTES + 1))
        ended = weakref.ref(peer.session)

        peer.leave()
        self.peers.clear()
        del peer

        self.assertIsNone(ended())

    def test_every_session_is_counted_in_and_out(self) -> None:
        peers = [self.greet(RENTER) for _ in range(3)]
        peers[0].leave()

        self.assertEqual((3, 2), (self.meter.opened, len(self.sessions)))
        for peer in peers[1:]:
            peer.leave()
        self.assertEqual([CloseReason.LEFT.value] * 3, self.meter.closed)
        self.assertEqual([], self.meter.handshakes)


def _limits(welcome: Welcome) -> tuple[int, int, int]:
    return welcome.version, welcome.time_ms, welcome.shard_bytes_max


class HungDiskTests(NodeCase):
    """Threads that do not come back, and renters who leave and come again."""

    disk: SteppingDisk

    def make_disk(self) -> SteppingDisk:
        return SteppingDisk()

    def call_and_leave(self, n: int) -> Session | None:
        """Ask for something that hangs, send more behind it, leave; None if not let in."""
        peer = self.call(address=f"192.0.2.{n}")
        peer.outgoing += peer.connection.send(Hello(1, 1, "again"))
        peer.pump()
        _, greeting = self.disk.waiting.pop()
        greeting()
        peer.pump()
        if peer.closed:
            return None
        peer.send(Stat(shard_of(DATA)), *(Ping(token) for token in range(50)))
        self.assertTrue(peer.session.has_unread)
        peer.leave()
        return peer.session

    def test_who_comes_again_and_again_to_a_hung_disk_gains_no_memory(self) -> None:
        left = [self.call_and_leave(n) for n in range(SESSIONS_PER_RENTER_MAX + 3)]

        let_in = [session for session in left if session is not None]
        self.assertEqual(SESSIONS_PER_RENTER_MAX, len(let_in))
        self.assertFalse(any(session.has_unread for session in let_in))
        self.assertEqual((0, len(let_in)), (len(self.sessions), self.sessions.departed))

        self.disk.run_all()

        self.assertEqual(0, self.sessions.departed)
        self.assertIsNotNone(self.call_and_leave(99))
        self.disk.run_all()
