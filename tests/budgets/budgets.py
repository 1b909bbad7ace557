"""
What a store, a retrieve and an audit may cost, each of one renter alone, on a warm farmer.

docs/decisions/speed.md has all of them in tables that a test compares: raising one is to be
explained there; lowering one is what they are for.
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
    sends: int = 0
    """Writes to the wire: an answer of one step and its END are one."""
    delayed_sends: int = 0
    """Of those, that wait for the reactor's next turn, since more may follow."""


@dataclass(frozen=True)
class Calls:
    """System calls of the whole daemon for one operation: the average of some hundred."""

    send: float
    receive: float
    write: float
    """To files; the index's and the log's."""
    sync: float
    read: float
    """From files."""
    futex: float
    """What waits for another thread, or wakes one: more of them on a busy machine."""
    epoll: float
    """Turns of the reactor; so here."""


STORE_64_KIB = Cost(writes=1, syncs=1, written_bytes=69_632, statements=8, hand_offs=2, sends=2)
STORE_2_MIB = Cost(
    writes=11,
    syncs=4,
    others=3,
    written_bytes=2_098_816,
    statements=8,
    hand_offs=10,
    turns=8,
    sends=2,
)
RETRIEVE_64_KIB = Cost(reads=3, read_bytes=65_828, statements=1, hand_offs=1, sends=1)
RETRIEVE_2_MIB = Cost(
    reads=10,
    read_bytes=2_098_560,
    statements=1,
    hand_offs=1,
    turns=8,
    sends=10,
    delayed_sends=9,
)
AUDIT = Cost(reads=3, read_bytes=66_944, statements=1, hand_offs=1, sends=1)

COSTS = {
    "store 64 KiB": STORE_64_KIB,
    "store 2 MiB": STORE_2_MIB,
    "retrieve 64 KiB": RETRIEVE_64_KIB,
    "retrieve 2 MiB": RETRIEVE_2_MIB,
    "audit": AUDIT,
}

CALLS = {
    "store": Calls(send=2, receive=3, write=10, sync=1.1, read=4, futex=50, epoll=7),
    "retrieve": Calls(send=1, receive=1, write=0, sync=0, read=3, futex=25, epoll=4),
    "audit": Calls(send=1, receive=1, write=0, sync=0, read=3, futex=25, epoll=4),
}
"""Of 64 KiB, one at a time over one connection; more than these by a few hundredths is chance."""
