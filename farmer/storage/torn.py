"""
What is not sound in the log: torn by a crash, or damaged by the disk since.

A batch is written when the one before it has been synced, and each record says how far into its
batch it stands.  So all that stands before a batch of which anything is to be seen was durable,
and acknowledged: if it is unsound, the disk is to blame.  The rest was torn, and promised to
nobody; if it were left there, a shard could come back by it that was given up since.
"""

from __future__ import annotations

from farmer.storage.plain import Plain
from farmer.storage.scan import Damaged, Found


class Judge:
    """Looks at one segment from some record on."""

    def __init__(self) -> None:
        self.durable_bytes = 0
        """What stands before this offset was durable once."""
        self._undecided: list[Damaged] = []

    @property
    def is_in_doubt(self) -> bool:
        """Whether it is not known yet of something what it is."""
        return bool(self._undecided)

    def look(self, one: Plain | Found | Damaged) -> list[Damaged]:
        """Take what comes next; return what turns out to be damaged by it."""
        self.durable_bytes = max(self.durable_bytes, one.batch_offset)
        if isinstance(one, Damaged):
            self._undecided.append(one)
        return self._damaged() if self._undecided else []

    def end(self, durable_bytes: int) -> tuple[list[Damaged], list[Damaged]]:
        """Return what is damaged, and what is torn; *durable_bytes*, if more is known to be."""
        self.durable_bytes = max(self.durable_bytes, durable_bytes)
        return self._damaged(), self._undecided

    def _damaged(self) -> list[Damaged]:
        damaged = [one for one in self._undecided if one.offset < self.durable_bytes]
        self._undecided = self._undecided[len(damaged) :]
        return damaged
