"""What a renter must not forget: the farmers it joined, and their receipts."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

from farmer.client.dial import FarmerAddress
from farmer.client.errors import ClientError
from farmer.client.ledger_rows import (
    Damaged,
    Entry,
    Standing,
    Text,
    altered,
    read_entry,
    read_farmer,
    read_signed_contract,
)
from farmer.model.contract import Contract, Receipt
from farmer.model.ids import NodeId, ShardId
from farmer.protocol.documents import contract_body, receipt_bytes
from farmer.protocol.questions import ContractShown

R = TypeVar("R")

LEDGER_VERSION: Final = 1
"""`user_version` of the database file."""

_BUSY_S: Final = 20.0
"""For another program on the same home to finish its write."""

_BUSY_STEP_S: Final = 0.01
"""Between two looks whether it has, where SQLite does not look itself."""

_DAMAGED: Final = (
    "bring it back from a backup. Without one move it away and join again with the invite that you"
    " used: shards can be retrieved then by the ids that renter list shows, though not audited"
)
_FULL: Final = "it is not known to be damaged: free some space on its disk"
_SHUT: Final = "it is not known to be damaged: look who may write to it and to its directory"
_TAKEN: Final = "it is not known to be damaged: another program uses it, try again"
_OTHER: Final = "it is not known to be damaged: look at its disk, and try again"

_SQLITE_ADVICE: Final = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_PERM: _SHUT,
    sqlite3.SQLITE_READONLY: _SHUT,
    sqlite3.SQLITE_CANTOPEN: _SHUT,
    sqlite3.SQLITE_BUSY: _TAKEN,
    sqlite3.SQLITE_LOCKED: _TAKEN,
}
_SYSTEM_ADVICE: Final = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _SHUT,
    errno.EPERM: _SHUT,
    errno.EROFS: _SHUT,
}

_SCHEMA: Final = (
    """
CREATE TABLE farmers (
    farmer BLOB PRIMARY KEY,      -- node id
    addresses TEXT NOT NULL,      -- JSON list of host:port
    contract BLOB NOT NULL,       -- canonical body and signature, as the farmer showed it last
    joined INTEGER NOT NULL       -- counts up: the last joined has the highest
) WITHOUT ROWID
""",
    """
CREATE TABLE receipts (
    farmer BLOB NOT NULL,
    shard BLOB NOT NULL,
    receipt BLOB NOT NULL,        -- canonical body and signature
    file BLOB NOT NULL,           -- where it came from, absolute, as the system has it; or empty
    standing INTEGER NOT NULL,    -- 0 held, 1 in the trash, 2 erased
    PRIMARY KEY (farmer, shard)
) WITHOUT ROWID
""",
    "CREATE INDEX receipts_by_shard ON receipts (shard)",
    "CREATE TABLE told (notice TEXT PRIMARY KEY) WITHOUT ROWID",
)

_EARLIER: Final = """
CREATE TABLE IF NOT EXISTS earlier_contracts (
    farmer BLOB NOT NULL,         -- node id
    contract BLOB NOT NULL,       -- canonical body and signature, as the farmer once showed it
    PRIMARY KEY (farmer, contract)
) WITHOUT ROWID
"""
"""Made in each ledger that has none: a release that does not know of it is not in its way."""

_SOME_RECEIPTS: Final = (
    "SELECT farmer, shard, receipt, file, standing FROM receipts "
    "WHERE shard BETWEEN ? AND ? ORDER BY farmer, shard"
)

_ALL_RECEIPTS: Final = (
    "SELECT farmer, shard, receipt, file, standing FROM receipts ORDER BY farmer, shard"
)
"""Also those whose shard is damaged into what lies between no bounds."""


class LedgerError(ClientError):
    """The ledger cannot be used; the message says what to do."""


class Ledger:
    """
    A SQLite file in the renter's home; every change is on the disk when its call returns.

    Rows that cannot be read are left out of every answer, and stand in `damaged` from then on.
    Blocking; may be used from any thread.  All methods raise `LedgerError`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # One that is no text at all would cost the whole answer.
        self._connection.text_factory = Text
        self._lock = threading.Lock()
        self._damaged: dict[Damaged, None] = {}

    @property
    def damaged(self) -> tuple[Damaged, ...]:
        """The rows that were left out so far: each is worth telling the renter."""
        return tuple(self._damaged)

    @classmethod
    def open(cls, path: Path) -> Self:
        """
        Open the file, or make it, readable by us only.

        Raises:
            LedgerError: damaged, of a newer release, or not to be opened.

        """
        try:
            path.touch(mode=0o600)
            connection = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(connection, path)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"cannot use {path}: {error}; {_advice(error)}") from error
        return cls(connection)

    def join(self, address: FarmerAddress, shown: ContractShown) -> None:
        """
        Remember a farmer, where it is, and the contract; who is joined last is the default.

        The contract that it showed before is set aside.
        """
        with self._change() as connection:
            (last,) = connection.execute(
                "SELECT ifnull(max(CAST(joined AS INTEGER)), 0) FROM farmers"
            ).fetchone()
            _set_aside(connection, address.farmer, shown)
            connection.execute(
                "INSERT OR REPLACE INTO farmers VALUES (?, ?, ?, ?)",
                (
                    address.farmer.raw,
                    json.dumps(address.addresses),
                    _contract_bytes(shown),
                    last + 1,
                ),
            )

    def refresh(self, farmer: NodeId, shown: ContractShown) -> None:
        """Remember the contract as a joined farmer shows it now; the one before is set aside."""
        with self._change() as connection:
            _set_aside(connection, farmer, shown)
            connection.execute(
                "UPDATE farmers SET contract = ? WHERE farmer = ?",
                (_contract_bytes(shown), farmer.raw),
            )

    def move(self, address: FarmerAddress) -> None:
        """Remember where a joined farmer is now."""
        with self._change() as connection:
            connection.execute(
                "UPDATE farmers SET addresses = ? WHERE farmer = ?",
                (json.dumps(address.addresses), address.farmer.raw),
            )

    def contract(self, farmer: NodeId) -> Contract | None:
        """Return the contract as a farmer showed it last, if it is as it was signed."""
        rows = self._rows("SELECT contract FROM farmers WHERE farmer = ?", (farmer.raw,))
        return read_signed_contract(rows[0][0]) if rows else None

    def earlier_contracts(self, farmer: NodeId) -> list[Contract]:
        """
        Return those that a farmer showed before, by revision: what it signed and took back, too.

        One for each time that it was asked, at most, and had another.
        """
        rows = self._rows("SELECT contract FROM earlier_contracts WHERE farmer = ?", (farmer.raw,))
        read = (read_signed_contract(contract) for (contract,) in rows)
        whole = (contract for contract in read if contract is not None)
        return sorted(whole, key=lambda contract: (contract.revision, contract.issued_at_ms))

    def farmers(self) -> list[FarmerAddress]:
        """Return all joined farmers, the last joined first."""
        rows = self._rows(
            "SELECT farmer, CAST(addresses AS BLOB) FROM farmers "
            "ORDER BY CAST(joined AS INTEGER) DESC"
        )
        return self._whole(read_farmer(row) for row in rows)

    def keep(self, farmer: NodeId, receipt: Receipt, file: str) -> None:
        """Keep a receipt, in place of an earlier one for the same shard."""
        path = os.fsencode(file)
        with self._change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?)",
                (farmer.raw, receipt.shard.raw, receipt_bytes(receipt), path, Standing.HELD),
            )

    def mark(self, farmer: NodeId, shard: ShardId, standing: Standing) -> None:
        """Remember what was done with a shard; one without a receipt is left alone."""
        with self._change() as connection:
            connection.execute(
                "UPDATE receipts SET standing = ? WHERE farmer = ? AND shard = ?",
                (standing, farmer.raw, shard.raw),
            )

    def entries(self, digits: str = "") -> list[Entry]:
        """Return the receipts whose shard ids begin with some hex digits, by farmer and id."""
        longest = 2 * ShardId.SIZE_BYTES
        bounds = tuple(bytes.fromhex(digits.ljust(longest, fill)) for fill in "0f")
        rows = self._rows(_SOME_RECEIPTS, bounds) if digits else self._rows(_ALL_RECEIPTS)
        return self._whole(read_entry(row) for row in rows)

    def is_sound(self, entry: Entry) -> bool:
        """
        Return whether a receipt is as the farmer signed it; else it is `damaged` from then on.

        To be asked before it is held against the farmer: the disk that changed a bit may be ours.
        (Not of each that is read: of a million that would take minutes.)
        """
        damaged = altered(entry)
        if damaged is not None:
            self._damaged[damaged] = None
        return damaged is None

    def standing(self, entry: Entry) -> Standing:
        """Return what was last done with a shard; another program may have done it since."""
        found = self.entries(str(entry.receipt.shard))
        return next((one.standing for one in found if one.farmer == entry.farmer), entry.standing)

    def tell_once(self, notice: str) -> bool:
        """Return True the first time that this is asked about a notice, False ever after."""
        with self._change() as connection:
            cursor = connection.execute("INSERT OR IGNORE INTO told VALUES (?)", (notice,))
            return cursor.rowcount == 1

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise LedgerError(
                    f"cannot read the renter's ledger: {error}; {_advice(error)}"
                ) from error

    def _whole(self, read: Iterable[R | Damaged]) -> list[R]:
        """Return what could be read, and remember what could not."""
        whole: list[R] = []
        for one in read:
            if isinstance(one, Damaged):
                self._damaged[one] = None
            else:
                whole.append(one)
        return whole

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Do one durable transaction."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise LedgerError(
                        f"cannot write the renter's ledger: {error}; {_advice(error)}"
                    ) from error
                raise


def _contract_bytes(shown: ContractShown) -> bytes:
    return contract_body(shown.contract) + shown.signature


def _set_aside(connection: sqlite3.Connection, farmer: NodeId, shown: ContractShown) -> None:
    """Keep what the farmer showed last, and signed, if it shows another contract now."""
    connection.execute(
        "INSERT OR IGNORE INTO earlier_contracts "
        "SELECT farmer, contract FROM farmers WHERE farmer = ? AND contract <> ?",
        (farmer.raw, _contract_bytes(shown)),
    )


def _advice(error: OSError | sqlite3.Error) -> str:
    """Return what to do; a backup, which knows less, only in place of what is damaged for sure."""
    if isinstance(error, OSError):
        return _SYSTEM_ADVICE.get(error.errno or 0, _OTHER)
    # Above the lowest byte there are details.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return _SQLITE_ADVICE.get(code, _OTHER)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # Before anything is written: a newer release may have its reasons.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > LEDGER_VERSION:
        raise LedgerError(
            f"{path} was written by a newer release (version {version}, this one reads "
            f"{LEDGER_VERSION}): use that one; nothing was touched"
        )
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")
    connection.execute(_EARLIER)
    connection.execute("COMMIT")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """
    Have changes written to a log first; waits for another program that does so just now.

    SQLite itself does not wait here, since both might do so for ever.
    """
    until_s = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() >= until_s:
                raise
            time.sleep(_BUSY_STEP_S)
        else:
            return
