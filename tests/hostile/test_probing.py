"""Existence: whether somebody else holds a shard shows neither in an answer nor in its time."""

from __future__ import annotations

import gc
import random
import shutil
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import pytest

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import NodeId, ShardId
from farmer.node.farm import Farm
from farmer.protocol.frames import DataPart, FrameReader
from farmer.protocol.limits import LIST_ENTRIES_MAX, TURN_S
from farmer.protocol.messages import Message, encode
from farmer.protocol.opening import End, Refuse
from farmer.protocol.proofs import ProofItemReader
from farmer.protocol.questions import Delete, List, Listed, Stat, Undelete
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import TO_THE_END, Accept, Audit, Retrieve, Store
from tests.hostile.stats import auc
from tests.node.wires import OTHER, RENTER, STRANGER, NodeCase, Peer
from tests.storage import bench

pytestmark = pytest.mark.alone

FOREIGN = 150
"""Shards of somebody else, in the same index and of the same size as those asked for."""

PROBES = 200_000
SIZE = 3_000
AUC_OFF_MAX_OF_ONE_VERB = 0.02
"""With 14,286 probes of either kind chance alone is off by 0.0034 (one standard deviation)."""

AUC_OFF_MAX = 0.01
"""Of the verbs' mean, each taken as far off as it is, whichever way; by chance 0.0027."""


def requests(shard: ShardId) -> dict[str, Message]:
    """Return one request of each kind that names a shard."""
    sample, full = AuditEntry(shard, SIZE, 1), AuditEntry(shard, SIZE, 0)
    return {
        "stat": Stat(shard),
        "retrieve": Retrieve(shard, 0, TO_THE_END, False),
        "proved": Retrieve(shard, 0, 100, True),
        "sample": Audit(Challenge(bytes(32), AuditKind.SAMPLE, (sample,))),
        "full": Audit(Challenge(bytes(32), AuditKind.FULL, (full,))),
        "delete": Delete(shard, erase=True),
        "undelete": Undelete(shard),
    }


def encoded(shard: ShardId) -> dict[str, bytes]:
    return {kind: encode(request) for kind, request in requests(shard).items()}


class ProbingTests(NodeCase):
    """The real session and engine; without TLS and threads, whose noise would hide things."""

    def setUp(self) -> None:
        super().setUp()
        root = Path(mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        # Several volumes, so that it is also ruled out which of them need not be asked.
        self.real = bench.Farm(root, volumes=3)
        self.addCleanup(self.real.engine.close)
        self.farm: Farm
        self.farm.store = self.real.engine
        self.foreign = [self.put(bench.noise(SIZE, n), OTHER) for n in range(FOREIGN)]
        self.mine = [self.put(bench.noise(SIZE, FOREIGN + n), RENTER) for n in range(FOREIGN)]
        self.real.engine.learn()
        chance = random.Random(7)
        self.absent = [ShardId(chance.randbytes(32)) for _ in range(FOREIGN)]
        self.chance = chance

    def put(self, data: bytes, renter: NodeId) -> ShardId:
        contract = self.book.contracts[renter]
        upload = self.real.engine.begin(contract, bench.shard_of(data), len(data))
        upload.write(data)  # type: ignore[union-attr]
        return upload.commit().result(20).shard  # type: ignore[union-attr]

    def answer(self, peer: Peer, asked: bytes) -> tuple[bytes, float]:
        """Send a request; return the answer's bytes and how long they took."""
        began_s = time.perf_counter()
        peer.session.dataReceived(asked)
        # Each 128th waits for its turn on the reactor, whoever's shard it asks for.
        self.clock.advance(0)
        took_s = time.perf_counter() - began_s
        return peer.wire.take(), took_s

    @pytest.mark.slow
    def test_no_answer_and_no_time_tells_absent_from_foreign(self) -> None:
        peer = self.greet()
        kinds = list(requests(self.absent[0]))
        times: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in kinds}
        answers: dict[str, set[bytes]] = {kind: set() for kind in kinds}
        asked = [[encoded(shard) for shard in shards] for shards in (self.absent, self.foreign)]
        plan = [(kinds[n % len(kinds)], n // len(kinds) % 2) for n in range(PROBES)]
        self.chance.shuffle(plan)
        # What measures coverage would be measured, too, and takes longer than all the rest.
        tracer = sys.gettrace()
        sys.settrace(None)
        gc.disable()
        try:
            for kind, is_foreign in plan:
                said, took_s = self.answer(peer, self.chance.choice(asked[is_foreign])[kind])
                answers[kind].add(said)
                times[kind][is_foreign].append(took_s)
        finally:
            gc.enable()
            sys.settrace(tracer)

        self.assertEqual([1] * len(kinds), [len(said) for said in answers.values()])
        # Each verb's own: one that is slower and one that is quicker for what is there would
        # look like none together.
        each = {kind: abs(auc(*pair) - 0.5) for kind, pair in times.items()}
        mean, worst = sum(each.values()) / len(each), max(each.values())
        print(f"existence probes {PROBES} AUC off by {mean:.4f} worst verb {worst:.4f} {each}")
        self.assertLess(mean, AUC_OFF_MAX, each)
        self.assertLess(worst, AUC_OFF_MAX_OF_ONE_VERB, each)

    def test_a_store_of_what_another_holds_is_a_store_like_any(self) -> None:
        """No deduplication: the bytes are wanted, and they are charged."""
        peer = self.greet()
        for shard in (self.foreign[0], self.absent[0]):
            peer.send(Store(shard, SIZE))
            self.assertEqual(Accept(0), peer.answer())
            peer.send(End())
            words = peer.answer()
            assert isinstance(words, Refuse)
            self.assertEqual("WRONG_SIZE", words.refused.refusal.name)

    def test_a_budget_tells_nothing_either(self) -> None:
        """What is looked up first is answered first, whatever else is short."""
        spent = self.farm.budget.take(RENTER, 1 << 30, 0, self.clock.seconds())
        self.assertIsNone(spent)
        peer = self.greet()
        for kind in ("sample", "full"):
            said = {
                self.answer(peer, encode(requests(shard)[kind]))[0]
                for shard in (*self.foreign[:5], *self.absent[:5])
            }
            self.assertEqual(1, len(said))
            self.assertNotIn(self.answer(peer, encode(requests(self.mine[0])[kind]))[0], said)

    def test_nor_does_a_crowd(self) -> None:
        """A small sample waits before anything is looked up, ours, theirs and nobody's alike."""
        self.result(self.farm.proofs.enter(OTHER, 1 << 30))
        for who in (OTHER, STRANGER):
            self.result(self.farm.full_audits.enter(who, 1))
        peer = self.greet()
        for kind, refusal in (("sample", Refusal.BUSY), ("full", Refusal.NOT_FOUND)):
            said = {
                self.late_answer(peer, encode(requests(shard)[kind]))
                for shard in (*self.foreign[:3], *self.absent[:3])
            }
            self.assertEqual([refusal], [self.refused(kind, answer) for answer in said])
            mine = self.late_answer(peer, encode(requests(self.mine[0])[kind]))
            self.assertEqual(Refusal.BUSY, self.refused(kind, mine))

    def late_answer(self, peer: Peer, asked: bytes) -> bytes:
        """Send a request, and wait as long as any waits for its turn."""
        peer.session.dataReceived(asked)
        self.pass_s(TURN_S + 1)
        return peer.wire.take()

    def refused(self, kind: str, answer: bytes) -> Refusal:
        reader = FrameReader()
        reader.feed(answer)
        part, asked = reader.take(), requests(self.absent[0])[kind]
        assert isinstance(part, DataPart), part
        assert isinstance(asked, Audit), asked
        (item,) = ProofItemReader(asked.challenge).feed(part.data)
        assert isinstance(item, Refused), item
        return item.refusal

    def test_the_list_shows_nobody_elses(self) -> None:
        peer = self.greet()
        peer.send(List(ShardId(bytes(32)), LIST_ENTRIES_MAX))
        listed = peer.answer()
        assert isinstance(listed, Listed), listed
        self.assertEqual(set(self.mine), {one.shard for one in listed.entries})
        self.assertEqual((FOREIGN, False), (len(listed.entries), listed.more))
