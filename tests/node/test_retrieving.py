"""RETRIEVE through both real ends of the wire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farmer.audit.ranges import RangeVerifier
from farmer.model.contract import ContractStage
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, LEAF_BYTES, SHARD_BYTES_MAX
from farmer.node import retrieving
from farmer.node.budget import AuditBudget
from farmer.node.farm import PROOF_BYTES_IN_FLIGHT_MAX
from farmer.node.ports import CloseReason, Result, Verb
from farmer.node.refusals import CROWDED_RETRY_MS
from farmer.protocol.limits import TURN_S
from farmer.protocol.opening import End
from farmer.protocol.questions import Delete, Ping, Pong
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import TO_THE_END, Retrieve, Send
from farmer.storage.errors import VolumeUnavailableError
from tests.node.wires import OTHER, RENTER, STRANGER, NodeCase, Peer, StepByStepCase

DATA = bytes(range(256)) * 1000
LARGE = bytes(range(256)) * (4 * 4096)
STEP = 256 * 1024
MIB = 1 << 20
ABSENT = ShardId(b"a" * 32)


class RetrievingTests(NodeCase):
    def get(
        self, peer: Peer, shard: ShardId, offset: int = 0, length: int = TO_THE_END
    ) -> tuple[Send, bytes]:
        peer.send(Retrieve(shard, offset, length, False))
        head = peer.answer()
        assert isinstance(head, Send), head
        data = peer.received()
        assert isinstance(peer.answer(), End)
        return head, data

    def test_a_whole_shard_comes_back(self) -> None:
        shard = self.hold(LARGE)

        head, data = self.get(self.greet(), shard)

        self.assertEqual(LARGE, data)
        self.assertEqual((len(LARGE), 0, len(LARGE)), (head.size_bytes, head.offset, head.length))
        self.assertEqual(1, self.meter.first_bytes)
        self.assertEqual(len(LARGE), self.meter.bytes_out[Verb.RETRIEVE])

    def test_the_empty_shard_comes_back(self) -> None:
        self.assertEqual(b"", self.get(self.greet(), self.hold(b""))[1])

    def test_what_is_read_at_once_is_sent_by_one_write_that_waits_for_nothing(self) -> None:
        shard, peer = self.hold(DATA[:BLOCK_BYTES]), self.greet()
        before = peer.wire.writes, peer.wire.hurried

        _, data = self.get(peer, shard)

        self.assertEqual(DATA[:BLOCK_BYTES], data)
        self.assertEqual((before[0] + 1, before[1] + 1), (peer.wire.writes, peer.wire.hurried))
        self.assertEqual(1, self.meter.first_bytes)
        self.assertEqual(BLOCK_BYTES, self.meter.bytes_out[Verb.RETRIEVE])

    def test_any_range_is_the_range(self) -> None:
        shard = self.hold(DATA)
        peer = self.greet()

        @given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
        def check(one: int, other: int) -> None:
            offset, end = sorted((one, other))
            head, data = self.get(peer, shard, offset, end - offset)
            self.assertEqual(DATA[offset:end], data)
            self.assertEqual((offset, end - offset), (head.offset, head.length))

        check()

    def test_any_range_proves_itself(self) -> None:
        shard = self.hold(DATA)
        peer = self.greet()

        @given(st.integers(0, len(DATA)), st.integers(0, len(DATA)))
        def check(one: int, other: int) -> None:
            offset, end = sorted((one, other))
            peer.send(Retrieve(shard, offset, end - offset, True))
            head = peer.answer()
            assert isinstance(head, Send)
            verifier = RangeVerifier(shard, len(DATA), head.offset, head.length, head.nodes)
            data = peer.received()
            verifier.update(data)
            verifier.finish()
            self.assertEqual(0, head.offset % LEAF_BYTES)
            self.assertEqual(DATA[offset:end], data[offset - head.offset :][: end - offset])
            assert isinstance(peer.answer(), End)

        check()

    def test_a_proof_of_a_large_shard_waits_for_its_turn(self) -> None:
        """All its blocks' hashes are folded for it: an audit's proof is not cheaper."""
        self.patch(retrieving, "PROVED_AT_ONCE_BYTES", len(DATA))
        small, shard = self.hold(DATA), self.hold(LARGE)
        for length in (1, len(LARGE) // 2):
            self.result(self.farm.proofs.enter(OTHER, PROOF_BYTES_IN_FLIGHT_MAX))
            peer = self.greet()
            peer.send(Retrieve(small, 5000, 1, True))
            self.assertIsInstance(peer.answer(), Send)
            peer.events.clear()
            peer.send(Retrieve(shard, 5000, length, True))
            self.assertEqual([], peer.events)
            self.farm.proofs.leave(OTHER, PROOF_BYTES_IN_FLIGHT_MAX)

            head = peer.answer()
            assert isinstance(head, Send)
            verifier = RangeVerifier(shard, len(LARGE), head.offset, head.length, head.nodes)
            verifier.update(peer.received())
            verifier.finish()
            self.assertIsInstance(peer.answer(), End)
            self.assertEqual((0, 0), (self.farm.proofs.inside_bytes, self.store.readers_open))

    def test_one_whose_turn_does_not_come_is_refused(self) -> None:
        self.patch(retrieving, "PROVED_AT_ONCE_BYTES", len(DATA))
        shard = self.hold(LARGE)
        self.result(self.farm.proofs.enter(OTHER, PROOF_BYTES_IN_FLIGHT_MAX))
        peer = self.greet()
        peer.send(Retrieve(shard, 0, 1, True))
        self.pass_s(TURN_S + 1, peer)

        self.assertEqual(Refused(Refusal.BUSY, CROWDED_RETRY_MS), peer.refusal())
        self.assertEqual(0, self.store.readers_open)
        self.farm.proofs.leave(OTHER, PROOF_BYTES_IN_FLIGHT_MAX)

    def test_who_asks_for_single_bytes_for_ever_waits(self) -> None:
        """What is read besides counts; whole shards and whole blocks are read nonetheless."""
        shard, peer = self.hold(DATA), self.greet()
        each = retrieving.cost_bytes(len(DATA), 5000, 1, proved=False)
        self.farm.parts = AuditBudget(10 * each, 0)
        for _ in range(10):
            self.assertEqual(DATA[5000:5001], self.get(peer, shard, 5000, 1)[1])

        peer.send(Retrieve(shard, 5000, 1, False))
        refused = peer.refusal()
        self.assertEqual(Refusal.BUSY, refused.refusal)
        peer.send(Retrieve(ABSENT, 5000, 1, False))
        self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())
        self.assertEqual(DATA, self.get(peer, shard)[1])
        self.assertEqual(DATA[1000:], self.get(peer, shard, 1000)[1])
        self.assertEqual(DATA[:BLOCK_BYTES], self.get(peer, shard, 0, BLOCK_BYTES)[1])

        self.clock.advance(refused.first / 1000)
        self.assertEqual(DATA[5000:5001], self.get(peer, shard, 5000, 1)[1])

    def test_a_player_that_asks_by_blocks_pays_nothing(self) -> None:
        for proved in (False, True):
            for offset in (0, 1, 32 * MIB - 7, 64 * MIB - BLOCK_BYTES):
                cost = retrieving.cost_bytes(64 * MIB, offset, BLOCK_BYTES, proved=proved)
                self.assertEqual(0, cost)
        self.assertEqual(0, retrieving.cost_bytes(SHARD_BYTES_MAX, 0, MIB, proved=True))
        self.assertEqual(0, retrieving.cost_bytes(1, 0, 1, proved=False) // BLOCK_BYTES)

    def test_a_range_beyond_the_end_is_refused(self) -> None:
        shard = self.hold(DATA)
        peer = self.greet()
        for offset, length, end in (
            (0, len(DATA) + 1, len(DATA) + 1),
            (len(DATA) + 1, TO_THE_END, len(DATA) + 1),
            (len(DATA) + 5, TO_THE_END, len(DATA) + 5),
            (TO_THE_END - 1, 7, TO_THE_END),
        ):
            peer.send(Retrieve(shard, offset, length, False))
            self.assertEqual(Refused(Refusal.BAD_RANGE, end, len(DATA)), peer.refusal())

    def test_absent_foreign_and_trashed_look_the_same(self) -> None:
        shard = self.hold(DATA, OTHER)
        mine = self.hold(DATA[:-1])
        peer = self.greet()
        peer.send(Delete(mine, erase=False))
        peer.answer()

        for name in (shard, mine, ShardId(bytes(32))):
            peer.send(Retrieve(name, 0, TO_THE_END, False))
            self.assertEqual(Refused(Refusal.NOT_FOUND), peer.refusal())

    def test_the_grace_still_reads_and_what_follows_does_not(self) -> None:
        shard = self.hold(DATA)
        peer = self.greet()
        self.book.stages[RENTER] = ContractStage.GRACE
        self.assertEqual(DATA, self.get(peer, shard)[1])

        for stage in (ContractStage.TRASH, ContractStage.GONE):
            self.book.stages[RENTER] = stage
            peer.send(Retrieve(shard, 0, TO_THE_END, False))
            self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())

    def test_a_stranger_reads_nothing(self) -> None:
        shard = self.hold(DATA)
        peer = self.greet(STRANGER)

        peer.send(Retrieve(shard, 0, TO_THE_END, False))

        self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())
        peer.send(Retrieve(shard, 5, 1, False))
        self.assertEqual(Refused(Refusal.NO_CONTRACT), peer.refusal())
        self.assertEqual(0, len(self.farm.parts), "nobody's budget makes room for a stranger's")

    def test_damage_in_the_middle_ends_the_transfer_before_it(self) -> None:
        shard = self.hold(LARGE)
        held = self.store.held[RENTER, shard]
        at = 2 * STEP + 5
        held.data = LARGE[:at] + b"\xff" + LARGE[at + 1 :]
        peer = self.greet()

        peer.send(Retrieve(shard, 0, TO_THE_END, False))

        self.assertIsInstance(peer.answer(), Send)
        self.assertEqual(LARGE[: 2 * STEP], peer.received())
        self.assertEqual(Refused(Refusal.CORRUPT, 2 * STEP, 65536), peer.refusal())
        peer.send(Retrieve(shard, at, 1, False))
        self.assertEqual(Refusal.CORRUPT, peer.refusal().refusal)
        peer.send(Retrieve(shard, 0, 1, False))
        self.assertIsInstance(peer.answer(), Send)
        self.assertEqual(LARGE[:1], peer.received())
        self.assertIsInstance(peer.answer(), End)
        self.assertEqual(2, self.meter.finished[Verb.RETRIEVE, Result.ERROR])

    def test_a_volume_that_is_gone_is_our_fault(self) -> None:
        shard = self.hold(DATA)
        self.store.fail_next["open"] = VolumeUnavailableError()
        peer = self.greet()

        peer.send(Retrieve(shard, 0, TO_THE_END, False))

        self.assertEqual(Refused(Refusal.UNAVAILABLE, 60_000), peer.refusal())

    def test_requests_sent_ahead_are_served_in_order(self) -> None:
        shards = [self.hold(DATA[n:]) for n in range(5)]
        peer = self.greet()

        peer.send(*(Retrieve(shard, 0, TO_THE_END, False) for shard in shards), Ping(9))

        for n in range(5):
            self.assertIsInstance(peer.answer(), Send)
            self.assertEqual(DATA[n:], peer.received())
            self.assertIsInstance(peer.answer(), End)
        self.assertIsInstance(peer.answer(), Pong)

    def test_a_renter_that_takes_nothing_stops_our_reading(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False

        peer.send(Retrieve(shard, 0, TO_THE_END, False))

        self.assertEqual(STEP, self.store.bytes_read)
        self.assertLess(peer.wire.most_unsent, STEP + 1024)

    def test_a_renter_that_takes_nothing_is_cut_off_after_the_grace(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(shard, 0, TO_THE_END, False))

        self.pass_s(30, peer)
        self.assertFalse(peer.session.over)
        self.pass_s(1, peer)
        self.assertTrue(peer.session.over)
        self.assertEqual((0, 0), (self.store.readers_open, len(self.tasks)))
        # At once: it would take no last words, and they would lie there with the rest.
        self.assertTrue(peer.closed)
        self.assertEqual([CloseReason.SLOW.value], self.meter.closed)

    def test_a_renter_that_was_fast_may_not_stop_for_long(self) -> None:
        huge = bytes(16 << 20)
        shard = self.hold(huge)
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(shard, 0, TO_THE_END, False))
        while self.store.bytes_read < len(huge) // 2:
            peer.wire.take()
            self.clock.advance(0)

        self.pass_s(200, peer)
        self.assertFalse(peer.session.over)
        self.pass_s(200, peer)

        self.assertEqual([CloseReason.SLOW.value], self.meter.closed)

    def test_a_renter_that_leaves_while_we_wait_closes_the_shard(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(shard, 0, TO_THE_END, False))
        self.assertEqual(1, self.store.readers_open)

        peer.leave()

        self.assertEqual(0, self.store.readers_open)
        self.assertEqual(1, self.meter.finished[Verb.RETRIEVE, Result.LEFT])


class ReadAtOnceTests(StepByStepCase):
    def test_what_memory_holds_needs_no_thread_but_to_be_opened(self) -> None:
        self.store.is_in_memory = True
        shard, peer = self.hold(LARGE), self.greet_step_by_step()
        peer.send(Retrieve(shard, 0, TO_THE_END, False))

        self.disk.step()
        peer.pump()
        self.assertIsInstance(peer.answer(), Send)
        self.assertEqual(LARGE, peer.received())
        self.assertEqual([], self.disk.names)
        self.assertEqual(0, self.store.readers_open)

    def test_while_threads_are_at_work_they_read(self) -> None:
        """One that has Python's lock would keep it from us."""
        self.store.is_in_memory = True
        shard, peer = self.hold(LARGE), self.greet_step_by_step()
        peer.send(Retrieve(shard, 0, TO_THE_END, False))
        self.disk.run(len, b"another's work")

        self.disk.step()
        peer.pump()

        self.assertEqual(["len", "read"], self.disk.names)
        peer.leave()
        self.disk.run_all()


class LostWhileReadingTests(StepByStepCase):
    def test_a_renter_lost_at_any_step_leaves_no_reader(self) -> None:
        shard = self.hold(LARGE)
        for proved in (False, True):
            steps = 0
            while self.lost_after(steps, shard, proved=proved):
                self.assertEqual(0, self.store.readers_open, steps)
                self.assertEqual(0, len(self.tasks))
                steps += 1
            self.assertGreater(steps, 16)

    def lost_after(self, steps: int, shard: ShardId, *, proved: bool) -> bool:
        """Return whether the renter was lost before all was served."""
        peer = self.greet_step_by_step()
        peer.send(Retrieve(shard, 0, TO_THE_END, proved))
        for _ in range(steps):
            if self.disk.waiting:
                self.disk.step()
                peer.pump()
        unfinished = bool(self.disk.waiting)
        peer.leave()
        self.disk.run_all()
        return unfinished
