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
    not speak against a sound older one, whose bytes are the same; but the older one's being in
    the trash is over, for it was stored since.
    """
    found = list(copies)
    if len(found) < 2 and not buried_ms:
        # Nothing speaks against a lone one.
        return found
    rows = [row_of(one) for one in found]
    since_ms = _since_ms(rows, buried_ms)
    stored_ms = max((row.alone_ms for row in rows if not _is_in_trash(row)), default=0)
    trashed_since_ms = max(since_ms, stored_ms)
    counting = [
        one
        for one, row in zip(found, rows, strict=True)
        if row.alone_ms >= (trashed_since_ms if _is_in_trash(row) else since_ms)
    ]
    return sorted(counting, key=lambda one: _worth(row_of(one)), reverse=True)


def that_stays(copies: Iterable[C], row_of: Callable[[C], Row], buried_ms: int) -> C | None:
    """
    Return the one that is to be left of those that there are; None if none counts.

    That is the best, unless only an older one in the trash has sound bytes of a shard that was
    stored since, and damaged: it is to be taken out of the trash before the newer one goes.
    """
    found = list(copies)
    best = next(iter(that_count(found, row_of, buried_ms)), None)
    if best is None or not row_of(best).is_damaged or _is_in_trash(row_of(best)):
        return best
    since_ms = _since_ms(map(row_of, found), buried_ms)
    sound = [
        one for one in found if not row_of(one).is_damaged and row_of(one).alone_ms >= since_ms
    ]
    return max(sound, key=lambda one: row_of(one).alone_ms, default=best)


def _since_ms(rows: Iterable[Row], buried_ms: int) -> int:
    """Return the time before which no copy counts that was stored, whatever it says."""
    trusted = (row.alone_ms for row in rows if not row.is_damaged or _is_in_trash(row))
    return max(buried_ms, *trusted, 0)


def _is_in_trash(row: Row) -> bool:
    return row.state is ShardState.TRASH


def _worth(row: Row) -> tuple[bool, bool, int, int]:
    is_live = row.state is ShardState.LIVE
    return not row.is_damaged, is_live, row.alone_ms, row.stored_at_ms
