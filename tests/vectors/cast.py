"""Who and what the vectors are about: keys, contents, documents, all made from stated streams."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from farmer.audit.proof import prove_sample
from farmer.audit.ranges import prove_range, whole_leaves
from farmer.audit.tree import ShardTree, TreeHasher
from farmer.identity import signing
from farmer.identity.keys import Identity
from farmer.model.audit import SampleProof
from farmer.model.contract import Contract, Invite, InviteLink, Offer, Price, Receipt
from farmer.model.ids import ContractId, InviteSerial, ShardId
from farmer.model.shard import BLOCK_BYTES, LEAF_BYTES, charge_bytes
from farmer.protocol.documents import invite_bytes
from farmer.protocol.state import FARMER_SENDS, RENTER_SENDS
from farmer.protocol.transfers import Send
from farmer.protocol.types import Type

Json = dict[str, Any]

SIZES: Final = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) + 5)
NOW_MS: Final = 1_790_000_000_000
DAY_MS: Final = 86_400_000


def stream(label: str, size: int) -> bytes:
    """Return the first bytes of the stream of a label: SHA-256(label || counter, 8 bytes)..."""
    rounds = range(-(-size // 32))
    whole = b"".join(
        hashlib.sha256(label.encode() + number.to_bytes(8, "big")).digest() for number in rounds
    )
    return whole[:size]


def identity(label: str) -> Identity:
    return Identity.of_key(Ed25519PrivateKey.from_private_bytes(stream(f"key {label}", 32)))


FARMER: Final = identity("farmer")
RENTER: Final = identity("renter")
OTHER: Final = identity("other")
PRICE: Final = Price(currency="EUR", stored_micros=1_500_000, served_micros=2_000_000)
OFFER: Final = Offer(
    space_bytes=200_000_000_000,
    duration_ms=90 * DAY_MS,
    created_at_ms=NOW_MS,
    expires_at_ms=NOW_MS + 7 * DAY_MS,
    price=PRICE,
)
INVITE: Final = signing.make_invite(FARMER, InviteSerial(stream("serial", 16)), OFFER)
INVITE_BYTES: Final = invite_bytes(INVITE)
CONTRACT: Final = Contract(
    contract=ContractId(stream("contract", 16)),
    farmer_key=FARMER.public_key,
    renter=RENTER.node_id,
    revision=1,
    space_bytes=OFFER.space_bytes,
    from_ms=NOW_MS,
    until_ms=NOW_MS + OFFER.duration_ms,
    price=PRICE,
    issued_at_ms=NOW_MS,
)
RENEWED: Final = replace(
    CONTRACT,
    revision=2,
    until_ms=CONTRACT.until_ms + 30 * DAY_MS,
    price=Price(),
    issued_at_ms=NOW_MS + DAY_MS,
    previous=signing.contract_digest(CONTRACT),
)


def tree_of(data: bytes) -> ShardTree:
    hasher = TreeHasher()
    hasher.update(data)
    return hasher.finish()


def shard_bytes(size: int) -> bytes:
    return stream(f"shard {size}", size)


SMALL: Final = shard_bytes(4097)
SMALL_ID: Final = tree_of(SMALL).shard_id()


def receipt(shard: ShardId, size: int, previous: bytes = bytes(32)) -> Receipt:
    return signing.sign_receipt(
        FARMER,
        Receipt(
            farmer_key=FARMER.public_key,
            renter=RENTER.node_id,
            contract=CONTRACT.contract,
            shard=shard,
            size_bytes=size,
            charge_bytes=charge_bytes(size),
            stored_at_ms=NOW_MS + 1000,
            issued_at_ms=NOW_MS + 2000,
            until_ms=CONTRACT.until_ms,
            previous=previous,
        ),
    )


RECEIPT: Final = receipt(SMALL_ID, len(SMALL))
FREE_INVITE: Final = signing.make_invite(
    FARMER,
    InviteSerial(stream("serial of the free", 16)),
    replace(OFFER, price=Price(), space_bytes=1, duration_ms=1),
)


def link_of(invite: Invite) -> InviteLink:
    addresses = ("farm.example.org:4646", "192.0.2.7:4646", "[2001:db8::7]:4646")
    return InviteLink(farmer=FARMER.node_id, addresses=addresses, invite=invite)


def sender_name(kind: Type) -> str:
    return "renter" if kind in RENTER_SENDS else "farmer" if kind in FARMER_SENDS else "both"


# Proofs


def nonce_of(size: int, k: int) -> bytes:
    return stream(f"nonce {size} {k}", 32)


def prove(data: bytes, leaves: tuple[int, ...]) -> SampleProof:
    return prove_sample(tree_of(data), leaves, lambda block: _block(data, block))


def range_of(data: bytes, offset: int, length: int) -> Send:
    """Return what heads the proved answer to a range."""
    start, widened = whole_leaves(len(data), offset, length)
    first, end = start // LEAF_BYTES, -(-(start + max(1, widened)) // LEAF_BYTES)
    nodes = prove_range(tree_of(data), first, end, lambda block: _block(data, block))
    return Send(len(data), start, widened, nodes)


def _block(data: bytes, block: int) -> bytes:
    return data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
