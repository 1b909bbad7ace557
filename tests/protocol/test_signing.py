from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from farmer.identity import signing
from farmer.identity.keys import Identity
from farmer.identity.signing import InviteLinkError, format_link, parse_link
from farmer.model.addresses import ADDRESSES_MAX
from farmer.model.contract import Contract, InviteLink, Offer, Receipt
from farmer.model.ids import ContractId, InviteSerial, ShardId
from farmer.protocol.documents import (
    CONTRACT_DOMAIN,
    INVITE_DOMAIN,
    RECEIPT_DOMAIN,
    invite_bytes,
    receipt_body,
)
from tests.protocol.strategies import contracts, offers, receipts, serials

OURS = Identity.of_key(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Identity.of_key(Ed25519PrivateKey.from_private_bytes(bytes(32)))
OFFER = Offer(space_bytes=1, duration_ms=1, created_at_ms=0, expires_at_ms=9)
INVITE = signing.make_invite(OURS, InviteSerial(bytes(16)), OFFER)
LINK = InviteLink(farmer=OURS.node_id, addresses=("farm.example:4646", "[::1]:1"), invite=INVITE)
LINE = format_link(LINK)


def flipped(raw: bytes, bit: int) -> bytes:
    turned = bytearray(raw)
    turned[bit // 8 % len(raw)] ^= 1 << bit % 8
    return bytes(turned)


@given(serial=serials, offer=offers)
def test_our_own_invite_is_ours_and_no_other_farmers(serial: InviteSerial, offer: Offer) -> None:
    invite = signing.make_invite(OURS, serial, offer)
    assert signing.invite_is_ours(OURS, invite)
    assert not signing.invite_is_ours(OTHER, invite)


@given(bit=st.integers(0, 511))
def test_a_forged_invite_is_not_ours(bit: int) -> None:
    assert not signing.invite_is_ours(
        OURS, replace(INVITE, signature=flipped(INVITE.signature, bit))
    )
    richer = replace(INVITE, offer=replace(OFFER, space_bytes=2 + bit))
    assert not signing.invite_is_ours(OURS, richer)


@given(contracts)
def test_a_contract_is_valid_as_its_farmer_signed_it(contract: Contract) -> None:
    mine = replace(contract, farmer_key=OURS.public_key)
    signature = signing.sign_contract(OURS, mine)
    assert signing.contract_is_valid(mine, signature)
    assert not signing.contract_is_valid(
        replace(mine, space_bytes=mine.space_bytes ^ 1), signature
    )
    assert not signing.contract_is_valid(replace(mine, farmer_key=OTHER.public_key), signature)


@given(receipts)
def test_a_receipt_is_valid_as_its_farmer_signed_it(receipt: Receipt) -> None:
    mine = signing.sign_receipt(OURS, replace(receipt, farmer_key=OURS.public_key))
    assert signing.receipt_is_valid(mine)
    assert not signing.receipt_is_valid(replace(mine, size_bytes=mine.size_bytes ^ 1))
    assert not signing.receipt_is_valid(replace(mine, farmer_key=OTHER.public_key))
    assert not signing.receipt_is_valid(replace(mine, signature=b""))


@given(receipts)
def test_a_signature_of_one_kind_is_none_of_another(receipt: Receipt) -> None:
    """The domain stands before the body: no document can be passed off as another kind."""
    mine = replace(receipt, farmer_key=OURS.public_key)
    for domain in (INVITE_DOMAIN, CONTRACT_DOMAIN, b""):
        forged = replace(mine, signature=OURS.sign(domain + receipt_body(mine)))
        assert not signing.receipt_is_valid(forged)
    assert len({INVITE_DOMAIN, CONTRACT_DOMAIN, RECEIPT_DOMAIN}) == 3


def test_no_domain_begins_another() -> None:
    domains = (INVITE_DOMAIN, CONTRACT_DOMAIN, RECEIPT_DOMAIN)
    assert not [(a, b) for a in domains for b in domains if a != b and a.startswith(b)]


def test_a_key_of_the_wrong_length_is_no_key() -> None:
    receipt = Receipt(
        farmer_key=b"short",
        renter=OURS.node_id,
        contract=ContractId(bytes(16)),
        shard=ShardId(bytes(32)),
        size_bytes=0,
        charge_bytes=0,
        stored_at_ms=0,
        issued_at_ms=0,
        until_ms=0,
        signature=bytes(64),
    )
    assert not signing.receipt_is_valid(receipt)


@given(serial=serials, offer=offers)
def test_a_link_is_read_as_it_was_written(serial: InviteSerial, offer: Offer) -> None:
    link = replace(LINK, invite=signing.make_invite(OURS, serial, offer))
    assert parse_link(format_link(link)) == link
    assert parse_link(f"  {format_link(link)}\n") == link


def test_the_link_is_one_line_of_plain_characters() -> None:
    assert LINE.startswith(f"farmer://{OURS.node_id}@farm.example:4646,[::1]:1/")
    assert LINE.isascii()
    assert not set(LINE.rpartition("/")[2]) & set("+/= \n")


HEAD, _, CODE = LINE.rpartition("/")
RAW = invite_bytes(INVITE)
WRONG_LINES = {
    "nothing": "",
    "another scheme": LINE.replace("farmer:", "https:"),
    "no node id": LINE.replace(f"{OURS.node_id}@", ""),
    "short node id": LINE.replace(str(OURS.node_id), str(OURS.node_id)[:-2]),
    "no address": LINE.replace("farm.example:4646,[::1]:1", ""),
    "no port": LINE.replace("farm.example:4646,[::1]:1", "farm.example"),
    "empty address": LINE.replace(",", ",,"),
    "port zero": LINE.replace(":4646", ":0"),
    "port too large": LINE.replace(":4646", ":65536"),
    "bare IPv6": LINE.replace("[::1]:1", "::1:1"),
    "letters in a name that are not ASCII": LINE.replace("farm.example", "b\u00fccher.example"),
    "no IPv6 in the brackets": LINE.replace("[::1]", "[1:2]"),
    "blank in an address": LINE.replace("farm.example", "farm example"),
    "no code": HEAD,
    "empty code": f"{HEAD}/",
    "cut code": LINE[:-5],
    "padded code": f"{LINE}=",
    "standard base64": f"{HEAD}/{base64.b64encode(b'?' * 60 + RAW).decode()}",
    "longer code": f"{HEAD}/{base64.urlsafe_b64encode(RAW + bytes(3)).decode()}",
    "blank in the code": f"{HEAD}/{CODE[:8]} {CODE[8:]}",
    "not ASCII": f"{LINE}\N{GREEK SMALL LETTER ALPHA}",
}


@pytest.mark.parametrize("line", WRONG_LINES.values(), ids=WRONG_LINES)
def test_what_is_not_a_link_is_told_as_such(line: str) -> None:
    with pytest.raises(InviteLinkError, match=r"not an invite|damaged"):
        parse_link(line)


def test_a_code_has_one_form() -> None:
    """The last letter of base64 has spare bits: only zeros there are canonical."""
    spare = (-len(RAW) * 8) % 6
    assert spare, "choose an invite whose length leaves spare bits"
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = alphabet[alphabet.index(CODE[-1]) + 1]
    with pytest.raises(InviteLinkError, match="canonical"):
        parse_link(f"{HEAD}/{CODE[:-1]}{other}")


def test_a_link_with_more_addresses_than_are_tried_is_refused() -> None:
    """Limit: ADDRESSES_MAX."""
    most = LINE.replace(",", ",a:1" * (ADDRESSES_MAX - 2) + ",")
    assert len(parse_link(most).addresses) == ADDRESSES_MAX
    with pytest.raises(InviteLinkError, match="names 9 addresses, more than the 8"):
        parse_link(most.replace(",", ",a:1,", 1))
