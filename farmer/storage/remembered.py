"""What an index's writer need not ask again: kept from one transaction to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from farmer.storage.places import Segment

REFS_MAX: Final = 4096
SEGMENTS_MAX: Final = 64
"""Bounds memory: stores need the last segment, deletions the ones that they strike."""


@dataclass(slots=True)
class Remembered:
    """Holds what the database holds, with the changes of the transaction under way."""

    refs: dict[tuple[Literal["renter", "contract"], bytes], int] = field(default_factory=dict)
    """The small numbers that stand for renters and contracts; they never change."""
    segments: dict[int, Segment] = field(default_factory=dict)

    def forget(self) -> None:
        """Know nothing: a transaction was rolled back, or may have been."""
        self.refs.clear()
        self.segments.clear()

    def limit(self) -> None:
        """Forget, between transactions, what has become too much."""
        if len(self.refs) > REFS_MAX:
            self.refs.clear()
        if len(self.segments) > SEGMENTS_MAX:
            self.segments.clear()
