"""What the processor can do of what a farmer needs most: hashing, and TLS."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)

from farmer.audit.tree import TreeHasher
from farmer.identity.keys import Identity
from farmer.identity.tls import farmer_side, renter_side

PIECE_BYTES: Final = 1024 * 1024
TLS_PIECE_BYTES: Final = 256 * 1024
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ProcessorFigures:
    """Rates of one core."""

    hash_mb_per_s: float
    """Shard ids: the tree over 4 KiB leaves."""
    handshakes_per_s: float
    """Both sides of a mutual TLS 1.3 handshake."""
    tls_mb_per_s: float
    """Encrypted by the one side and decrypted by the other."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What makes the two ends of a connection."""

    farmer: IOpenSSLServerConnectionCreator
    renter: IOpenSSLClientConnectionCreator


def measure_processor(seconds: float) -> ProcessorFigures:
    """Measure in memory; each figure takes about *seconds*."""
    with TemporaryDirectory() as folder:
        farmer, renter = (Identity.create(Path(folder) / name) for name in ("farmer", "renter"))
        sides = Sides(farmer_side(farmer), renter_side(renter))
    return ProcessorFigures(
        hash_mb_per_s=_hashing(seconds),
        handshakes_per_s=_handshakes(sides, seconds),
        tls_mb_per_s=_bulk(sides, seconds),
    )


def _hashing(seconds: float) -> float:
    piece, hashed, hasher = os.urandom(PIECE_BYTES), 0, TreeHasher()
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        hasher.update(piece)
        hashed += PIECE_BYTES
    hasher.finish()
    return hashed / took / _MB


def _handshakes(sides: Sides, seconds: float) -> float:
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        _shaken(sides)
        count += 1
    return count / took


def _bulk(sides: Sides, seconds: float) -> float:
    sender, taker = _shaken(sides)
    piece, moved = os.urandom(TLS_PIECE_BYTES), 0
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        sender.sendall(piece)
        _carry(sender, taker)
        left = len(piece)
        while left:
            left -= len(taker.recv(left))
        moved += len(piece)
    return moved / took / _MB


def _shaken(sides: Sides) -> tuple[SSL.Connection, SSL.Connection]:
    """Return both ends of a handshake that is done: the farmer's, and the renter's."""
    # No protocol stands behind them; they make no use of it.
    farmer: SSL.Connection = sides.farmer.serverConnectionForTLS(None)  # type: ignore[arg-type]
    renter: SSL.Connection = sides.renter.clientConnectionForTLS(None)  # type: ignore[arg-type]
    unshaken = [renter, farmer]
    while unshaken:
        for end, other in ((renter, farmer), (farmer, renter)):
            with suppress(SSL.WantReadError):
                end.do_handshake()
                if end in unshaken:
                    unshaken.remove(end)
            _carry(end, other)
    return farmer, renter


def _carry(source: SSL.Connection, target: SSL.Connection) -> None:
    """Take what one end has to say to the other."""
    while True:
        try:
            target.bio_write(source.bio_read(TLS_PIECE_BYTES))
        except SSL.WantReadError:
            return
