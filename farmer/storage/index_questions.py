"""What is asked of an index: look-ups, over a small pool of connections, by any thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from farmer.model.ids import NodeId, ShardId
from farmer.storage.index_errors import IndexDamagedError, is_for_rot
from farmer.storage.places import Doomed, Key, Position, Row, Segment
from farmer.storage.quota import Changes, Tally
from farmer.storage.tombstones import FIND, SOME, Tombstone
from farmer.storage.transaction import DOOMED_OF, FIND_ROW, ROW

ANOTHER_KIND: Final = "a value is not of its kind"
"""SQLite keeps no checksums: a flipped bit may make another kind of value of one."""

_NUMBER: Final = "coalesce((SELECT id FROM renters WHERE renter = ?), 0)"
_BEHIND: Final = f"(s.renter, s.shard) > ({_NUMBER}, ?)"
_NOBODYS: Final = (NodeId(bytes(32)), ShardId(bytes(32)))
"""Before all that there are."""

_IN_TRASH: Final = (
    f"{ROW} WHERE s.state = 1 AND s.gone <= ? AND (s.gone, s.renter, s.shard) > (?, {_NUMBER}, ?)"
    " ORDER BY s.gone, s.renter, s.shard LIMIT ?"
)
"""Along the index of the trash.  By observed time as well there is none: to look for that as far
as it takes would, with a million shards in the trash, count as a disk that hangs."""

_DOOMED: Final = "SELECT sequence, segment, offset, length, file FROM doomed"
_NEXT: Final = "sequence > ? ORDER BY sequence LIMIT ?"

_SPAN: Final = (
    "SELECT coalesce(min(sequence), 0), coalesce(max(sequence), 0) FROM"
    " (SELECT sequence FROM marks WHERE segment = ?1"
    " UNION ALL SELECT sequence FROM doomed WHERE segment = ?1)"
)
"""Looks at all that there is, beside the writer and not in its way."""

_LOOKED_AT: Final = 256
"""Rows that lie here and there, read by one query: each may be a seek."""


class Table(Enum):
    """What is kept of shards, by renter and shard."""

    SHARDS = "shards"
    TOMBSTONES = "tombstones"


ListPlace = tuple[int, bytes]
"""The number of a renter, in this index, and a shard."""

START: Final[ListPlace] = (0, b"")
"""Before everything that a table has."""


class Listed(NamedTuple):
    """One shard of a table."""

    place: ListPlace
    key: bytes
    """See `raw_key`."""


_LIST: Final = (
    "SELECT t.renter, t.shard, r.renter FROM {} t JOIN renters r ON r.id = t.renter"
    " WHERE (t.renter, t.shard) > (?, ?) ORDER BY t.renter, t.shard LIMIT ?"
)

_OBSERVED: Final = (
    "SELECT gone, renter, shard, observed FROM shards WHERE state = 1"
    " AND (gone, renter, shard) > (?, ?, ?) ORDER BY gone, renter, shard LIMIT ?"
)


class IndexQuestions:
    """The looking side of an index.  Raises `sqlite3.Error` when its file fails."""

    def __init__(self) -> None:
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self.waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        """Returns a context in which it is waited for a connection: those that look something up
        may hang, and who waits for them does too."""
        self.has_tombstones = False
        """Whether there may be any; known without a query."""
        self._is_closed = False

    def find(self, renter: NodeId, shard: ShardId) -> Row | None:
        """Return one shard."""
        rows = self._read(FIND_ROW, renter.raw, shard.raw)
        return Row.of_key(renter, shard, rows[0]) if rows else None

    def tombstone(self, renter: NodeId, shard: ShardId) -> Tombstone | None:
        """Return a shard's tombstone; without a query where there is none at all."""
        if not self.has_tombstones:
            return None
        rows = self._read(FIND, renter.raw, shard.raw)
        return Tombstone.of(rows[0]) if rows else None

    def tombstones(self, limit: int) -> list[Tombstone]:
        """Return some of them."""
        return (
            [Tombstone.of(row) for row in self._read(SOME, limit)] if self.has_tombstones else []
        )

    def stored_alone(self, limit: int) -> list[Row]:
        """Return some shards of which an older copy may be on a volume that was away."""
        return [Row.of(row) for row in self._read(f"{ROW} WHERE s.alone > 0 LIMIT ?", limit)]

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[Row]:
        """Return a renter's shards above an id, ascending."""
        rows = self._read(
            f"{ROW} WHERE r.renter = ? AND s.shard > ? ORDER BY s.shard LIMIT ?",
            renter.raw,
            after.raw,
            limit,
        )
        return [Row.of(row) for row in rows]

    def some(self, after: Key | None, limit: int) -> list[Row]:
        """Return shards of all renters, in the order of the index, behind one of them."""
        renter, shard = after or _NOBODYS
        rows = self._read(
            f"{ROW} WHERE {_BEHIND} ORDER BY s.renter, s.shard LIMIT ?",
            renter.raw,
            shard.raw,
            limit,
        )
        return [Row.of(row) for row in rows]

    def listed(self, table: Table, after: ListPlace, limit: int) -> list[Listed]:
        """Return which shards a table has, in its order, behind a place."""
        rows = self._read(_LIST.format(table.value), *after, limit)
        return [Listed((number, shard), renter + shard) for number, shard, renter in rows]

    def is_doomed(self, sequence: int) -> bool:
        """Say whether this record has been given up and is still on the disk."""
        return bool(self._read("SELECT 1 FROM doomed WHERE sequence = ?", sequence))

    def has_doomed(self, renter: NodeId, shard: ShardId) -> bool:
        """Say whether a record of a shard has been given up and is still on the disk."""
        return bool(self._read(f"{DOOMED_OF} LIMIT 1", renter.raw, shard.raw))

    def in_trash(self, until_ms: int, after: Row | None, limit: int) -> list[Row]:
        """Return shards whose trash is over then by wall time, as it ends, behind one of them."""
        gone_ms = after.gone_at_ms if after else -1
        renter, shard = (after.renter, after.shard) if after else _NOBODYS
        rows = self._read(_IN_TRASH, until_ms, gone_ms, renter.raw, shard.raw, limit)
        return [Row.of(row) for row in rows]

    def latest_observed_ms(self) -> int:
        """Return the observed time at which a shard was last put into the trash, or 0."""
        latest_ms, after = 0, (-1, *START)
        while rows := self._read(_OBSERVED, *after, _LOOKED_AT):
            latest_ms = max(latest_ms, *(row[3] for row in rows))
            after = rows[-1][:3]
        return latest_ms

    def needed_marks(self, enough: int) -> int:
        """
        Return how many marks at least say what is so still; it does not count on from *enough*.

        Those that brought a shard back from the trash are not among them.
        """
        needed, after = 0, (-1, *START)
        while needed < enough and (rows := self._read(_OBSERVED, *after, _LOOKED_AT)):
            needed += len(rows)
            after = rows[-1][:3]
        return needed

    def doomed(self, after: int = 0, limit: int = -1) -> list[Doomed]:
        """Return records whose space waits to be given back, behind a sequence, ascending."""
        rows = self._read(f"{_DOOMED} WHERE {_NEXT}", after, limit)
        return [Doomed.of(row) for row in rows]

    def doomed_files(self, after: int = 0, limit: int = -1) -> list[Doomed]:
        """Return those of them that have files of their own; looks at all behind the sequence."""
        rows = self._read(f"{_DOOMED} WHERE segment = 0 AND {_NEXT}", after, limit)
        return [Doomed.of(row) for row in rows]

    def segments(self, since: int = 0, limit: int = -1) -> list[Segment]:
        """Return the segments of the log in order, from this number on."""
        rows = self._read(
            "SELECT number, uuid, size, live, punched FROM segments"
            " WHERE number >= ? ORDER BY number LIMIT ?",
            since,
            limit,
        )
        return [Segment.of(row) for row in rows]

    def segment(self, number: int) -> Segment | None:
        """Return one segment of the log; None if there is none of that number."""
        found = self.segments(number, 1)
        return found[0] if found and found[0].number == number else None

    def marks(self, segment: int | None = None) -> list[Doomed]:
        """Return the marks records, of the whole log or of one segment, as places."""
        rows = self._read(
            "SELECT sequence, segment, offset, length, NULL FROM marks"
            " WHERE ?1 IS NULL OR segment = ?1 ORDER BY sequence",
            segment,
        )
        return [Doomed.of(row) for row in rows]

    def span(self, segment: int) -> tuple[int, int]:
        """Return the first and last sequence that is given up or has marks there; (0, 0): none."""
        first, last = self._read(_SPAN, segment)[0]
        return first, last

    def staged(self) -> list[bytes]:
        """Return stored shards' files still in the staging directory; `IndexDamagedError`."""
        files = [row[0] for row in self._read("SELECT file FROM staged")]
        if not all(isinstance(file, bytes) for file in files):
            raise IndexDamagedError(ANOTHER_KIND)
        return files

    def knows_file(self, file: bytes, renter: NodeId, shard: ShardId) -> bool:
        """Say whether this file of its own holds this shard, or waits to be removed."""
        row = self.find(renter, shard)
        if row is not None and row.place.file == file:
            return True
        return bool(self._read("SELECT 1 FROM doomed WHERE file = ?", file))

    def position(self) -> Position:
        """Return up to where in the log this index is right."""
        row = self._read("SELECT segment, offset, next_sequence FROM state")[0]
        if not all(isinstance(value, int) for value in row):
            raise IndexDamagedError(ANOTHER_KIND)
        return Position(*row)

    def totals(self) -> Changes:
        """Return what the ledger begins with; raises `IndexDamagedError`."""
        try:
            return self._totals()
        except (TypeError, ValueError) as error:
            # SQLite keeps no checksums: a flipped bit may make another kind of value of one.
            raise IndexDamagedError(ANOTHER_KIND) from error
        except sqlite3.DatabaseError as error:
            if is_for_rot(error):
                raise IndexDamagedError(str(error)) from error
            raise

    def _totals(self) -> Changes:
        changes = Changes()
        for renter, live, trash, shards, files, quarantined in self._read(
            "SELECT r.renter, u.live, u.trash, u.shards, u.files, u.quarantined FROM usage u"
            " JOIN renters r ON r.id = u.renter"
        ):
            tally = changes.renters[NodeId(renter)] = Tally()
            tally.add(Tally(live, trash, shards, files, quarantined))
        in_files = self._read("SELECT coalesce(sum(length), 0) FROM doomed WHERE segment = 0")
        changes.log_bytes = in_files[0][0] + sum(one.idle_bytes for one in self.segments())
        return changes

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        reader = self._reader()
        try:
            return reader.execute(query, values).fetchall()
        finally:
            self._put_back(reader)

    def _reader(self) -> sqlite3.Connection:
        """Take a connection, which is to be put back."""
        try:
            return self._readers.get_nowait()
        except Empty:
            with self.waiting():
                return self._readers.get()

    def _put_back(self, reader: sqlite3.Connection) -> None:
        """Let others have a connection; after the end, closed."""
        self._readers.put(reader)
        if self._is_closed:
            self._close_readers()

    def _close_readers(self) -> None:
        """
        Close the connections that nobody uses just now: each other one is, when it is put back.

        Who comes too late gets a closed one, and an error.
        """
        self._is_closed = True
        for _ in range(self._readers.qsize()):
            try:
                reader = self._readers.get_nowait()
            except Empty:
                return
            reader.close()
            self._readers.put(reader)
