"""
Deletions that a volume which was away has not heard of.

A shard that was stored while a volume could not be asked may have an older copy there
(`Row.alone_ms`).  When it is given up, a tombstone stays in its place, so that the older copy
does not come back with that volume; it goes when all volumes have been looked at together
(`farmer.storage.reunion`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from farmer.model.ids import NodeId, ShardId
from farmer.storage.marks import Action, Mark
from farmer.storage.places import Key

_COLUMNS: Final = (
    "SELECT r.renter, t.shard, t.sequence, t.observed FROM tombstones t"
    " JOIN renters r ON r.id = t.renter"
)
FIND: Final = f"{_COLUMNS} WHERE r.renter = ? AND t.shard = ?"
SOME: Final = f"{_COLUMNS} LIMIT ?"
_EXIST: Final = "SELECT EXISTS (SELECT 1 FROM tombstones)"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """One shard that is gone, whatever a volume that was away then may hold."""

    renter: NodeId
    shard: ShardId
    sequence: int
    """Of the record that was given up here, as in marks."""
    observed_ms: int
    """Observed running time of the deletion: copies that were stored later do count."""

    @classmethod
    def of(cls, columns: tuple[bytes, bytes, int, int]) -> Tombstone:
        """Make one of the columns that the queries above return."""
        renter, shard, sequence, observed_ms = columns
        return cls(NodeId(renter), ShardId(shard), sequence, observed_ms)

    @property
    def key(self) -> Key:
        """Whose, and which."""
        return self.renter, self.shard

    def mark(self, action: Action) -> Mark:
        """Return the mark that sets it, or (gone) lifts it."""
        return Mark(
            action=action,
            at_ms=0,
            observed_ms=self.observed_ms,
            renter=self.renter,
            shard=self.shard,
            sequence=self.sequence,
        )


class Tombstones:
    """Those of one volume, within one transaction of its index."""

    def __init__(self, connection: sqlite3.Connection, *, exist: bool) -> None:
        self._sql = connection
        self.exist = exist
        """False only if there is none."""
        self.changed = False

    def are_left(self) -> bool:
        """Say whether there are any, with the changes so far."""
        return self.exist and bool(self._sql.execute(_EXIST).fetchone()[0])

    def find(self, renter: NodeId, shard: ShardId) -> Tombstone | None:
        """Return a shard's."""
        if not self.exist:
            return None
        columns = self._sql.execute(FIND, (renter.raw, shard.raw)).fetchone()
        return Tombstone.of(columns) if columns else None

    def set(self, renter_ref: int, stone: Tombstone) -> None:
        """Enter one, in place of an earlier one."""
        self._sql.execute(
            "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?)",
            (renter_ref, stone.shard.raw, stone.sequence, stone.observed_ms),
        )
        self.exist = self.changed = True

    def lift(self, renter: NodeId, shard: ShardId) -> None:
        """Remove a shard's, if there is one."""
        if self.exist:
            self._sql.execute(
                "DELETE FROM tombstones WHERE shard = ?"
                " AND renter = (SELECT id FROM renters WHERE renter = ?)",
                (shard.raw, renter.raw),
            )
            self.changed = True
