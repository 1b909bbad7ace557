"""
Which copies of one shard count, where several volumes have one.

A shard is on two volumes while it is moved, after a crash in that moment, and when it was
stored again while the volume of its older copy could not be asked.  In the last case the newer
record says since when (`Row.alone_ms`), and so does the tombstone that it leaves: what is older
does not count, whatever the wall clock said.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from farmer.model.shard import ShardState
from farmer.storage.places import Row

C = TypeVar("C")


def that_count(copies: Iterable[C], row_of: Callable[[C], Row], buried_ms: int) -> list[C]:
    """
    Return those that count, the best first: sound, live, stored last.

    *buried_ms* is the observed time of the latest tombstone, or 0.  A damaged newer copy does
    not speak against a sound older one: their bytes are the same.
    """
    found = list(copies)
    if len(found) < 2 and not buried_ms:
        # Nothing speaks against a lone one.
        return found
    since_ms = max((_speaks_since_ms(row_of(one)) for one in found), default=0)
    since_ms = max(since_ms, buried_ms)
    counting = [one for one in found if row_of(one).alone_ms >= since_ms]
    return sorted(counting, key=lambda one: _worth(row_of(one)), reverse=True)


def _speaks_since_ms(row: Row) -> int:
    is_trusted = not row.is_damaged or row.state is ShardState.TRASH
    return row.alone_ms if is_trusted else 0


def _worth(row: Row) -> tuple[bool, bool, int]:
    return not row.is_damaged, row.state is ShardState.LIVE, row.stored_at_ms
