"""Entering many plain records into the index at once, in the order of its pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.storage.places import Place, Row

PlainRow = tuple[bytes, bytes, int, int, bytes, int, int, int]
"""A live small shard: renter, shard, offset, size, contract, stored at, sequence, charge."""

Columns = tuple[int, bytes, int, int, int, int, int, int]
"""What is bound of a row: all but that it is live and has no file."""

_AT_ONCE: Final = 64
"""Rows in one statement: two thirds of the time of one statement each."""

_INSERT: Final = "INSERT INTO shards VALUES "
_VALUES: Final = "(?, ?, ?, ?, NULL, ?, ?, ?, ?, 0, 0, 0, 0, 0)"
_INSERT_MANY: Final = _INSERT + ", ".join([_VALUES] * _AT_ONCE)
_FIND: Final = "SELECT shard FROM shards WHERE renter = ? AND shard "
_FIND_MANY: Final = f"{_FIND} IN ({', '.join('?' * _AT_ONCE)})"
_FIND_ONE: Final = f"{_FIND} = ?"


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
    """Enter those rows of one segment whose shards are new to the index."""
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
        known = _known(sql, some)
        if known:
            entered.others += [fresh.pop(key) for key in known]
            some = [one for one in some if one[:2] not in known]
        _insert(sql, some)
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


def _known(sql: sqlite3.Connection, some: Sequence[Columns]) -> set[tuple[int, bytes]]:
    """Return the renters and shards among these, in order, that have a row already."""
    first, last = some[0][0], some[-1][0]
    if first == last and len(some) == _AT_ONCE:
        found = sql.execute(_FIND_MANY, [first, *(one[1] for one in some)]).fetchall()
        return {(first, shard) for (shard,) in found}
    return {one[:2] for one in some if sql.execute(_FIND_ONE, one[:2]).fetchone()}


def _insert(sql: sqlite3.Connection, some: Sequence[Columns]) -> None:
    if len(some) == _AT_ONCE:
        sql.execute(_INSERT_MANY, [value for one in some for value in one])
    else:
        sql.executemany(_INSERT + _VALUES, some)
