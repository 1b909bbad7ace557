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
    def contradictions(self) -> int:
        """
        How often an index may turn out to say something else than the log by this.

        When it was put into a wrong place: once for what it lies over, and once for each of its
        records, of which an index made again may have what lay in the page cache only, or has
        been given back from within another one.
        """
        is_in_the_log = self.instead >= 0 and "log/" in self.where
        return 1 + sum(1 for _ in _records(self.raw)) if is_in_the_log else 0

    def falls_on(self, stretch: Stretch | None) -> bool:
        """Say whether it was put upon some of that."""
        if stretch is None or stretch.node is not self.node or self.instead < 0:
            return False
        return self.instead < stretch.end and stretch.start < self.instead + len(self.raw)


class WrongPlaces:
    """How often the farmer may still give up which index, for what its disk has put elsewhere."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        """By drive."""
        self._in_question: set[str] = set()
        """Drives whose index is given up, and not yet made again."""

    def note(self, drive: str, betrayal: Betrayal) -> None:
        """Note what a disk has done."""
        if betrayal.contradictions:
            self._left[drive] = self._left.get(drive, 0) + betrayal.contradictions

    def excuse(self, drive: str) -> bool:
        """Say whether an index may be given up; once given up it may be so until it is made."""
        if drive not in self._in_question:
            if not self._left.get(drive):
                return False
            self._left[drive] -= 1
            self._in_question.add(drive)
        return True

    def index_is_made(self, drive: str) -> bool:
        """Say whether what was harmed may have gone, or have become whole, by that."""
        self._in_question.discard(drive)
        return drive in self._left


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
