"""Farmers that lie, stall, flood and hang up: each is an error, none a hang or a wrong byte."""

import io
from dataclasses import replace
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from farmer.client import refusals
from farmer.client.auditing import Verdict
from farmer.client.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    FarmerBrokeProtocolError,
    FarmerTooSlowError,
    SourceChangedError,
    WrongBytesError,
)
from farmer.client.limits import (
    BUSY_DELAYS_MS,
    BUSY_S,
    HASHED_BYTES_PER_S_MIN,
    READ_AHEAD_BYTES,
    RETRY_DELAYS_S,
    RETRY_PROGRESS_BYTES,
    SESSIONS_MAX,
    SILENCES_MAX,
)
from farmer.client.retrieving import Retrieval, Wanted
from farmer.client.storing import Source
from farmer.identity.keys import Identity
from farmer.identity.signing import sign_receipt
from farmer.model.ids import ShardId
from farmer.model.shard import SHARD_BYTES_MAX, DeletionOutcome
from farmer.protocol.frames import data_header
from farmer.protocol.limits import ANSWER_S, DATA_BYTES_SENT, RATE_GRACE_S
from farmer.protocol.opening import End, Welcome
from farmer.protocol.proofs import encode_item
from farmer.protocol.questions import Listed, Pong, Stated
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Accept, Send, Stored
from farmer.protocol.types import Type
from tests.client.fake_farmer import InlineDoor, Talk, shard_of
from tests.client.pipes import FULL_BYTES, World
from tests.client.test_farmer import FarmerCase, content_of

MIB = 1024 * 1024


class LyingTests(FarmerCase):
    """Answers that are well-formed and untrue."""

    def script(self, kind, answer):
        self.fake.script[kind] = answer

    def assert_broke(self, work, text=""):
        with self.assertRaises(FarmerBrokeProtocolError) as caught:
            self.run_(work)
        self.assertIn(text, str(caught.exception))

    def test_a_receipt_with_a_wrong_signature_is_refused(self):
        receipt = replace(self.fake.receipt(shard_of(b"x"), 1), signature=bytes(64))
        self.script(Type.STORE, lambda talk, _: talk.send(Stored(receipt)))
        self.assert_broke(self.farmer.store(io.BytesIO(b"x")), "signature")

    def test_a_receipt_of_another_farmer_renter_shard_or_size_is_refused(self):
        right = self.fake.receipt(shard_of(b"x"), 1)
        other = Identity.of_key(Ed25519PrivateKey.generate())
        for receipt in (
            sign_receipt(other, replace(right, farmer_key=other.public_key)),
            sign_receipt(self.fake.identity, replace(right, renter=other.node_id)),
            sign_receipt(self.fake.identity, replace(right, shard=shard_of(b"y"))),
            sign_receipt(self.fake.identity, replace(right, size_bytes=2)),
        ):
            self.script(Type.STORE, lambda talk, _, one=receipt: talk.send(Stored(one)))
            self.assert_broke(self.farmer.store(io.BytesIO(b"x")), "receipt")

    def test_a_contract_that_is_forged_or_of_others_is_refused(self):
        honest = self.fake.shown()
        other = Identity.of_key(Ed25519PrivateKey.generate())
        for shown in (
            replace(honest, signature=bytes(64)),
            replace(honest, contract=replace(honest.contract, space_bytes=2)),
            replace(honest, contract=replace(honest.contract, renter=other.node_id)),
            replace(honest, contract=replace(honest.contract, farmer_key=other.public_key)),
        ):
            self.script(Type.SHOW_CONTRACT, lambda talk, _, one=shown: talk.send(one))
            self.assert_broke(self.farmer.contract())

    def test_an_offset_beyond_the_shard_is_refused(self):
        self.script(Type.STORE, lambda talk, _: talk.send(Accept(2)))
        self.assert_broke(self.farmer.store(io.BytesIO(b"x")))

    def test_wrong_bytes_are_found_whole_or_proved(self):
        shard = shard_of(content_of(100_000))
        self.fake.shards[shard] = content_of(100_001)[:100_000]
        with self.assertRaises(WrongBytesError):
            self.retrieved(shard)
        with self.assertRaises(WrongBytesError):
            self.retrieved(shard, 4096, 4096, proved=True)
        self.assertTrue(all(talk.lost for talk in self.fake.talks))

    def test_a_range_that_was_not_asked_for_is_refused(self):
        shard = self.hold(content_of(10_000))
        for answer in (
            Send(10_000, 1, 9_999),
            Send(10_000, 0, 9_999),
            Send(SHARD_BYTES_MAX + 1, 0, SHARD_BYTES_MAX + 1),
            Send(10_000, 0, 10_000, (bytes(32),)),
        ):
            self.script(Type.RETRIEVE, lambda talk, _, one=answer: talk.send(one))
            self.assert_broke(self.farmer.retrieve(shard, io.BytesIO()), "not what was asked")

    def test_a_size_that_the_receipt_contradicts_is_refused(self):
        shard = self.hold(content_of(10_000))
        retrieval = Retrieval(Wanted(shard, size_bytes=9_999), io.BytesIO())
        self.assert_broke(self.farmer.carry_out(retrieval), "not what was asked")

    def test_more_or_fewer_bytes_than_announced_are_refused(self):
        shard = self.hold(content_of(10_000))

        def more(talk, _):
            talk.send(Send(10, 0, 10))
            talk.data(b"x" * 11)

        def fewer(talk, _):
            talk.send(Send(10, 0, 10))
            talk.data(b"x" * 9)
            talk.send(End())

        for answer in (more, fewer):
            self.script(Type.RETRIEVE, answer)
            self.assert_broke(self.farmer.retrieve(shard, io.BytesIO()), "than it announced")

    def test_a_list_that_goes_round_or_never_ends_is_refused(self):
        async def listed():
            return [entry async for entry in self.farmer.list()]

        low, high = (ShardId(bytes([first]) * 32) for first in (1, 2))
        one, other = (Stated(shard, 1, 1, 0, 0) for shard in (low, high))
        for page in (
            Listed((other, one), False),
            Listed((), True),
            Listed((one, one), False),
        ):
            self.script(Type.LIST, lambda talk, _, page=page: talk.send(page))
            self.assert_broke(listed())
        self.script(Type.LIST, lambda talk, _: talk.send(Listed((one,), True)))
        self.assert_broke(listed())

    def test_answers_about_something_else_are_refused(self):
        self.hold(b"other")
        stated = self.fake.stated(shard_of(b"other"))
        self.script(Type.STAT, lambda talk, _: talk.send(stated))
        self.assert_broke(self.farmer.stat(shard_of(b"this")))
        pong = Pong(0, 1, 1, self.fake.contract.price, "fake")
        self.script(Type.PING, lambda talk, _: talk.send(pong))
        self.assert_broke(self.farmer.ping())

    def test_wrong_proofs_fail_the_audit(self):
        receipt = self.fake.receipt(shard_of(content_of(300_000)), 300_000)
        self.fake.shards[receipt.shard] = content_of(300_001)[:300_000]
        report = self.run_(self.farmer.audit([receipt]))
        self.assertIn("wrong proof", report.of(Verdict.FAILED)[0].reason)

    def test_audit_items_too_many_or_too_few_are_refused(self):
        receipt = self.fake.receipt(self.hold(b"x"), 1)
        item = encode_item(Refused(Refusal.NOT_FOUND))
        for count in (0, 2):

            def answer(talk, _, count=count):
                talk.data(item * count)
                talk.send(End())

            self.script(Type.AUDIT, answer)
            self.assert_broke(self.farmer.audit([receipt]))

    def test_no_answer_yet_is_neither_pass_nor_failure(self):
        receipt = self.fake.receipt(self.hold(b"x"), 1)
        for refusal in (
            Refusal.AUDIT_BUDGET,
            Refusal.BUSY,
            Refusal.UNAVAILABLE,
            Refusal.DRAINING,
        ):

            def one_item(talk, _, refusal=refusal):
                talk.data(encode_item(Refused(refusal, 5000, 0)))
                talk.send(End())

            def whole(talk, _, refusal=refusal):
                talk.refuse(refusal, 5000, 0)

            for answer in (one_item, whole):
                self.script(Type.AUDIT, answer)
                report = self.run_(self.farmer.audit([receipt]))
                self.assertEqual([one.verdict for one in report.shards], [Verdict.POSTPONED])
                self.assertFalse(report.is_pass or report.is_complete)
                full = self.run_(self.farmer.audit_full(receipt, io.BytesIO(b"x")))
                self.assertIs(full.verdict, Verdict.POSTPONED)

    def test_any_other_excuse_fails_the_audit(self):
        receipt = self.fake.receipt(self.hold(b"x"), 1)
        for refusal in (Refusal.NOT_FOUND, Refusal.CORRUPT, Refusal.INTERNAL, Refusal.NO_SPACE):

            def excuse(talk, _, refusal=refusal):
                talk.data(encode_item(Refused(refusal, 5000, 0)))
                talk.send(End())

            self.script(Type.AUDIT, excuse)
            report = self.run_(self.farmer.audit([receipt]))
            self.assertEqual([one.verdict for one in report.shards], [Verdict.FAILED])

    def test_garbage_and_misplaced_frames_end_the_connection(self):
        for junk in (
            b"\xff\0\0\0",
            b"\x03\0\0\x01\0",
            data_header(5) + b"hello",
            b"\x04\xff\xff\xff",
            b"\x21\0\0\x08" + bytes(8),
        ):
            self.script(Type.PING, lambda talk, _, junk=junk: talk.transport.write(junk))
            self.assert_broke(self.farmer.ping())
        self.assertTrue(all(talk.lost for talk in self.fake.talks))


class RefusingTests(FarmerCase):
    """No, at every moment."""

    def test_a_refusal_has_its_class_and_numbers(self):
        self.fake.script[Type.STORE] = lambda talk, _: talk.refuse(Refusal.NO_SPACE, 10, 3)
        with self.assertRaises(refusals.NoSpaceError) as caught:
            self.run_(self.farmer.store(io.BytesIO(b"x")))
        self.assertEqual(
            (caught.exception.wanted_bytes, caught.exception.available_bytes), (10, 3)
        )
        self.assertTrue(str(caught.exception).startswith("NO_SPACE: 10 B are wanted"))

    def test_after_a_refusal_in_mid_store_the_connection_goes_on(self):
        refused = []

        def refuse_once(talk):
            if not refused:
                refused.append(talk)
                talk.open = None
                talk.refuse(Refusal.CONTRACT_FULL, 5, 4)

        self.fake.on_data = refuse_once
        with self.assertRaises(refusals.ContractFullError):
            self.run_(self.farmer.store(io.BytesIO(content_of(3 * MIB))))
        self.assertEqual(self.run_(self.farmer.ping()).free_bytes, 7)
        self.assertEqual(self.dialer.dialed, 1)

    def test_damage_found_in_mid_retrieve_is_told(self):
        def broken(talk, _):
            talk.send(Send(MIB, 0, MIB))
            talk.data(bytes(MIB // 2))
            talk.refuse(Refusal.CORRUPT, MIB // 2, 65536)

        self.fake.script[Type.RETRIEVE] = broken
        with self.assertRaises(refusals.CorruptError):
            self.retrieved(shard_of(b"x"))
        self.assertEqual(self.run_(self.farmer.ping()).free_bytes, 7)
        self.assertEqual(self.dialer.dialed, 1)

    def test_after_a_final_refusal_the_connection_is_not_used_again(self):
        def final(talk, _):
            refused = Refused(Refusal.DRAINING, 1000)
            talk.transport.write(talk.connection.hang_up(refused))

        self.fake.script[Type.PING] = final
        with self.assertRaises(refusals.DrainingError):
            self.run_(self.farmer.ping())
        self.fake.script.clear()
        self.run_(self.farmer.ping())
        self.assertEqual((self.dialer.dialed, self.world.clock.seconds()), (2, 0))

    def test_a_refused_greeting_is_told(self):
        def too_many(talk, _):
            talk.transport.write(talk.connection.hang_up(Refused(Refusal.TOO_MANY_SESSIONS, 5, 4)))

        self.fake.script[Type.HELLO] = too_many
        with self.assertRaises(refusals.TooManySessionsError):
            self.run_(self.farmer.ping())

    def test_a_welcome_to_another_version_is_refused(self):
        self.fake.script[Type.HELLO] = lambda talk, _: talk.send(Welcome(2, 1, 1, "fake"))
        with self.assertRaises(FarmerBrokeProtocolError):
            self.run_(self.farmer.ping())

    def test_a_busy_shard_is_tried_again(self):
        answers = [Refusal.BUSY, Refusal.BUSY]

        def busy(talk, store):
            if answers:
                talk.refuse(answers.pop(), 700)
            else:
                Talk.answer(talk, store)

        self.fake.script[Type.STORE] = busy
        self.assertEqual(self.run_(self.farmer.store(io.BytesIO(b"x"))).shard, shard_of(b"x"))

    def test_a_shard_that_our_former_connection_holds_is_waited_for(self):
        asked_s = []

        def busy(talk, store):
            asked_s.append(self.world.clock.seconds())
            if asked_s[-1] < 60:
                talk.refuse(Refusal.BUSY, 1000)
            else:
                Talk.answer(talk, store)

        self.fake.script[Type.STORE] = busy
        self.assertEqual(self.run_(self.farmer.store(io.BytesIO(b"x"))).shard, shard_of(b"x"))
        waits_s = [after - before for before, after in pairwise(asked_s)]
        self.assertEqual(waits_s[:6], [1, 2, 4, 8, 10, 10])

    def test_a_farmer_that_says_when_to_come_back_is_not_asked_before(self):
        asked_s = []

        def busy(talk, store):
            asked_s.append(self.world.clock.seconds())
            if len(asked_s) < 3:
                talk.refuse(Refusal.BUSY, 60_000)
            else:
                Talk.answer(talk, store)

        self.fake.script[Type.STORE] = busy
        self.run_(self.farmer.store(io.BytesIO(b"x")))
        self.assertEqual([after - before for before, after in pairwise(asked_s)], [60, 60])

    def test_a_farmer_that_says_hours_is_not_waited_for(self):
        """Who stores is told at once for how long it would be."""
        self.fake.script[Type.STORE] = lambda talk, _: talk.refuse(Refusal.BUSY, 7_260_000)
        with self.assertRaises(refusals.BusyError) as caught:
            self.run_(self.farmer.store(io.BytesIO(b"x")))
        self.assertEqual(self.world.clock.seconds(), 0)
        self.assertIn("try again in 2 h 1 m", str(caught.exception))

    def test_a_wait_that_would_end_too_late_is_not_begun(self):
        self.fake.script[Type.STORE] = lambda talk, _: talk.refuse(Refusal.BUSY, 200_000)
        with self.assertRaises(refusals.BusyError):
            self.run_(self.farmer.store(io.BytesIO(b"x")))
        self.assertEqual(self.world.clock.seconds(), 200)

    def test_a_shard_that_stays_busy_is_given_up(self):
        self.fake.script[Type.STORE] = lambda talk, _: talk.refuse(Refusal.BUSY, 700)
        with self.assertRaises(refusals.BusyError):
            self.run_(self.farmer.store(io.BytesIO(b"x")))
        waited_s = self.world.clock.seconds()
        self.assertGreaterEqual(waited_s, BUSY_S)
        self.assertLess(waited_s, BUSY_S + BUSY_DELAYS_MS[1] / 1000 + 1)


class StallingTests(FarmerCase):
    """Silence, and less than silence."""

    def assert_too_slow(self, work, at_most_s):
        # Without further attempts: each of them would be as slow.
        self.fake.script[Type.HELLO] = lambda talk, hello: (
            Talk.answer(talk, hello) if len(self.fake.talks) == 1 else talk.cut()
        )
        with self.assertRaises(ConnectionLostError):
            self.run_(work)
        self.assertLess(self.world.clock.seconds(), at_most_s + sum(RETRY_DELAYS_S) + 1)

    def test_silence_ends(self):
        self.fake.script[Type.PING] = lambda *_: None
        self.assert_too_slow(self.farmer.ping(), ANSWER_S)

    def test_who_greets_and_then_is_silent_is_asked_once_more(self):
        """Limit: SILENCES_MAX; each time costs minutes."""
        self.fake.script[Type.PING] = lambda *_: None
        with self.assertRaises(FarmerTooSlowError):
            self.run_(self.farmer.ping())
        self.assertEqual(self.dialer.dialed, 1 + SILENCES_MAX)

    def test_a_store_that_goes_on_has_the_time_to_be_read_and_hashed_again(self):
        size_bytes = 40 * MIB
        source = Source(None, 0, shard_of(b"x"), size_bytes)
        reading_s = ANSWER_S + size_bytes / HASHED_BYTES_PER_S_MIN - 1

        def late(talk, _):
            self.world.clock.callLater(reading_s, talk.refuse, Refusal.NO_SPACE, 5, 4)

        self.fake.script[Type.STORE] = late
        with self.assertRaises(refusals.NoSpaceError):
            self.run_(self.farmer.store_hashed(source))
        self.assertEqual(self.dialer.dialed, 1)

    def test_a_flood_of_nothing_ends_at_once(self):
        shard = self.hold(content_of(10_000))

        def nothing(talk, _):
            talk.send(Send(10_000, 0, 10_000))
            talk.transport.write(bytes((Type.DATA, 0, 0, 0)) * 100)

        self.fake.script[Type.RETRIEVE] = nothing
        with self.assertRaises(FarmerBrokeProtocolError):
            self.run_(self.farmer.retrieve(shard, io.BytesIO()))

    def test_one_byte_a_second_ends(self):
        shard = self.hold(content_of(10_000))

        def drip(talk):
            if not talk.lost:
                talk.data(b"x")
                self.world.clock.callLater(1, drip, talk)

        def slowly(talk, _):
            talk.send(Send(10_000, 0, 10_000))
            drip(talk)

        self.fake.script[Type.RETRIEVE] = slowly
        self.assert_too_slow(self.farmer.retrieve(shard, io.BytesIO()), RATE_GRACE_S + 2)

    def test_a_farmer_that_takes_nothing_ends_the_store_and_little_is_kept_for_it(self):
        def deaf(talk, store):
            Talk.answer(talk, store)
            talk.transport.pauseProducing()

        self.fake.script[Type.STORE] = deaf
        self.assert_too_slow(
            self.farmer.store(io.BytesIO(content_of(4 * MIB))), RATE_GRACE_S + 120
        )
        sent = self.world.pipes[0].ends[0][1]
        self.assertLess(sent.most_waiting, FULL_BYTES + DATA_BYTES_SENT + 1024)

    def assert_silence_ends_after(self, came_bytes):
        content = content_of(4 * MIB)
        shard = self.hold(content)

        def silent(talk, _):
            talk.send(Send(4 * MIB, 0, 4 * MIB))
            talk.data(content[:came_bytes])

        self.fake.script[Type.RETRIEVE] = silent
        self.assert_too_slow(self.farmer.retrieve(shard, io.BytesIO()), ANSWER_S + 2)

    def test_a_retrieve_that_falls_silent_ends_however_much_came_before(self):
        """What came at once had bought minutes."""
        self.assert_silence_ends_after(3 * MIB)

    def test_an_end_that_never_comes_is_not_waited_for(self):
        self.assert_silence_ends_after(4 * MIB)

    def test_a_farmer_that_takes_no_more_of_a_store_ends_it_however_much_it_took(self):
        def deaf(talk):
            if len(talk.open[2]) >= 3 * MIB:
                talk.transport.pauseProducing()

        self.fake.on_data = deaf
        self.assert_too_slow(self.farmer.store(io.BytesIO(content_of(4 * MIB))), ANSWER_S + 2)

    def test_a_transfer_that_pauses_and_goes_on_is_waited_for(self):
        """Each silence counts by itself, as long as the average is kept."""
        content = content_of(4 * MIB)
        shard = self.hold(content)
        parts = [content[at : at + MIB] for at in range(0, 4 * MIB, MIB)]

        def next_part(talk):
            talk.data(parts.pop(0))
            if parts:
                self.world.clock.callLater(60, next_part, talk)
            else:
                talk.send(End())

        def in_parts(talk, _):
            talk.send(Send(4 * MIB, 0, 4 * MIB))
            next_part(talk)

        self.fake.script[Type.RETRIEVE] = in_parts
        back = io.BytesIO()
        self.run_(self.farmer.retrieve(shard, back))
        self.assertEqual(back.getvalue(), content)
        self.assertGreater(self.world.clock.seconds(), ANSWER_S)

    def test_no_timer_is_left(self):
        self.run_(self.farmer.ping())
        self.run_(self.farmer.close())
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_a_farmer_that_does_not_say_goodbye_is_cut_off(self):
        self.run_(self.farmer.ping())
        (ours, _), _ = self.world.pipes[0].ends
        transport = self.world.pipes[0].ends[0][1]
        transport.loseConnection = lambda: None
        self.run_(self.farmer.close())
        self.assertTrue(transport.aborted)
        self.assertFalse(ours.is_quiet)


class LosingTests(FarmerCase):
    """Connections that break."""

    def test_a_store_goes_on_where_it_stopped(self):
        """However often, if it got further by a MiB each time."""
        times = len(RETRY_DELAYS_S) + 2
        content = content_of((times + 1) * RETRY_PROGRESS_BYTES)
        cuts = [number * RETRY_PROGRESS_BYTES for number in range(1, times + 1)]

        def cut(talk):
            if cuts and len(talk.open[2]) >= cuts[0]:
                cuts.pop(0)
                talk.cut()

        self.fake.on_data = cut
        receipt = self.run_(self.farmer.store(io.BytesIO(content)))
        self.assertEqual(self.fake.shards[receipt.shard], content)
        self.assertEqual(self.dialer.dialed, times + 1)

    def test_what_is_left_of_a_store_is_given_up_by_deleting_it(self):
        content = content_of(3 * MIB)
        self.fake.on_data = lambda talk: len(talk.open[2]) >= MIB and talk.cut()
        with self.assertRaises(ConnectionLostError):
            self.run_(self.farmer.store(io.BytesIO(content)))
        shard = shard_of(content)
        self.assertIn(shard, self.fake.partial)
        self.assertIs(self.run_(self.farmer.delete(shard)).outcome, DeletionOutcome.ERASED)
        self.assertEqual(self.fake.partial, {})

    def test_a_retrieve_goes_on_where_it_stopped_whole_or_proved(self):
        content = content_of(3 * MIB + 5)
        shard = self.hold(content)
        for offset, length, proved in (
            (0, None, False),
            (5000, 2 * MIB, True),
            (7, 2 * MIB, False),
        ):
            cuts = [1, 2]

            def cut(talk, asked, cuts=cuts):
                if not cuts:
                    Talk.answer(talk, asked)
                    return
                cuts.pop()
                honest, talk.data = talk.data, lambda data: honest(data[: MIB // 2])
                talk.send, send = (
                    lambda message: type(message) is Send and send(message),
                    talk.send,
                )
                Talk.answer(talk, asked)
                talk.transport.loseConnection()

            self.fake.script[Type.RETRIEVE] = cut
            end = len(content) if length is None else offset + length
            part = self.retrieved(shard, offset, length, proved=proved)
            self.assertEqual(part, content[offset:end])

    def test_a_retrieve_whose_size_changes_in_between_is_refused(self):
        shard = self.hold(content_of(MIB))
        answers = [Send(MIB, 0, MIB), Send(MIB + 1, 1000, MIB - 1000)]

        def half(talk, _):
            talk.send(answers.pop(0))
            talk.data(content_of(MIB)[:1000])
            talk.transport.loseConnection()

        self.fake.script[Type.RETRIEVE] = half
        with self.assertRaises(FarmerBrokeProtocolError):
            self.retrieved(shard)

    def test_bytes_of_an_earlier_attempt_are_checked_with_the_others(self):
        content = content_of(MIB)
        shard = self.hold(content)
        for start, right in ((content[:5000], True), (bytes(5000), False)):
            target = io.BytesIO(start)
            retrieval = Retrieval(Wanted(shard, size_bytes=MIB), target)
            retrieval.adopt(target)
            work = self.farmer.carry_out(retrieval)
            if right:
                self.run_(work)
                self.assertEqual(target.getvalue(), content)
            else:
                with self.assertRaises(WrongBytesError):
                    self.run_(work)

    def test_an_audit_is_asked_again(self):
        receipt = self.fake.receipt(self.hold(b"x"), 1)
        cuts = [1]

        def cut(talk, audit):
            if cuts:
                cuts.pop()
                talk.cut()
            else:
                Talk.answer(talk, audit)

        self.fake.script[Type.AUDIT] = cut
        self.assertTrue(self.run_(self.farmer.audit([receipt])).is_pass)

    def test_attempts_are_bounded(self):
        self.fake.script[Type.PING] = lambda talk, _: talk.cut()
        with self.assertRaises(ConnectionLostError):
            self.run_(self.farmer.ping())
        self.assertEqual(self.dialer.dialed, len(RETRY_DELAYS_S) + 1)

    def test_a_farmer_that_was_never_reached_is_not_tried_again(self):
        self.dialer.reachable = False
        with self.assertRaises(ConnectionFailedError):
            self.run_(self.farmer.ping())
        self.assertEqual(self.world.clock.seconds(), 0)

    def test_a_farmer_that_restarts_is_waited_for(self):
        def vanish(talk, _):
            talk.cut()
            self.dialer.reachable = False
            self.fake.script.clear()
            self.world.clock.callLater(2, setattr, self.dialer, "reachable", True)

        self.fake.script[Type.PING] = vanish
        self.assertEqual(self.run_(self.farmer.ping()).free_bytes, 7)

    def test_an_operation_begun_while_the_farmer_restarts_waits_for_it_too(self):
        self.run_(self.farmer.ping())
        self.world.pipes[0].cut()
        self.dialer.reachable = False
        self.world.clock.callLater(2, setattr, self.dialer, "reachable", True)
        self.assertEqual(self.run_(self.farmer.ping()).free_bytes, 7)

    def drawing(self, answer):
        """Return a receipt, and the nonces that an audit of it asks under, answered so."""
        nonces = []

        def look(talk, asked):
            nonces.append(asked.challenge.nonce)
            answer(talk)

        receipt = self.run_(self.farmer.store(io.BytesIO(content_of(70_000))))
        self.fake.script[Type.AUDIT] = look
        return receipt, nonces

    def test_who_hangs_up_on_a_sample_audit_is_asked_for_the_same_leaves_again(self):
        """Else it would do so until it is asked for those that it has not lost."""
        receipt, nonces = self.drawing(Talk.cut)
        with self.assertRaises(ConnectionLostError):
            self.run_(self.farmer.audit([receipt], 1))
        self.assertEqual(len(nonces), 1 + len(RETRY_DELAYS_S))
        self.assertEqual(len(set(nonces)), 1)

    def test_who_is_busy_with_a_whole_sample_audit_has_not_answered_and_draws_no_other(self):
        """An honest farmer says so of one shard."""
        receipt, nonces = self.drawing(lambda talk: talk.refuse(Refusal.BUSY, 0))
        for _ in range(2):
            (audited,) = self.run_(self.farmer.audit([receipt], 1)).shards
            self.assertIs(audited.verdict, Verdict.POSTPONED)
        self.assertEqual(self.world.clock.seconds(), 0)
        self.assertEqual((len(nonces), len(set(nonces))), (2, 2))

    def test_who_hangs_up_on_a_full_audit_is_asked_under_another_nonce(self):
        """All bytes are asked for whatever the nonce: there is nothing to draw."""
        receipt, nonces = self.drawing(Talk.cut)
        with self.assertRaises(ConnectionLostError):
            self.run_(self.farmer.audit_full(receipt, io.BytesIO(content_of(70_000))))
        self.assertEqual(len(nonces), 1 + len(RETRY_DELAYS_S))
        self.assertEqual(len(nonces), len(set(nonces)))

    def test_a_connection_that_was_lost_between_exchanges_is_replaced(self):
        self.run_(self.farmer.ping())
        self.world.pipes[0].cut()
        self.run_(self.farmer.ping())
        self.assertEqual((self.dialer.dialed, self.world.clock.seconds()), (2, 0))

    def test_a_file_that_became_shorter_is_told(self):
        source = io.BytesIO(content_of(MIB))
        hashed = self.run_(self.farmer.hash(source))
        source.truncate(1000)
        with self.assertRaises(SourceChangedError):
            self.run_(self.farmer.store_hashed(hashed))

    def shrinking(self):
        """Have a source end where the second step of its store would begin; return it hashed."""
        source = io.BytesIO(content_of(3 * MIB))
        hashed = self.run_(self.farmer.hash(source))
        self.fake.on_data = lambda talk: source.truncate(MIB)
        return hashed

    def test_what_a_file_that_became_shorter_had_reserved_is_given_back(self):
        """Nobody can ever go on with it: the farmer need not keep it for a day."""
        hashed = self.shrinking()
        with self.assertRaises(SourceChangedError) as caught:
            self.run_(self.farmer.store_hashed(hashed))
        self.assertIn("became shorter", str(caught.exception))
        self.run_(self.farmer.ping())
        self.assertEqual(self.dialer.dialed, 1)
        self.run_(self.farmer.close())
        self.assertEqual((self.fake.partial, self.fake.shards), ({}, {}))

    def test_a_farmer_that_had_refused_just_then_is_told_the_end_once(self):
        hashed = self.shrinking()
        shorten = self.fake.on_data

        def refuse(talk):
            shorten(talk)
            if talk.open and len(talk.open[2]) >= MIB:
                talk.open = None
                talk.refuse(Refusal.CONTRACT_FULL, 5, 4)

        self.fake.on_data = refuse
        with self.assertRaises((SourceChangedError, refusals.ContractFullError)):
            self.run_(self.farmer.store_hashed(hashed))
        self.run_(self.farmer.ping())
        self.assertEqual(self.dialer.dialed, 1)
        self.assertEqual([type(one) for one in self.fake.asked].count(End), 1)

    def test_the_cause_is_named_whatever_becomes_of_the_giving_up(self):
        for end in (lambda *_: None, lambda talk, _: talk.cut()):
            hashed = self.shrinking()
            self.fake.script[Type.END] = end
            before_s = self.world.clock.seconds()
            with self.assertRaises(SourceChangedError):
                self.run_(self.farmer.store_hashed(hashed))
            self.assertLess(self.world.clock.seconds() - before_s, 30)

    def test_a_file_that_changed_is_not_stored(self):
        source = io.BytesIO(content_of(MIB))
        hashed = self.run_(self.farmer.hash(source))
        source.getbuffer()[5] ^= 1
        with self.assertRaises(refusals.WrongHashError):
            self.run_(self.farmer.store_hashed(hashed))
        self.assertEqual(self.fake.shards, {})

    def test_a_cancelled_transfer_hangs_up_and_leaves_the_others_alone(self):
        self.fake.script[Type.RETRIEVE] = lambda talk, _: talk.send(Send(MIB, 0, MIB))
        deferred = Deferred.fromCoroutine(self.farmer.retrieve(shard_of(b"x"), io.BytesIO()))
        self.world.settle()
        deferred.cancel()
        self.failureResultOf(deferred, CancelledError)
        self.world.settle()
        self.assertTrue(self.fake.talks[0].lost)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.run_(self.farmer.ping())


class SteppingDoor(InlineDoor):
    """Holds work back until it is let through."""

    def __init__(self):
        super().__init__()
        self.held = []

    def run(self, work, *args, **kwargs):
        result = Deferred()
        self.held.append((result, work, args, kwargs))
        return result

    def step(self):
        result, work, args, kwargs = self.held.pop(0)
        super().run(work, *args, **kwargs).chainDeferred(result)


class FlowTests(FarmerCase):
    """How much lies in memory, and how many connections there are."""

    def test_a_slow_target_holds_the_farmer_back(self):
        content = content_of(8 * MIB)
        shard = self.hold(content)
        door = self.farmer.door = SteppingDoor()
        target = io.BytesIO()
        deferred = Deferred.fromCoroutine(self.farmer.retrieve(shard, target))
        self.world.settle()
        wire = self.world.pipes[0].ends[0][0]
        most = 0
        while not deferred.called:
            self.world.settle()
            most = max(most, wire.connection.waiting_bytes)
            door.step()
        self.world.settle()
        self.successResultOf(deferred)
        self.assertEqual(target.getvalue(), content)
        self.assertLess(most, READ_AHEAD_BYTES + 65536 + 1)

    def test_no_more_connections_than_the_limit_whatever_is_asked_at_once(self):
        work = [Deferred.fromCoroutine(self.farmer.ping()) for _ in range(20)]
        self.world.settle()
        for one in work:
            self.assertEqual(self.successResultOf(one).free_bytes, 7)
        self.assertEqual(self.dialer.dialed, SESSIONS_MAX)


@given(slice_bytes=st.integers(1, 3000), size=st.integers(0, 20_000))
def test_however_the_stream_is_sliced_the_same_bytes_come_back(slice_bytes, size):
    case = FarmerCase()
    case.setUp()
    case.dialer.slice_bytes = slice_bytes
    content = content_of(size)
    receipt = case.run_(case.farmer.store(io.BytesIO(content)))
    assert case.retrieved(receipt.shard) == content
    assert case.run_(case.farmer.audit([receipt])).is_pass


def test_a_world_in_which_nothing_happens_is_noticed():
    async def never():
        await Deferred()

    try:
        World().run(never(), until_s=5)
    except AssertionError as error:
        assert "nothing more happens" in str(error)


def test_too_slow_is_a_lost_connection():
    assert issubclass(FarmerTooSlowError, ConnectionLostError)
