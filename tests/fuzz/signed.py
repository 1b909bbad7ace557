"""Signed documents: invites, the links that carry them, contracts, receipts."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from farmer.identity.signing import (
    InviteLinkError,
    contract_is_valid,
    format_link,
    invite_is_ours,
    make_invite,
    parse_link,
    receipt_is_valid,
)
from farmer.protocol.documents import (
    CONTRACT_DOMAIN,
    INVITE_DOMAIN,
    RECEIPT_DOMAIN,
    SIGNATURE_BYTES,
    contract_body,
    invite_bytes,
    read_contract,
    read_invite,
    read_receipt,
    receipt_bytes,
)
from farmer.protocol.fields import LayoutError, Reader
from tests.fuzz.mutate import Picker, havoc
from tests.fuzz.target import Target
from tests.fuzz.wire import VECTORS
from tests.vectors.cast import FARMER

KEY_AT: Final = {"contract": 17, "receipt": 1}


def vectors(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((VECTORS / "documents.json").read_text())[name]
    return rows


class Document(Target):
    """A body and its signature; the door is the signature."""

    executions = 25_000
    domain: bytes

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        return havoc(pick, seed, other, grow=pick.chance() < 0.3)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Have the farmer sign what was changed."""
        body = bytearray((data[: len(seed)] + seed[len(data) :])[:-SIGNATURE_BYTES])
        at = KEY_AT.get(self.name, 0)
        if at:
            body[at : at + 32] = FARMER.public_key
        return bytes(body) + FARMER.sign(self.domain + body)


class InviteBytes(Document):
    name = "invite"
    domain = INVITE_DOMAIN + FARMER.node_id.raw

    def seeds(self) -> list[bytes]:
        return [bytes.fromhex(row["bytes"]) for row in vectors("invites")]

    def run(self, data: bytes) -> bool:
        try:
            invite = read_invite(data)
        except LayoutError:
            return False
        assert invite_bytes(invite) == data, "two encodings of one invite"
        ours = invite_is_ours(FARMER, invite)
        if ours:
            assert make_invite(FARMER, invite.serial, invite.offer) == invite, "a second signature"
        return ours


class ContractBytes(Document):
    name = "contract"
    domain = CONTRACT_DOMAIN

    def seeds(self) -> list[bytes]:
        return [bytes.fromhex(row["bytes"]) for row in vectors("contracts")]

    def run(self, data: bytes) -> bool:
        reader = Reader(data)
        try:
            contract = read_contract(reader)
            signature = reader.raw(SIGNATURE_BYTES)
            reader.end()
        except LayoutError:
            return False
        assert contract_body(contract) + signature == data, "two encodings of one contract"
        valid = contract_is_valid(contract, signature)
        if valid and contract.farmer_key == FARMER.public_key:
            assert FARMER.sign(self.domain + data[:-64]) == signature, "a second signature"
        return valid


class ReceiptBytes(Document):
    name = "receipt"
    domain = RECEIPT_DOMAIN

    def seeds(self) -> list[bytes]:
        return [bytes.fromhex(row["bytes"]) for row in vectors("receipts")]

    def run(self, data: bytes) -> bool:
        try:
            receipt = read_receipt(data)
        except LayoutError:
            return False
        assert receipt_bytes(receipt) == data, "two encodings of one receipt"
        valid = receipt_is_valid(receipt)
        if valid and receipt.farmer_key == FARMER.public_key:
            assert FARMER.sign(self.domain + data[:-64]) == receipt.signature, "a second signature"
        return valid


class Link(Target):
    """The line that people copy."""

    name = "invite-link"
    executions = 40_000

    def seeds(self) -> list[bytes]:
        return [row["link"].encode() for row in vectors("invites")]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.1:
            # The last character of base64 has bits to spare.
            return seed[:-1] + bytes([pick.one(b"ABCDEFGHQRSTabcdgwxyz0189-_=")])
        return super().mutate(pick, seed, other)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Put a sound code behind whatever became of the addresses, or change just the code."""
        head, _, code = seed.rpartition(b"/")
        if pick.chance() < 0.5:
            raw = base64.urlsafe_b64decode(code + b"=" * (-len(code) % 4))
            changed = havoc(pick, raw, data, grow=False)
            return head + b"/" + base64.urlsafe_b64encode(changed).rstrip(b"=")
        changed = data.rpartition(b"/")[0] or head
        if pick.chance() < 0.6:
            changed = seed[: seed.index(b"@")] + changed[changed.find(b"@") :]
        return changed + b"/" + code

    def run(self, data: bytes) -> bool:
        text = data.decode("utf-8", "surrogateescape")
        try:
            link = parse_link(text)
        except InviteLinkError as error:
            assert str(error)
            return False
        head, at, rest = text.strip().partition("@")
        # A person may type a node id in capitals; nothing else may be written in two ways.
        assert format_link(link) == head.lower() + at + rest, "two spellings of one link"
        return True


TARGETS: Final = (InviteBytes, Link, ContractBytes, ReceiptBytes)
