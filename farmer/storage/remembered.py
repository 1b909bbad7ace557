"""What the databases need not be asked again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from farmer.model.ids import NodeId
from farmer.storage.lifetime import HeldContract
from farmer.storage.places import Segment

REFS_MAX: Final = 4096
SEGMENTS_MAX: Final = 64
"""Bounds memory: stores need the last segment, deletions the ones that they strike."""

CONTRACTS_MAX: Final = 1024
"""Of renters who asked last, 1 KiB each."""


@dataclass(slots=True)
class Remembered:
    """
    An index's writer has it from one transaction to the next.

    Holds what the database holds, with the changes of the transaction under way.
    """

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


class RememberedContracts:
    """
    Renters' contracts, each as of a number of changes of the book; safe from any thread.

    Every request asks for one.  The book has one connection, and threads that wait for it and
    for Python's lock at once hold each other up.
    """

    def __init__(self, contracts_max: int = CONTRACTS_MAX) -> None:
        self._contracts_max = contracts_max
        self._held: dict[NodeId, tuple[int, HeldContract]] = {}

    def find(self, renter: NodeId, as_of: int) -> HeldContract | None:
        """Return a renter's contract if it was kept, and nothing has changed since."""
        kept = self._held.get(renter)
        return kept[1] if kept is not None and kept[0] == as_of else None

    def keep(self, renter: NodeId, held: HeldContract, as_of: int) -> None:
        """Remember what the book said while it had seen *as_of* changes."""
        if len(self._held) >= self._contracts_max:
            self._held.clear()
        self._held[renter] = as_of, held
