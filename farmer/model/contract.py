"""What farmer and renter agreed: offers, invites, contracts, receipts.  Times are Unix ms."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from farmer.model.ids import ContractId, InviteSerial, NodeId, ShardId

CURRENCY_BYTES_MAX: Final = 16
"""Currency is free text, but short: it travels in every invite and is shown in tables."""

NO_PREVIOUS: Final = bytes(32)
"""The chain field of the first document of a chain."""

GRACE_MS: Final = 14 * 86_400_000
"""After its end a contract is still readable for this long; no stores."""

TRASH_MS: Final = 7 * 86_400_000
"""Deleted shards, and shards of ended contracts, are recoverable for this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Millionths of a currency unit; the default is free of charge."""

    currency: str = ""
    stored_micros: int = 0
    """Per TB (10^12 bytes) charged, per 30 days."""
    served_micros: int = 0
    """Per TB (10^12 bytes) retrieved."""

    def __post_init__(self) -> None:
        plain = self.currency.isascii() and self.currency.isprintable()
        if len(self.currency) > CURRENCY_BYTES_MAX or not plain:
            raise ValueError(f"a currency is printable ASCII, at most {CURRENCY_BYTES_MAX} bytes")
        if not (0 <= self.stored_micros < 1 << 63 and 0 <= self.served_micros < 1 << 63):
            raise ValueError("a price is not negative and fits 63 bits")


FREE: Final = Price()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The terms inside an invite."""

    space_bytes: int
    duration_ms: int
    created_at_ms: int
    expires_at_ms: int
    price: Price = FREE

    def __post_init__(self) -> None:
        if self.space_bytes <= 0 or self.duration_ms <= 0:
            raise ValueError("an offer has some space and some duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """A farmer's single-use offer of a contract, with the farmer's signature (Ed25519)."""

    serial: InviteSerial
    offer: Offer
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteLink:
    """The line people copy: whom to call, where, and the invite itself."""

    farmer: NodeId
    addresses: tuple[str, ...]
    """`host:port`, IPv6 in brackets; tried in order."""
    invite: Invite


class ContractStage(IntEnum):
    """Where a contract stands.  Disk and wire values: never renumber."""

    ACTIVE = 0
    GRACE = 1
    TRASH = 2
    GONE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Space on one farmer for one renter, from a time until a time."""

    contract: ContractId
    farmer_key: bytes
    """The farmer's raw Ed25519 public key, 32 bytes; its node id follows from it."""
    renter: NodeId
    revision: int
    space_bytes: int
    from_ms: int
    until_ms: int
    price: Price = FREE
    issued_at_ms: int
    previous: bytes = NO_PREVIOUS
    """SHA-256 of the canonical bytes of the revision before this one; zeros for the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The farmer's signed word that it holds a shard.  Times are the farmer's clock."""

    farmer_key: bytes
    renter: NodeId
    contract: ContractId
    shard: ShardId
    size_bytes: int
    charge_bytes: int
    stored_at_ms: int
    issued_at_ms: int
    until_ms: int
    """The contract's end when this was signed."""
    previous: bytes = NO_PREVIOUS
    signature: bytes = field(default=b"", repr=False)


def renewed(contract: Contract, offer: Offer, now_ms: int, previous: bytes) -> Contract:
    """
    Return the contract after another invite was redeemed on it: never shorter, never smaller.

    The new term counts from now; price is the newer offer's.  *previous* is the digest of
    the revision that this one follows.
    """
    return replace(
        contract,
        revision=contract.revision + 1,
        space_bytes=max(contract.space_bytes, offer.space_bytes),
        until_ms=max(contract.until_ms, now_ms + offer.duration_ms),
        price=offer.price,
        issued_at_ms=now_ms,
        previous=previous,
    )
