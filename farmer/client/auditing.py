"""Challenging a farmer, and judging its answers against what the receipts say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import BinaryIO, Final, Self

from farmer.audit.full import FullDigest
from farmer.audit.proof import ProofError, verify_sample
from farmer.audit.tree import TreeHasher
from farmer.client.limits import HASHED_BYTES_PER_S_MIN
from farmer.client.patience import Patience
from farmer.client.refusals import (
    AuditBudgetError,
    BusyError,
    DrainingError,
    RefusedError,
    UnavailableError,
    error_of,
)
from farmer.client.session import Session
from farmer.model.audit import SAMPLES_MAX, AuditEntry, AuditKind, Challenge, SampleProof
from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES, LEAF_BYTES, leaf_count
from farmer.protocol.connection import DataReceived
from farmer.protocol.fields import LayoutError
from farmer.protocol.limits import (
    ANSWER_S,
    AUDIT_ENTRIES_MAX,
    DATA_BYTES_SENT,
    RATE_BYTES_PER_S_MIN,
)
from farmer.protocol.opening import End
from farmer.protocol.proofs import FullProof, ProofItem, ProofItemReader
from farmer.protocol.refusals import Refused
from farmer.protocol.transfers import Audit

SAMPLES_IN_ALL: Final = 460
"""So many sampled leaves over all shards find a loss of 1 % with a probability of 99 %."""

SAMPLES_PER_SHARD_MAX: Final = 20
"""Of one shard without further wish: finds half a lost shard for certain, in 20 small reads."""


NOT_YET: Final = (AuditBudgetError, BusyError, UnavailableError, DrainingError)
"""
What a farmer may say in place of a proof that is neither passed nor failed.

It is not passed either, however often it is said: who audits has to watch how long.
"""


class Verdict(Enum):
    """What an audit found out about one shard."""

    PASSED = "passed"
    FAILED = "failed"
    POSTPONED = "postponed"
    """Not yet an answer, neither good nor bad: see `NOT_YET`."""


@dataclass(frozen=True, slots=True)
class Audited:
    """The verdict on one shard, and why if it is not `PASSED`."""

    shard: ShardId
    verdict: Verdict
    reason: str = ""
    refusal: RefusedError | None = field(default=None, compare=False)
    """What the farmer said in place of a proof, if it did."""

    @classmethod
    def refused(cls, shard: ShardId, error: RefusedError) -> Self:
        """Return the verdict on a shard that was not proved."""
        verdict = Verdict.POSTPONED if isinstance(error, NOT_YET) else Verdict.FAILED
        return cls(shard, verdict, str(error), error)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The verdicts on all shards of an audit, in the order asked."""

    shards: tuple[Audited, ...]

    def of(self, verdict: Verdict) -> tuple[Audited, ...]:
        """Return those with one verdict."""
        return tuple(one for one in self.shards if one.verdict is verdict)

    @property
    def is_pass(self) -> bool:
        """True if something was proved and nothing failed; auditing nothing is not a pass."""
        return bool(self.of(Verdict.PASSED)) and not self.of(Verdict.FAILED)

    @property
    def is_complete(self) -> bool:
        """True if every shard was answered for, well or badly."""
        return not self.of(Verdict.POSTPONED)


def samples_for(shards: int) -> int:
    """Return how many leaves to sample of each of so many shards, when nobody says."""
    return max(1, min(SAMPLES_PER_SHARD_MAX, -(-SAMPLES_IN_ALL // max(1, shards))))


def batches(entries: Iterable[AuditEntry]) -> Iterator[tuple[AuditEntry, ...]]:
    """Return the entries in groups that fit one challenge each."""
    batch: list[AuditEntry] = []
    samples = 0
    for entry in entries:
        if len(batch) == AUDIT_ENTRIES_MAX or samples + entry.samples > SAMPLES_MAX:
            yield tuple(batch)
            batch, samples = [], 0
        batch.append(entry)
        samples += entry.samples
    if batch:
        yield tuple(batch)


def sample_entry(shard: ShardId, size_bytes: int, samples: int) -> AuditEntry:
    """Return an entry of a sample audit; a shard has only so many leaves to ask for."""
    if not 1 <= samples <= SAMPLES_MAX:
        raise ValueError(f"between 1 and {SAMPLES_MAX} samples of a shard, not {samples}")
    return AuditEntry(shard, size_bytes, min(samples, leaf_count(size_bytes)))


async def answers(session: Session, challenge: Challenge) -> list[ProofItem]:
    """
    Send a challenge and return its items, one for each entry, not yet judged.

    Raises:
        RefusedError, ConnectionLostError, FarmerBrokeProtocolError.

    """
    patience, reader = Patience(_answer_s(challenge)), ProofItemReader(challenge)
    items: list[ProofItem] = []
    session.wire.send(Audit(challenge))
    try:
        while True:
            event = await session.wire.next_event(patience)
            if isinstance(event, DataReceived):
                items += reader.feed(bytes(event.data))
            elif isinstance(event, End):
                reader.end()
                return items
            else:
                raise session.failure_of(event)
    except LayoutError as error:
        raise session.broke(str(error)) from error


def judge_samples(challenge: Challenge, items: list[ProofItem]) -> tuple[Audited, ...]:
    """Return the verdict on each shard of a sample audit; hashes, so keep it off the reactor."""
    return tuple(
        _judge_sample(challenge.nonce, entry, item)
        for entry, item in zip(challenge.entries, items, strict=True)
    )


def judge_full(entry: AuditEntry, item: ProofItem, digest: bytes) -> Audited:
    """Return the verdict on one shard of a full audit, whose right answer is *digest*."""
    match item:
        case Refused():
            return Audited.refused(entry.shard, error_of(item))
        case FullProof(answer) if answer == digest:
            return Audited(entry.shard, Verdict.PASSED)
        case _:
            return Audited(entry.shard, Verdict.FAILED, "the digest over the shard is wrong")


def postponed(entries: Iterable[AuditEntry], error: RefusedError) -> tuple[Audited, ...]:
    """Return the verdicts when the whole challenge was answered by one of `NOT_YET`."""
    return tuple(Audited.refused(entry.shard, error) for entry in entries)


def full_digest(shard: ShardId, nonce: bytes, file: BinaryIO) -> tuple[bytes, bool]:
    """
    Return a full audit's right answer, and whether the file is that shard; blocking.

    Reads the file from where it stands to its end.
    """
    digest, hasher = FullDigest(nonce, shard), TreeHasher()
    while part := file.read(DATA_BYTES_SENT):
        digest.update(part)
        hasher.update(part)
    return digest.finish(), hasher.finish().shard_id() == shard


def _judge_sample(nonce: bytes, entry: AuditEntry, item: ProofItem) -> Audited:
    if isinstance(item, Refused):
        return Audited.refused(entry.shard, error_of(item))
    assert isinstance(item, SampleProof), "the reader gives what the challenge asked for"
    try:
        verify_sample(entry.shard, entry.size_bytes, nonce, entry.samples, item)
    except ProofError as error:
        return Audited(entry.shard, Verdict.FAILED, f"wrong proof: {error}")
    return Audited(entry.shard, Verdict.PASSED)


def _answer_s(challenge: Challenge) -> float:
    """Return how long a farmer may take: to begin, to read what was asked for, to send it."""
    if challenge.kind is AuditKind.FULL:
        read_bytes, sent_bytes = sum(entry.size_bytes for entry in challenge.entries), 0
    else:
        samples = sum(entry.samples for entry in challenge.entries)
        read_bytes, sent_bytes = samples * BLOCK_BYTES, samples * LEAF_BYTES
    reading_s = read_bytes / HASHED_BYTES_PER_S_MIN
    return ANSWER_S + reading_s + sent_bytes / RATE_BYTES_PER_S_MIN
