"""Entering many plain records into the index at once, in the order of its pages."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from struct import Struct
from typing import Any, Final

from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.storage.index_errors import IndexDamagedError
from farmer.storage.places import Place, Row

PlainRow = bytes
"""
A live small shard, as `pack` makes it: a tuple would take three times the memory.  Rows sort as
the index does, by renter and shard, and those of one shard as the log does.
"""

_LAYOUT: Final = Struct(">32s32sQQI16sQQI")
_SEQUENCE: Final = slice(108, 116)

pack: Final = _LAYOUT.pack
"""Of renter, shard, segment, offset, size, contract, stored at, sequence and charge."""

PLAIN_ROW_BYTES: Final = 168
"""What a row takes in memory, with its place in a list."""

_AT_ONCE: Final = 64
"""Rows in one statement: two thirds of the time of one statement each."""

_INSERT: Final = "INSERT OR IGNORE INTO shards VALUES "
"""To look first which shards have a row would be a second search for each."""

_VALUES: Final = "(?, ?, ?, ?, NULL, ?, ?, ?, ?, 0, 0, 0, 0, 0)"
"""What is not bound says that it is live and has no file."""

_INSERT_MANY: Final = _INSERT + ", ".join([_VALUES] * _AT_ONCE)
_FIND: Final = "SELECT segment, offset FROM shards WHERE renter = ? AND shard = ?"


@dataclass(slots=True)
class Entered:
    """What became of the rows."""

    charges: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    """Bytes charged for the shards that are new, by renter and segment."""
    shards: Counter[bytes] = field(default_factory=Counter)
    """How many these are, by renter."""
    others: list[PlainRow] = field(default_factory=list)
    """Rows whose shard has one already, to be entered one by one."""


def enter(
    sql: sqlite3.Connection,
    rows: Iterable[PlainRow],
    renter_ref: Callable[[bytes], int],
    contract_ref: Callable[[bytes], int],
) -> Entered:
    """
    Enter those rows whose shards are new to the index; all stand behind what it knew.

    Raises:
        IndexDamagedError: it has one of these very records already, and does not say so.

    """
    entered = Entered()
    renters, contracts = _Known(renter_ref), _Known(contract_ref)
    ordered = sorted(rows)
    # The index has renters in the order of their numbers.
    ordered.sort(key=lambda row: renters[row[:32]])
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        columns = [_LAYOUT.unpack(row) for row in some]
        for at in reversed(_insert_new(sql, columns, renters, contracts)):
            entered.others.append(some[at])
            del columns[at]
        for renter, _, segment, *_, charge in columns:
            entered.charges[renter, segment] += charge
            entered.shards[renter] += 1
    return entered


class _Known(dict[bytes, int]):
    """The numbers that stand for renters or contracts, each asked for once."""

    def __init__(self, ask: Callable[[bytes], int]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, raw: bytes) -> int:
        """Ask."""
        number = self[raw] = self._ask(raw)
        return number


def row_of_plain(plain: PlainRow) -> Row:
    """Return a plain row as all others are."""
    renter, shard, segment, offset, size, contract, stored, sequence, _charge = _LAYOUT.unpack(
        plain
    )
    return Row(
        renter=NodeId(renter),
        shard=ShardId(shard),
        place=Place(segment, offset),
        size_bytes=size,
        contract=ContractId(contract),
        stored_at_ms=stored,
        sequence=sequence,
    )


def offset_of(plain: PlainRow) -> int:
    """Return where in its segment a plain record is."""
    return int.from_bytes(plain[72:80], "big")


def last_sequence(rows: Iterable[PlainRow]) -> int:
    """Return the highest sequence of some; 0 without any."""
    return int.from_bytes(max((row[_SEQUENCE] for row in rows), default=b""), "big")


def _insert_new(
    sql: sqlite3.Connection,
    rows: Sequence[tuple[Any, ...]],
    renters: _Known,
    contracts: _Known,
) -> list[int]:
    """Insert the rows whose shards are new; return the indices of the others."""
    full = len(rows) == _AT_ONCE
    insert = _INSERT_MANY if full else _INSERT + ", ".join([_VALUES] * len(rows))
    values = chain.from_iterable(
        (renters[renter], shard, segment, offset, size, contracts[contract], stored, sequence)
        for renter, shard, segment, offset, size, contract, stored, sequence, _ in rows
    )
    inserted = sql.execute(insert, list(values)).rowcount
    if inserted == len(rows):
        return []
    known = [
        at
        for at, (renter, shard, *place) in enumerate(row[:4] for row in rows)
        if sql.execute(_FIND, (renters[renter], shard)).fetchone() != tuple(place)
    ]
    if inserted + len(known) != len(rows):
        raise IndexDamagedError("it has records from behind the position that it names")
    return known
