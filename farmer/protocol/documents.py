"""
Canonical bytes of the signed documents: invites, contracts, receipts.

One value has exactly one encoding.  The signature stands after the body and covers
domain + body; `farmer.identity.signing` makes and checks it.

    Price       0   8  stored, millionths of a currency unit per TB and 30 days
                8   8  served, millionths of a currency unit per TB
               16   1  n, length of the currency (at most 16)
               17   n  currency, ASCII

    Invite      0   1  version, 1
                1  16  serial
               17   8  space, bytes
               25   8  duration of the contract, ms, counted from redemption
               33   8  created at, Unix ms
               41   8  expires at, Unix ms
               49   -  Price
                -  64  signature; its domain is followed by the farmer's 32-byte node id

    Contract    0   1  version, 1
                1  16  contract id
               17  32  farmer's Ed25519 public key
               49  32  renter's node id
               81   4  revision, from 1
               85   8  space, bytes
               93   8  from, Unix ms
              101   8  until, Unix ms
              109   8  issued at, Unix ms
              117  32  previous: SHA-256 of the body of the revision before, or zeros
              149   -  Price
                -  64  signature

    Receipt     0   1  version, 1
                1  32  farmer's Ed25519 public key
               33  32  renter's node id
               65  16  contract id
               81  32  shard id
              113   8  size, bytes
              121   8  charge, bytes
              129   8  stored at, Unix ms
              137   8  issued at, Unix ms
              145   8  until, Unix ms
              153  32  previous: SHA-256 of the body of the receipt before, or zeros
              185  64  signature
"""

from __future__ import annotations

from typing import Final

from farmer.model.contract import CURRENCY_BYTES_MAX, Contract, Invite, Offer, Price, Receipt
from farmer.model.ids import ContractId, InviteSerial, NodeId, ShardId
from farmer.protocol.fields import LayoutError, Reader, text, u8, u32, u64

INVITE_DOMAIN: Final = b"farmer/invite/1\0"
CONTRACT_DOMAIN: Final = b"farmer/contract/1\0"
RECEIPT_DOMAIN: Final = b"farmer/receipt/1\0"

DOCUMENT_VERSION: Final = 1
SIGNATURE_BYTES: Final = 64
KEY_BYTES: Final = 32


def price_bytes(price: Price) -> bytes:
    """Encode a price."""
    return u64(price.stored_micros) + u64(price.served_micros) + text(price.currency)


def read_price(reader: Reader) -> Price:
    """Decode a price; raises `LayoutError`."""
    stored, served, currency = reader.u64(), reader.u64(), reader.text()
    if len(currency) > CURRENCY_BYTES_MAX:
        raise LayoutError(f"a currency has at most {CURRENCY_BYTES_MAX} bytes")
    return Price(currency=currency, stored_micros=stored, served_micros=served)


def invite_body(serial: InviteSerial, offer: Offer) -> bytes:
    """Return what an invite's signature covers, after domain and node id."""
    return (
        u8(DOCUMENT_VERSION)
        + serial.raw
        + u64(offer.space_bytes)
        + u64(offer.duration_ms)
        + u64(offer.created_at_ms)
        + u64(offer.expires_at_ms)
        + price_bytes(offer.price)
    )


def invite_bytes(invite: Invite) -> bytes:
    """Encode an invite, signature included."""
    return invite_body(invite.serial, invite.offer) + invite.signature


def read_invite(raw: bytes) -> Invite:
    """Decode an invite; raises `LayoutError`.  The signature is not checked here."""
    reader = Reader(raw)
    _check_version(reader)
    serial = InviteSerial(reader.raw(InviteSerial.SIZE_BYTES))
    space, duration = reader.u64(), reader.u64()
    created, expires = reader.u64(), reader.u64()
    price = read_price(reader)
    signature = reader.raw(SIGNATURE_BYTES)
    reader.end()
    if not (space and duration):
        raise LayoutError("an invite without space or duration")
    offer = Offer(
        space_bytes=space,
        duration_ms=duration,
        created_at_ms=created,
        expires_at_ms=expires,
        price=price,
    )
    return Invite(serial=serial, offer=offer, signature=signature)


def contract_body(contract: Contract) -> bytes:
    """Return what a contract's signature covers, after the domain."""
    return (
        u8(DOCUMENT_VERSION)
        + contract.contract.raw
        + contract.farmer_key
        + contract.renter.raw
        + u32(contract.revision)
        + u64(contract.space_bytes)
        + u64(contract.from_ms)
        + u64(contract.until_ms)
        + u64(contract.issued_at_ms)
        + contract.previous
        + price_bytes(contract.price)
    )


def read_contract(reader: Reader) -> Contract:
    """Decode a contract's body; raises `LayoutError`."""
    _check_version(reader)
    contract = ContractId(reader.raw(ContractId.SIZE_BYTES))
    key = reader.raw(KEY_BYTES)
    renter = NodeId(reader.raw(NodeId.SIZE_BYTES))
    revision, space = reader.u32(), reader.u64()
    if not revision:
        raise LayoutError("a contract's revisions count from 1")
    from_ms, until_ms, issued_at_ms = reader.u64(), reader.u64(), reader.u64()
    previous = reader.raw(32)
    return Contract(
        contract=contract,
        farmer_key=key,
        renter=renter,
        revision=revision,
        space_bytes=space,
        from_ms=from_ms,
        until_ms=until_ms,
        price=read_price(reader),
        issued_at_ms=issued_at_ms,
        previous=previous,
    )


def receipt_body(receipt: Receipt) -> bytes:
    """Return what a receipt's signature covers, after the domain."""
    return (
        u8(DOCUMENT_VERSION)
        + receipt.farmer_key
        + receipt.renter.raw
        + receipt.contract.raw
        + receipt.shard.raw
        + u64(receipt.size_bytes)
        + u64(receipt.charge_bytes)
        + u64(receipt.stored_at_ms)
        + u64(receipt.issued_at_ms)
        + u64(receipt.until_ms)
        + receipt.previous
    )


def receipt_bytes(receipt: Receipt) -> bytes:
    """Encode a receipt, signature included."""
    return receipt_body(receipt) + receipt.signature


def read_receipt(raw: bytes) -> Receipt:
    """Decode a receipt, signature included; raises `LayoutError`."""
    reader = Reader(raw)
    _check_version(reader)
    receipt = Receipt(
        farmer_key=reader.raw(KEY_BYTES),
        renter=NodeId(reader.raw(NodeId.SIZE_BYTES)),
        contract=ContractId(reader.raw(ContractId.SIZE_BYTES)),
        shard=ShardId(reader.raw(ShardId.SIZE_BYTES)),
        size_bytes=reader.u64(),
        charge_bytes=reader.u64(),
        stored_at_ms=reader.u64(),
        issued_at_ms=reader.u64(),
        until_ms=reader.u64(),
        previous=reader.raw(32),
        signature=reader.raw(SIGNATURE_BYTES),
    )
    reader.end()
    return receipt


def _check_version(reader: Reader) -> None:
    version = reader.u8()
    if version != DOCUMENT_VERSION:
        raise LayoutError(f"document version {version}, this release reads {DOCUMENT_VERSION}")
