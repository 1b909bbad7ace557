"""Every question a renter can ask, against a farmer in memory."""

import io
import random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from farmer.client import refusals
from farmer.client.auditing import SAMPLES_IN_ALL, Verdict, _answer_s, sample_entry, samples_for
from farmer.client.checks import Checks
from farmer.client.errors import ConnectionLostError, FarmerBrokeProtocolError
from farmer.client.farmer import Farmer
from farmer.client.limits import HASHED_BYTES_PER_S_MIN, READ_AHEAD_BYTES
from farmer.identity.keys import Identity
from farmer.identity.records import READ_BYTES
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.shard import DeletionOutcome, ShardState
from farmer.protocol.limits import ANSWER_S, RATE_BYTES_PER_S_MIN
from farmer.protocol.opening import End
from farmer.protocol.types import Type
from tests.client.fake_farmer import FakeDialer, FakeFarmer, InlineDoor, Talk, shard_of
from tests.client.pipes import World

SIZES = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1024 * 1024 + 5)


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class FarmerCase(SynchronousTestCase):
    """A renter's face on a fake farmer."""

    def setUp(self):
        self.world = World()
        self.renter = Identity.of_key(Ed25519PrivateKey.generate())
        self.fake = FakeFarmer(self.renter)
        self.dialer = FakeDialer(self.world, self.fake)
        checks = Checks(self.fake.identity.node_id, self.renter.node_id)
        self.retried = []
        self.farmer = Farmer(
            self.dialer, checks, self.world.clock, InlineDoor(), self.retried.append
        )
        self.run_ = self.world.run

    def hold(self, content: bytes):
        self.fake.shards[shard_of(content)] = content
        return shard_of(content)

    def retrieved(self, *args, **kwargs) -> bytes:
        target = io.BytesIO()
        self.run_(self.farmer.retrieve(args[0], target, *args[1:], **kwargs))
        return target.getvalue()


class EveryVerbTests(FarmerCase):
    """Honest answers."""

    def test_what_is_stored_is_retrieved_whatever_its_size(self):
        for size in SIZES:
            receipt = self.run_(self.farmer.store(io.BytesIO(content_of(size))))
            self.assertEqual(
                (receipt.shard, receipt.size_bytes), (shard_of(content_of(size)), size)
            )
            self.assertEqual(self.retrieved(receipt.shard), content_of(size))

    def test_a_retrieve_reads_much_at_once_and_nothing_after_it(self):
        size = max(SIZES)
        shard = self.hold(content_of(size))
        self.retrieved(shard)
        (_, transport), _ = self.world.pipes[-1].ends
        self.assertEqual([READ_AHEAD_BYTES, READ_BYTES], transport.reads)

    def test_a_small_shard_goes_through_the_door_once_each_way(self):
        """What a hand-over to a thread costs is more than what is done there."""
        self.dialer.slice_bytes = READ_AHEAD_BYTES
        content = content_of(65536)
        receipt = self.run_(self.farmer.store(io.BytesIO(content)))
        self.assertEqual(1, self.farmer.door.count)
        self.assertEqual(content, self.retrieved(receipt.shard))
        self.assertEqual(2, self.farmer.door.count)

    def test_small_bytes_are_stored_as_they_were_hashed_whatever_becomes_of_their_file(self):
        for size in (100, 65536):
            file = io.BytesIO(content_of(size))
            source = self.run_(self.farmer.hash(file))
            file.seek(0)
            file.write(b"another")
            receipt = self.run_(self.farmer.store_hashed(source))
            self.assertEqual(content_of(size), self.fake.shards[receipt.shard])

    def test_larger_ones_are_not_kept(self):
        source = self.run_(self.farmer.hash(io.BytesIO(content_of(65537))))
        self.assertIsNone(source.held)

    def test_a_store_begins_where_the_file_stands(self):
        source = io.BytesIO(b"skipped" + content_of(70_000))
        source.seek(7)
        receipt = self.run_(self.farmer.store(source))
        self.assertEqual(self.fake.shards[receipt.shard], content_of(70_000))

    def test_a_shard_that_is_held_already_is_not_sent_again(self):
        shard = self.hold(content_of(70_000))
        self.assertEqual(self.run_(self.farmer.store(io.BytesIO(content_of(70_000)))).shard, shard)
        self.assertNotIn("End", [type(asked).__name__ for asked in self.fake.asked])

    def test_any_part_is_retrieved_proved_or_not(self):
        content = content_of(200_003)
        shard = self.hold(content)
        for proved in (False, True):
            for offset, length in ((0, 1), (4095, 2), (65_530, 70_000), (200_003, 0), (0, None)):
                end = len(content) if length is None else offset + length
                part = self.retrieved(shard, offset, length, proved=proved)
                self.assertEqual(part, content[offset:end])

    def test_progress_is_told_up_to_the_end_in_both_directions(self):
        seen = []
        content = content_of(1024 * 1024 + 5)
        source = io.BytesIO(content)
        receipt = self.run_(self.farmer.store(source, lambda *now: seen.append(now)))
        self.assertEqual((seen[0], seen[-1]), ((0, len(content)), (len(content), len(content))))
        seen.clear()
        self.retrieved(receipt.shard, progress=lambda *now: seen.append(now))
        self.assertEqual((seen[0], seen[-1]), ((0, len(content)), (len(content), len(content))))

    def test_whoever_waits_is_told_that_it_is_tried_again(self):
        """A transfer that stands still looks like one that is broken."""

        def cut_once(talk):
            self.fake.on_data = None
            talk.cut()

        self.fake.on_data = cut_once
        self.run_(self.farmer.store(io.BytesIO(content_of(1024 * 1024 + 5))))
        self.assertEqual([ConnectionLostError], [type(one) for one in self.retried])
        self.assertIn("the connection to the farmer broke", str(self.retried[0]))

    def test_an_audit_tells_what_is_proved_and_what_is_absent(self):
        held = self.run_(self.farmer.store(io.BytesIO(content_of(300_000))))
        lost = self.run_(self.farmer.store(io.BytesIO(content_of(5))))
        del self.fake.shards[lost.shard]
        report = self.run_(self.farmer.audit([held, lost]))
        self.assertEqual([one.shard for one in report.of(Verdict.PASSED)], [held.shard])
        (failure,) = report.of(Verdict.FAILED)
        self.assertEqual(failure.shard, lost.shard)
        self.assertIn("NOT_FOUND", failure.reason)
        self.assertFalse(report.is_pass)

    def test_an_audit_of_more_shards_than_one_challenge_holds_is_cut_into_several(self):
        receipts = []
        for number in range(60):
            content = number.to_bytes(2, "big") * 100_000
            receipts.append(self.fake.receipt(self.hold(content), len(content)))
        report = self.run_(self.farmer.audit(receipts, samples=20))
        self.assertEqual(len(report.of(Verdict.PASSED)), 60)
        audits = [asked for asked in self.fake.asked if type(asked).__name__ == "Audit"]
        self.assertEqual([len(one.challenge.entries) for one in audits], [51, 9])

    def test_the_verdicts_before_an_error_are_returned(self):
        receipts = []
        for number in range(60):
            content = number.to_bytes(2, "big") * 100_000
            receipts.append(self.fake.receipt(self.hold(content), len(content)))
        found = []

        def cut_at_the_second(talk, audit):
            if len(audit.challenge.entries) == 51:
                Talk.answer(talk, audit)
            else:
                talk.send(End())

        async def audited():
            async for one in self.farmer.verdicts(receipts, samples=20):
                found.append(one)  # noqa: PERF401 - what came before the error is asked for

        self.fake.script[Type.AUDIT] = cut_at_the_second
        with self.assertRaises(FarmerBrokeProtocolError):
            self.run_(audited())
        self.assertEqual([one.shard for one in found], [one.shard for one in receipts[:51]])
        self.assertEqual({one.verdict for one in found}, {Verdict.PASSED})

    def test_auditing_nothing_is_not_a_pass(self):
        self.assertFalse(self.run_(self.farmer.audit([])).is_pass)

    def test_a_full_audit_compares_with_our_own_bytes(self):
        receipt = self.run_(self.farmer.store(io.BytesIO(content_of(300_000))))
        audited = self.run_(self.farmer.audit_full(receipt, io.BytesIO(content_of(300_000))))
        self.assertIs(audited.verdict, Verdict.PASSED)
        self.fake.shards[receipt.shard] = content_of(300_001)
        audited = self.run_(self.farmer.audit_full(receipt, io.BytesIO(content_of(300_000))))
        self.assertIs(audited.verdict, Verdict.FAILED)

    def test_a_list_goes_over_all_pages(self):
        shards = sorted(self.hold(bytes([number])) for number in range(25))

        async def listed():
            return [entry.shard async for entry in self.farmer.list(page=10)]

        self.assertEqual(self.run_(listed()), shards)

    def test_a_deleted_shard_is_in_the_trash_until_undeleted(self):
        shard = self.hold(b"once")
        self.assertIs(self.run_(self.farmer.delete(shard)).outcome, DeletionOutcome.TRASHED)
        self.assertIs(self.run_(self.farmer.stat(shard)).state, ShardState.TRASH)
        with self.assertRaises(refusals.NotFoundError):
            self.retrieved(shard)
        self.assertIs(self.run_(self.farmer.undelete(shard)).state, ShardState.LIVE)
        self.assertEqual(self.retrieved(shard), b"once")
        erased = self.run_(self.farmer.delete(shard, erase=True))
        self.assertIs(erased.outcome, DeletionOutcome.ERASED)

    def test_contract_and_ping(self):
        self.assertEqual(self.run_(self.farmer.contract()).contract, self.fake.contract)
        self.assertEqual(self.run_(self.farmer.ping()).free_bytes, 7)

    def test_one_connection_serves_one_exchange_after_the_other(self):
        for _ in range(3):
            self.run_(self.farmer.ping())
        self.assertEqual(self.dialer.dialed, 1)

    def test_close_hangs_up_in_order(self):
        self.run_(self.farmer.ping())
        self.run_(self.farmer.close())
        self.assertTrue(all(talk.lost for talk in self.fake.talks))
        self.assertFalse(self.world.pipes[0].ends[0][1].aborted)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


def test_enough_leaves_are_sampled_however_many_shards_there_are():
    """460 over all find a loss of 1 % with 99 %; 20 of one are enough of it."""
    for shards in range(23, 2 * SAMPLES_IN_ALL):
        assert shards * samples_for(shards) >= SAMPLES_IN_ALL
    assert [samples_for(shards) for shards in (0, 1, 22, 10_000)] == [20, 20, 20, 1]


def test_no_more_leaves_are_asked_for_than_a_shard_has():
    """A challenge has room for 1024: small shards must not use it up for nothing."""
    assert [sample_entry(shard_of(b""), size, 20).samples for size in (0, 1, 4097)] == [1, 1, 2]


def test_a_farmer_has_the_time_to_read_and_send_what_was_asked_for():
    shard, gib = shard_of(b""), 1 << 30
    full = Challenge(bytes(32), AuditKind.FULL, (AuditEntry(shard, gib, 0),))
    assert _answer_s(full) == ANSWER_S + gib / HASHED_BYTES_PER_S_MIN
    sample = Challenge(bytes(32), AuditKind.SAMPLE, (AuditEntry(shard, gib, 1024),))
    reading_s = 1024 * 65536 / HASHED_BYTES_PER_S_MIN
    sending_s = 1024 * 4096 / RATE_BYTES_PER_S_MIN
    assert _answer_s(sample) == ANSWER_S + reading_s + sending_s
