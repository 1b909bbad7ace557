"""More of what a hostile farmer may try: each lie and each flood meets a named limit."""

import io
from dataclasses import replace

from twisted.internet.task import deferLater

from farmer.client import limits
from farmer.client.auditing import Verdict
from farmer.client.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    FarmerBrokeProtocolError,
    FarmerTooSlowError,
)
from farmer.client.limits import READ_AHEAD_BYTES, RETRY_DELAYS_S
from farmer.identity.signing import make_invite, sign_receipt
from farmer.model.audit import Challenge
from farmer.model.contract import Offer, Price
from farmer.model.ids import InviteSerial, ShardId
from farmer.model.shard import SHARD_BYTES_MAX
from farmer.protocol.frames import data_header
from farmer.protocol.limits import (
    ANSWER_S,
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    DATA_BYTES_SENT,
    HANDSHAKE_S,
)
from farmer.protocol.messages import encode
from farmer.protocol.opening import Refuse
from farmer.protocol.proofs import encode_item
from farmer.protocol.questions import Listed, Stated
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Send, Stored
from farmer.protocol.types import Type
from tests.client.fake_farmer import Talk, shard_of
from tests.client.test_farmer import FarmerCase, content_of

MIB = 1024 * 1024


class LieCase(FarmerCase):
    def script(self, kind, answer):
        self.fake.script[kind] = answer

    def assert_broke(self, work, text=""):
        with self.assertRaises(FarmerBrokeProtocolError) as caught:
            self.run_(work)
        self.assertIn(text, str(caught.exception))

    async def listed(self):
        return [entry async for entry in self.farmer.list()]


class NumbersTests(LieCase):
    """Well-formed and impossible."""

    def test_a_receipt_that_charges_more_is_refused(self):
        right = self.fake.receipt(shard_of(b"x"), 1)
        dear = sign_receipt(
            self.fake.identity, replace(right, charge_bytes=right.charge_bytes + 4096)
        )
        self.script(Type.STORE, lambda talk, _: talk.send(Stored(dear)))
        self.assert_broke(self.farmer.store(io.BytesIO(b"x")), "charges")

    def test_a_contract_that_gives_less_than_its_invite_is_refused_whatever_its_revision(self):
        """The farmer chooses that number; who redeemed the invite before takes it anyway."""
        day_ms = 86_400_000
        price = Price(currency="EUR", stored_micros=5)
        offer = Offer(
            space_bytes=100, duration_ms=day_ms, created_at_ms=1, expires_at_ms=7, price=price
        )
        invite = make_invite(self.fake.identity, InviteSerial(bytes(16)), offer)
        agreed = replace(
            self.fake.contract, space_bytes=100, from_ms=7, until_ms=7 + day_ms, price=price
        )
        for contract, told in (
            (replace(agreed, space_bytes=99), "less space than its invite"),
            (replace(agreed, until_ms=6 + day_ms), "less time than"),
            (replace(agreed, from_ms=0, until_ms=day_ms), "less time than"),
            (replace(agreed, price=replace(price, stored_micros=6)), "another price than"),
            (replace(agreed, from_ms=8, until_ms=8 + day_ms), "a later beginning than"),
        ):
            for revision in (1, 2, 1 << 20, (1 << 32) - 1):
                self.fake.contract = replace(contract, revision=revision)
                self.assert_broke(self.farmer.redeem(invite), told)
                shown = self.run_(self.farmer.redeem(invite, anyway=True))
                self.assertEqual(shown.contract, self.fake.contract)

    def test_a_contract_that_gives_more_than_its_invite_is_taken(self):
        """More space, and a price that is lower."""
        price = Price(currency="EUR", stored_micros=5, served_micros=7)
        offer = Offer(
            space_bytes=100, duration_ms=100, created_at_ms=1, expires_at_ms=2, price=price
        )
        invite = make_invite(self.fake.identity, InviteSerial(bytes(16)), offer)
        for lower in (price, replace(price, stored_micros=4), Price()):
            self.fake.contract = replace(self.fake.contract, space_bytes=101, price=lower)
            shown = self.run_(self.farmer.redeem(invite))
            self.assertEqual(shown.contract, self.fake.contract)
        self.fake.contract = replace(self.fake.contract, price=replace(price, currency="ZWL"))
        self.assert_broke(self.farmer.redeem(invite), "another price")

    def test_a_list_of_invented_ids_ends(self):
        """Limit: LISTED_MAX."""
        self.patch(limits, "LISTED_MAX", 5000)

        def answer(talk, asked):
            has_more = int.from_bytes(asked.after.raw, "big") < 2 * limits.LISTED_MAX
            talk.send(self.invented(asked, 1000, more=has_more))

        self.script(Type.LIST, answer)
        self.assert_broke(self.listed(), "does not end")

    def invented(self, asked, size, more=True):
        """Return a page of so many ids above those asked for before."""
        first = int.from_bytes(asked.after.raw, "big") + 1
        ids = (ShardId((first + n).to_bytes(32, "big")) for n in range(size))
        return Listed(tuple(Stated(shard, 1, 1, 0, 0) for shard in ids), more)

    def test_a_list_of_tiny_pages_ends(self):
        """Limit: SMALL_PAGES_MAX."""
        self.script(Type.LIST, lambda talk, asked: talk.send(self.invented(asked, 1)))
        self.assert_broke(self.listed(), "pages of 1 shard")
        asked = [one for one in self.fake.asked if one.TYPE is Type.LIST]
        self.assertEqual(len(asked), limits.SMALL_PAGES_MAX + 1)

    def test_an_honest_list_may_have_some_small_pages(self):
        """One that looks through so many shards, not for so many, finds few at times."""
        pages = [1] * (limits.SMALL_PAGES_MAX - 1) + [500] * 3 + [1]

        def answer(talk, asked):
            size = pages.pop(0)
            talk.send(self.invented(asked, size, more=bool(pages)))

        self.script(Type.LIST, answer)
        self.assertEqual(len(self.run_(self.listed())), limits.SMALL_PAGES_MAX + 1500)

    def test_a_list_whose_pages_come_slowly_ends(self):
        """Limit: LISTED_PER_S_MIN; each page would be in time for itself."""

        def slowly(talk, asked):
            page = self.invented(asked, 1000)
            self.world.clock.callLater(ANSWER_S - 1, lambda: talk.lost or talk.send(page))

        self.script(Type.LIST, slowly)
        with self.assertRaises(FarmerTooSlowError) as caught:
            self.run_(self.listed())
        self.assertIn("shards of its list in", str(caught.exception))
        self.assertLess(self.world.clock.seconds(), 3 * ANSWER_S)

    def test_a_page_longer_than_was_asked_for_is_a_lie(self):
        """It may fit a frame, and not what we keep for it."""
        self.script(
            Type.LIST,
            lambda talk, asked: talk.send(self.invented(asked, asked.limit + 1, more=False)),
        )

        async def listed():
            return [entry async for entry in self.farmer.list(page=2)]

        self.assert_broke(listed(), "too long")

    def test_who_reads_a_list_slowly_is_not_the_farmers_fault(self):
        self.script(
            Type.LIST,
            lambda talk, asked: talk.send(
                self.invented(asked, 1000, more=not asked.after.raw[-2])
            ),
        )

        async def read_slowly():
            read = 0
            async for _ in self.farmer.list():
                if read % 500 == 0:
                    await deferLater(self.world.clock, 2 * ANSWER_S)
                read += 1
            return read

        self.assertEqual(self.run_(read_slowly(), until_s=10 * ANSWER_S), 2000)

    def test_a_shard_larger_than_any_can_be_is_a_lie(self):
        """Limit: SHARD_BYTES_MAX."""
        giant = Stated(ShardId(b"\1" * 32), SHARD_BYTES_MAX + 1, 1, 0, 0)
        self.script(Type.LIST, lambda talk, _: talk.send(Listed((giant,), False)))
        self.assert_broke(self.listed(), "larger")
        self.script(Type.STAT, lambda talk, _: talk.send(giant))
        self.assert_broke(self.farmer.stat(giant.shard), "larger")

    def test_a_proof_for_another_nonce_fails(self):
        """A farmer that kept a proof cannot use it twice."""
        content = content_of(3 * MIB)
        receipt = self.fake.receipt(self.hold(content), len(content))

        def replay(talk, audit):
            kept = Challenge(bytes(32), audit.challenge.kind, audit.challenge.entries)
            talk.challenge_of = kept
            Talk.on_audit(talk, replace(audit, challenge=kept))

        self.script(Type.AUDIT, replay)
        report = self.run_(self.farmer.audit([receipt], samples=5))
        self.assertEqual([one.verdict for one in report.shards], [Verdict.FAILED])
        full = self.run_(self.farmer.audit_full(receipt, io.BytesIO(content)))
        self.assertIs(full.verdict, Verdict.FAILED)

    def test_refusals_with_any_numbers_can_be_shown(self):
        for refusal in Refusal:
            self.script(
                Type.PING, lambda talk, _, one=refusal: talk.refuse(one, 2**63 - 1, 2**63 - 1)
            )
            with self.assertRaises(Exception) as caught:
                self.run_(self.farmer.ping())
            self.assertTrue(str(caught.exception).startswith(refusal.name))
            self.assertLess(len(str(caught.exception)), 400)


class FloodTests(LieCase):
    """More bytes than anybody asked for."""

    def test_a_huge_refusal_is_none(self):
        """Limits: CONTROL_BYTES_MAX, and a refusal has one length."""
        honest = encode(Refuse(Refused(Refusal.BUSY, 1, 1)))
        for junk in (
            honest[:1] + len(honest).to_bytes(3, "big") + honest[4:] + bytes(4),
            honest[:1] + (CONTROL_BYTES_MAX).to_bytes(3, "big") + bytes(CONTROL_BYTES_MAX),
            honest[:1] + (CONTROL_BYTES_MAX + 1).to_bytes(3, "big"),
            bytes((Type.DATA,)) + (DATA_BYTES_MAX + 1).to_bytes(3, "big"),
        ):
            self.script(Type.PING, lambda talk, _, junk=junk: talk.transport.write(junk))
            self.assert_broke(self.farmer.ping())
        self.assertTrue(all(talk.lost for talk in self.fake.talks))

    def test_what_comes_unasked_is_not_kept(self):
        """Limit: READ_AHEAD_BYTES; such a connection is not used again."""
        self.run_(self.farmer.ping())
        talk = self.fake.talks[0]
        talk.transport.write((data_header(DATA_BYTES_SENT) + bytes(DATA_BYTES_SENT)) * 40)
        self.world.settle()
        wire = self.world.pipes[0].ends[0][0]
        self.assertLess(wire.connection.waiting_bytes, READ_AHEAD_BYTES + 65536 + 1)
        self.assertEqual(self.run_(self.farmer.ping()).free_bytes, 7)
        self.assertEqual(self.dialer.dialed, 2)

    def test_endless_data_after_the_last_item_of_an_audit_ends_it(self):
        receipt = self.fake.receipt(self.hold(b"x"), 1)

        def endless(talk, audit):
            talk.data(encode_item(talk.item(audit.challenge, audit.challenge.entries[0])))
            talk.data(bytes(5 * MIB))

        self.script(Type.AUDIT, endless)
        self.assert_broke(self.farmer.audit([receipt]), "after the last audit item")

    def test_a_retrieve_takes_no_byte_beyond_what_the_receipt_says(self):
        def endless(talk, _):
            talk.send(Send(10, 0, 10))
            for _ in range(100):
                talk.transport.write(data_header(65536) + bytes(65536))

        self.script(Type.RETRIEVE, endless)
        target = io.BytesIO()
        self.assert_broke(self.farmer.retrieve(shard_of(b"x" * 10), target), "more bytes")
        self.assertLessEqual(len(target.getvalue()), 10)


class StallTests(LieCase):
    """Time that nobody has."""

    def test_a_farmer_that_never_greets_is_not_waited_for(self):
        """Limit: HANDSHAKE_S."""
        self.script(Type.HELLO, lambda *_: None)
        with self.assertRaises((ConnectionFailedError, ConnectionLostError)):
            self.run_(self.farmer.ping())
        waits = 1 + len(RETRY_DELAYS_S)
        self.assertLess(self.world.clock.seconds(), waits * (HANDSHAKE_S + 5))

    def test_an_answer_byte_by_byte_is_not_waited_for(self):
        """Limit: ANSWER_S for the whole of an answer, however it comes."""
        shard = self.hold(b"x")

        def dribble(talk, asked):
            raw = encode(self.fake.stated(asked.shard))

            def drip(at=0):
                if not talk.lost and at < len(raw):
                    talk.transport.write(raw[at : at + 1])
                    self.world.clock.callLater(20, drip, at + 1)

            drip()

        self.script(Type.STAT, dribble)
        self.script(
            Type.HELLO,
            lambda talk, hello: (
                Talk.answer(talk, hello) if len(self.fake.talks) == 1 else talk.cut()
            ),
        )
        with self.assertRaises(ConnectionLostError):
            self.run_(self.farmer.stat(shard))
        self.assertLess(self.world.clock.seconds(), ANSWER_S + sum(RETRY_DELAYS_S) + 60)

    def test_an_audit_byte_by_byte_is_not_waited_for(self):
        """Limit: ANSWER_S and the time to read and send what was asked for."""
        receipt = self.fake.receipt(self.hold(b"x"), 1)

        def dribble(talk, _):
            def drip():
                if not talk.lost:
                    talk.data(b"\0")
                    self.world.clock.callLater(15, drip)

            drip()

        self.script(Type.AUDIT, dribble)
        self.script(
            Type.HELLO,
            lambda talk, hello: (
                Talk.answer(talk, hello) if len(self.fake.talks) == 1 else talk.cut()
            ),
        )
        with self.assertRaises((ConnectionLostError, FarmerBrokeProtocolError)):
            self.run_(self.farmer.audit([receipt]))
        self.assertLess(self.world.clock.seconds(), ANSWER_S + 60)
