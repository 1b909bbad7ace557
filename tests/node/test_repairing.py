"""EXAMINE and REPAIR through both real ends of the wire."""

from __future__ import annotations

from farmer.identity.signing import receipt_is_valid
from farmer.model.contract import ContractStage
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, BadBlocks, ShardState
from farmer.node.ports import Result, Verb
from farmer.node.refusals import CROWDED_RETRY_MS, DRAINING_RETRY_MS
from farmer.protocol.limits import AUDIT_BUDGET_BYTES_MIN, SMALL_BYTES_IN_FLIGHT_MAX, TURN_S
from farmer.protocol.opening import End
from farmer.protocol.questions import Delete, Stat, Stated
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.repairs import BadBlocksNamed, Examine, Repair
from farmer.protocol.state import State
from farmer.storage.errors import BusyError, ShardWentError
from tests.node.wires import OTHER, RENTER, STRANGER, NodeCase, Peer, stored

DATA = bytes(range(256)) * 1000
LARGE = bytes(range(256)) * (3 * 4096)


class RepairingTests(NodeCase):
    def rotten(self, data: bytes, *blocks: int) -> ShardId:
        shard = self.hold(data)
        held = self.store.held[RENTER, shard]
        changed = bytearray(data)
        for block in blocks:
            changed[block * BLOCK_BYTES + 5] ^= 1
        held.data = bytes(changed)
        return shard

    def begin(self, peer: Peer, shard: ShardId) -> BadBlocks:
        peer.send(Repair(shard))
        answer = peer.answer()
        assert isinstance(answer, BadBlocksNamed), answer
        return answer.bad

    def test_the_damaged_blocks_are_named(self) -> None:
        shard = self.rotten(DATA, 1, 3)
        peer = self.greet()
        peer.send(Examine(shard))
        answer = peer.answer()
        assert isinstance(answer, BadBlocksNamed), answer
        self.assertEqual(BadBlocks(len(DATA), (1, 3)), answer.bad)
        peer.send(Stat(shard))
        answer = peer.answer()
        assert isinstance(answer, Stated)
        self.assertIs(ShardState.QUARANTINED, answer.state)

    def test_a_shard_is_whole_again_by_its_damaged_blocks(self) -> None:
        wanted = 0
        for data in (DATA, LARGE):
            shard = self.rotten(data, 1, 3)
            peer = self.greet()
            bad = self.begin(peer, shard)
            wanted += bad.wanted_bytes
            self.assertEqual((1, 3), bad.blocks)
            for block in bad.blocks:
                peer.send_data(data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES])
            peer.send(End())
            receipt = stored(peer.answer()).receipt
            self.assertTrue(receipt_is_valid(receipt))
            self.assertEqual((shard, len(data)), (receipt.shard, receipt.size_bytes))
            self.assertEqual(data, self.store.held[RENTER, shard].data)
            self.assertEqual(0, self.farm.small_stores.inside_bytes)
        self.assertEqual(wanted, self.meter.bytes_in[Verb.REPAIR], "the damaged blocks alone")
        self.assertEqual([], self.meter.stored, "no new shard")

    def test_a_sound_shard_needs_nothing(self) -> None:
        shard = self.hold(DATA)
        peer = self.greet()
        peer.send(Repair(shard))
        self.assertEqual(shard, stored(peer.answer()).receipt.shard)

    def test_wrong_bytes_too_many_and_too_few_are_refused_and_the_session_goes_on(self) -> None:
        shard = self.rotten(DATA, 1)
        peer = self.greet()
        good = DATA[BLOCK_BYTES : 2 * BLOCK_BYTES]
        for sent, refusal in (
            (b"\xff" + good[1:], Refusal.WRONG_HASH),
            (good + b"x", Refusal.WRONG_SIZE),
            (good[:-1], Refusal.WRONG_SIZE),
        ):
            self.begin(peer, shard)
            peer.send_data(sent)
            if peer.session.state is not State.DISCARDING:
                peer.send(End())
                self.assertEqual(refusal, peer.refusal().refusal)
            else:
                self.assertEqual(refusal, peer.refusal().refusal)
                peer.send(End())
            self.assertIn((RENTER, shard), self.store.held)
            self.assertFalse(self.store.uploads)

    def test_endless_bytes_end_at_the_first_too_many(self) -> None:
        shard = self.rotten(LARGE, 1)
        peer = self.greet()
        self.begin(peer, shard)
        for _ in range(5):
            peer.send_data(bytes(256 * 1024))
        self.assertIn(peer.refusal().refusal, {Refusal.WRONG_HASH, Refusal.WRONG_SIZE})
        self.assertFalse(self.store.uploads)

    def test_a_renter_that_leaves_leaves_all_as_it_was(self) -> None:
        shard = self.rotten(LARGE, 1)
        peer = self.greet()
        self.begin(peer, shard)
        peer.send_data(LARGE[BLOCK_BYTES : BLOCK_BYTES + 100])
        peer.leave()
        self.assertFalse(self.store.uploads)
        self.assertFalse(self.store.leases)

    def test_who_may_not_is_told_the_same_as_of_a_shard_that_is_not_there(self) -> None:
        shard = self.rotten(DATA, 1)
        for request in (Examine(shard), Repair(shard)):
            peer = self.greet(OTHER)
            peer.send(request)
            self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())
            peer = self.greet(STRANGER)
            peer.send(request)
            self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())
        peer = self.greet()
        peer.send(Delete(shard, erase=False))
        peer.answer()
        for request in (Examine(shard), Repair(shard)):
            peer.send(request)
            self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())

    def test_after_the_contract_it_may_be_asked_for_but_not_repaired(self) -> None:
        shard = self.rotten(DATA, 1)
        self.book.stages[RENTER] = ContractStage.GRACE
        peer = self.greet()
        peer.send(Examine(shard))
        self.assertIsInstance(peer.answer(), BadBlocksNamed)
        peer.send(Repair(shard))
        self.assertEqual(Refusal.CONTRACT_ENDED, peer.refusal().refusal)

    def test_reading_whole_shards_again_and_again_is_budgeted(self) -> None:
        shard = self.rotten(LARGE, 1)
        peer = self.greet()
        times = AUDIT_BUDGET_BYTES_MIN // len(LARGE)
        self.assertIsNone(
            self.farm.budget.take(RENTER, (times - 1) * len(LARGE), 0, self.clock.seconds())
        )
        peer.send(Examine(shard))
        self.assertIsInstance(peer.answer(), BadBlocksNamed)
        read = self.store.bytes_read
        for request in (Examine(shard), Repair(shard)):
            peer.send(request)
            refused, left_bytes = peer.refusal(), AUDIT_BUDGET_BYTES_MIN % len(LARGE)
            self.assertEqual((Refusal.AUDIT_BUDGET, left_bytes), (refused.refusal, refused.second))
        self.assertEqual(read, self.store.bytes_read)

    def test_a_repair_that_is_turned_away_before_it_reads_costs_nothing(self) -> None:
        shard = self.rotten(LARGE, 1)
        peer = self.greet()

        def busy(*_: object) -> None:
            raise BusyError

        repair, self.store.repair = self.store.repair, busy
        for _ in range(2 * AUDIT_BUDGET_BYTES_MIN // len(LARGE)):
            peer.send(Repair(shard))
            self.assertEqual(Refusal.BUSY, peer.refusal().refusal)
        self.store.repair = repair
        peer.send(Repair(shard))
        self.assertIsInstance(peer.answer(), BadBlocksNamed)

    def test_a_shard_that_goes_while_it_is_read_was_read_all_the_same(self) -> None:
        """Else who deletes it in time, and takes it out of the trash, has it read for nothing."""
        shard = self.hold(LARGE)

        def gone(*_: object) -> None:
            raise ShardWentError

        self.store.repair = self.store.examine = gone  # type: ignore[method-assign,assignment]
        for request in (Examine(shard), Repair(shard)):
            now_s = self.clock.seconds()
            self.assertIsNone(self.farm.budget.take(RENTER, AUDIT_BUDGET_BYTES_MIN // 2, 0, now_s))
            peer = self.greet()
            peer.send(request)
            self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())
            left_bytes = AUDIT_BUDGET_BYTES_MIN // 2 - len(LARGE)
            self.assertIsNone(self.farm.budget.take(RENTER, left_bytes, 0, now_s))
            self.assertIsNotNone(self.farm.budget.take(RENTER, 1, 0, now_s))
            self.farm.budget.give_back(RENTER, AUDIT_BUDGET_BYTES_MIN)

    def test_an_examination_that_gets_no_turn_costs_nothing(self) -> None:
        shard = self.rotten(LARGE, 1)
        for who in (OTHER, STRANGER):
            self.result(self.farm.full_audits.enter(who, 1))
        peer = self.greet()
        peer.send(Examine(shard))
        self.pass_s(TURN_S + 2, peer)

        self.assertEqual(Refused(Refusal.BUSY, CROWDED_RETRY_MS), peer.refusal())

        now_s = self.clock.seconds()
        self.assertIsNone(self.farm.budget.take(RENTER, AUDIT_BUDGET_BYTES_MIN, 0, now_s))

    def test_whoever_has_read_enough_is_told_when_there_will_be_more(self) -> None:
        shard = self.rotten(LARGE, 1)
        now_s = self.clock.seconds()
        self.assertIsNone(self.farm.budget.take(RENTER, AUDIT_BUDGET_BYTES_MIN - 5, 0, now_s))
        peer = self.greet()
        for request in (Examine(shard), Repair(shard)):
            peer.send(request)
            refused = peer.refusal()
            self.assertEqual((Refusal.AUDIT_BUDGET, 5), (refused.refusal, refused.second))

        self.clock.advance(refused.first / 1000)

        peer.send(Examine(shard))
        self.assertIsInstance(peer.answer(), BadBlocksNamed)

    def test_a_small_repair_waits_for_memory_as_a_small_store_does(self) -> None:
        """Its shard is held whole, too."""
        shard = self.rotten(DATA, 1)
        self.result(self.farm.small_stores.enter(OTHER, SMALL_BYTES_IN_FLIGHT_MAX))
        peer = self.greet()
        peer.send(Repair(shard))
        self.pass_s(TURN_S + 2, peer)

        self.assertEqual(Refused(Refusal.BUSY, CROWDED_RETRY_MS), peer.refusal())
        self.farm.small_stores.leave(OTHER, SMALL_BYTES_IN_FLIGHT_MAX)

    def test_a_farmer_that_stops_begins_no_repair(self) -> None:
        shard = self.rotten(DATA, 1)
        peer = self.greet()
        self.farm.draining = True
        peer.send(Repair(shard))
        self.assertEqual(Refused(Refusal.DRAINING, DRAINING_RETRY_MS), peer.refusal())
        self.assertEqual(1, self.meter.finished[Verb.REPAIR, Result.REFUSED])
