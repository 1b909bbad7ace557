"""What lies in memory for renters, unread or unsent: one account each, and the sum of all."""

from __future__ import annotations

from typing import Final

from farmer.model.shard import BLOCK_BYTES
from farmer.protocol.limits import DATA_BYTES_SENT

HELD_BYTES_MAX: Final = 16 * 1024 * 1024
"""Unread and unsent bytes of all sessions; above it steps are least, and who is slow goes."""

STEP_BYTES: Final = DATA_BYTES_SENT
"""Shard bytes that one stream holds per step, in either direction."""

CROWDED_PART: Final = 4
"""Above this part of what may be held, a stream gets one block at a time instead of a step."""

FEW_TRANSFERS: Final = HELD_BYTES_MAX // CROWDED_PART // STEP_BYTES
"""
Transfers to us under way up to which each may read a step at once, which is counted only when it
has come; among more, every stream goes by blocks: a step is a turn for which all others wait.
"""

STEP_BYTES_MIN: Final = 16 * 1024
"""A step when too much is held: a block is checked for each, which costs time, not memory."""

NOTICED_BYTES: Final = 4096
"""Who holds less need not go when memory is short: a place given up costs us a handshake."""


class Held:
    """The sum; see `HELD_BYTES_MAX`.  It counts, and stops nobody: who holds much is slow."""

    def __init__(self, limit_bytes: int = HELD_BYTES_MAX) -> None:
        self._limit_bytes = limit_bytes
        self.total_bytes = 0
        self.transfers = 0
        """Transfers to us that are under way."""

    @property
    def is_short(self) -> bool:
        """Whether more is held than may be."""
        return self.total_bytes > self._limit_bytes

    @property
    def step_bytes(self) -> int:
        """How much a stream should take into memory at once."""
        is_roomy = self.total_bytes <= self._limit_bytes // CROWDED_PART
        if is_roomy and self.transfers <= FEW_TRANSFERS:
            return STEP_BYTES
        return STEP_BYTES_MIN if self.is_short else BLOCK_BYTES


class Account:
    """What one session holds of it; never below 0."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._in_transfer = False
        self.total_bytes = 0

    def add(self, more_bytes: int) -> None:
        """Hold so many more, or fewer."""
        self.total_bytes += more_bytes
        self._held.total_bytes += more_bytes
        assert self.total_bytes >= 0, self.total_bytes

    def keeping(self, size_bytes: int) -> Keeping:
        """Hold so many more within a `with`."""
        return Keeping(self, size_bytes)

    def claim_large_reads(self, *, in_transfer: bool) -> bool:
        """Note whether a transfer to us is under way; say whether it may read a step at once."""
        if in_transfer is not self._in_transfer:
            self._in_transfer = in_transfer
            self._held.transfers += 1 if in_transfer else -1
        return in_transfer and self._held.transfers <= FEW_TRANSFERS

    @property
    def step_bytes(self) -> int:
        """How much it should take into memory at once, by what all hold."""
        return self._held.step_bytes

    @property
    def is_missed(self) -> bool:
        """Whether memory is short and there is some here to be had."""
        return self._held.is_short and self.total_bytes >= NOTICED_BYTES


class Keeping:
    """Bytes that are held within a `with`; a generator would take three times as many calls."""

    __slots__ = ("_account", "_size_bytes")

    def __init__(self, account: Account, size_bytes: int) -> None:
        self._account = account
        self._size_bytes = size_bytes

    def __enter__(self) -> None:
        self._account.add(self._size_bytes)

    def __exit__(self, *_: object) -> None:
        self._account.add(-self._size_bytes)
