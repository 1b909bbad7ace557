"""The short exchanges, through both real ends of the wire."""

from __future__ import annotations

from farmer.identity.signing import contract_is_valid, make_invite
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.contract import ContractStage, Offer, Price
from farmer.model.ids import InviteSerial, NodeId, ShardId
from farmer.model.shard import DeletionOutcome, ShardState, Usage
from farmer.node.farm import STRANGERS_MAX, Terms
from farmer.node.handlers import INVITES_REFUSED_MAX
from farmer.node.ports import Result, Verb
from farmer.protocol.connection import DataReceived
from farmer.protocol.documents import invite_bytes
from farmer.protocol.limits import STRANGER_S
from farmer.protocol.opening import Refuse
from farmer.protocol.questions import (
    ContractShown,
    Delete,
    Deleted,
    List,
    Listed,
    Ping,
    Pong,
    Redeem,
    ShowContract,
    Stat,
    Stated,
    Undelete,
)
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.repairs import BadBlocksNamed, Examine, Repair
from farmer.protocol.state import REQUESTS
from farmer.protocol.transfers import TO_THE_END, Audit, Retrieve, Send, Store
from farmer.protocol.types import Type
from farmer.storage.errors import StorageError
from tests.fakes import TestSigner
from tests.node.wires import OFFER, OTHER, RENTER, STRANGER, NodeCase, Peer, StepByStepCase

SERIAL = InviteSerial(b"n" * 16)
ABSENT = ShardId(b"a" * 32)


class ContractTests(NodeCase):
    def invite(self, signer: TestSigner | None = None, offer: Offer = OFFER) -> bytes:
        self.book.mint(SERIAL, offer)
        return invite_bytes(make_invite(signer or self.signer, SERIAL, offer))

    def shown(self, peer: Peer) -> ContractShown:
        event = peer.answer()
        assert isinstance(event, ContractShown), event
        return event

    def test_an_invite_makes_a_stranger_a_renter(self) -> None:
        peer = self.greet(STRANGER)
        self.assertFalse(peer.session.known)

        peer.send(Redeem(self.invite()))

        shown = self.shown(peer)
        self.assertTrue(contract_is_valid(shown.contract, shown.signature))
        self.assertEqual(STRANGER, shown.contract.renter)
        self.assertEqual(ContractStage.ACTIVE, shown.stage)
        self.assertTrue(peer.session.known)

    def test_the_same_renter_may_redeem_again(self) -> None:
        peer = self.greet(STRANGER)
        peer.send(Redeem(self.invite()), Redeem(self.invite()))

        self.assertEqual(self.shown(peer).contract, self.shown(peer).contract)

    def test_another_renter_may_not(self) -> None:
        invite = self.invite()
        self.greet(STRANGER).send(Redeem(invite))
        peer = self.greet(OTHER)

        peer.send(Redeem(invite))

        self.assertEqual(Refused(Refusal.INVITE_SPENT), peer.refusal())

    def test_forged_damaged_and_unknown_invites_are_invalid(self) -> None:
        peer = self.greet(STRANGER)
        forged = self.invite(TestSigner(2))
        good = self.invite()
        unknown = invite_bytes(make_invite(self.signer, InviteSerial(b"u" * 16), OFFER))
        for raw in (forged, good[:-1], b"", good + b"x", unknown):
            peer.send(Redeem(raw))
            self.assertEqual(Refused(Refusal.INVITE_INVALID), peer.refusal())
        self.assertEqual({}, {k: v for k, v in self.book.spent.items() if v == STRANGER})

    def test_who_tries_invite_after_invite_is_hung_up_on(self) -> None:
        peer = self.greet(STRANGER)
        for n in range(INVITES_REFUSED_MAX):
            self.assertFalse(peer.closed)
            peer.send(Redeem(bytes([n])))
            refused = peer.answer()
            assert isinstance(refused, Refuse)
            self.assertEqual(Refused(Refusal.INVITE_INVALID), refused.refused)

        self.assertTrue(refused.final and peer.closed)

    def test_an_expired_invite_says_when_by_whose_clock(self) -> None:
        offer = Offer(space_bytes=1, duration_ms=1, created_at_ms=0, expires_at_ms=5)
        peer = self.greet(STRANGER)

        peer.send(Redeem(self.invite(offer=offer)))

        self.assertEqual(Refused(Refusal.INVITE_EXPIRED, 5, self.now_ms()), peer.refusal())

    def test_a_contract_is_shown_until_it_is_gone(self) -> None:
        self.hold(b"x")
        peer = self.greet()
        for stage in (ContractStage.ACTIVE, ContractStage.GRACE, ContractStage.TRASH):
            self.book.stages[RENTER] = stage
            peer.send(ShowContract())
            shown = self.shown(peer)
            self.assertEqual((stage, Usage(4096, shards=1)), (shown.stage, shown.usage))

        self.book.stages[RENTER] = ContractStage.GONE
        peer.send(ShowContract())
        self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())

    def test_a_contract_is_shown_with_all_that_it_uses(self) -> None:
        """Live, in the trash, reserved: 4 KiB each; a store under way is no shard yet."""
        self.hold(b"x")
        peer, storing = self.greet(), self.greet()
        peer.send(Delete(self.hold(b"y"), erase=False))
        peer.answer()
        storing.send(Store(ABSENT, 1))

        peer.send(ShowContract())

        self.assertEqual(Usage(4096, 4096, 4096, 2), self.shown(peer).usage)

    def test_a_contract_that_came_by_another_connection_is_noticed(self) -> None:
        """Else a store there would be cut off as a stranger's, a minute after its connection."""
        stage, self.book.stages[RENTER] = self.book.stages[RENTER], ContractStage.GONE
        peer = self.greet()
        self.assertFalse(peer.session.known)
        self.book.stages[RENTER] = stage

        self.begin_store(peer, bytes(8 << 20))
        for _ in range(16):
            peer.outgoing += peer.connection.send_data(bytes(256 * 1024))
            peer.pump()
        self.pass_s(STRANGER_S + 2, peer)

        self.assertTrue(peer.session.known)
        self.assertFalse(peer.session.over)

    def test_strangers_may_greet_redeem_and_ping_and_nothing_else(self) -> None:
        peer = self.greet(STRANGER)
        requests = (
            ShowContract(),
            Stat(ABSENT),
            List(ABSENT, 10),
            Delete(ABSENT, erase=True),
            Undelete(ABSENT),
            Store(ABSENT, 1),
            Retrieve(ABSENT, 0, TO_THE_END, False),
            Audit(Challenge(bytes(32), AuditKind.SAMPLE, (AuditEntry(ABSENT, 1, 1),))),
            Examine(ABSENT),
            Repair(ABSENT),
        )
        self.assertEqual(REQUESTS - {Type.REDEEM, Type.PING}, {asked.TYPE for asked in requests})
        for request in requests:
            peer.send(request)
            self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())

    def test_in_grace_everything_but_storing_goes_on_and_in_the_trash_nothing(self) -> None:
        """14 days in which a renter fetches what it has, or gives it up; then 7 without."""
        shard, kept = self.hold(b"x"), self.hold(b"y")
        entry = AuditEntry(kept, 1, 1)
        readings = (
            (Stat(kept), Stated),
            (List(ShardId(bytes(32)), 9), Listed),
            (Retrieve(kept, 0, TO_THE_END, False), Send),
            (Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,))), DataReceived),
            (Examine(kept), BadBlocksNamed),
            (Delete(shard, erase=False), Deleted),
        )
        storings = (Store(ABSENT, 9), Repair(kept), Undelete(shard))
        for stage, refusal in (
            (ContractStage.GRACE, Refusal.CONTRACT_ENDED),
            (ContractStage.TRASH, Refusal.NO_CONTRACT),
        ):
            self.book.stages[RENTER] = stage
            peer = self.greet()
            for asked, kind in readings:
                peer.send(asked)
                answer = peer.answer()
                if stage is ContractStage.GRACE:
                    self.assertIsInstance(answer, kind)
                else:
                    assert isinstance(answer, Refuse), answer
                    self.assertEqual(refusal, answer.refused.refusal)
                peer.events.clear()
            for storing in storings:
                peer.send(storing)
                self.assertEqual(refusal, peer.refusal().refusal, storing)

    def test_a_broken_book_is_our_fault(self) -> None:
        peer = self.greet()
        self.book.fail_next = StorageError("disk I/O error")

        peer.send(ShowContract())

        self.assertEqual(Refused(Refusal.INTERNAL), peer.refusal())
        self.assertEqual(1, self.meter.finished[Verb.CONTRACT, Result.ERROR])


class AskingTests(NodeCase):
    def test_stat_knows_a_shard_in_every_state(self) -> None:
        shard = self.hold(b"abc")
        peer = self.greet()
        peer.send(Stat(shard))
        self.assertEqual(Stated(shard, 3, 1_000_000, ShardState.LIVE, 0), peer.answer())

        peer.send(Delete(shard, erase=False), Stat(shard), Undelete(shard), Stat(shard))

        gone_at_ms = 1_000_000 + 7 * 86_400_000
        self.assertEqual(Deleted(DeletionOutcome.TRASHED, gone_at_ms), peer.answer())
        trashed = Stated(shard, 3, 1_000_000, ShardState.TRASH, gone_at_ms)
        live = Stated(shard, 3, 1_000_000, ShardState.LIVE, 0)
        self.assertEqual([trashed, live, live], [peer.answer() for _ in range(3)])

    def test_an_erased_shard_is_gone(self) -> None:
        shard = self.hold(b"abc")
        peer = self.greet()

        peer.send(Delete(shard, erase=True), Stat(shard))

        self.assertEqual(Deleted(DeletionOutcome.ERASED, 0), peer.answer())
        self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())

    def test_foreign_shards_are_absent(self) -> None:
        shard = self.hold(b"abc", OTHER)
        peer = self.greet()
        for request in (Stat(shard), Delete(shard, erase=True), Undelete(shard)):
            peer.send(request)
            self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())
        self.assertIn((OTHER, shard), self.store.held)

    def test_a_list_is_paged_and_shows_only_ones_own(self) -> None:
        mine = sorted(self.hold(bytes([n])) for n in range(5))
        self.hold(b"foreign", OTHER)
        peer = self.greet()
        found, after = [], ShardId(bytes(32))
        more = True
        while more:
            peer.send(List(after, 2))
            page = peer.answer()
            assert isinstance(page, Listed)
            found += [entry.shard for entry in page.entries]
            after, more = found[-1], page.more

        self.assertEqual(mine, found)

    def test_a_full_page_that_is_the_last_says_so(self) -> None:
        self.hold(b"1")
        self.hold(b"2")
        peer = self.greet()

        peer.send(List(ShardId(bytes(32)), 2))

        page = peer.answer()
        assert isinstance(page, Listed)
        self.assertEqual((2, False), (len(page.entries), page.more))

    def test_only_who_has_a_contract_counts_as_a_renter_that_was_served(self) -> None:
        """Else any stranger, by a ping, would hide that no renter comes any more."""
        for who, served in ((STRANGER, 0), (RENTER, 1)):
            peer = self.greet(who)
            peer.send(Ping(1))
            assert isinstance(peer.answer(), Pong)
            self.assertEqual(served, self.meter.served)

    def test_a_refused_request_is_no_service(self) -> None:
        peer = self.greet()
        peer.send(Stat(ABSENT))
        self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())
        self.assertEqual(0, self.meter.served)

    def test_a_ping_tells_anybody_how_we_are(self) -> None:
        self.farm.terms = Terms(price=Price(currency="EUR", stored_micros=2))
        peer = self.greet(STRANGER)

        peer.send(Ping(77))

        pong = peer.answer()
        assert isinstance(pong, Pong)
        self.assertEqual((1, 1), (self.meter.started[Verb.PING], len(self.meter.finished)))
        self.assertEqual((77, 1_000_000), (pong.token, pong.time_ms))
        self.assertEqual((1 << 40, "EUR"), (pong.free_bytes, pong.price.currency))


class StrangersTests(StepByStepCase):
    def strangers(self, *addresses: str) -> list[Peer]:
        """Return those who have said HELLO, each by a key of his own."""
        return [
            self.greet_step_by_step(NodeId(bytes([n]) * 32), address)
            for n, address in enumerate(addresses)
        ]

    def test_few_of_their_requests_stand_before_a_renters(self) -> None:
        many = self.strangers(*(f"192.0.2.{n}" for n in range(30)))
        renter = self.greet_step_by_step()
        for n, peer in enumerate(many):
            peer.send(Redeem(b"no invite") if n % 2 else Stat(ABSENT))
        renter.send(Stat(ABSENT))

        self.assertEqual(STRANGERS_MAX + 1, len(self.disk.names))
        while self.disk.waiting:
            self.disk.step()
        for n, peer in enumerate(many):
            expected = Refusal.INVITE_INVALID if n % 2 else Refusal.NO_CONTRACT
            self.assertEqual(expected, peer.refusal().refusal)
        self.assertEqual(0, self.farm.strangers.inside_bytes)

    def test_one_address_goes_by_turns_with_the_others(self) -> None:
        *many, late = self.strangers(*["192.0.2.1"] * 20, "192.0.2.2")
        for peer in (*many, late):
            peer.send(Redeem(b"no invite"))

        for _ in range(STRANGERS_MAX):
            self.disk.step()

        self.assertEqual(Refusal.INVITE_INVALID, late.refusal().refusal)
        self.disk.run_all()
