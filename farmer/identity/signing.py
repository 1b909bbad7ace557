"""All signing and checking of documents: Ed25519 (RFC 8032) over domain + canonical bytes."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from farmer.model.addresses import ADDRESSES_MAX, is_address
from farmer.model.contract import Contract, Invite, InviteLink, Offer, Receipt
from farmer.model.ids import InviteSerial, NodeId
from farmer.protocol.documents import (
    CONTRACT_DOMAIN,
    INVITE_DOMAIN,
    RECEIPT_DOMAIN,
    contract_body,
    invite_body,
    invite_bytes,
    read_invite,
    receipt_body,
)
from farmer.protocol.fields import LayoutError

SPKI_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
"""The 12 bytes before every raw Ed25519 key in its SubjectPublicKeyInfo (RFC 8410)."""

SCHEME: Final = "farmer://"


class InviteLinkError(ValueError):
    """The line is not an invite: what is wrong with it, and what one looks like."""


class Signer(Protocol):
    """Who can sign: an identity with its private key."""

    @property
    def public_key(self) -> bytes:
        """The raw Ed25519 public key, 32 bytes."""

    @property
    def node_id(self) -> NodeId:
        """SHA-256 of the key's SubjectPublicKeyInfo."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature."""


def node_id_of_key(public_key: bytes) -> NodeId:
    """Return the node id of a raw Ed25519 public key."""
    return NodeId(hashlib.sha256(SPKI_PREFIX + public_key).digest())


def make_invite(signer: Signer, serial: InviteSerial, offer: Offer) -> Invite:
    """Sign an offer."""
    body = INVITE_DOMAIN + signer.node_id.raw + invite_body(serial, offer)
    return Invite(serial=serial, offer=offer, signature=signer.sign(body))


def invite_is_ours(signer: Signer, invite: Invite) -> bool:
    """Tell whether *signer* signed the invite."""
    return invite_is_valid(signer.public_key, invite)


def invite_is_valid(farmer_key: bytes, invite: Invite) -> bool:
    """Tell whether the farmer with this key signed the invite."""
    farmer = node_id_of_key(farmer_key)
    body = INVITE_DOMAIN + farmer.raw + invite_body(invite.serial, invite.offer)
    return _valid(farmer_key, invite.signature, body)


def sign_contract(signer: Signer, contract: Contract) -> bytes:
    """Return the signature of a contract."""
    return signer.sign(CONTRACT_DOMAIN + contract_body(contract))


def contract_is_valid(contract: Contract, signature: bytes) -> bool:
    """Tell whether the farmer named in the contract signed it."""
    body = CONTRACT_DOMAIN + contract_body(contract)
    return _valid(contract.farmer_key, signature, body)


def contract_digest(contract: Contract) -> bytes:
    """Return what the next revision's `previous` holds."""
    return hashlib.sha256(contract_body(contract)).digest()


def sign_receipt(signer: Signer, receipt: Receipt) -> Receipt:
    """Return the receipt with its signature."""
    return replace(receipt, signature=signer.sign(RECEIPT_DOMAIN + receipt_body(receipt)))


def receipt_is_valid(receipt: Receipt) -> bool:
    """Tell whether the farmer named in the receipt signed it."""
    return _valid(receipt.farmer_key, receipt.signature, RECEIPT_DOMAIN + receipt_body(receipt))


def format_link(link: InviteLink) -> str:
    """Return `farmer://<node id>@<host:port>[,<host:port>...]/<code>`."""
    code = base64.urlsafe_b64encode(invite_bytes(link.invite)).rstrip(b"=").decode()
    return f"{SCHEME}{link.farmer}@{','.join(link.addresses)}/{code}"


def parse_link(text: str) -> InviteLink:
    """
    Read an invite line.

    Raises:
        InviteLinkError: not such a line; the signature is the farmer's to check.

    """
    line = text.strip()
    head, at, tail = line.removeprefix(SCHEME).partition("@")
    host_list, slash, code = tail.partition("/")
    addresses = tuple(host_list.split(","))
    whole = line.startswith(SCHEME) and at and slash
    if not whole or not all(map(is_address, addresses)):
        raise InviteLinkError(
            "this is not an invite; one looks like farmer://<node id>@<host:port>/<code>"
        )
    if len(addresses) > ADDRESSES_MAX:
        raise InviteLinkError(
            f"this invite names {len(addresses)} addresses, more than the {ADDRESSES_MAX} that a "
            "farmer may have: ask for another"
        )
    try:
        raw = base64.b64decode(code + "=" * (-len(code) % 4), altchars=b"-_", validate=True)
        invite = read_invite(raw)
        farmer = NodeId.parse(head)
    except (ValueError, LayoutError) as error:
        raise InviteLinkError(f"the invite is damaged, copy it again: {error}") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != code:
        raise InviteLinkError("the invite is damaged, copy it again: not canonical base64")
    return InviteLink(farmer=farmer, addresses=addresses, invite=invite)


def _valid(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
