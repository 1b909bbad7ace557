"""
SQLite in the simulation: the real one, on real files in memory, that crashes with the rest.

The index (WAL, NORMAL) is never synced between two checkpoints: after a crash its database is
that of the last checkpoint and its write-ahead log has any length, also in the middle of a
frame, but never less than was written back, which SQLite syncs first; it finds the last whole
transaction itself.  The contract book (WAL, FULL) has
all that was committed.  Each COMMIT and checkpoint is a step at which a crash may happen,
before or after, and at which an error may be injected.  What SQLite does within such a step
on a real kernel is what the block-log campaign looks at (docs/decisions/simulation.md).
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol
from urllib.parse import unquote


class Watcher(Protocol):
    """Who hears of every step."""

    def called(self, name: str, where: str, what: object = "") -> None:
        """May raise."""

    def struck(self, kind: str) -> None:
        """Hear that a fault has happened."""

    def index_takes(self, where: str, size_bytes: int) -> None:
        """Hear how much an index takes, with its write-ahead log, whenever that may be news."""

    def index_is_given_up(self, where: str) -> None:
        """Hear that the farmer wants an index made again of the log."""

    def index_is_made(self, where: str) -> None:
        """Hear that an index has been made of the log, whatever for."""

    @property
    def is_dead(self) -> bool:
        """Whether the machine has stopped."""


_STEPS = ("COMMIT", "PRAGMA wal_checkpoint")

_GIVEN_UP, _MADE = _SAID = "UPDATE state SET complete = 0", "UPDATE state SET complete = 1"
"""What the farmer writes into an index that it takes for wrong, or that is as the log is."""

_LOG_HEADER = 32
_FRAME = 24 + 4096
"""Of a write-ahead log, in bytes (https://www.sqlite.org/walformat.html)."""


class Databases:
    """All connections of one run."""

    def __init__(self, root: Path, rng: Random, watcher: Watcher) -> None:
        self._root = root
        self._rng = rng
        self._watcher = watcher
        self._open: list[_Connection] = []
        self.armed: dict[str, int] = {}
        """By step: the SQLite error code that the next one of the index fails with."""
        self._written_back: dict[Path, int] = {}
        """How long each write-ahead log was when it was last written back."""

    def module(self) -> SimpleNamespace:
        """Return what stands in for the module `sqlite3`."""
        return SimpleNamespace(**vars(sqlite3) | {"connect": self._connect})

    def step(self, name: str, connection: _Connection, what: object = "") -> None:
        """Hear of a step, and of *what* is traced of it; fail it if that is planned."""
        self._watcher.called(name, connection.where, what)
        if name in self.armed and not connection.is_book:
            code = self.armed.pop(name)
            self._watcher.struck(f"{name} failed")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = code
            raise error

    def measure(self, connection: _Connection) -> None:
        """Tell how much an index takes now."""
        if not connection.is_book:
            path = self._root / connection.where
            taken = _size_bytes(path) + _size_bytes(path.with_name(f"{path.name}-wal"))
            self._watcher.index_takes(connection.where, taken)

    def told(self, sql: str, connection: _Connection) -> None:
        """Tell what the farmer says of an index in that index itself."""
        if sql == _GIVEN_UP:
            self._watcher.index_is_given_up(connection.where)
        elif sql == _MADE:
            self._watcher.index_is_made(connection.where)

    @property
    def is_dead(self) -> bool:
        return self._watcher.is_dead

    def crash(self, *, lose_index: bool, keep_all: bool = False) -> None:
        """Leave what a crash leaves; nothing uses the connections any more."""
        images = {
            path: path.read_bytes()
            for path in sorted(self._root.rglob("*.sqlite*"))
            if not path.name.endswith("-shm")
        }
        for path in images:
            if path.name.endswith("-wal"):
                # Whoever closes last would write all of it back, only for us to undo that.
                os.truncate(path, 0)
        for connection in self._open:
            connection.close_really()
        self._open.clear()
        self.armed.clear()
        for path in sorted(self._root.rglob("*.sqlite*")):
            path.unlink()
        for path, raw in images.items():
            if path.name.startswith("index"):
                if lose_index:
                    continue
                if path.name.endswith("-wal") and not keep_all:
                    length = max(self._cut(len(raw)), self._written_back.get(path, 0))
                    path.write_bytes(raw[:length])
                    continue
            path.write_bytes(raw)
        if lose_index:
            self._written_back.clear()

    def written_back(self, connection: _Connection, frames: int) -> None:
        """Note what of a write-ahead log must outlive a crash: the database relies on it."""
        if frames >= 0:
            log = self._root / f"{connection.where}-wal"
            self._written_back[log] = _LOG_HEADER + frames * _FRAME if frames else 0

    def _cut(self, length: int) -> int:
        how = self._rng.random()
        if how < 0.25:
            return length
        if how < 0.45:
            return 0
        if how < 0.75:
            return min(
                length, _LOG_HEADER + int(self._rng.random() * (length // _FRAME + 1)) * _FRAME
            )
        return int(self._rng.random() * (length + 1))

    def _connect(self, path: Any, **settings: Any) -> sqlite3.Connection:
        kind = _watched(settings.pop("factory", None))
        connection = sqlite3.connect(path, factory=kind, **settings)
        named = unquote(str(path).removeprefix("file://").partition("?")[0])
        connection.watch(self, named[len(str(self._root)) + 1 :])
        self._open.append(connection)
        return connection

    def closed(self, connection: _Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)


class _Connection(sqlite3.Connection):
    """A connection whose steps are watched."""

    _databases: Databases | None = None
    where = ""
    is_book = False

    def watch(self, databases: Databases, where: str) -> None:
        self._databases, self.where = databases, where
        self.is_book = "contracts" in where

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        databases = self._databases
        if databases is None or not sql.startswith(_STEPS):
            done = super().execute(sql, *more)
            if databases is not None and sql in _SAID:
                databases.told(sql, self)
            return done
        if sql == "COMMIT":
            databases.step("COMMIT", self, self.total_changes)
            done = super().execute(sql)
            databases.measure(self)
            databases.step("committed", self)
            return done
        if sql.startswith("PRAGMA wal_checkpoint"):
            cuts_off = "PASSIVE" not in sql
            databases.step("checkpoint" if cuts_off else "write back", self)
            (row,) = super().execute(sql).fetchall()
            databases.written_back(self, row[2])
            databases.measure(self)
            databases.step("checkpointed" if cuts_off else "written back", self, row)
            return super().execute("SELECT ?, ?, ?", row)
        return super().execute(sql, *more)

    def close(self) -> None:
        """Close; after a crash nothing is closed in order, or it would tidy up."""
        if self._databases is not None and not self._databases.is_dead:
            self._databases.closed(self)
            super().close()

    def close_really(self) -> None:
        super().close()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@cache
def _watched(factory: type[sqlite3.Connection] | None) -> type[_Connection]:
    """Return a kind of connection that is watched; made once, for a class is dear to make."""
    return _Connection if factory is None else type("Both", (_Connection, factory), {})
