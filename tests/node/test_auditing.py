"""AUDIT through both real ends of the wire."""

from __future__ import annotations

from farmer.audit.full import FullDigest
from farmer.audit.proof import verify_sample
from farmer.model.audit import AuditEntry, AuditKind, Challenge, SampleProof
from farmer.model.contract import ContractStage
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, SHARD_BYTES_MAX
from farmer.node.auditing import read_bytes
from farmer.node.budget import AuditBudget
from farmer.node.farm import PROOF_BYTES_IN_FLIGHT_MAX
from farmer.node.ports import Result, Verb
from farmer.node.refusals import CROWDED_RETRY_MS
from farmer.protocol.limits import AUDIT_BUDGET_BYTES_MIN, TURN_S
from farmer.protocol.opening import End
from farmer.protocol.proofs import FullProof, ProofItem, ProofItemReader
from farmer.protocol.questions import Delete
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Audit
from farmer.storage.errors import CorruptShardError, ShardWentError, VolumeUnavailableError
from tests.fakes import SteppingDisk
from tests.node.wires import OTHER, RENTER, STRANGER, NodeCase, Peer, StepByStepCase

NONCE = b"n" * 32
DATA = bytes(range(256)) * 5000
LARGE = bytes(8 << 20)
ABSENT = ShardId(b"a" * 32)


def of_one_leaf(entry: AuditEntry) -> AuditEntry:
    return AuditEntry(entry.shard, entry.size_bytes, 1)


class AuditCase(NodeCase):
    def items(self, peer: Peer, challenge: Challenge) -> list[ProofItem]:
        peer.send(Audit(challenge))
        reader = ProofItemReader(challenge)
        items = reader.feed(peer.received())
        self.assertEqual(End(), peer.answer())
        reader.end()
        return items

    def sample(self, *entries: AuditEntry) -> Challenge:
        return Challenge(NONCE, AuditKind.SAMPLE, entries)

    def full(self, *entries: AuditEntry) -> Challenge:
        return Challenge(NONCE, AuditKind.FULL, entries)


class AuditingTests(AuditCase):
    def test_a_sample_proves_what_is_held(self) -> None:
        shard = self.hold(DATA)

        (item,) = self.items(self.greet(), self.sample(AuditEntry(shard, len(DATA), 20)))

        assert isinstance(item, SampleProof)
        verify_sample(shard, len(DATA), NONCE, 20, item)
        self.assertLessEqual(self.store.bytes_read, 20 * BLOCK_BYTES)
        self.assertEqual(["ok"], self.meter.audits)

    def test_the_last_proof_and_its_end_are_one_write_that_waits_for_nothing(self) -> None:
        shard, peer = self.hold(DATA), self.greet()
        entry = AuditEntry(shard, len(DATA), 1)
        for entries in ((entry,), (entry, entry), (AuditEntry(ABSENT, 1, 1), entry)):
            before = peer.wire.writes, peer.wire.hurried

            self.items(peer, self.sample(*entries))

            after = before[0] + len(entries), before[1] + 1
            self.assertEqual(after, (peer.wire.writes, peer.wire.hurried))

    def test_a_full_audit_is_one_digest(self) -> None:
        shard = self.hold(DATA)
        digest = FullDigest(NONCE, shard)
        digest.update(DATA)

        (item,) = self.items(self.greet(), self.full(AuditEntry(shard, len(DATA), 0)))

        self.assertEqual(FullProof(digest.finish()), item)

    def test_a_batch_answers_each_in_order_whatever_the_others(self) -> None:
        good, bad = self.hold(DATA), self.hold(DATA[1:])
        foreign = self.hold(b"foreign", OTHER)
        held = self.store.held[RENTER, bad]
        held.stored = type(held.stored)(
            **{name: getattr(held.stored, name) for name in held.stored.__slots__}
            | {"state": type(held.stored.state).QUARANTINED}
        )

        items = self.items(
            self.greet(),
            self.sample(
                AuditEntry(ABSENT, 5, 1),
                AuditEntry(bad, len(DATA) - 1, 1),
                AuditEntry(foreign, 7, 1),
                AuditEntry(good, len(DATA) + 1, 1),
                AuditEntry(good, len(DATA), 3),
            ),
        )

        kinds = [item.refusal if isinstance(item, Refused) else "proof" for item in items]
        missing = Refusal.NOT_FOUND
        self.assertEqual([missing, Refusal.CORRUPT, missing, missing, "proof"], kinds)
        counted = ["missing", "corrupt", "missing", "missing", "ok"]
        self.assertEqual(counted, self.meter.audits)
        self.assertEqual(1, self.meter.finished[Verb.AUDIT, Result.OK])

    def test_a_proof_larger_than_a_step_is_sent_in_steps(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        challenge = self.sample(AuditEntry(shard, len(LARGE), 1024))
        peer.send(Audit(challenge))
        self.assertLess(peer.wire.most_unsent, 300 * 1024)
        self.assertEqual(0, self.farm.proofs.inside_bytes)

        peer.takes = True
        reader = ProofItemReader(challenge)
        peer.pump()
        (item,) = reader.feed(peer.received())

        assert isinstance(item, SampleProof)
        verify_sample(shard, len(LARGE), NONCE, 1024, item)
        self.assertEqual(0, self.farm.proofs.inside_bytes)
        cost = read_bytes(AuditKind.SAMPLE, challenge.entries[0])
        self.assertLessEqual(self.store.bytes_read, cost)

    def test_who_takes_no_proof_keeps_nobody_from_his(self) -> None:
        shard = self.hold(LARGE)
        challenge = self.sample(AuditEntry(shard, len(LARGE), 1024))
        for _ in range(9):
            peer = self.greet()
            peer.takes = False
            peer.send(Audit(challenge))

        self.hold(LARGE, OTHER)

        self.assertIsInstance(self.items(self.greet(OTHER), challenge)[0], SampleProof)

    def test_damage_found_between_the_passes_ends_the_audit(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        peer.send(Audit(self.sample(AuditEntry(shard, len(LARGE), 1024))))
        held = self.store.held[RENTER, shard]
        held.data = bytes(len(LARGE) - 1) + b"x"
        peer.takes = True

        peer.pump()
        peer.received()

        self.assertEqual(Refusal.CORRUPT, peer.refusal().refusal)
        self.assertEqual(0, self.store.readers_open)

    def test_a_large_proof_of_a_damaged_shard_is_one_refused_item(self) -> None:
        shard = self.hold(LARGE)
        entry = AuditEntry(shard, len(LARGE), 500)
        self.store.fail_next["prove_sample"] = CorruptShardError(65536, 65536)

        items = self.items(self.greet(), self.sample(entry, entry))

        self.assertEqual(Refused(Refusal.CORRUPT, 65536, 65536), items[0])
        self.assertIsInstance(items[1], SampleProof)

    def test_a_turn_that_does_not_come_is_neither_passed_nor_failed(self) -> None:
        small, large = self.hold(DATA), self.hold(LARGE)
        held = [
            self.farm.proofs.enter(OTHER, PROOF_BYTES_IN_FLIGHT_MAX),
            *(self.farm.full_audits.enter(who, 1) for who in (OTHER, STRANGER)),
        ]
        for challenge in (
            self.sample(AuditEntry(small, len(DATA), 3)),
            self.sample(AuditEntry(large, len(LARGE), 100)),
            self.full(AuditEntry(small, len(DATA), 0)),
        ):
            peer = self.greet()
            peer.send(Audit(challenge))
            self.pass_s(TURN_S - 1, peer)
            self.assertEqual([], peer.events)
            self.pass_s(2, peer)
            (item,) = ProofItemReader(challenge).feed(peer.received())
            self.assertEqual(Refused(Refusal.BUSY, CROWDED_RETRY_MS), item)
        self.assertEqual([None] * 3, [self.result(turn) for turn in held])
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_a_renter_that_leaves_gives_the_memory_back(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        peer.send(Audit(self.sample(AuditEntry(shard, len(LARGE), 1024))))

        peer.leave()

        self.assertEqual(0, self.farm.proofs.inside_bytes)

    def test_strangers_and_ended_contracts_are_not_audited(self) -> None:
        shard = self.hold(DATA)
        challenge = self.sample(AuditEntry(shard, len(DATA), 1))
        peer = self.greet(STRANGER)
        peer.send(Audit(challenge))
        self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())

        peer = self.greet()
        self.book.stages[RENTER] = ContractStage.GRACE
        self.assertIsInstance(self.items(peer, challenge)[0], SampleProof)
        self.book.stages[RENTER] = ContractStage.TRASH
        peer.send(Audit(challenge))
        self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())

    def test_beyond_the_budget_an_entry_says_when_there_will_be_more(self) -> None:
        shard = self.hold(LARGE)
        entry = AuditEntry(shard, len(LARGE), 0)
        peer = self.greet()
        full = self.full(*[entry] * 130)

        items = self.items(peer, full)

        self.assertEqual(128, sum(isinstance(item, FullProof) for item in items))
        spent = items[-1]
        assert isinstance(spent, Refused)
        self.assertEqual(Refusal.AUDIT_BUDGET, spent.refusal)
        self.clock.advance(spent.first / 1000)
        self.assertIsInstance(self.items(self.greet(), self.full(entry))[0], FullProof)

    def test_a_volume_that_is_away_makes_no_audit_fail_and_costs_no_budget(self) -> None:
        shard = self.hold(LARGE)
        entry = AuditEntry(shard, len(LARGE), 0)
        for _ in range(130):
            self.store.fail_next["prove_full"] = VolumeUnavailableError("a volume is missing")
            (item,) = self.items(self.greet(), self.full(entry))
            assert isinstance(item, Refused)
            self.assertEqual(Refusal.UNAVAILABLE, item.refusal)
            self.peers.pop().leave()

        self.assertEqual({"later"}, set(self.meter.audits))

    def test_asking_for_absent_shards_costs_no_budget(self) -> None:
        """A small sample is paid for before it is looked for, and given back."""
        peer = self.greet()
        for asked, samples in ((self.full, 0), (self.sample, 1), (self.sample, 200)):
            items = self.items(peer, asked(*[AuditEntry(ABSENT, 1 << 30, samples)] * 5))

            self.assertEqual([Refused(Refusal.NOT_FOUND)] * 5, items)
            whole = self.farm.budget.take(RENTER, AUDIT_BUDGET_BYTES_MIN, 0, 0)
            self.assertIsNone(whole)
            self.farm.budget.give_back(RENTER, AUDIT_BUDGET_BYTES_MIN)

    def test_a_shard_that_goes_while_it_is_proved_is_missing_and_was_read(self) -> None:
        shard = self.hold(LARGE)
        for asked, samples, call in (
            (self.full, 0, "prove_full"),
            (self.sample, 1, "prove_sample"),
            (self.sample, 1024, "prove_sample"),
        ):
            self.store.fail_next[call] = ShardWentError()
            challenge = asked(AuditEntry(shard, len(LARGE), samples))
            items = self.items(self.greet(), challenge)

            self.assertEqual([Refused(Refusal.NOT_FOUND)], items)
            whole = self.farm.budget.take(RENTER, AUDIT_BUDGET_BYTES_MIN, 0, 0)
            self.assertIsNotNone(whole)
            self.farm.budget.give_back(RENTER, read_bytes(challenge.kind, challenge.entries[0]))

    def test_a_proof_of_a_shard_that_goes_while_it_is_sent_is_broken_off(self) -> None:
        """No item can follow half of one."""
        shard, peer = self.hold(LARGE), self.greet()
        self.store.fail_next["read"] = ShardWentError()
        peer.send(Audit(self.sample(AuditEntry(shard, len(LARGE), 1024))))
        self.assertLess(len(peer.received()), 100)
        self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())
        self.assertIsNotNone(self.farm.budget.take(RENTER, AUDIT_BUDGET_BYTES_MIN, 0, 0))
        self.assertEqual((0, 0), (self.store.readers_open, self.farm.proofs.inside_bytes))

    def test_beyond_the_budget_an_absent_shard_is_absent_nonetheless(self) -> None:
        mine, foreign = self.hold(LARGE), self.hold(DATA, OTHER)
        spent = self.farm.budget.take(RENTER, 1 << 30, 0, self.clock.seconds())
        self.assertIsNone(spent)
        entries = (
            AuditEntry(ABSENT, len(DATA), 0),
            AuditEntry(foreign, len(DATA), 0),
            AuditEntry(mine, len(LARGE) - 1, 0),
            AuditEntry(mine, len(LARGE), 0),
        )

        for challenge in (self.full(*entries), self.sample(*map(of_one_leaf, entries))):
            items = self.items(self.greet(), challenge)

            kinds = [item.refusal for item in items if isinstance(item, Refused)]
            self.assertEqual([Refusal.NOT_FOUND] * 3 + [Refusal.AUDIT_BUDGET], kinds)

    def test_who_has_no_contract_any_more_has_paid_nothing(self) -> None:
        entry = AuditEntry(self.hold(DATA), len(DATA), 1)
        peer = self.greet()
        self.book.stages[RENTER] = ContractStage.TRASH
        peer.send(Audit(self.sample(entry)))
        self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())
        self.assertIsNone(self.farm.budget.take(RENTER, AUDIT_BUDGET_BYTES_MIN, 0, 0))

    def test_what_lies_in_the_trash_makes_no_budget(self) -> None:
        """Twice the charge of the live shards: here 2 of 1.3 MB, whatever was deleted."""
        self.farm.budget = AuditBudget(1)
        entry = AuditEntry(self.hold(DATA), len(DATA), 0)
        peer = self.greet()
        peer.send(Delete(self.hold(LARGE), erase=False))
        peer.answer()

        items = self.items(peer, self.full(entry, entry, entry))

        self.assertEqual([FullProof, FullProof, Refused], [type(item) for item in items])

    def test_a_full_audit_of_another_size_finds_nothing(self) -> None:
        shard = self.hold(DATA)
        challenge = self.full(AuditEntry(shard, len(DATA) + 1, 0))

        self.assertEqual([Refused(Refusal.NOT_FOUND)], self.items(self.greet(), challenge))

    def test_an_impossible_size_is_an_absent_shard(self) -> None:
        entry = AuditEntry(ABSENT, (1 << 63) - 1, 1)

        self.assertEqual(
            [Refused(Refusal.NOT_FOUND)], self.items(self.greet(), self.sample(entry))
        )

    def test_more_leaves_than_a_small_shard_has_are_one_small_proof(self) -> None:
        for data in (b"", DATA[:5000]):
            shard = self.hold(data)
            entry = AuditEntry(shard, len(data), 1024)

            (item,) = self.items(self.greet(), self.sample(entry))

            assert isinstance(item, SampleProof)
            verify_sample(shard, len(data), NONCE, 1024, item)

    def test_the_cost_of_a_sample_is_bounded_by_the_shard(self) -> None:
        self.assertEqual(BLOCK_BYTES + 32, read_bytes(AuditKind.SAMPLE, AuditEntry(ABSENT, 5, 9)))


class MemoryOfProofsTests(StepByStepCase, AuditCase):
    def test_what_a_small_proof_reads_of_a_large_shard_is_counted_while_it_is_made(self) -> None:
        """Its leaf, and a hash and a checksum for each block of the largest shard."""
        for size_bytes in (SHARD_BYTES_MAX, 1 << 40):
            peer = self.greet_step_by_step()
            peer.send(Audit(self.sample(AuditEntry(ABSENT, size_bytes, 1))))

            self.assertEqual(4096 + (36 << 16), self.farm.proofs.inside_bytes)

            self.disk.run_all()
            peer.pump()
            self.assertEqual(0, self.farm.proofs.inside_bytes)


class ManyFullAuditsTests(AuditCase):
    disk: SteppingDisk

    def make_disk(self) -> SteppingDisk:
        return SteppingDisk()

    def test_only_two_full_audits_occupy_threads_at_once(self) -> None:
        shard = self.hold(DATA)
        self.hold(DATA, OTHER)
        self.give_contract(STRANGER)
        self.hold(DATA, STRANGER)
        peers = []
        for who in (RENTER, RENTER, OTHER, STRANGER):
            peer = self.call(who)
            peer.outgoing += bytes.fromhex("0100000e") + b"FARM\0\1\0\1\5tests"
            peer.connection.state = type(peer.connection.state).GREETING
            peer.pump()
            self.disk.run_all()
            peer.pump()
            peers.append(peer)
        for peer in peers:
            peer.send(Audit(self.full(AuditEntry(shard, len(DATA), 0))))
        for _ in peers:
            self.assertEqual("_absence", self.disk.step())

        self.assertEqual(["_full"] * 2, self.disk.names)

        peers[3].leave()
        self.disk.step()
        self.assertEqual(["_full"] * 2, self.disk.names)
        self.disk.run_all()
        for peer in peers:
            peer.pump()
        self.assertEqual([3, 3, 3], [len(peer.events) for peer in peers[:3]])
