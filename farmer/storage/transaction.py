"""
One change of the index: rows, places, totals and position, all or nothing.

The same methods serve the running volume, the replay of the log after a crash, and a
rebuild from nothing; so what they do with a record depends on sequences alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, starmap
from typing import Final, Literal

from farmer.model.contract import TRASH_MS
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import ShardState
from farmer.storage.bulk import PlainRow, enter, offset_of, row_of_plain
from farmer.storage.marks import Action, Mark
from farmer.storage.places import Doomed, Place, Position, Row, Segment, raw_key
from farmer.storage.quota import SMALL_BYTES_MAX, Changes, Tally
from farmer.storage.remembered import Remembered
from farmer.storage.tombstones import Tombstone, Tombstones

ROW: Final = (
    "SELECT r.renter, s.shard, s.segment, s.offset, s.file, s.size, c.contract, s.stored,"
    " s.sequence, s.state, s.gone, s.observed, s.damaged, s.alone FROM shards s"
    " JOIN renters r ON r.id = s.renter JOIN contracts c ON c.id = s.contract"
)
"""The columns of `Row.of`."""

FIND_ROW: Final = f"{ROW} WHERE r.renter = ? AND s.shard = ?"

DOOMED_OF: Final = (
    "SELECT d.sequence, d.segment, d.offset, d.length, d.file FROM doomed d"
    " JOIN renters r ON r.id = d.renter WHERE r.renter = ? AND d.shard = ?"
)
"""The columns of `Doomed.of`."""

_LAST_OF: Final = (
    "SELECT renter, shard FROM shards WHERE (renter, shard) > (?, ?) ORDER BY renter, shard"
    " LIMIT 1 OFFSET ?"
)
_BETWEEN: Final = (
    f"{ROW} WHERE (s.renter, s.shard) > (?, ?) AND (s.renter, s.shard) <= (?, ?)"
    " AND s.segment = ? AND s.offset >= ? AND s.offset < ?"
)
_BEFORE_ALL: Final = (0, b"")
_BEHIND_ALL: Final = ((1 << 63) - 1, b"")

_DROP: Final = "DELETE FROM {} WHERE sequence BETWEEN ? AND ? AND segment = ?"
"""Along the sequences, by which both tables are kept: a segment's stand side by side."""

_ROWS_AT_ONCE: Final = 64 * 1024
"""Rows that lie side by side, read by one query: 10 MiB."""

_INSERT: Final = "INSERT OR IGNORE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_ADD_USAGE: Final = (
    "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (renter) DO UPDATE SET"
    " live = live + excluded.live, trash = trash + excluded.trash,"
    " shards = shards + excluded.shards, files = files + excluded.files,"
    " quarantined = quarantined + excluded.quarantined"
)

_ENDS: Final = frozenset({Action.GONE, Action.TOMBSTONE})
_TRASHES: Final = frozenset({Action.TRASH, Action.TRASH_ALONE})

_REFS: Final = {
    "renter": (
        "INSERT INTO renters (renter) VALUES (?)",
        "SELECT id FROM renters WHERE renter = ?",
    ),
    "contract": (
        "INSERT INTO contracts (contract) VALUES (?)",
        "SELECT id FROM contracts WHERE contract = ?",
    ),
}


class Transaction:
    """Made by `farmer.storage.index.Index.transaction`; used inside its block only."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        known: Remembered,
        *,
        has_tombstones: bool,
        lists_entered: bool = True,
    ) -> None:
        """Begin; *has_tombstones* is False only if there is none."""
        self._sql = connection
        self._known = known
        self._idle_before: dict[int, int] = {}
        """Idle bytes, before this transaction, of the segments that it may change."""
        self.changes_rows = False
        """Whether a row that was there is changed or removed."""
        self.entered: list[bytes] = []
        """The raw keys of what got a row or a tombstone here; empty unless they are listed."""
        self._lists_entered = lists_entered
        self.tombstones = Tombstones(connection, exist=has_tombstones)
        self.changes = Changes()
        """What changes for the ledger; complete after the block."""
        self.doomed: list[Doomed] = []
        """Records that lost their row here, and others whose space is to come back with theirs."""
        self.not_to_be_read: list[Place] = []
        """Those of them that are given up for good, so that their readers have to end."""

    def find(self, renter: NodeId, shard: ShardId) -> Row | None:
        """Return a shard as it is with the changes so far."""
        columns = self._sql.execute(FIND_ROW, (renter.raw, shard.raw)).fetchone()
        return Row.of_key(renter, shard, columns) if columns else None

    def rows_between(self, segment: int, start: int, end: int) -> list[Row]:
        """Return what lies in a stretch of the log; looks at every row."""
        found: list[Row] = []
        after: tuple[int, bytes] | None = _BEFORE_ALL
        while after is not None:
            # One question for all rows would, with many, count as a disk that hangs.
            until = self._sql.execute(_LAST_OF, (*after, _ROWS_AT_ONCE - 1)).fetchone()
            here = (*after, *(until or _BEHIND_ALL))
            rows = self._sql.execute(_BETWEEN, (*here, segment, start, end)).fetchall()
            found += [Row.of(columns) for columns in rows]
            after = until
        return found

    def put(self, row: Row) -> None:
        """Enter a record; of two records of one shard the higher sequence counts."""
        stone = self.tombstones.find(row.renter, row.shard)
        if stone is not None and stone.sequence >= row.sequence:
            self._doom(row)
            return
        if stone is not None:
            self.tombstones.lift(row.renter, row.shard)
        if self._insert(row):
            return
        there = self.find(row.renter, row.shard)
        assert there is not None
        if there.sequence < row.sequence:
            self._remove(there)
            self._doom(there)
            self._insert(row)
        elif there.sequence > row.sequence:
            self._doom(row)

    def correct(self, row: Row) -> None:
        """Enter a record whatever the index says of its shard; nothing is given up by that."""
        there = self.find(row.renter, row.shard)
        if there is not None:
            self._remove(there)
        self._insert(row)

    def put_plain(self, rows: Mapping[int, Sequence[PlainRow]]) -> None:
        """
        Enter many live small shards, by segment, as `put` does, in the order of the pages.

        Raises:
            IndexDamagedError: it has one that stands behind what it knows of a segment.

        """
        everything = list(chain.from_iterable(rows.values()))
        if self.tombstones.exist or any(starmap(self._knows_some, rows.items())):
            self._put_each(everything)
            return
        entered = enter(
            self._sql,
            everything,
            lambda raw: self._ref("renter", raw),
            lambda raw: self._ref("contract", raw),
        )
        for (renter, segment), charge in entered.charges.items():
            self.changes.of(NodeId(renter)).live_bytes += charge
            self._segment(segment).live_bytes += charge
        for renter, shards in entered.shards.items():
            self.changes.of(NodeId(renter)).shards += shards
        self._put_each(entered.others)

    def _put_each(self, rows: Iterable[PlainRow]) -> None:
        for plain in rows:
            self.put(row_of_plain(plain))

    def _knows_some(self, segment: int, rows: Iterable[PlainRow]) -> bool:
        """Say whether one of a segment's rows stands before the end that it has in the index."""
        known_bytes = self._segment(segment).size_bytes
        return known_bytes > 0 and min(map(offset_of, rows), default=known_bytes) < known_bytes

    def apply(self, mark: Mark) -> None:
        """Do to a shard what a mark says, unless a later record of it was written."""
        row = self.find(mark.renter, mark.shard)
        if row is not None and row.sequence > mark.sequence:
            return
        if mark.action in _ENDS:
            self._end(row, mark)
            return
        if row is None:
            return
        self.changes_rows = True
        self._count(row, -1)
        after = _consequence(row, mark)
        self._sql.execute(
            "UPDATE shards SET state = ?, gone = ?, observed = ?, damaged = ?, alone = ?"
            " WHERE renter = (SELECT id FROM renters WHERE renter = ?) AND shard = ?",
            (
                after.state,
                after.gone_at_ms,
                after.observed_ms,
                after.is_damaged,
                after.alone_ms,
                row.renter.raw,
                row.shard.raw,
            ),
        )
        self._count(after, 1)

    def give_up(self, row: Row) -> None:
        """Have a record's space given back that has no row."""
        self._doom(row)

    def met_all(self, row: Row) -> None:
        """Note that no older copy of a shard is left anywhere."""
        self.changes_rows = True
        self._sql.execute(
            "UPDATE shards SET alone = 0 WHERE shard = ? AND sequence = ?"
            " AND renter = (SELECT id FROM renters WHERE renter = ?)",
            (row.shard.raw, row.sequence, row.renter.raw),
        )

    def open_segment(self, number: int, uuid: bytes) -> None:
        """Enter a segment of the log."""
        self._sql.execute("INSERT OR IGNORE INTO segments VALUES (?, ?, 0, 0, 0)", (number, uuid))

    def grow_segment(self, number: int, size_bytes: int, holes_bytes: int = 0) -> None:
        """Note how far a segment reaches now, and how much of the new part is holes."""
        self._segment(number).size_bytes = size_bytes
        self._segment(number).punched_bytes += holes_bytes

    def drop_segment(self, number: int, span: tuple[int, int]) -> None:
        """
        Forget a segment whose file is gone; nothing in it may be alive.

        *span* is that of the index: a store waits for this, and all that is listed of the other
        segments need not be looked through for it.
        """
        segment = self._segment(number)
        assert segment.live_bytes == 0, segment
        self.changes.log_bytes -= self._idle_before.pop(number)
        del self._known.segments[number]
        for table in ("marks", "doomed"):
            self._sql.execute(_DROP.format(table), (*span, number))
        self._sql.execute("DELETE FROM segments WHERE number = ?", (number,))

    def add_marks(self, sequence: int, place: Place, length: int) -> None:
        """Note where a marks record is."""
        self._sql.execute(
            "INSERT OR IGNORE INTO marks VALUES (?, ?, ?, ?)",
            (sequence, place.segment, place.offset, length),
        )

    def drop_marks(self, record: Doomed) -> None:
        """Note that a marks record has been given back to the filesystem."""
        gone = self._sql.execute("DELETE FROM marks WHERE sequence = ?", (record.sequence,))
        if gone.rowcount:
            self._segment(record.place.segment).punched_bytes += record.length

    def release(self, record: Doomed) -> None:
        """Note that a doomed record has been given back to the filesystem."""
        gone = self._sql.execute("DELETE FROM doomed WHERE sequence = ?", (record.sequence,))
        if not gone.rowcount:
            return
        if record.place.segment:
            self._segment(record.place.segment).punched_bytes += record.length
        else:
            self.changes.log_bytes -= record.length

    def doomed_of(self, renter: NodeId, shard: ShardId, limit: int) -> list[Doomed]:
        """Return given-up records of a shard that are still on the disk."""
        rows = self._sql.execute(f"{DOOMED_OF} LIMIT ?", (renter.raw, shard.raw, limit))
        return [Doomed.of(row) for row in rows]

    def has_doomed(self, renter: NodeId, shard: ShardId) -> bool:
        """Say whether there is any."""
        return bool(self.doomed_of(renter, shard, 1))

    def stage(self, file: bytes) -> None:
        """Note that a stored shard's file lies in the staging directory."""
        self._sql.execute("INSERT OR IGNORE INTO staged VALUES (?)", (file,))

    def unstage(self, file: bytes) -> None:
        """Note that it does not any more."""
        self._sql.execute("DELETE FROM staged WHERE file = ?", (file,))

    def set_position(self, position: Position) -> None:
        """Note up to where in the log the index is right."""
        self._sql.execute(
            "UPDATE state SET segment = ?, offset = ?, next_sequence = max(next_sequence, ?)",
            (position.segment, position.offset, position.next_sequence),
        )

    def raise_sequence(self, next_sequence: int) -> None:
        """Note that sequences below this one are taken."""
        self._sql.execute(
            "UPDATE state SET next_sequence = max(next_sequence, ?)", (next_sequence,)
        )

    def flush(self) -> None:
        """Write the totals; the last step."""
        for number, idle_before in self._idle_before.items():
            segment = self._known.segments[number]
            self.changes.log_bytes += segment.idle_bytes - idle_before
            self._sql.execute(
                "UPDATE segments SET size = ?, live = ?, punched = ? WHERE number = ?",
                (segment.size_bytes, segment.live_bytes, segment.punched_bytes, number),
            )
        for renter, tally in self.changes.renters.items():
            self._add_usage(renter, tally)

    def _add_usage(self, renter: NodeId, tally: Tally) -> None:
        ref = self._ref("renter", renter.raw)
        self._sql.execute(
            _ADD_USAGE,
            (
                ref,
                tally.live_bytes,
                tally.trash_bytes,
                tally.shards,
                tally.files,
                tally.quarantined,
            ),
        )
        if tally.shards <= 0:
            self._sql.execute("DELETE FROM usage WHERE renter = ? AND shards = 0", (ref,))

    def _insert(self, row: Row) -> bool:
        """Enter a row if its shard has none; say whether that was so."""
        is_new = self._sql.execute(_INSERT, self._columns(row)).rowcount == 1
        if is_new:
            self._count(row, 1)
            self._list(row.renter, row.shard)
        return is_new

    def _list(self, renter: NodeId, shard: ShardId) -> None:
        if self._lists_entered:
            self.entered.append(raw_key(renter, shard))

    def _columns(self, row: Row) -> tuple[object, ...]:
        return (
            self._ref("renter", row.renter.raw),
            row.shard.raw,
            row.place.segment,
            row.place.offset,
            row.place.file or None,
            row.size_bytes,
            self._ref("contract", row.contract.raw),
            row.stored_at_ms,
            row.sequence,
            row.state,
            row.gone_at_ms,
            row.observed_ms,
            row.is_damaged,
            row.alone_ms,
        )

    def _end(self, row: Row | None, mark: Mark) -> None:
        """Let a shard be gone; its tombstone is set, or lifted."""
        if row is not None:
            self._remove(row)
            self._doom(row)
        if mark.action is Action.TOMBSTONE:
            stone = Tombstone(mark.renter, mark.shard, mark.sequence, mark.observed_ms)
            self.tombstones.set(self._ref("renter", mark.renter.raw), stone)
            self._list(mark.renter, mark.shard)
        else:
            self.tombstones.lift(mark.renter, mark.shard)

    def _remove(self, row: Row) -> None:
        self._count(row, -1)
        self._delete(row)

    def _delete(self, row: Row) -> None:
        self.changes_rows = True
        self._sql.execute(
            "DELETE FROM shards WHERE shard = ?"
            " AND renter = (SELECT id FROM renters WHERE renter = ?)",
            (row.shard.raw, row.renter.raw),
        )

    def _doom(self, row: Row) -> None:
        record = Doomed(row.sequence, row.place, row.charge_bytes)
        self._sql.execute(
            "INSERT OR IGNORE INTO doomed VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                record.sequence,
                row.place.segment,
                row.place.offset,
                record.length,
                row.place.file or None,
                self._ref("renter", row.renter.raw),
                row.shard.raw,
            ),
        )
        if not row.place.segment:
            self.changes.log_bytes += record.length
        self.doomed.append(record)

    def _count(self, row: Row, sign: int) -> None:
        """Enter (1) or take out (-1) a row in totals and segment."""
        charge = sign * row.charge_bytes
        change = self.changes.of(row.renter)
        change.shards += sign
        if row.state is ShardState.TRASH:
            change.trash_bytes += charge
        else:
            change.live_bytes += charge
        if row.state is ShardState.QUARANTINED:
            change.quarantined += sign
        if row.size_bytes > SMALL_BYTES_MAX:
            change.files += sign
        if row.place.segment:
            self._segment(row.place.segment).live_bytes += charge

    def _segment(self, number: int) -> Segment:
        """Return a segment that is about to be changed."""
        segments = self._known.segments
        if number not in segments:
            columns = self._sql.execute(
                "SELECT number, uuid, size, live, punched FROM segments WHERE number = ?",
                (number,),
            ).fetchone()
            segments[number] = Segment.of(columns)
        segment = segments[number]
        self._idle_before.setdefault(number, segment.idle_bytes)
        return segment

    def _ref(self, noun: Literal["renter", "contract"], raw: bytes) -> int:
        """Return the small number that stands for a renter or a contract."""
        ref = self._known.refs.get((noun, raw))
        if ref is None:
            insert, select = _REFS[noun]
            found = self._sql.execute(select, (raw,)).fetchone()
            ref = int(found[0]) if found else self._sql.execute(insert, (raw,)).lastrowid
            assert ref is not None
            self._known.refs[noun, raw] = ref
        return ref


def _consequence(row: Row, mark: Mark) -> Row:
    """Return the row after a mark; nothing but other bytes mends a damaged record."""
    if mark.action in _TRASHES:
        is_alone = mark.action is Action.TRASH_ALONE
        return replace(
            row,
            state=ShardState.TRASH,
            gone_at_ms=mark.at_ms + TRASH_MS,
            observed_ms=mark.observed_ms,
            alone_ms=max(row.alone_ms, mark.observed_ms) if is_alone else row.alone_ms,
        )
    is_damaged = row.is_damaged or mark.action is Action.QUARANTINE
    state = ShardState.QUARANTINED if is_damaged else ShardState.LIVE
    return replace(row, state=state, gone_at_ms=0, observed_ms=0, is_damaged=is_damaged)
