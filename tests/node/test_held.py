"""What slow renters hold in memory, what it costs the others, and who goes when it is too much."""

from __future__ import annotations

import tracemalloc

from farmer.identity.records import READ_BYTES
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import NodeId
from farmer.model.shard import BLOCK_BYTES, block_count
from farmer.node import retrieving
from farmer.node.farm import WHOLE_BYTES_IN_FLIGHT_MAX
from farmer.node.gate import SHARES
from farmer.node.held import (
    FEW_TRANSFERS,
    HELD_BYTES_MAX,
    NOTICED_BYTES,
    STEP_BYTES,
    STEP_BYTES_MIN,
)
from farmer.node.inbox import BLOCK_READ_BYTES, FIRST_AHEAD_BYTES
from farmer.node.ports import CloseReason
from farmer.node.proving import LEAVES_AT_ONCE
from farmer.node.storing import ONE_STEP_BYTES
from farmer.protocol.frames import data_header
from farmer.protocol.limits import (
    HURRIED_BYTES_PER_S_MIN,
    HURRIED_S,
    TEXT_BYTES_MAX,
    TINY_DATA_BYTES,
    TINY_FRAMES_MAX,
)
from farmer.protocol.messages import encode
from farmer.protocol.opening import End, Hello, Welcome
from farmer.protocol.questions import Ping, Pong
from farmer.protocol.refusals import Refusal
from farmer.protocol.repairs import BadBlocksNamed, Repair
from farmer.protocol.state import State
from farmer.protocol.transfers import TO_THE_END, Audit, Retrieve
from tests.fakes import SteppingDisk, shard_of
from tests.node.wires import OTHER, RENTER, NodeCase, Peer, stored

SMALL = bytes(range(256)) * (ONE_STEP_BYTES // 256)
LARGE = bytes(range(256)) * 8192
TREE_BYTES = block_count(len(LARGE)) * 36
CHECKSUM_BYTES = block_count(len(LARGE)) * 4
PING_FRAME = encode(Ping(1))
HALF_A_FRAME = b"\x40\x00\xff\xff" + bytes(40_000)


class HeldCase(NodeCase):
    besides_bytes = 0

    def tearDown(self) -> None:
        # What the test let others hold is theirs.
        self.around.held.total_bytes -= self.besides_bytes
        super().tearDown()

    @property
    def held_bytes(self) -> int:
        return self.around.held.total_bytes

    def others_hold(self, size_bytes: int) -> None:
        """Let others hold so much more until the end of the test."""
        self.besides_bytes += size_bytes
        self.around.held.total_bytes += size_bytes

    def inside(self) -> tuple[int, int]:
        """Return what the two gates for small shards have let in."""
        return self.farm.small_stores.inside_bytes, self.farm.whole_stores.inside_bytes

    def send_whole(self, renter: NodeId, data: bytes) -> Peer:
        """Store something, up to what the farmer answers."""
        peer = self.greet(renter)
        self.begin_store(peer, data)
        peer.send_data(data)
        peer.send(End())
        return peer


class CountingTests(HeldCase):
    def test_what_nobody_has_asked_for_yet_is_counted(self) -> None:
        peer = self.greet()

        peer.send_raw(HALF_A_FRAME)
        self.assertEqual(len(HALF_A_FRAME), self.held_bytes)
        peer.leave()

        self.assertEqual(0, self.held_bytes)

    def test_little_is_read_before_hello_is_answered(self) -> None:
        hello = encode(Hello(1, 1, "x" * TEXT_BYTES_MAX))
        disk = self.farm.disk = SteppingDisk()
        peer = self.call()
        peer.slice_bytes = FIRST_AHEAD_BYTES // 7
        peer.send_raw(hello)
        self.assertTrue(peer.wire.reading)
        peer.send_raw(HALF_A_FRAME)
        self.assertFalse(peer.wire.reading)
        self.assertLess(self.held_bytes, 2 * FIRST_AHEAD_BYTES)

        peer.connection.state = State.GREETING
        disk.run_all()
        self.assertIsInstance(peer.answer(), Welcome)
        self.assertTrue(peer.wire.reading)

    def test_what_gathers_for_a_step_is_counted(self) -> None:
        peer = self.greet()
        self.begin_store(peer, SMALL)

        peer.send_data(SMALL[:50_000])
        self.assertEqual(50_000, self.held_bytes)
        peer.send_data(SMALL[50_000:])
        peer.send(End())

        stored(peer.answer())
        self.assertEqual(0, self.held_bytes)

    def test_what_the_disk_has_not_taken_yet_is_counted(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        disk = self.farm.disk = SteppingDisk()

        peer.send_data(LARGE[:STEP_BYTES])
        peer.send_data(LARGE[STEP_BYTES : 2 * STEP_BYTES])
        self.assertEqual(2 * STEP_BYTES, self.held_bytes // 1024 * 1024)
        peer.leave()
        disk.run_all()

        self.assertEqual(0, self.held_bytes)

    def test_so_is_what_a_repair_brings(self) -> None:
        shard = self.hold(LARGE)
        held = self.store.held[RENTER, shard]
        held.data = bytes(len(LARGE))
        peer = self.greet()
        peer.send(Repair(shard))
        self.assertIsInstance(peer.answer(), BadBlocksNamed)
        disk = self.farm.disk = SteppingDisk()

        peer.send_data(LARGE[:STEP_BYTES])
        self.assertEqual(["write"], disk.names)
        self.assertEqual(STEP_BYTES, self.held_bytes)
        peer.leave()
        disk.run_all()

        self.assertEqual(0, self.held_bytes)

    def test_less_is_read_ahead_when_much_is_held(self) -> None:
        self.others_hold(2 * HELD_BYTES_MAX)
        before = self.held_bytes
        peer = self.greet()
        self.begin_store(peer, LARGE)
        disk = self.farm.disk = SteppingDisk()

        peer.slice_bytes = STEP_BYTES_MIN
        peer.send_data(LARGE[:STEP_BYTES])
        self.assertLess(self.held_bytes - before, STEP_BYTES // 2)

        peer.leave()
        disk.run_all()

    def begin_much(self) -> Peer:
        """Begin a large store, and send a little of it."""
        peer = self.greet()
        self.begin_store(peer, LARGE[len(self.peers) :])
        peer.send_data(LARGE[:BLOCK_BYTES])
        return peer

    def test_a_fast_transfer_is_read_by_steps_until_much_is_held(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        peer.send_data(LARGE[:1000])
        self.assertEqual(BLOCK_READ_BYTES, peer.wire.read_bytes)
        begun = BLOCK_BYTES + 1000
        peer.send_data(LARGE[1000:begun])
        self.assertEqual(STEP_BYTES, peer.wire.read_bytes)

        self.others_hold(HELD_BYTES_MAX)
        peer.send_data(LARGE[begun : begun + 1000])
        self.assertEqual(BLOCK_READ_BYTES, peer.wire.read_bytes)
        self.others_hold(-HELD_BYTES_MAX)
        peer.send_data(LARGE[begun + 1000 : begun + 2000])
        self.assertEqual(STEP_BYTES, peer.wire.read_bytes)

        for at in range(begun + 2000, len(LARGE), STEP_BYTES):
            peer.send_data(LARGE[at : at + STEP_BYTES])
        peer.send(End())
        stored(peer.answer())
        peer.send(Ping(1))
        self.assertEqual(READ_BYTES, peer.wire.read_bytes)
        self.assertEqual(0, self.around.held.transfers)

    def test_no_more_is_read_than_may_be_read_ahead(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        disk = self.farm.disk = SteppingDisk()
        peer.send_data(LARGE[:STEP_BYTES])
        peer.send_data(LARGE[: STEP_BYTES // 2])
        self.assertLess(peer.wire.read_bytes, STEP_BYTES // 2 + 1)
        peer.leave()
        disk.run_all()

    def test_few_transfers_read_a_step_at_once(self) -> None:
        peers = [self.begin_much() for _ in range(FEW_TRANSFERS)]
        self.assertEqual({STEP_BYTES}, {peer.wire.read_bytes for peer in peers})
        late = self.begin_much()
        self.assertEqual(BLOCK_READ_BYTES, late.wire.read_bytes)
        peers[1].send_data(LARGE[:1000])
        self.assertEqual(BLOCK_READ_BYTES, peers[1].wire.read_bytes, "among many, nobody")
        self.assertEqual(BLOCK_BYTES, self.around.held.step_bytes)

        peers[0].leave()
        late.send_data(LARGE[:1000])
        self.assertEqual(STEP_BYTES, late.wire.read_bytes)
        for peer in (late, *peers[1:]):
            peer.leave()
        self.assertEqual(0, self.around.held.transfers)

    def test_who_was_hung_up_on_is_read_by_little(self) -> None:
        peer = self.begin_much()
        self.assertEqual(STEP_BYTES, peer.wire.read_bytes)
        peer.takes = False

        # Our turn is still to come when the connection is given up.
        self.around.turnstile.ask("somebody", lambda: None)
        peer.session.dataReceived(
            data_header(2 * BLOCK_BYTES) + bytes(2 * BLOCK_BYTES) + PING_FRAME
        )

        self.assertTrue(peer.wire.disconnecting)
        self.assertEqual(READ_BYTES, peer.wire.read_bytes)
        self.clock.advance(0)
        self.assertEqual(READ_BYTES, peer.wire.read_bytes)
        self.assertEqual(0, self.around.held.transfers)

    def test_bytes_that_come_one_by_one_take_no_more_room_than_they_are(self) -> None:
        peer = self.greet()
        self.begin_store(peer, LARGE)
        tiny = (data_header(1) + b"x") * TINY_FRAMES_MAX
        frames = (tiny + data_header(TINY_DATA_BYTES) + bytes(TINY_DATA_BYTES)) * 30
        tracemalloc.start()
        try:
            peer.send_raw(frames)
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(30 * (TINY_FRAMES_MAX + TINY_DATA_BYTES), self.held_bytes)
        self.assertLess(most_bytes, 2 << 20)

    def test_what_the_renter_does_not_take_is_counted(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False

        peer.send(Retrieve(shard, 0, TO_THE_END, False))
        self.assertEqual(STEP_BYTES, (self.held_bytes - CHECKSUM_BYTES) // 1024 * 1024)
        peer.takes = True
        peer.pump()

        self.assertEqual(0, self.held_bytes)

    def test_what_an_open_reader_compares_with_is_counted(self) -> None:
        """Of a large shard it is more than a step; it counts until the reader is closed."""
        shard = self.hold(LARGE)
        peer, steps = self.greet(), SteppingDisk()
        self.farm.disk = steps
        entry = AuditEntry(shard, len(LARGE), LEAVES_AT_ONCE + 1)
        large = Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,)))
        whole = Retrieve(shard, 0, TO_THE_END, False)
        for asked, kept_bytes in ((whole, CHECKSUM_BYTES), (large, TREE_BYTES)):
            peer.send(asked)
            while not self.store.readers_open:
                steps.step()
            self.assertEqual(kept_bytes, self.held_bytes)
            while self.store.readers_open:
                steps.run_all()
                peer.pump()
            self.assertEqual((0, 0), (self.store.readers_open, self.held_bytes))

    def test_the_hashes_of_a_range_that_is_proved_count_until_that_is_done(self) -> None:
        """What is sent then is compared with checksums, an eighth of them."""
        self.patch(retrieving, "PROVED_AT_ONCE_BYTES", 0)
        shard = self.hold(LARGE)
        peer, steps = self.greet(), SteppingDisk()
        self.farm.disk = steps
        peer.takes = False
        peer.send(Retrieve(shard, 0, TO_THE_END, True))
        while not self.store.readers_open:
            steps.step()
        self.assertEqual(TREE_BYTES, self.held_bytes)
        steps.step()
        kept_bytes = self.held_bytes - peer.session._outbox.unsent_bytes
        self.assertEqual(CHECKSUM_BYTES, kept_bytes)
        peer.takes = True
        while self.store.readers_open:
            steps.run_all()
            peer.pump()
        self.assertEqual(0, self.held_bytes)

    def test_the_nodes_of_a_large_proof_are_counted_while_its_leaves_are_sent(self) -> None:
        shard = self.hold(LARGE)
        entry = AuditEntry(shard, len(LARGE), 2 * LEAVES_AT_ONCE)
        peer = self.greet()
        peer.takes = False

        peer.send(Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,))))
        nodes_bytes = self.held_bytes - TREE_BYTES - peer.session._outbox.unsent_bytes

        self.assertGreater(nodes_bytes, 1024)
        peer.takes = True
        peer.pump()
        self.assertEqual(0, self.held_bytes)

    def test_a_proof_that_is_not_taken_is_counted(self) -> None:
        shard = self.hold(LARGE)
        peer = self.greet()
        peer.takes = False
        entry = AuditEntry(shard, len(LARGE), 64)

        peer.send(Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,))))

        self.assertGreater(self.held_bytes, 2 * 64 * 4096)


class SmallStepsTests(HeldCase):
    def retrieve_a_step(self) -> int:
        """Return how much is read for a renter who takes nothing."""
        before = self.store.bytes_read
        peer = self.greet()
        peer.takes = False
        peer.send(Retrieve(shard_of(LARGE), 0, TO_THE_END, False))
        return self.store.bytes_read - before

    def test_steps_are_smaller_when_much_is_held(self) -> None:
        self.hold(LARGE)
        self.assertEqual(STEP_BYTES, self.retrieve_a_step())

        self.others_hold(HELD_BYTES_MAX // 4)
        self.assertEqual(BLOCK_BYTES, self.retrieve_a_step())

        # The wire takes four of the least before it is full.
        self.others_hold(HELD_BYTES_MAX)
        self.assertEqual(4 * STEP_BYTES_MIN, self.retrieve_a_step())

    def test_small_steps_bring_the_same_bytes(self) -> None:
        shard = self.hold(LARGE)
        self.others_hold(2 * HELD_BYTES_MAX)
        peer = self.greet()

        peer.send(Retrieve(shard, 1000, len(LARGE) - 2000, False))
        peer.answer()

        self.assertEqual(LARGE[1000:-1000], peer.received())

    def test_large_proofs_come_whole_in_small_steps(self) -> None:
        shard = self.hold(LARGE)
        entry = AuditEntry(shard, len(LARGE), 200)
        asked = Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,)))
        proofs = []
        for besides in (0, 2 * HELD_BYTES_MAX):
            self.others_hold(besides)
            peer = self.greet()
            peer.send(asked)
            peer.pump()
            proofs.append(peer.received())

        self.assertEqual(proofs[0], proofs[1])


class WhoGoesTests(HeldCase):
    def test_who_is_slow_and_holds_some_goes_when_memory_is_short(self) -> None:
        half, reader, quiet = self.greet(), self.greet(), self.greet()
        self.hold(LARGE)
        half.send_raw(HALF_A_FRAME)
        reader.takes = False
        reader.send(Retrieve(shard_of(LARGE), 0, TO_THE_END, False))
        quiet.send_raw(HALF_A_FRAME[: NOTICED_BYTES - 1])
        self.pass_s(2 * HURRIED_S, half, reader, quiet)
        self.assertFalse(half.closed or reader.closed)

        self.others_hold(HELD_BYTES_MAX)
        self.pass_s(1, half, reader, quiet)
        self.assertEqual((True, False), (half.closed, reader.closed))
        self.pass_s(HURRIED_S + STEP_BYTES / HURRIED_BYTES_PER_S_MIN, half, reader, quiet)

        self.assertTrue(reader.closed)
        self.assertFalse(quiet.closed)
        self.assertEqual([CloseReason.IDLE.value, CloseReason.SLOW.value], self.meter.closed)

    def test_strangers_without_a_hello_put_nobody_out(self) -> None:
        """Three hundred of them send what would be 19 MiB, while a renter stores slowly."""
        slow = self.greet()
        self.begin_store(slow, bytes(8 << 20))
        slow.send_data(bytes(20_000))
        for n in range(300):
            stranger = self.call(NodeId((n + 1).to_bytes(32, "little")))
            stranger.send_raw(bytes.fromhex("0100ffff") + bytes(65_000))
        self.assertFalse(self.around.held.is_short)
        self.pass_s(HURRIED_S + 3, *self.peers)

        self.assertEqual([False] + 300 * [True], [peer.closed for peer in self.peers])

    def test_who_reads_all_the_time_stays(self) -> None:
        """A step takes three seconds on its line, and memory gets short in the middle of one."""
        reader, before = self.greet(), self.store.bytes_read
        reader.takes = False
        reader.send(Retrieve(self.hold(LARGE), 0, TO_THE_END, False))
        for second in range(1, 13):
            if second == 2:
                self.others_hold(HELD_BYTES_MAX)
            self.pass_s(1, reader)
            reader.wire.take(STEP_BYTES // 3)
        reader.pump()

        self.assertFalse(reader.closed)
        self.assertLess(before + STEP_BYTES, self.store.bytes_read)

    def test_who_keeps_the_pace_stays(self) -> None:
        self.others_hold(HELD_BYTES_MAX)
        peer = self.greet()
        self.begin_store(peer, bytes(8 << 20))
        for _ in range(20):
            peer.send_data(bytes(HURRIED_BYTES_PER_S_MIN))
            self.pass_s(1, peer)

        self.assertFalse(peer.closed)


class SmallStoresTests(HeldCase):
    def test_stores_that_dribble_hold_nothing_that_others_need(self) -> None:
        """Four hundred renters promise 64 KiB each, 25 MiB, and send a byte."""
        for n in range(400):
            renter = NodeId((n + 1).to_bytes(32, "little"))
            self.give_contract(renter)
            slow = self.greet(renter)
            self.begin_store(slow, SMALL)
            slow.send_data(b"x")
        self.assertEqual(((0, 0), 400), (self.inside(), self.held_bytes))

        honest = self.send_whole(OTHER, SMALL)

        stored(honest.answer())

    def test_a_whole_store_has_a_place_until_it_is_durable(self) -> None:
        self.store.commits = []
        peer = self.greet()
        self.begin_store(peer, SMALL)
        peer.send_data(SMALL)
        self.assertEqual((0, 0), self.inside())

        peer.send(End())
        self.assertEqual((0, len(SMALL)), self.inside())
        self.store.sync()

        stored(peer.answer())
        self.assertEqual((0, 0), self.inside())

    def test_whole_stores_queue_for_memory(self) -> None:
        self.store.commits = []
        for n in range(SHARES):
            renter = NodeId(bytes([n + 1]) * 32)
            self.give_contract(renter)
            for m in range(WHOLE_BYTES_IN_FLIGHT_MAX // len(SMALL) // SHARES):
                self.send_whole(renter, bytes([n, m]) * (len(SMALL) // 2))
        late = self.send_whole(RENTER, SMALL)
        self.assertEqual((0, WHOLE_BYTES_IN_FLIGHT_MAX), self.inside())
        self.assertEqual(WHOLE_BYTES_IN_FLIGHT_MAX // len(SMALL), len(self.store.commits))

        self.store.sync()
        self.assertEqual((0, len(SMALL)), self.inside())
        self.store.sync()

        stored(late.answer())

    def test_more_than_was_declared_is_refused_however_it_comes(self) -> None:
        for last in (b"", b"x" * 1000):
            peer = self.greet()
            self.begin_store(peer, SMALL)
            peer.outgoing += peer.connection.send_data(SMALL + b"x") + b"".join(
                peer.connection.send_data(one) for one in (last,) if one
            )
            peer.send(End())

            refused = peer.refusal()
            self.assertEqual((Refusal.WRONG_SIZE, len(SMALL)), (refused.refusal, refused.first))
            peer.send(Ping(1))
            self.assertIsInstance(peer.answer(), Pong)
