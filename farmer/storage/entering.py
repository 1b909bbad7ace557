"""
Records that a walk over the log has found, and how they come into the index.

A record that is in doubt may have been torn by a crash, and was then promised to nobody; or the
disk has damaged it since.  It is entered as damaged, but takes nothing from an older record
that has more of its shard.
"""

from __future__ import annotations

import errno
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from typing import Final

from farmer.storage.bulk import PLAIN_ROW_BYTES, PlainRow, last_sequence, offset_of
from farmer.storage.damage import Examination, examine
from farmer.storage.directory import Paths
from farmer.storage.files import Access, Files
from farmer.storage.marks import MARK_BYTES, Action, decode_marks
from farmer.storage.met import read_met
from farmer.storage.operations import row_of
from farmer.storage.places import Place, Row
from farmer.storage.records import Kind
from farmer.storage.scan import Found
from farmer.storage.transaction import Transaction
from farmer.storage.wiping import wipe

_FOUND_BYTES: Final = 1024
_PER_BYTE_OF_MARKS: Final = 4
"""A mark of a hundred bytes may give a record up, of which the transaction tells."""


class Gathered:
    """What has been found and is not yet entered, in the order of the log."""

    def __init__(self, files: Files, paths: Paths) -> None:
        self._files = files
        self._paths = paths
        self._found: list[tuple[int, Found]] = []
        """With their segments."""
        self._plain: defaultdict[int, list[PlainRow]] = defaultdict(list)
        """By segment."""
        self._taken: Counter[int] = Counter()
        """How many of these are entered already."""
        self._doubted: set[Place] = set()
        self._refused: set[int] = set()
        """Sequences of those that were less than an older record."""
        self.entries = 0
        """How many shards and marks there are."""
        self.memory_bytes = 0
        """What they take, and will take while they are entered; about."""

    @cached_property
    def _met(self) -> int:
        """
        The sequence below which no tombstone means anything.

        Only asked for if there are any: a bad sector under it concerns nobody else.
        """
        return read_met(self._files, self._paths.root)

    def add_plain(self, number: int, rows: list[PlainRow]) -> None:
        """Take some plain records of a segment."""
        self._plain[number] += rows
        self.entries += len(rows)
        self.memory_bytes += len(rows) * PLAIN_ROW_BYTES

    def add(self, number: int, found: Found, *, is_doubted: bool) -> None:
        """Take another record of a segment, which may be *in doubt*: see the module."""
        self._found.append((number, found))
        self.entries += 1 + len(found.payload) // MARK_BYTES
        self.memory_bytes += _FOUND_BYTES + _PER_BYTE_OF_MARKS * len(found.payload)
        if is_doubted:
            self._doubted.add(Place(number, found.offset))

    def clear(self) -> None:
        """Begin anew: all of it is entered."""
        self._found.clear()
        self._plain.clear()
        self._taken.clear()
        self._doubted.clear()
        self.entries = self.memory_bytes = 0

    @property
    def last_sequence(self) -> int:
        """The highest sequence among them; 0 without any."""
        found = [found.header.sequence for _, found in self._found]
        return max([*found, *map(last_sequence, self._plain.values())], default=0)

    def enter(self, transaction: Transaction) -> Counter[int]:
        """
        Enter all of it; return how many bytes of which segments were given back.

        Raises:
            OSError: an old record could not be compared with a doubted one, or that could not be
                wiped off.
            IndexDamagedError: as `Transaction.put_plain`.

        """
        if self._doubted:
            return self._enter_in_order(transaction)
        # Shards first: a mark speaks of sequences below its own only, so that it comes after
        # whatever it means, and means nothing that comes after it.
        transaction.put_plain(self._plain)
        for number, found in self._found:
            if found.header.kind is Kind.SHARD:
                transaction.put(row_of(found.header, Place(number, found.offset)))
        for number, found in self._found:
            if found.header.kind is Kind.MARKS:
                self._apply(transaction, number, found)
        return Counter()

    def _enter_in_order(self, transaction: Transaction) -> Counter[int]:
        """
        Do it in the order of the log.

        Only so is it known whether there was another record of a shard when one was written
        that is in doubt now.
        """
        given_back = Counter[int]()
        for number, found in self._found:
            place = Place(number, found.offset)
            transaction.put_plain(self._take_plain_before(place))
            if found.header.kind is Kind.MARKS:
                self._apply(transaction, number, found)
                continue
            row = row_of(found.header, place)
            if place in self._doubted and self._is_less(transaction, row):
                given_back[number] += self._refuse(transaction, row)
            else:
                transaction.put(row)
        transaction.put_plain(self._take_plain_before(Place(sys.maxsize, 0)))
        return given_back

    def _take_plain_before(self, place: Place) -> dict[int, list[PlainRow]]:
        """Return the plain records of the log before this place that were not yet taken."""
        before = {}
        for number in [*takewhile(lambda number: number <= place.segment, self._plain)]:
            rows, taken = self._plain[number], self._taken[number]
            if number == place.segment:
                end = bisect_left(rows, place.offset, lo=taken, key=offset_of)
                self._taken[number] = end
                before[number] = rows[taken:end]
            else:
                before[number] = self._plain.pop(number)[taken:]
        return before

    def _is_less(self, transaction: Transaction, row: Row) -> bool:
        """
        Say whether an older record has more of a shard than a doubted one.

        It need not be what the index says: it may have been given back, and the index, which is
        not synced each time, not know it any more.
        """
        there = transaction.find(row.renter, row.shard)
        if there is None or there.sequence >= row.sequence:
            return False
        return len(self._examined(there).bad_blocks) < len(self._examined(row).bad_blocks)

    def _examined(self, row: Row) -> Examination:
        path, start = self._paths.segment(row.place.segment), row.place.offset
        if not self._files.exists(path):
            return Examination.of_nothing(row.size_bytes)
        fd = self._files.open(path, Access.READ)
        try:
            return examine(lambda at, length: self._files.pread(fd, length, start + at), row)
        finally:
            self._files.close(fd)

    def _refuse(self, transaction: Transaction, row: Row) -> int:
        """
        Have a record that is less than an older one found by no later walk.

        It may not look as closely, and would take it for the newer one.
        """
        path = self._paths.segment(row.place.segment)
        self._refused.add(row.sequence)
        try:
            return wipe(self._files, path, row.place.offset, row.charge_bytes)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            transaction.give_up(row)
            return 0

    def _apply(self, transaction: Transaction, number: int, found: Found) -> None:
        place = Place(number, found.offset)
        transaction.add_marks(found.header.sequence, place, found.header.record_bytes)
        for mark in decode_marks(found.payload):
            if mark.action is Action.QUARANTINE and mark.sequence in self._refused:
                continue  # of that very record; what ends it ends the older one, too
            is_over = mark.action is Action.TOMBSTONE and found.header.sequence < self._met
            transaction.apply(replace(mark, action=Action.GONE) if is_over else mark)
