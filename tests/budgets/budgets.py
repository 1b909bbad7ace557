"""
What a store, a retrieve and an audit may cost, each of one renter alone, on a warm farmer.

Raising one of these needs a page in docs/decisions; lowering one is what they are for.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Cost:
    """Counts of one operation."""

    writes: int = 0
    """Calls that write."""
    syncs: int = 0
    reads: int = 0
    others: int = 0
    """Other calls of the port to files: opens, sizes, questions to the filesystem."""
    written_bytes: int = 0
    read_bytes: int = 0
    statements: int = 0
    """Of SQL, with the beginnings and ends of transactions."""
    hand_offs: int = 0
    """Work given to a thread, or waited for from one."""
    turns: int = 0
    """Turns of the reactor that were asked for."""


STORE_64_KIB = Cost(writes=1, syncs=1, written_bytes=69_632, statements=8, hand_offs=2)
STORE_2_MIB = Cost(
    writes=11,
    syncs=4,
    others=3,
    written_bytes=2_098_816,
    statements=8,
    hand_offs=10,
    turns=8,
)
RETRIEVE_64_KIB = Cost(reads=3, read_bytes=65_828, statements=1, hand_offs=1)
RETRIEVE_2_MIB = Cost(reads=10, read_bytes=2_098_560, statements=1, hand_offs=1, turns=8)
AUDIT = Cost(reads=3, read_bytes=66_944, statements=1, hand_offs=1)
