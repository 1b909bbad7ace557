"""Audits as a lever: little is asked, much is read; how much is bounded, by request and by day."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from twisted.internet.task import LoopingCall

from farmer.audit.tree import HASH_BYTES, ShardTree
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.shard import BLOCK_BYTES, SHARD_BYTES_MAX
from farmer.node.auditing import read_bytes
from farmer.node.budget import budget_bytes
from farmer.node.retrieving import FREE_PART, cost_bytes
from farmer.protocol.connection import DataReceived
from farmer.protocol.opening import End
from farmer.protocol.proofs import ProofItemReader
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Audit, Retrieve, Send
from farmer.storage.reader import VolumeReader
from tests.fakes import shard_of
from tests.hostile.base import HostileCase, reactor

pytestmark = pytest.mark.alone

MIB = 1 << 20
DATA = bytes(range(256)) * (8 * MIB // 256)
GIANT_BLOCKS = SHARD_BYTES_MAX // BLOCK_BYTES


class AmplificationTests(HostileCase):
    def setUp(self) -> None:
        super().setUp()
        self.read = 0
        files = self.engine._slots.opened()[0].ground.files
        pread = files.pread

        def counted(fd: int, length: int, offset: int) -> bytes:
            self.read += length
            return pread(fd, length, offset)

        self.patch(files, "pread", counted)

    def audit(self, *challenges: Challenge) -> list[Any]:
        with self.call() as renter:
            items: list[Any] = []
            for challenge in challenges:
                renter.tell(Audit(challenge))
                reader = ProofItemReader(challenge)
                while isinstance(event := renter.hear(), DataReceived):
                    items += reader.feed(event.data)
                assert isinstance(event, End), event
            return items

    async def test_an_audit_reads_no_more_than_it_is_charged(self) -> None:
        """Limit: 64 KiB for each sampled leaf, twice above 64 leaves, and the tree."""
        await self.in_thread(lambda: self.honest_answer_s(DATA))
        for samples in (1, 20, 64, 65, 1024):
            entry = AuditEntry(shard_of(DATA), len(DATA), samples)
            challenge = Challenge(bytes(32), AuditKind.SAMPLE, (entry,))
            self.read = 0

            (item,) = await self.in_thread(lambda asked=challenge: self.audit(asked))

            self.assertNotIsInstance(item, Refused)
            header_and_checksums = 256 + 4 * len(DATA) // BLOCK_BYTES
            allowed = read_bytes(AuditKind.SAMPLE, entry) + header_and_checksums
            self.assertLessEqual(self.read, allowed, samples)

    async def test_a_part_of_a_shard_reads_no_more_than_it_is_charged(self) -> None:
        """Limit: what is read is in the budget for parts, or a few times what is sent."""
        await self.in_thread(lambda: self.honest_answer_s(DATA))
        for proved in (False, True):
            for offset, length in ((0, 1), (MIB, 1), (MIB - 1, 2), (5, BLOCK_BYTES), (5, MIB)):
                asked = Retrieve(shard_of(DATA), offset, length, proved)
                self.read = 0

                sent = await self.in_thread(lambda asked=asked: self.retrieve(asked))

                cost = cost_bytes(len(DATA), sent.offset, sent.length, proved=proved)
                self.assertLessEqual(self.read, cost + FREE_PART * sent.length + 256, asked)

    def retrieve(self, asked: Retrieve) -> Send:
        with self.call() as renter:
            renter.tell(asked)
            head = renter.hear()
            assert isinstance(head, Send), head
            while isinstance(event := renter.hear(), DataReceived):
                pass
            assert isinstance(event, End), event
            return head

    async def test_a_day_of_audits_reads_no_more_than_the_budget(self) -> None:
        """Limits: AUDIT_BUDGET_BYTES_MIN, AUDIT_BUDGET_STORED_FACTOR."""
        await self.in_thread(lambda: self.honest_answer_s(DATA))
        entry = AuditEntry(shard_of(DATA), len(DATA), 0)
        challenge = Challenge(bytes(32), AuditKind.FULL, (entry,) * 200)
        self.read = 0

        items = await self.in_thread(lambda: self.audit(challenge, challenge))

        spent = [item for item in items if isinstance(item, Refused)]
        self.assertEqual({Refusal.AUDIT_BUDGET}, {item.refusal for item in spent})
        stored = self.engine.usage(self.honest).live_bytes
        self.assertLess(self.read, 1.01 * budget_bytes(stored))
        await self.serve_honest()


class GiantTreeTests(HostileCase):
    async def test_the_tree_of_the_largest_shard_is_not_folded_on_the_reactor(self) -> None:
        """A shard of 4 GiB has 65,536 hashes to fold for each proof: a thread's work."""
        await self.in_thread(lambda: self.honest_answer_s(DATA))
        tree = ShardTree(SHARD_BYTES_MAX, bytes(GIANT_BLOCKS * HASH_BYTES))
        folded_by: list[str] = []
        prove = VolumeReader.prove_sample

        def with_a_giant_tree(reader: VolumeReader, nonce: bytes, samples: int) -> Any:
            tree.root()
            folded_by.append(threading.current_thread().name)
            return prove(reader, nonce, samples)

        self.patch(VolumeReader, "prove_sample", with_a_giant_tree)
        entry = AuditEntry(shard_of(DATA), len(DATA), 5)
        challenge = Challenge(bytes(32), AuditKind.SAMPLE, (entry,) * 20)
        late_s, last = [0.0], [time.monotonic()]

        def tick() -> None:
            now = time.monotonic()
            late_s[0], last[0] = max(late_s[0], now - last[0] - 0.005), now

        ticking = LoopingCall(tick)
        ticking.clock = reactor
        ended = ticking.start(0.005)

        def talk() -> None:
            with self.call() as renter:
                renter.tell(Audit(challenge))
                while isinstance(renter.hear(), DataReceived):
                    pass

        await self.in_thread(talk)
        ticking.stop()
        await ended

        self.assertEqual(20, len(folded_by))
        self.assertNotIn("MainThread", folded_by)
        print(f"reactor late by at most {late_s[0] * 1000:.0f} ms while 20 giant trees are folded")
        self.assertLess(late_s[0], 2.0)
