"""
Full audits: one digest over a fresh nonce and every byte of a shard.

    digest   SHA-256("farmer/full-audit/1" || nonce, 32 || shard id, 32 || the shard)

Only who has the bytes, or has worked the answer out in advance, can check it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from farmer.audit.tree import Buffer
from farmer.model.ids import ShardId

FULL_DOMAIN: Final = b"farmer/full-audit/1"


class FullDigest:
    """Makes the answer of a full audit from the shard's bytes in any slices."""

    def __init__(self, nonce: bytes, shard: ShardId) -> None:
        self._digest = hashlib.sha256(FULL_DOMAIN + nonce + shard.raw)

    def update(self, data: Buffer) -> None:
        """Take the next bytes of the shard."""
        self._digest.update(data)

    def finish(self) -> bytes:
        """Return the 32-byte answer."""
        return self._digest.digest()
