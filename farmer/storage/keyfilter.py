"""
A Bloom filter (Bloom 1970) of several columns: which of them may have a shard, by one question.

Each of its rows has a bit for each column, so that one look at a few rows answers for all columns
(bit-sliced signatures, Faloutsos and Christodoulakis 1984).  Which rows are a shard's depends on
its renter, too: a shard of another renter must take no longer than one that nobody has
(`docs/security.md`).  And on a secret, so that nobody can choose keys for rows.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from threading import Lock
from typing import Final

_WORDS: Final = Struct("<4I")
"""A shard's rows: four."""

ROWS_FOR_A_SHARD: Final = 8
"""For each shard of a column: when it is full, one look in 40 is in vain, one in 400 before
it is half full."""

ROWS_MIN: Final = 1 << 14
FILTER_BYTES_MAX: Final = 32 * 1024 * 1024
"""Enough for four million shards on each of seven volumes; with more it says "maybe" oftener."""

_BYTES_OF_A_ROW: Final = {"B": 1, "H": 2, "I": 4, "Q": 8}
COLUMNS_MAX: Final = 64


class KeyFilter:
    """One filter, of a fixed size; safe from any thread.  Nothing is ever taken out of it."""

    def __init__(self, columns: int, shards: int) -> None:
        """Make room for so many columns (at most `COLUMNS_MAX`), and shards in each of them."""
        kind, self.columns = _kind_of_row(columns)
        most = FILTER_BYTES_MAX // _BYTES_OF_A_ROW[kind]
        wanted = 1 << (shards * ROWS_FOR_A_SHARD).bit_length()
        rows = max(ROWS_MIN, min(wanted, most))
        self.shards = max(shards, rows // ROWS_FOR_A_SHARD)
        """So many in each column: with more it should be made anew."""
        self.counts = [0] * self.columns
        """How many were added to each column, over and over again included."""
        self._rows: array[int] = array(kind, [0]) * rows
        self._mask = rows - 1
        self._secret = secrets.token_bytes(16)
        self._lock = Lock()

    def add(self, column: int, keys: Iterable[bytes]) -> None:
        """Add shards to a column: the bytes of the renter and of the shard, together."""
        rows, mask, bit, count = self._rows, self._mask, 1 << column, 0
        with self._lock:
            for key in keys:
                for word in self._words(key):
                    rows[word & mask] |= bit
                count += 1
            self.counts[column] += count

    def which(self, key: bytes) -> int:
        """Return the columns that may have a shard, as bits; the others have not."""
        rows, mask = self._rows, self._mask
        a, b, c, d = self._words(key)
        return rows[a & mask] & rows[b & mask] & rows[c & mask] & rows[d & mask]

    def _words(self, key: bytes) -> tuple[int, int, int, int]:
        digest = blake2b(key, digest_size=_WORDS.size, key=self._secret).digest()
        words: tuple[int, int, int, int] = _WORDS.unpack(digest)
        return words


def _kind_of_row(columns: int) -> tuple[str, int]:
    """Return the narrowest kind of row that has so many bits, and how many it has."""
    for kind, size_bytes in _BYTES_OF_A_ROW.items():
        if columns <= 8 * size_bytes:
            return kind, 8 * size_bytes
    raise ValueError(f"a filter has at most {COLUMNS_MAX} columns")
