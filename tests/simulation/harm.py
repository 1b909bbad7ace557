"""Whom a media fault touches: the shards whose records lie there, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from farmer.model.ids import NodeId, ShardId
from farmer.storage.marks import are_marks, decode_marks
from farmer.storage.records import DamagedError, Kind, RecordHeader, decode_record, tree_offset
from tests.simulation.nodes import BLOCK, Node

Key = tuple[NodeId, ShardId]


@dataclass(frozen=True)
class Stretch:
    """Where a record lies in a file."""

    node: Node
    start: int
    end: int


@dataclass(frozen=True)
class Betrayal:
    """A write that the disk lost though it said that it was synced, or put somewhere else."""

    node: Node
    where: str
    offset: int
    raw: bytes
    instead: int = -1
    """Where in the same file it was put."""

    @property
    def is_of_records(self) -> bool:
        """Whether the file holds records."""
        return any(f"{folder}/" in self.where for folder in ("log", "shards", "staging"))

    @property
    def is_in_a_wrong_place(self) -> bool:
        """Whether what belongs into the log was put over something else of it."""
        return self.instead >= 0 and "log/" in self.where

    def falls_on(self, stretch: Stretch | None) -> bool:
        """Say whether it was put upon some of that."""
        if stretch is None or stretch.node is not self.node or self.instead < 0:
            return False
        return self.instead < stretch.end and stretch.start < self.instead + len(self.raw)


def touched_by(betrayal: Betrayal) -> set[Key]:
    """Return the shards that the write spoke of, and whose headers stand where it was put."""
    if "log/" not in betrayal.where:
        return _of_one_file(betrayal.node)
    keys = _spoken_of(betrayal.raw, 0, len(betrayal.raw))
    if betrayal.instead >= 0:
        end = betrayal.instead + len(betrayal.raw)
        keys |= _spoken_of(bytes(betrayal.node.platter), betrayal.instead, end)
    return keys


def _of_one_file(node: Node) -> set[Key]:
    for side in (node.cached, node.platter):
        try:
            header = decode_record(bytes(side[:256]), bytes(side[16:32]), "")
        except DamagedError:
            continue
        return {(header.renter, header.shard)}
    return set()


def _spoken_of(raw: bytes, start: int, end: int) -> set[Key]:
    """Return whose records, and whose marks, overlap a range of a stretch of the log."""
    keys: set[Key] = set()
    for at, header in _records(raw):
        if at >= end or at + header.record_bytes <= start:
            continue
        if header.kind is Kind.SHARD:
            keys.add((header.renter, header.shard))
        payload = raw[at + 256 : at + tree_offset(header.payload_bytes)]
        if header.kind is Kind.MARKS and are_marks(payload):
            keys |= {(mark.renter, mark.shard) for mark in decode_marks(payload)}
    return keys


def _records(raw: bytes) -> Iterator[tuple[int, RecordHeader]]:
    at = 0
    while at + 256 <= len(raw):
        try:
            header = decode_record(raw[at : at + 256], raw[at + 16 : at + 32], "")
        except DamagedError:
            at += BLOCK
            continue
        yield at, header
        at += header.record_bytes
