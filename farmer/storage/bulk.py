"""Entering many plain records into the index at once, in the order of its pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.storage.index_errors import IndexDamagedError
from farmer.storage.places import Place, Row

PlainRow = tuple[bytes, bytes, int, int, bytes, int, int, int]
"""A live small shard: renter, shard, offset, size, contract, stored at, sequence, charge."""

Columns = tuple[int, bytes, int, int, int, int, int, int]
"""What is bound of a row: all but that it is live and has no file."""

_AT_ONCE: Final = 64
"""Rows in one statement: two thirds of the time of one statement each."""

_INSERT: Final = "INSERT OR IGNORE INTO shards VALUES "
"""To look first which shards have a row would be a second search for each."""

_VALUES: Final = "(?, ?, ?, ?, NULL, ?, ?, ?, ?, 0, 0, 0, 0, 0)"
_INSERT_MANY: Final = _INSERT + ", ".join([_VALUES] * _AT_ONCE)
_FIND: Final = "SELECT segment, offset FROM shards WHERE renter = ? AND shard = ?"


@dataclass(slots=True)
class Entered:
    """What became of the rows."""

    renters: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """Bytes charged and number of shards that are new, by renter."""
    others: list[PlainRow] = field(default_factory=list)
    """Rows whose shard has one already, to be entered one by one."""


def enter(
    sql: sqlite3.Connection,
    segment: int,
    rows: Iterable[PlainRow],
    renter_ref: Callable[[bytes], int],
    contract_ref: Callable[[bytes], int],
) -> Entered:
    """
    Enter those rows of one segment whose shards are new to the index.

    Raises:
        IndexDamagedError: it has one of these very records already, and does not say so.

    """
    entered = Entered()
    fresh: dict[tuple[int, bytes], PlainRow] = {}
    for row in rows:
        if fresh.setdefault((renter_ref(row[0]), row[1]), row) is not row:
            entered.others.append(row)
    columns = [
        (key[0], key[1], segment, row[2], row[3], contract_ref(row[4]), row[5], row[6])
        for key, row in fresh.items()
    ]
    columns.sort()
    for start in range(0, len(columns), _AT_ONCE):
        some = columns[start : start + _AT_ONCE]
        entered.others += [fresh.pop(key) for key in _insert_new(sql, some)]
    for row in fresh.values():
        charge, shards = entered.renters.get(row[0], (0, 0))
        entered.renters[row[0]] = (charge + row[7], shards + 1)
    return entered


def row_of_plain(segment: int, plain: PlainRow) -> Row:
    """Return a plain row as all others are."""
    renter, shard, offset, size, contract, stored, sequence, _charge = plain
    return Row(
        renter=NodeId(renter),
        shard=ShardId(shard),
        place=Place(segment, offset),
        size_bytes=size,
        contract=ContractId(contract),
        stored_at_ms=stored,
        sequence=sequence,
    )


def _insert_new(sql: sqlite3.Connection, some: Sequence[Columns]) -> list[tuple[int, bytes]]:
    """Insert those that have no row yet; return renter and shard of the others."""
    if len(some) == _AT_ONCE:
        inserted = sql.execute(_INSERT_MANY, [value for one in some for value in one]).rowcount
    else:
        inserted = sql.executemany(_INSERT + _VALUES, some).rowcount
    if inserted == len(some):
        return []
    known = [one[:2] for one in some if sql.execute(_FIND, one[:2]).fetchone() != one[2:4]]
    if inserted + len(known) != len(some):
        raise IndexDamagedError("it has records from behind the position that it names")
    return known
