"""
The index: where each shard is, in SQLite.  A cache of the log, never the truth.

It is consistent at any crash (WAL), but may lag behind after a power loss
(synchronous=NORMAL): it knows the position of the log up to which it is right, and the rest
is replayed.  Totals are kept in the same transactions, so that a start counts nothing.
Written by one thread; read by many, over a small pool of connections.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

from farmer.storage.errors import FormatTooNewError
from farmer.storage.index_errors import (
    CommitInDoubtError,
    IndexDamagedError,
    IndexOutdatedError,
    InUseError,
    is_for_memory,
)
from farmer.storage.index_file import (
    LOCK_TIMEOUT_S,
    PAGE_BYTES,
    Connect,
    building,
    connect,
    prepared,
)
from farmer.storage.index_questions import IndexQuestions
from farmer.storage.remembered import Remembered
from farmer.storage.tombstones import Tombstones
from farmer.storage.transaction import Transaction

INDEX_VERSION: Final = 2
GIVING_WAY_S: Final = 1.0
"""For a long look that was told to end; meanwhile nobody else is served, and well before the
volume would count as hung."""

_READERS: Final = 4
"""Look-ups that run at once; each costs a connection with a small cache."""

INDEX_DESCRIPTORS: Final = 2 * (1 + _READERS)
"""Each connection has the database and its write-ahead log open."""

_WRITER_CACHE_KIB: Final = 4096
_READER_CACHE_KIB: Final = 512
_BUILDING_CACHE_KIB: Final = 8 * 1024
"""While an index is made: what is entered together goes through the pages once, in their order."""

WAL_BYTES_MAX: Final = 1024 * 1024
"""The write-ahead log is written back and cut off beyond this, which holds up the writer; a
batch may add 2 MiB."""

_SCHEMA: Final = """
CREATE TABLE state (
  one INTEGER PRIMARY KEY, version INTEGER, volume BLOB, complete INTEGER,
  segment INTEGER, offset INTEGER, next_sequence INTEGER, clean INTEGER);
CREATE TABLE renters (id INTEGER PRIMARY KEY, renter BLOB UNIQUE NOT NULL);
CREATE TABLE contracts (id INTEGER PRIMARY KEY, contract BLOB UNIQUE NOT NULL);
CREATE TABLE usage (
  renter INTEGER PRIMARY KEY, live INTEGER, trash INTEGER, shards INTEGER, files INTEGER,
  quarantined INTEGER);
CREATE TABLE shards (
  renter INTEGER NOT NULL, shard BLOB NOT NULL, segment INTEGER, offset INTEGER, file BLOB,
  size INTEGER, contract INTEGER, stored INTEGER, sequence INTEGER, state INTEGER,
  gone INTEGER, observed INTEGER, damaged INTEGER, alone INTEGER,
  PRIMARY KEY (renter, shard)) WITHOUT ROWID;
CREATE INDEX trash ON shards (gone) WHERE state = 1;
CREATE INDEX alone ON shards (alone) WHERE alone > 0;
CREATE TABLE tombstones (
  renter INTEGER, shard BLOB, sequence INTEGER, observed INTEGER,
  PRIMARY KEY (renter, shard)) WITHOUT ROWID;
CREATE TABLE segments (
  number INTEGER PRIMARY KEY, uuid BLOB, size INTEGER, live INTEGER, punched INTEGER);
CREATE TABLE marks (
  sequence INTEGER PRIMARY KEY, segment INTEGER, offset INTEGER, length INTEGER);
CREATE TABLE doomed (
  sequence INTEGER PRIMARY KEY, segment INTEGER, offset INTEGER, length INTEGER, file BLOB,
  renter INTEGER, shard BLOB);
CREATE INDEX doomed_shards ON doomed (renter, shard);
CREATE TABLE staged (file BLOB PRIMARY KEY) WITHOUT ROWID;
"""


_NO_MEMORY: Final = "memory ran out in a commit of the index"


class Index(IndexQuestions):
    """One volume's index, open.  Raises `sqlite3.Error` when its file fails."""

    def __init__(
        self,
        path: Path,
        volume: bytes,
        *,
        unfinished: bool = False,
        connect: Connect = connect,
    ) -> None:
        """
        Open the index of this volume; an unfinished one only if that is said.

        Raises:
            IndexDamagedError, FormatTooNewError, sqlite3.Error: and nothing is left open.

        """
        super().__init__()
        self._path = path
        self._log_path = path.with_name(f"{path.name}-wal")
        set_up = building if unfinished else prepared
        self._writer = set_up(connect(path), _WRITER_CACHE_KIB)
        self._known = Remembered()
        self._gathering = Lock()
        self._telling = Lock()
        self._told: Callable[[Iterable[bytes]], None] | None = None
        self._looking: list[Callable[[], None]] = []
        """What ends each long look at the file that is under way."""
        self._is_condemned = False
        self._is_being_made = unfinished
        self.stones_changed = 0
        """How many commits have set or lifted one."""
        self.rows_changed = 0
        """Raised before and after a commit that changes or removes a row that was there: odd
        while nobody can tell whether others see it already."""
        try:
            self.was_clean = self._check(volume, unfinished=unfinished)
            for _ in range(_READERS):
                self._readers.put(set_up(connect(path), _READER_CACHE_KIB))
            if unfinished:
                self._writer.execute(f"PRAGMA cache_size=-{_BUILDING_CACHE_KIB}")
            self.has_tombstones = Tombstones(self._writer, exist=True).are_left()
        except BaseException:
            self._close_all()
            raise

    def finish(self) -> None:
        """Make a new index durable, declare it complete, and journal it from now on."""
        # In this order: complete is only what was on the disk before it was called so.
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.execute("UPDATE state SET clean = 0")
        prepared(self._writer, _WRITER_CACHE_KIB)
        self._writer.execute("PRAGMA shrink_memory")
        self._writer.execute("UPDATE state SET complete = 1")
        self.checkpoint()
        self._is_being_made = False

    def close(self, *, clean: bool) -> None:
        """Close it; *clean* says that nothing is left to replay."""
        try:
            if clean:
                self._writer.execute("UPDATE state SET clean = 1")
                self.checkpoint()
        finally:
            self._close_all()

    def condemn(self) -> None:
        """Have it rebuilt at the next start, because it was found damaged; from any thread."""
        self._is_condemned = True
        with suppress(sqlite3.Error):
            self._writer.execute("UPDATE state SET complete = 0")

    def opened(self) -> None:
        """Note that from now on the end was not clean."""
        self._writer.execute("UPDATE state SET clean = 0")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """
        Change the index: all of it at the end of the block, or nothing.

        Raises:
            CommitInDoubtError: the one or the other.

        """
        self._known.limit()
        transaction = Transaction(
            self._writer,
            self._known,
            has_tombstones=self.has_tombstones,
            lists_entered=not self._is_being_made,
        )
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield transaction
            transaction.flush()
            # Behind the commit nothing may fail: what was committed would count as undone.
            stones = transaction.tombstones
            has_tombstones = stones.are_left() if stones.changed else self.has_tombstones
            self._commit(transaction)
        except BaseException:
            self._known.forget()
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
                if self._is_condemned:
                    # It was said in the middle of this, and went with it.
                    self.condemn()
            raise
        finally:
            # After a failure too: of a commit nobody may know whether it was one.
            self.has_tombstones |= transaction.tombstones.changed
        if transaction.tombstones.changed:
            self.stones_changed += 1
            self.has_tombstones = has_tombstones

    def tell(self, told: Callable[[Iterable[bytes]], None] | None) -> None:
        """
        From now on have *told* hear of each shard that is entered, before others can see it.

        It gets the raw keys, of what is buried too.  Whoever listens and then reads the index
        from its beginning misses none.  Nothing is told while an index is made.
        """
        with self._telling:
            self._told = told

    def _commit(self, transaction: Transaction) -> None:
        changes_rows = transaction.changes_rows
        self.rows_changed += changes_rows
        try:
            with self._telling:
                if self._told is not None:
                    self._told(transaction.entered)
                self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if is_for_memory(error):
                raise CommitInDoubtError(_NO_MEMORY) from error
            raise
        except MemoryError as error:
            # Ours, not SQLite's: it may have come when the commit had been made.
            if not self._writer.in_transaction:
                raise CommitInDoubtError(_NO_MEMORY) from error
            raise
        finally:
            self.rows_changed += changes_rows

    def checkpoint(self) -> None:
        """
        Make everything committed durable, and cut the write-ahead log off.

        Raises:
            InUseError: who looks at the file did not give way in time; later it may be done.

        """
        self._end_long_looks()
        if not self._cut_off(GIVING_WAY_S):
            raise InUseError("the write-ahead log is in use elsewhere")

    @contextmanager
    def gives_way(self, end: Callable[[], None]) -> Iterator[None]:
        """Let *end*, called from another thread, end a long look when the log must be cut off."""
        self._looking.append(end)
        try:
            yield
        finally:
            self._looking.remove(end)

    def _end_long_looks(self) -> None:
        for end in list(self._looking):
            end()

    def _cut_off(self, patience_s: float) -> bool:
        """Write the log back and cut it off; False if somebody reads the file for longer."""
        # First while look-ups go on: they wait only for the end, which finds it all written back.
        with self._gathering:
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # A reader in the middle of a look-up would keep the log from being cut off.
        with self.unmoved():
            self._be_patient(patience_s)
            try:
                row = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._be_patient(LOCK_TIMEOUT_S)
            return not row[0]

    def _be_patient(self, for_s: float) -> None:
        self._writer.execute(f"PRAGMA busy_timeout={int(for_s * 1000)}").fetchall()

    @contextmanager
    def unmoved(self) -> Iterator[None]:
        """Let nobody look anything up, nor write the log back to the database, meanwhile."""
        # One after the other: two that have some of them each would wait for ever.
        with self._gathering:
            held = [self._reader() for _ in range(_READERS)]
            try:
                yield
            finally:
                for reader in held:
                    self._put_back(reader)

    @contextmanager
    def only_appended(self) -> Iterator[None]:
        """Let nobody write the log back to the database meanwhile; look-ups go on."""
        with self._gathering:
            yield

    def checkpoint_if_long(self) -> bool:
        """
        Make that durable if the write-ahead log has become long; say whether.

        While somebody reads the file it is not done now: nobody waits, and a long look is ended.
        """
        try:
            long = self._log_path.stat().st_size > WAL_BYTES_MAX
        except OSError:
            # There is none yet; or the disk fails, of which others tell: what was committed stays.
            return False
        if not long:
            return False
        if not self._cut_off(0):
            self._end_long_looks()
            return False
        return True

    def size_bytes(self) -> int:
        """Return the size of the database without its write-ahead log; by the writer only."""
        pages: int = self._writer.execute("PRAGMA page_count").fetchone()[0]
        return pages * PAGE_BYTES

    def _close_all(self) -> None:
        """Close every connection; who comes too late gets an error, and waits for none."""
        self._close_readers()
        self._writer.close()

    def _check(self, volume: bytes, *, unfinished: bool) -> bool:
        try:
            rows = self._writer.execute("SELECT version, volume, complete, clean FROM state")
            if (state := rows.fetchone()) is None:
                raise IndexDamagedError("unfinished")
            version, of_volume, complete, clean = state
            is_newer = version > INDEX_VERSION
        except (sqlite3.DatabaseError, TypeError) as error:
            why = "there was none" if self._is_blank() else f"not readable: {error}"
            raise IndexDamagedError(why) from error
        if is_newer:
            raise FormatTooNewError(
                f"{self._path} has format {version}; this release reads up to {INDEX_VERSION}:"
                " use a newer one"
            )
        if version < INDEX_VERSION:
            raise IndexOutdatedError("made by an older release")
        if of_volume != volume or not (complete or unfinished):
            raise IndexDamagedError("unfinished, or of another volume")
        return bool(clean)

    def _is_blank(self) -> bool:
        """Whether SQLite has just made the file, or found it empty."""
        try:
            found = self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError:
            return False
        return bool(found == (0,))


def create_index(path: Path, volume: bytes, connect: Connect = connect) -> Index:
    """Make an empty index; it counts as damaged until `Index.finish` was called."""
    writer = building(connect(path), _WRITER_CACHE_KIB)
    try:
        writer.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        writer.execute(
            "INSERT INTO state VALUES (1, ?, ?, 0, 0, 0, 1, 0)", (INDEX_VERSION, volume)
        )
    finally:
        writer.close()
    return Index(path, volume, unfinished=True, connect=connect)
