"""An audit of many shards: who stalls at each of them does not cost its time for each."""

import io
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from farmer.cli.renter_auditing import Auditing
from farmer.cli.terminal import ProgressLine
from farmer.client.auditing import Verdict
from farmer.client.ledger_rows import Entry, Standing
from farmer.client.limits import BUSY_DELAYS_MS, BUSY_S, RETRY_DELAYS_S, SILENCES_MAX
from farmer.protocol.limits import ANSWER_S, TURN_S
from farmer.protocol.opening import End
from farmer.protocol.proofs import encode_item
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.types import Type
from tests.client.fake_farmer import Talk
from tests.client.test_farmer import FarmerCase

SHARDS = 40


class AuditingCase(FarmerCase):
    """Forty shards at a farmer in memory, of which we have no files."""

    def setUp(self):
        super().setUp()
        self.entries = entries = []
        for number in range(SHARDS):
            receipt = self.fake.receipt(self.hold(bytes([number])), 1)
            node_id = self.fake.identity.node_id
            entries.append(Entry(receipt, node_id, "", Standing.HELD))
        self.auditing = Auditing(entries, lambda _entry: True)
        self.line = ProgressLine("auditing", io.StringIO())

    def folder(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name

    def took_s(self, work):
        self.world.run(work, until_s=100_000.0)
        return self.world.clock.seconds()

    def verdicts(self):
        return {one.verdict for one in self.auditing.found}

    def asked(self, kind):
        return [one.TYPE for one in self.fake.asked].count(kind)


class StallingTests(AuditingCase):
    """It answers, and says nothing more, or that it is busy."""

    def test_who_is_silent_about_the_trash_is_not_asked_again(self):
        self.fake.shards.clear()
        self.fake.script[Type.STAT] = lambda *_: None
        attempts = 1 + SILENCES_MAX
        took_s = self.took_s(self.auditing.sampled(self.farmer))
        self.assertLess(took_s, attempts * (ANSWER_S + 1) + sum(RETRY_DELAYS_S))
        self.assertEqual(self.asked(Type.STAT), attempts)
        self.assertEqual(len(self.auditing.found), SHARDS)
        self.assertEqual(self.verdicts(), {Verdict.FAILED})

    def test_a_receipt_that_our_disk_has_changed_is_no_failure_of_the_farmers(self):
        path = Path(self.folder()) / "file"
        path.write_bytes(bytes([0]))
        changed = replace(self.entries[0].receipt, size_bytes=5)
        altered = replace(self.entries[0], receipt=changed, file=str(path))
        told = []

        def is_sound(entry):
            told.append(entry)
            return entry is not altered

        for work in (
            lambda one: one.sampled(self.farmer),
            lambda one: one.full(self.farmer, self.line),
        ):
            self.auditing = Auditing([altered, self.entries[1]], is_sound)
            self.took_s(work(self.auditing))
            self.assertEqual(
                [(one.shard, one.verdict) for one in self.auditing.found],
                [(self.entries[1].receipt.shard, Verdict.PASSED)],
            )
            self.assertIn(altered, told)
            told.clear()

    def test_what_we_trashed_is_not_lost_because_we_could_not_look(self):
        self.fake.shards.clear()
        self.fake.script[Type.STAT] = lambda talk, _: talk.refuse(Refusal.INTERNAL)
        trashed = [replace(one, standing=Standing.TRASHED) for one in self.entries]
        self.auditing = Auditing(trashed, lambda _entry: True)
        self.took_s(self.auditing.sampled(self.farmer))
        self.assertEqual(self.verdicts(), {Verdict.POSTPONED})
        self.assertEqual(self.asked(Type.STAT), 1)

    def test_who_takes_long_to_say_that_it_is_busy_is_not_asked_for_ever(self):
        """An item of a full audit's answer: no error, and as long a wait."""

        def say(talk):
            talk.data(encode_item(Refused(Refusal.BUSY, 1000)))
            talk.send(End())

        self.fake.script[Type.AUDIT] = lambda talk, _: self.world.clock.callLater(
            TURN_S, say, talk
        )
        path = Path(self.folder()) / "file"
        path.write_bytes(bytes([7]))
        shard = self.hold(bytes([7]))
        entry = replace(self.entries[0], receipt=self.fake.receipt(shard, 1), file=str(path))
        self.auditing = Auditing([entry] * SHARDS, lambda _entry: True)
        self.took_s(self.auditing.full(self.farmer, self.line))
        self.assertEqual(self.verdicts(), {Verdict.POSTPONED})
        self.assertEqual(self.asked(Type.AUDIT), 1 + int(BUSY_S / TURN_S))

    def test_who_refuses_to_look_into_the_trash_is_not_asked_again(self):
        self.fake.shards.clear()
        self.fake.script[Type.STAT] = lambda talk, _: talk.refuse(Refusal.INTERNAL)
        self.took_s(self.auditing.sampled(self.farmer))
        self.assertEqual(self.asked(Type.STAT), 1)

    def test_who_is_busy_with_every_shard_is_waited_for_once(self):
        """Not five minutes and a half for each."""
        self.fake.script[Type.RETRIEVE] = lambda talk, _: talk.refuse(Refusal.BUSY, 700)
        took_s = self.took_s(self.auditing.full(self.farmer, self.line))
        self.assertLess(took_s, BUSY_S + BUSY_DELAYS_MS[1] / 1000 + 1)
        self.assertEqual(len(self.auditing.found), SHARDS)
        self.assertEqual(self.verdicts(), {Verdict.POSTPONED})

    def test_who_is_busy_at_times_is_waited_for_each_time(self):
        """As long as it is not too long together."""
        asked = []

        def every_other_time(talk, message):
            asked.append(message)
            if len(asked) % 2:
                talk.refuse(Refusal.BUSY, 1000)
            else:
                Talk.answer(talk, message)

        self.fake.script[Type.RETRIEVE] = every_other_time
        self.took_s(self.auditing.full(self.farmer, self.line))
        self.assertEqual(self.verdicts(), {Verdict.PASSED})
