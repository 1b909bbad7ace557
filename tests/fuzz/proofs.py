"""Answers to audits, and the nodes that prove a range: what a farmer may lie with."""

from __future__ import annotations

from typing import Final

from farmer.audit.challenge import sample_leaves
from farmer.audit.full import FullDigest
from farmer.audit.proof import ProofError, prove_sample, verify_sample
from farmer.audit.ranges import RangeVerifier, prove_range
from farmer.model.audit import AuditEntry, AuditKind, Challenge, SampleProof
from farmer.model.shard import BLOCK_BYTES, LEAF_BYTES
from farmer.protocol.fields import LayoutError
from farmer.protocol.proofs import (
    ITEM_HEAD_BYTES,
    FullProof,
    ProofItem,
    ProofItemReader,
    encode_item,
)
from farmer.protocol.refusals import Refusal, Refused
from tests.fuzz.mutate import Picker, havoc
from tests.fuzz.target import Target
from tests.vectors.cast import shard_bytes, stream, tree_of

SIZES: Final = (0, 1, 4097, 70_000)
CONTENTS: Final = {size: shard_bytes(size) for size in SIZES}
TREES: Final = {size: tree_of(content) for size, content in CONTENTS.items()}
NONCE: Final = stream("nonce", 32)


def _entry(size: int, samples: int) -> AuditEntry:
    return AuditEntry(TREES[size].shard_id(), size, samples)


CHALLENGES: Final = (
    Challenge(NONCE, AuditKind.SAMPLE, (_entry(70_000, 2), _entry(0, 1))),
    Challenge(NONCE, AuditKind.SAMPLE, (_entry(4097, 3), _entry(1, 1))),
    Challenge(NONCE, AuditKind.FULL, tuple(_entry(size, 0) for size in SIZES)),
)


def _truth(challenge: Challenge, entry: AuditEntry) -> ProofItem:
    content = CONTENTS[entry.size_bytes]
    if challenge.kind is AuditKind.FULL:
        digest = FullDigest(NONCE, entry.shard)
        digest.update(content)
        return FullProof(digest.finish())
    leaves = sample_leaves(NONCE, entry.shard, entry.size_bytes, entry.samples)
    return prove_sample(TREES[entry.size_bytes], leaves, lambda block: _block(content, block))


def _block(content: bytes, block: int) -> bytes:
    return content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]


TRUTHS: Final = tuple(
    [_truth(challenge, entry) for entry in challenge.entries] for challenge in CHALLENGES
)


class AuditAnswer(Target):
    """A byte for the challenge, a byte for the slices, then the stream of items."""

    name = "audit-answer"
    executions = 40_000

    def seeds(self) -> list[bytes]:
        refused = Refused(Refusal.NOT_FOUND, 0, 0)
        seeds = []
        for number, items in enumerate(TRUTHS):
            for answered in (items, [*items[:-1], refused], [refused] * len(items)):
                stream_bytes = b"".join(map(encode_item, answered))
                seeds += [bytes([number, cut]) + stream_bytes for cut in (0, 1, 77)]
        return seeds

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.4:
            # Most of an item is leaves; its head is where a decoder goes wrong.
            return havoc(pick, seed[:26], other, grow=False) + seed[26:]
        return havoc(pick, seed, other, grow=pick.chance() < 0.3)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Put right heads over changed leaves and nodes."""
        mended = bytearray(data[: len(seed)] + seed[len(data) :])
        mended[0], at = seed[0], 2
        for item in TRUTHS[seed[0]]:
            mended[at : at + ITEM_HEAD_BYTES] = seed[at : at + ITEM_HEAD_BYTES]
            at += len(encode_item(item))
            if at >= len(seed):
                break
        return bytes(mended)

    def run(self, data: bytes) -> bool:
        number, slice_bytes = data[0] % len(CHALLENGES) if data else 0, data[1] if data[1:] else 0
        challenge, sent = CHALLENGES[number], data[2:]
        reader, items = ProofItemReader(challenge), []
        try:
            for at in range(0, len(sent), slice_bytes * 16 or 1 << 20):
                items += reader.feed(sent[at : at + (slice_bytes * 16 or 1 << 20)])
            reader.end()
        except LayoutError:
            return False
        assert b"".join(map(encode_item, items)) == sent, "two encodings of one answer"
        for entry, item, truth in zip(challenge.entries, items, TRUTHS[number], strict=True):
            if isinstance(item, SampleProof):
                _believed(entry, item, truth)
        return True


def _believed(entry: AuditEntry, item: SampleProof, truth: ProofItem) -> None:
    try:
        verify_sample(entry.shard, entry.size_bytes, NONCE, entry.samples, item)
    except ProofError:
        assert item != truth, "the truth was not believed"
    else:
        assert item == truth, "a false proof was believed"


class RangeAnswer(Target):
    """
    A proved range as it comes.

    0 1 which shard;  1 4 offset;  5 4 length;  9 1 n;  10 32n nodes;  - - the bytes
    """

    name = "range-answer"
    executions = 40_000

    def seeds(self) -> list[bytes]:
        asked = [(0, 0, 1), (1, 0, 1), (2, 0, 1), (2, 1, 2), (3, 0, 18), (3, 3, 5), (3, 16, 18)]
        return [self._seed(*one) for one in asked]

    def _seed(self, shard: int, first: int, end: int) -> bytes:
        content, tree = CONTENTS[SIZES[shard]], TREES[SIZES[shard]]
        part = content[first * LEAF_BYTES : end * LEAF_BYTES]
        nodes = prove_range(tree, first, end, lambda block: _block(content, block))
        head = bytes([shard]) + (first * LEAF_BYTES).to_bytes(4, "big")
        return head + len(part).to_bytes(4, "big") + bytes([len(nodes)]) + b"".join(nodes) + part

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.3:
            return havoc(pick, seed[:10], other, grow=False) + seed[10:]
        front = 10 + 32 * seed[9] + 200
        if pick.chance() < 0.5:
            return havoc(pick, seed[:front], other, grow=False) + seed[front:]
        return havoc(pick, seed, other, grow=pick.chance() < 0.3)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        return seed[:10] + (data[: len(seed)] + seed[len(data) :])[10:]

    def run(self, data: bytes) -> bool:
        if len(data) < 10:
            return False
        size = SIZES[data[0] % len(SIZES)]
        offset, length = int.from_bytes(data[1:5], "big"), int.from_bytes(data[5:9], "big")
        body = 10 + 32 * data[9]
        nodes = [data[at : at + 32] for at in range(10, body, 32)]
        sent = data[body:]
        try:
            verifier = RangeVerifier(TREES[size].shard_id(), size, offset, length, nodes)
        except ProofError:
            return False
        try:
            for at in range(0, len(sent), 5000):
                verifier.update(sent[at : at + 5000])
            verifier.finish()
        except ProofError:
            return True
        assert sent == CONTENTS[size][offset : offset + length], "false bytes were believed"
        return True


TARGETS: Final = (AuditAnswer, RangeAnswer)
