"""STORE through both real ends of the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.identity.signing import receipt_is_valid
from farmer.model.contract import ContractStage
from farmer.model.ids import NodeId
from farmer.model.shard import ShardState, charge_bytes
from farmer.node.budget import AuditBudget
from farmer.node.gate import SHARES
from farmer.node.ports import CloseReason, Result, Verb
from farmer.node.refusals import CROWDED_RETRY_MS, DRAINING_RETRY_MS
from farmer.protocol.limits import HURRIED_S, SMALL_BYTES_IN_FLIGHT_MAX, TURN_S
from farmer.protocol.opening import End
from farmer.protocol.questions import Delete, Ping, Pong, Undelete
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.state import State
from farmer.protocol.transfers import Accept, Store
from farmer.storage.errors import NoSpaceError, VolumeUnavailableError
from tests.fakes import SteppingDisk, shard_of
from tests.node.wires import OTHER, RENTER, STRANGER, ForgetfulClock, NodeCase, Peer, stored

MIB = 1 << 20
DATA = bytes(range(256)) * 1000
LARGE = bytes(range(256)) * (3 * 4096)
FRAME = 256 * 1024


def send_all(peer: Peer, data: bytes) -> None:
    for at in range(0, len(data), FRAME):
        peer.send_data(data[at : at + FRAME])
    peer.send(End())


def forget(_wanted: object) -> None:
    """Have no memory."""
    raise MemoryError


class StoringTests(NodeCase):
    def store_it(self, peer: Peer, data: bytes) -> Any:
        accept = self.begin_store(peer, data)
        send_all(peer, data[accept.offset :])
        return peer.answer()

    def test_a_shard_is_stored_and_the_receipt_says_so(self) -> None:
        peer = self.greet()

        receipt = stored(self.store_it(peer, DATA)).receipt

        self.assertTrue(receipt_is_valid(receipt))
        self.assertEqual((RENTER, shard_of(DATA)), (receipt.renter, receipt.shard))
        self.assertEqual(len(DATA), receipt.size_bytes)
        self.assertEqual(self.book.contracts[RENTER].until_ms, receipt.until_ms)
        self.assertEqual(DATA, self.store.held[RENTER, shard_of(DATA)].data)
        self.assertEqual([len(DATA)], self.meter.stored)
        self.assertEqual(len(DATA), self.meter.bytes_in[Verb.STORE])
        self.assertEqual(0, self.farm.small_stores.inside_bytes)

    def test_the_empty_shard_is_a_shard(self) -> None:
        receipt = stored(self.store_it(self.greet(), b"")).receipt

        self.assertEqual(0, receipt.size_bytes)

    def test_stored_waits_for_the_sync(self) -> None:
        self.store.commits = []
        peer = self.greet()
        self.begin_store(peer, DATA)
        send_all(peer, DATA)
        self.assertEqual([], peer.events)

        self.store.sync()

        stored(peer.answer())

    def test_a_shard_already_held_is_answered_at_once(self) -> None:
        peer = self.greet()
        first = stored(self.store_it(peer, DATA)).receipt
        self.clock.advance(5)

        peer.send(Store(shard_of(DATA), len(DATA)))

        again = stored(peer.answer()).receipt
        self.assertEqual(first.stored_at_ms, again.stored_at_ms)
        self.assertEqual(first.issued_at_ms + 5000, again.issued_at_ms)
        self.assertEqual([len(DATA)], self.meter.stored)

    def test_two_renters_hold_two_copies(self) -> None:
        stored(self.store_it(self.greet(RENTER), DATA))
        stored(self.store_it(self.greet(OTHER), DATA))

        self.assertEqual(2, len(self.store.held))

    def test_steps_reach_the_disk_in_large_pieces(self) -> None:
        peer = self.greet()
        peer.slice_bytes = 16 * 1024
        self.begin_store(peer, LARGE)
        upload = self.store.uploads[RENTER, shard_of(LARGE)]

        send_all(peer, LARGE)

        stored(peer.answer())
        self.assertGreaterEqual(min(upload.steps[:-1]), 64 * 1024)
        self.assertLessEqual(max(upload.steps), 2 * 256 * 1024)

    def test_a_lost_large_store_goes_on_where_it_was(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        peer.send_data(LARGE[:FRAME])
        peer.leave()
        self.assertEqual({}, self.store.uploads)

        peer = self.greet()
        accept = self.begin_store(peer, LARGE)
        self.assertEqual(FRAME, accept.offset)
        send_all(peer, LARGE[FRAME:])

        stored(peer.answer())

    def leave_unfinished(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        for _ in range(4):
            peer.send_data(bytes(FRAME))
        peer.leave()

    def resume(self) -> Any:
        peer = self.greet()
        peer.send(Store(shard_of(LARGE), len(LARGE)))
        answer = peer.answer()
        peer.leave()
        return answer

    @pytest.mark.slow
    def test_going_on_again_and_again_is_paid_for(self) -> None:
        self.leave_unfinished()
        affordable = (1 << 30) // (4 * FRAME)
        self.assertTrue(all(isinstance(self.resume(), Accept) for _ in range(affordable)))

        refused = self.resume().refused

        self.assertEqual(Refusal.BUSY, refused.refusal)
        self.clock.advance(refused.first / 1000)
        self.assertEqual(Accept(4 * FRAME), self.resume())

    def test_what_is_reserved_counts_for_what_may_be_read_again(self) -> None:
        """Twice as much in a day as the renter has stored and is storing."""
        self.farm.resuming = AuditBudget(1)
        self.leave_unfinished()
        affordable = 2 * charge_bytes(len(LARGE)) // (4 * FRAME)

        answers = [self.resume() for _ in range(affordable + 1)]

        self.assertEqual([Accept(4 * FRAME)] * affordable, answers[:-1])
        self.assertEqual(Refusal.BUSY, answers[-1].refused.refusal)

    def test_what_is_read_again_is_counted_apart_from_audits(self) -> None:
        """Neither takes what the other may read."""
        self.assertIsNone(self.farm.budget.take(RENTER, 1 << 30, 0, self.clock.seconds()))
        self.leave_unfinished()

        self.assertEqual(Accept(4 * FRAME), self.resume())

    def test_what_could_not_be_read_again_is_not_paid_for(self) -> None:
        self.leave_unfinished()
        self.store.fail_next["begin"] = VolumeUnavailableError()

        self.assertEqual(Refusal.UNAVAILABLE, self.resume().refused.refusal)

        now_s = self.clock.seconds()
        self.assertIsNone(self.farm.resuming.take(RENTER, 1 << 30, 0, now_s))

    def test_only_two_stores_are_read_again_at_once(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        peer.send_data(bytes(FRAME))
        peer.leave()
        for who in (OTHER, STRANGER):
            self.result(self.farm.resumes.enter(who, 1))
        peer = self.greet()
        peer.send(Store(shard_of(LARGE), len(LARGE)))

        self.pass_s(TURN_S + 1, peer)

        self.assertEqual(Refused(Refusal.BUSY, CROWDED_RETRY_MS), peer.refusal())

    def test_a_lost_small_store_leaves_nothing(self) -> None:
        peer = self.greet()
        self.begin_store(peer, DATA)
        peer.send_data(DATA[:100])

        peer.leave()

        self.assertEqual(0, self.store.reserved())
        self.assertEqual(0, self.farm.small_stores.inside_bytes)
        self.assertEqual(1, self.meter.finished[Verb.STORE, Result.LEFT])

    def test_wrong_bytes_are_refused_and_forgotten(self) -> None:
        peer = self.greet()
        peer.send(Store(shard_of(DATA), 5))
        peer.answer()
        send_all(peer, b"wrong")

        self.assertEqual(Refusal.WRONG_HASH, peer.refusal().refusal)
        self.assertEqual((0, {}), (self.store.reserved(), self.store.held))

    def test_too_few_bytes_are_refused(self) -> None:
        peer = self.greet()
        self.begin_store(peer, DATA)
        send_all(peer, DATA[:-1])

        self.assertEqual(Refused(Refusal.WRONG_SIZE, len(DATA), len(DATA) - 1), peer.refusal())

    def test_too_many_bytes_are_refused_and_the_rest_thrown_away(self) -> None:
        peer = self.greet()
        peer.send(Store(shard_of(DATA), 10))
        peer.answer()
        peer.send_data(b"x" * 11)
        self.assertEqual(Refused(Refusal.WRONG_SIZE, 10, 11), peer.refusal())
        self.assertEqual(State.DISCARDING, peer.session.state)

        peer.send_data(b"y" * 1000)
        peer.send(End())
        peer.send(Ping(7))

        self.assertIsInstance(peer.answer(), Pong)
        self.assertEqual(0, self.store.reserved())

    def test_a_wrong_size_gives_an_unfinished_large_store_up(self) -> None:
        for declared_bytes in (len(LARGE) + 10, len(LARGE) - 10):
            peer = self.greet()
            peer.send(Store(shard_of(LARGE), declared_bytes))
            self.assertEqual(Accept(0), peer.answer())
            send_all(peer, LARGE)

            refused = Refused(Refusal.WRONG_SIZE, declared_bytes, len(LARGE))
            self.assertEqual(refused, peer.refusal())
            self.assertEqual(({}, 0), (self.store.leases, self.store.reserved()))

    def test_a_disk_that_fills_up_refuses_in_mid_store(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        self.store.fail_next["write"] = NoSpaceError(1, 0)

        send_all(peer, LARGE)

        self.assertEqual(Refused(Refusal.NO_SPACE, 1, 0), peer.refusal())
        self.assertEqual({}, self.store.uploads)
        stored(self.store_it(peer, DATA))

    def test_a_failed_sync_is_no_receipt(self) -> None:
        peer = self.greet()
        self.begin_store(peer, DATA)
        self.store.fail_next["commit"] = VolumeUnavailableError()

        send_all(peer, DATA)

        self.assertEqual(Refusal.UNAVAILABLE, peer.refusal().refusal)
        self.assertEqual(0, self.store.reserved())
        self.assertEqual(1, self.meter.finished[Verb.STORE, Result.ERROR])

    def test_a_bug_is_refused_as_internal_and_logged(self) -> None:
        peer = self.greet()
        self.store.fail_next["begin"] = ZeroDivisionError("a bug")

        peer.send(Store(shard_of(DATA), len(DATA)))

        self.assertEqual(Refusal.INTERNAL, peer.refusal().refusal)
        peer.send(Ping(1))
        self.assertIsInstance(peer.answer(), Pong)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_the_same_shard_twice_at_once_is_busy(self) -> None:
        first, second = self.greet(), self.greet()
        self.begin_store(first, DATA)

        second.send(Store(shard_of(DATA), len(DATA)))

        self.assertEqual(Refused(Refusal.BUSY, 1_000), second.refusal())

    def test_full_farmers_and_contracts_say_so(self) -> None:
        peer = self.greet()
        self.store.quota_bytes = 4096
        peer.send(Store(shard_of(DATA), len(DATA)))
        self.assertEqual(Refused(Refusal.NO_SPACE, 258_048, 4096), peer.refusal())

        peer.send(Store(shard_of(DATA), 1 << 40))
        self.assertEqual(
            Refused(Refusal.SHARD_TOO_LARGE, 1 << 40, self.store.shard_bytes_max), peer.refusal()
        )

    def test_a_stranger_stores_nothing(self) -> None:
        peer = self.greet(STRANGER)

        peer.send(Store(shard_of(DATA), len(DATA)))

        self.assertEqual(Refusal.NO_CONTRACT, peer.refusal().refusal)
        self.assertEqual(0, self.store.reserved())

    def test_an_ended_contract_stores_and_undeletes_nothing(self) -> None:
        shard = self.hold(DATA)
        self.book.stages[RENTER] = ContractStage.GRACE
        peer = self.greet()
        peer.send(Delete(shard, erase=False))
        peer.answer()

        peer.send(
            Store(shard_of(LARGE), len(LARGE)),
        )
        refused = peer.refusal()
        self.assertEqual(Refusal.CONTRACT_ENDED, refused.refusal)
        self.assertEqual(self.book.contracts[RENTER].until_ms, refused.first)
        self.assertEqual(14 * 86_400_000, refused.second - refused.first)

        peer.send(Undelete(shard))
        self.assertEqual(Refusal.CONTRACT_ENDED, peer.refusal().refusal)
        self.book.stages[RENTER] = ContractStage.TRASH
        peer.send(Undelete(shard))
        self.assertEqual(Refusal.NO_CONTRACT, peer.refusal().refusal)
        self.assertEqual(ShardState.TRASH, self.store.held[RENTER, shard].stored.state)

    def test_a_draining_farmer_begins_no_store(self) -> None:
        peer = self.greet()
        self.farm.draining = True

        peer.send(Store(shard_of(DATA), len(DATA)))

        self.assertEqual(Refused(Refusal.DRAINING, DRAINING_RETRY_MS), peer.refusal())

    def test_small_stores_queue_for_memory(self) -> None:
        size = 1024 * 1024
        fit = SMALL_BYTES_IN_FLIGHT_MAX // size // SHARES
        peers = [self.greet() for _ in range(fit + 2)]
        shards = [shard_of(bytes([n]) * size) for n in range(fit + 2)]
        for peer, shard in zip(peers, shards, strict=True):
            peer.send(Store(shard, size))
        accepted = [bool(peer.events) for peer in peers]
        self.assertEqual([True] * fit + [False] * 2, accepted)
        neighbour = self.greet(OTHER)
        neighbour.send(Store(shards[0], size))
        self.assertIsInstance(neighbour.answer(), Accept)
        neighbour.leave()

        peers[-2].leave()
        peers[0].leave()
        peers[-1].pump()

        self.assertIsInstance(peers[-1].answer(), Accept)
        for peer in peers:
            peer.leave()
        self.assertEqual(0, self.farm.small_stores.inside_bytes)
        self.assertEqual(0, self.store.reserved())

    def test_who_holds_memory_that_another_wants_is_hurried(self) -> None:
        size = 1024 * 1024
        idle = []
        for n in range(SHARES):
            renter = NodeId(bytes([n + 1]) * 32)
            self.give_contract(renter)
            for m in range(SMALL_BYTES_IN_FLIGHT_MAX // size // SHARES):
                idle.append(self.greet(renter))
                self.begin_store(idle[-1], bytes([n, m]) * (size // 2))
                idle[-1].send_data(bytes(FRAME))
        self.pass_s(HURRIED_S + 2, *idle)
        self.assertEqual([], [peer for peer in idle if peer.closed])
        honest = self.greet(OTHER)
        honest.send(Store(shard_of(DATA), len(DATA)))

        self.pass_s(2, honest, *idle)

        self.assertIsInstance(honest.answer(), Accept)
        self.assertEqual([CloseReason.SLOW.value], self.meter.closed)

    def test_a_turn_that_does_not_come_is_refused(self) -> None:
        self.result(self.farm.small_stores.enter(OTHER, SMALL_BYTES_IN_FLIGHT_MAX))
        peer = self.greet()
        peer.send(Store(shard_of(DATA), len(DATA)))
        self.pass_s(TURN_S - 1, peer)
        self.assertEqual([], peer.events)

        self.pass_s(2, peer)

        self.assertEqual(Refused(Refusal.BUSY, CROWDED_RETRY_MS), peer.refusal())
        peer.send(Ping(1))
        self.assertIsInstance(peer.answer(), Pong)
        self.farm.small_stores.leave(OTHER, SMALL_BYTES_IN_FLIGHT_MAX)

    def test_a_moment_without_memory_costs_the_gate_no_place(self) -> None:
        self.result(self.farm.small_stores.enter(OTHER, SMALL_BYTES_IN_FLIGHT_MAX))
        peer = self.greet()
        self.farm.clock = ForgetfulClock(failures=1)
        peer.send(Store(shard_of(DATA), len(DATA)))

        self.assertEqual(Refusal.INTERNAL, peer.refusal().refusal)
        self.assertEqual(1, len(self.flushLoggedErrors(MemoryError)))
        self.farm.small_stores.leave(OTHER, SMALL_BYTES_IN_FLIGHT_MAX)
        self.assertEqual(0, self.farm.small_stores.inside_bytes)

    def test_nor_does_one_when_the_turn_has_come(self) -> None:
        peer = self.greet()
        self.patch(peer.session, "holds", forget)
        peer.send(Store(shard_of(DATA), len(DATA)))

        self.assertEqual(Refusal.INTERNAL, peer.refusal().refusal)
        self.assertEqual(1, len(self.flushLoggedErrors(MemoryError)))
        self.assertEqual(0, self.farm.small_stores.inside_bytes)

    def test_who_has_no_contract_waits_for_no_memory(self) -> None:
        self.result(self.farm.small_stores.enter(OTHER, SMALL_BYTES_IN_FLIGHT_MAX))
        peer = self.greet(STRANGER)

        peer.send(Store(shard_of(DATA), len(DATA)))

        self.assertEqual(Refusal.NO_CONTRACT, peer.refusal().refusal)
        self.farm.small_stores.leave(OTHER, SMALL_BYTES_IN_FLIGHT_MAX)

    def test_any_slicing_stores_the_same_bytes(self) -> None:
        @given(st.integers(1, 3000), st.lists(st.integers(1, 5000), min_size=1, max_size=9))
        def check(slice_bytes: int, frames: list[int]) -> None:
            peer = self.greet()
            peer.slice_bytes = slice_bytes
            data = bytes(slice_bytes % 251 for _ in range(sum(frames)))
            self.store.held.clear()
            self.begin_store(peer, data)
            at = 0
            for size in frames:
                peer.outgoing += peer.connection.send_data(data[at : at + size])
                at += size
            peer.send(End())
            stored(peer.answer())
            self.assertEqual(data, self.store.held[RENTER, shard_of(data)].data)
            peer.leave()

        check()


class LostAtEveryStepTests(NodeCase):
    disk: SteppingDisk

    def make_disk(self) -> SteppingDisk:
        return SteppingDisk()

    def serve(self, data: bytes, steps: int) -> int:
        """Store with the renter leaving after some steps of the disk; return the steps made."""
        peer = self.call()
        peer.outgoing += peer.connection.send(_hello())
        made = 0
        script = iter((Store(shard_of(data), len(data)), data, End()))
        while made < steps:
            peer.pump()
            if self.disk.waiting:
                self.disk.step()
                made += 1
                continue
            if not self._next(peer, script):
                break
        peer.leave()
        self.disk.run_all()
        return made

    def _next(self, peer: Peer, script: Any) -> bool:
        message = next(script, None)
        if message is None:
            return False
        if isinstance(message, bytes):
            for at in range(0, len(message), FRAME):
                peer.outgoing += peer.connection.send_data(message[at : at + FRAME])
        else:
            peer.outgoing += peer.connection.send(message)
        return True

    def test_a_renter_lost_at_any_step_leaks_nothing(self) -> None:
        for data in (DATA, LARGE, b""):
            whole = self.serve(data, 1000)
            self.store.held.clear()
            for steps in range(whole):
                self.serve(data, steps)
                self.assertEqual({}, self.store.uploads, steps)
                self.assertEqual(0, self.farm.small_stores.inside_bytes)
                self.store.leases.clear()
                self.assertEqual(0, self.store.reserved())
                self.store.held.clear()
        self.assertEqual(0, len(self.tasks))
        self.assertEqual(0, self.sessions.busy)

    def test_a_thread_in_the_upload_is_waited_for(self) -> None:
        peer = self.call()
        peer.outgoing += peer.connection.send(_hello())
        peer.pump()
        self.disk.run_all()
        peer.pump()
        peer.send(Store(shard_of(LARGE), len(LARGE)))
        self.disk.run_all()
        peer.pump()
        peer.send_data(LARGE[:FRAME])
        self.assertEqual(["write"], self.disk.names)

        peer.leave()
        self.assertEqual(["write"], self.disk.names)
        self.disk.step()

        self.assertEqual(["abandon"], self.disk.names)
        self.disk.run_all()
        self.assertEqual(FRAME, len(self.store.leases[RENTER, shard_of(LARGE)][1]))

    def greeted(self) -> Peer:
        peer = self.call()
        peer.outgoing += peer.connection.send(_hello())
        peer.pump()
        self.disk.run_all()
        peer.answer()
        return peer

    def test_what_a_former_session_leaves_just_now_is_not_read_again_unpaid(self) -> None:
        first, second = self.greeted(), self.greeted()
        first.send(Store(shard_of(LARGE), len(LARGE)))
        self.disk.run_all()
        first.pump()
        first.send_data(LARGE[:FRAME])
        self.disk.run_all()
        first.leave()
        self.assertEqual(["abandon"], self.disk.names)

        second.send(Store(shard_of(LARGE), len(LARGE)))
        self.disk.run_all()

        self.assertEqual(Refusal.BUSY, second.refusal().refusal)
        second.send(Store(shard_of(LARGE), len(LARGE)))
        self.disk.run_all()
        self.assertEqual(Accept(FRAME), second.answer())

    def test_reading_stops_while_the_disk_is_behind(self) -> None:
        peer = self.call()
        peer.slice_bytes = 16 * 1024
        peer.outgoing += peer.connection.send(_hello())
        peer.pump()
        self.disk.run_all()
        peer.pump()
        peer.send(Store(shard_of(LARGE), len(LARGE)))
        self.disk.run_all()
        peer.pump()
        for at in range(0, len(LARGE), FRAME):
            peer.outgoing += peer.connection.send_data(LARGE[at : at + FRAME])
        peer.pump()

        self.assertFalse(peer.wire.reading)
        self.assertGreater(len(peer.outgoing), len(LARGE) - 576 * 1024)

        peer.send(End())
        while self.disk.waiting:
            self.disk.step()
            peer.pump()
        stored(peer.events[-1])


def _hello() -> Any:
    from farmer.protocol.opening import Hello

    return Hello(1, 1, "test")
