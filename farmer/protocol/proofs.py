"""
The answers inside an AUDIT's DATA stream: one item for each entry, in the order asked.

The stream is the items one after the other; frames cut it anywhere.

    Item   0   2    refusal (refusals.py), 0 when a proof follows
           2   2    n, number of leaves
           4   2    length of the last of them, 0 when there are none
           6   2    m, number of nodes
           8   8    the refusal's first number; 0 with a proof
           16  8    the refusal's second number; 0 with a proof
           24  -    n leaves, ascending, 4096 bytes each but for the last
           -   32m  m nodes, from left to right

Refused: no leaves, no nodes.  Full audit: no leaves, and one node, the digest.  Sample audit:
as many leaves as were asked for, or all if the shard has fewer; which ones follows from nonce,
shard id and size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from farmer.model.audit import AuditEntry, AuditKind, Challenge, SampleProof
from farmer.model.shard import LEAF_BYTES, leaf_count
from farmer.protocol.fields import LayoutError, Reader, u16, u64
from farmer.protocol.refusals import Refusal, Refused

ITEM_HEAD_BYTES: Final = 24
NODE_BYTES: Final = 32

_PROOF_FOLLOWS: Final = 0


@dataclass(frozen=True, slots=True)
class FullProof:
    """The answer of a full audit: 32 bytes."""

    digest: bytes


ProofItem = SampleProof | FullProof | Refused


def encode_item(item: ProofItem) -> bytes:
    """Return one item as it stands in the stream."""
    match item:
        case Refused(refusal, first, second):
            return _Head(refusal, 0, 0, 0, first, second).body()
        case FullProof(digest):
            return _Head(_PROOF_FOLLOWS, 0, 0, 1).body() + digest
        case SampleProof(leaves, nodes):
            head = encode_sample_head(len(leaves), len(leaves[-1]), len(nodes))
            return b"".join((head, *leaves, *nodes))


def encode_sample_head(leaves: int, last_leaf_bytes: int, nodes: int) -> bytes:
    """Return the head of a sample proof, for who sends leaves and nodes behind it by himself."""
    return _Head(_PROOF_FOLLOWS, leaves, last_leaf_bytes, nodes).body()


class ProofItemReader:
    """
    Reads the items of one challenge from the stream, in whatever slices it comes.

    Holds less than one item and one slice; how large an item may be follows from its entry.
    """

    def __init__(self, challenge: Challenge) -> None:
        self._kind = challenge.kind
        self._open = list(reversed(challenge.entries))
        self._buffer = bytearray()
        self._head: _Head | None = None

    def feed(self, data: bytes) -> list[ProofItem]:
        """
        Take the next bytes; return the items that are whole now, in order.

        Raises:
            LayoutError: nothing that the challenge could be answered with.

        """
        self._buffer += data
        items = []
        while (item := self._take()) is not None:
            items.append(item)
        if self._buffer and not self._open:
            raise LayoutError(f"{len(self._buffer)} bytes after the last audit item")
        return items

    def end(self) -> None:
        """Raise `LayoutError` unless every entry was answered."""
        if self._open:
            raise LayoutError(f"{len(self._open)} audit entries were not answered")

    def _take(self) -> ProofItem | None:
        """Return the next whole item, or None if it has not yet arrived."""
        if self._head is None:
            if not self._open or len(self._buffer) < ITEM_HEAD_BYTES:
                return None
            self._head = _Head.read(Reader(self._cut(ITEM_HEAD_BYTES)))
            self._head.check(self._kind, self._open[-1])
        head = self._head
        if len(self._buffer) < head.tail_bytes:
            return None
        self._head = None
        self._open.pop()
        return head.item(self._kind, Reader(self._cut(head.tail_bytes)))

    def _cut(self, size: int) -> bytes:
        part = bytes(self._buffer[:size])
        del self._buffer[:size]
        return part


@dataclass(frozen=True, slots=True)
class _Head:
    """The first 24 bytes of an item."""

    refusal: int
    leaves: int
    last_leaf_bytes: int
    nodes: int
    first: int = 0
    second: int = 0

    def body(self) -> bytes:
        counts = u16(self.leaves) + u16(self.last_leaf_bytes) + u16(self.nodes)
        return u16(self.refusal) + counts + u64(self.first) + u64(self.second)

    @classmethod
    def read(cls, reader: Reader) -> _Head:
        refusal, leaves, last, nodes = (reader.u16() for _ in range(4))
        return cls(refusal, leaves, last, nodes, reader.u64(), reader.u64())

    @property
    def tail_bytes(self) -> int:
        """What follows the head."""
        full_leaves = max(0, self.leaves - 1)
        return full_leaves * LEAF_BYTES + self.last_leaf_bytes + self.nodes * NODE_BYTES

    def check(self, kind: AuditKind, entry: AuditEntry) -> None:
        """Raise `LayoutError` unless this can head the answer to an entry."""
        if self.refusal != _PROOF_FOLLOWS:
            self._check_refused()
        elif self.first or self.second:
            raise LayoutError("an audit item with a proof and with a refusal's numbers")
        elif kind is AuditKind.FULL:
            if (self.leaves, self.last_leaf_bytes, self.nodes) != (0, 0, 1):
                raise LayoutError("a full proof is one digest and nothing else")
        else:
            self._check_sample(entry)

    def _check_refused(self) -> None:
        if self.refusal not in Refusal.__members__.values():
            raise LayoutError(f"an audit item with an unknown refusal {self.refusal}")
        if self.leaves or self.last_leaf_bytes or self.nodes:
            raise LayoutError("a refused audit item with leaves or nodes")

    def _check_sample(self, entry: AuditEntry) -> None:
        count = leaf_count(entry.size_bytes)
        expected = min(entry.samples, count)
        shortest = entry.size_bytes - (count - 1) * LEAF_BYTES
        if self.leaves != expected:
            raise LayoutError(f"a sample proof of {self.leaves} leaves, not {expected}")
        if self.last_leaf_bytes not in (shortest, LEAF_BYTES):
            raise LayoutError(f"no leaf of the shard has {self.last_leaf_bytes} bytes")
        # One node per level and leaf at most: no proof needs more, so none may send more.
        if self.nodes > expected * (count - 1).bit_length():
            raise LayoutError(f"{self.nodes} nodes are more than the tree can ask for")

    def item(self, kind: AuditKind, tail: Reader) -> ProofItem:
        """Return the item that this heads."""
        if self.refusal != _PROOF_FOLLOWS:
            return Refused(Refusal(self.refusal), self.first, self.second)
        if kind is AuditKind.FULL:
            return FullProof(tail.rest())
        leaves = [tail.raw(LEAF_BYTES) for _ in range(self.leaves - 1)]
        leaves.append(tail.raw(self.last_leaf_bytes))
        return SampleProof(tuple(leaves), tuple(tail.raw(NODE_BYTES) for _ in range(self.nodes)))
