"""Entering many plain records into the index at once, in the order of its pages."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Final

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.storage.index_errors import IndexDamagedError
from farmer.storage.places import Place, Row

PlainRow = tuple[bytes, bytes, int, int, bytes, int, int, int]
"""A live small shard: renter, shard, offset, size, contract, stored at, sequence, charge."""

_SHARD: Final = itemgetter(1)
OFFSET: Final = itemgetter(2)
SEQUENCE: Final = itemgetter(6)
_CHARGE: Final = itemgetter(7)

_AT_ONCE: Final = 64
"""Rows in one statement: two thirds of the time of one statement each."""

_INSERT: Final = "INSERT OR IGNORE INTO shards VALUES "
"""To look first which shards have a row would be a second search for each."""

_VALUES: Final = "(?, ?, ?, ?, NULL, ?, ?, ?, ?, 0, 0, 0, 0, 0)"
_BOUND: Final = 8
"""Values that are bound of a row: all but that it is live and has no file."""

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
    fresh: defaultdict[bytes, dict[bytes, PlainRow]] = defaultdict(dict)
    for row in rows:
        if fresh[row[0]].setdefault(row[1], row) is not row:
            entered.others.append(row)
    of_ref = {renter_ref(renter): of_renter for renter, of_renter in fresh.items()}
    values = _values(of_ref, segment, _Known(contract_ref))
    for start in range(0, len(values), _AT_ONCE * _BOUND):
        known = _insert_new(sql, values[start : start + _AT_ONCE * _BOUND])
        entered.others += [of_ref[ref].pop(shard) for ref, shard in known]
    for renter, of_renter in fresh.items():
        charge = sum(map(_CHARGE, of_renter.values()))
        entered.renters[renter] = (charge, len(of_renter))
    return entered


class _Known(dict[bytes, int]):
    """The numbers that stand for contracts, each asked for once."""

    def __init__(self, ask: Callable[[bytes], int]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, contract: bytes) -> int:
        """Ask."""
        number = self[contract] = self._ask(contract)
        return number


def _values(
    of_ref: dict[int, dict[bytes, PlainRow]], segment: int, contracts: _Known
) -> list[bytes | int]:
    """Return what is bound of all rows, one after the other, in the order of the pages."""
    return list(
        chain.from_iterable(
            (ref, shard, segment, offset, size, contracts[contract], stored, sequence)
            for ref in sorted(of_ref)
            for _, shard, offset, size, contract, stored, sequence, _ in sorted(
                of_ref[ref].values(), key=_SHARD
            )
        )
    )


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


def _insert_new(sql: sqlite3.Connection, values: Sequence[bytes | int]) -> list[tuple[int, bytes]]:
    """Insert the rows that are new; return reference and shard of the others."""
    rows = len(values) // _BOUND
    insert = _INSERT_MANY if rows == _AT_ONCE else _INSERT + ", ".join([_VALUES] * rows)
    inserted = sql.execute(insert, values).rowcount
    if inserted == rows:
        return []
    known = []
    for at in range(0, len(values), _BOUND):
        ref, shard, *place = values[at : at + 4]
        assert isinstance(ref, int)
        assert isinstance(shard, bytes)
        if sql.execute(_FIND, (ref, shard)).fetchone() != tuple(place):
            known.append((ref, shard))
    if inserted + len(known) != rows:
        raise IndexDamagedError("it has records from behind the position that it names")
    return known
