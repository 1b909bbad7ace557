"""
Makes the test vectors beside this file: `python -m tests.vectors.make`.

Everything is a function of fixed keys, nonces and a stated stream of bytes, so the files are
the same on every machine; a test compares.  docs/protocol.md explains each field.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum
from itertools import count
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from farmer.audit.challenge import sample_leaves
from farmer.audit.full import FullDigest
from farmer.audit.proof import prove_sample
from farmer.audit.ranges import prove_range, whole_leaves
from farmer.audit.tree import ShardTree, TreeHasher
from farmer.identity import signing
from farmer.identity.keys import Identity
from farmer.model.audit import AuditEntry, AuditKind, Challenge, SampleProof
from farmer.model.contract import (
    Contract,
    ContractStage,
    Invite,
    InviteLink,
    Offer,
    Price,
    Receipt,
)
from farmer.model.ids import ContractId, InviteSerial, ShardId
from farmer.model.shard import (
    BLOCK_BYTES,
    LEAF_BYTES,
    DeletionOutcome,
    ShardState,
    Usage,
    charge_bytes,
)
from farmer.protocol.connection import FarmerConnection, RenterConnection
from farmer.protocol.documents import contract_body, invite_body, invite_bytes, receipt_body
from farmer.protocol.messages import Message, encode
from farmer.protocol.opening import End, Hello, Refuse, Welcome
from farmer.protocol.proofs import FullProof, ProofItem, encode_item
from farmer.protocol.questions import (
    ContractShown,
    Delete,
    Deleted,
    List,
    Listed,
    Ping,
    Pong,
    Redeem,
    ShowContract,
    Stat,
    Stated,
    Undelete,
)
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.state import FARMER_SENDS, RENTER_SENDS
from farmer.protocol.transfers import TO_THE_END, Accept, Audit, Retrieve, Send, Store, Stored

HERE: Final = Path(__file__).parent
SIZES: Final = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) + 5)
NOW_MS: Final = 1_790_000_000_000
DAY_MS: Final = 86_400_000

Json = dict[str, Any]


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


# Values as JSON


def shown(value: Any) -> Any:
    """Return a value as JSON: bytes and ids as hex, dataclasses as their fields."""
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value):
        if [field.name for field in fields(value)] == ["raw"]:
            return str(value)
        return {field.name: shown(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [shown(part) for part in value]
    return value


# The files


def documents() -> Json:
    return {
        "keys": [_key("farmer", FARMER), _key("renter", RENTER), _key("other", OTHER)],
        "invites": [_invite(INVITE), _invite(_free_invite())],
        "contracts": [_contract(CONTRACT), _contract(RENEWED)],
        "receipts": [_receipt(RECEIPT), _receipt(_second_receipt())],
        "rejected": _rejected_documents(),
    }


def _key(name: str, who: Identity) -> Json:
    return {
        "name": name,
        "private_key": stream(f"key {name}", 32).hex(),
        "public_key": who.public_key.hex(),
        "subject_public_key_info": (signing.SPKI_PREFIX + who.public_key).hex(),
        "node_id": str(who.node_id),
    }


def _free_invite() -> Invite:
    offer = replace(OFFER, price=Price(), space_bytes=1, duration_ms=1)
    return signing.make_invite(FARMER, InviteSerial(stream("serial of the free", 16)), offer)


def _link(invite: Invite) -> InviteLink:
    addresses = ("farm.example.org:4646", "192.0.2.7:4646", "[2001:db8::7]:4646")
    return InviteLink(farmer=FARMER.node_id, addresses=addresses, invite=invite)


def _invite(invite: Invite) -> Json:
    body = invite_body(invite.serial, invite.offer)
    return {
        "fields": {"serial": str(invite.serial), **shown(invite.offer)},
        "signed": (b"farmer/invite/1\0" + FARMER.node_id.raw + body).hex(),
        "signature": invite.signature.hex(),
        "bytes": invite_bytes(invite).hex(),
        "link": signing.format_link(_link(invite)),
    }


def _contract(contract: Contract) -> Json:
    body = contract_body(contract)
    return {
        "fields": shown(contract),
        "signed": (b"farmer/contract/1\0" + body).hex(),
        "signature": signing.sign_contract(FARMER, contract).hex(),
        "digest": signing.contract_digest(contract).hex(),
    }


def _second_receipt() -> Receipt:
    size = SIZES[-1]
    previous = hashlib.sha256(receipt_body(RECEIPT)).digest()
    return receipt(tree_of(shard_bytes(size)).shard_id(), size, previous)


def _receipt(signed: Receipt) -> Json:
    body = receipt_body(signed)
    return {
        "fields": shown(signed),
        "signed": (b"farmer/receipt/1\0" + body).hex(),
        "bytes": (body + signed.signature).hex(),
        "digest": hashlib.sha256(body).hexdigest(),
    }


def _rejected_documents() -> list[Json]:
    raw = invite_bytes(INVITE)
    code = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    link = signing.format_link(_link(INVITE))
    free = invite_bytes(_free_invite())
    spare = base64.urlsafe_b64encode(free).rstrip(b"=").decode()
    others = signing.make_invite(OTHER, INVITE.serial, OFFER)
    return [
        _no("invite", "signed by another farmer", invite_bytes(others).hex()),
        _no("invite", "one bit of the signature", raw[:-1].hex() + f"{raw[-1] ^ 1:02x}"),
        _no("invite", "more space than was signed", (raw[:17] + b"\x01" + raw[18:]).hex()),
        _no("invite", "one byte too many", raw.hex() + "00"),
        _no("invite", "one byte too few", raw[:-1].hex()),
        _no("invite", "version 2", "02" + raw[1:].hex()),
        _no("link", "padded base64", link + "="),
        _no("link", "standard base64 letters", link.replace(code, "+" + code[1:])),
        _no("link", "no address", link.replace(link[9 + 64 : link.rindex("/")], "@")),
        _no("link", "port 0", link.replace(":4646/", ":0/")),
        _no("link", "spare bits are not zero", link.replace(code, spare[:-1] + _next(spare[-1]))),
        _no("receipt", "signed by another farmer", _forged_receipt().hex()),
    ]


def _no(kind: str, why: str, text: str) -> Json:
    return {"kind": kind, "why": why, "text": text}


def _next(letter: str) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return letters[letters.index(letter) + 1]


def _forged_receipt() -> bytes:
    body = receipt_body(RECEIPT)
    return body + OTHER.sign(b"farmer/receipt/1\0" + body)


def messages() -> Json:
    return {"messages": [_message(message) for message in EVERY_MESSAGE]}


def _message(message: Message) -> Json:
    kind = message.TYPE
    sender = "renter" if kind in RENTER_SENDS else "farmer" if kind in FARMER_SENDS else "both"
    return {
        "name": kind.name,
        "type": int(kind),
        "sender": sender,
        "fields": shown(message),
        "frame": encode(message).hex(),
    }


STATED: Final = Stated(SMALL_ID, len(SMALL), NOW_MS + 1000, ShardState.LIVE, 0)
NONCE: Final = stream("nonce", 32)
EVERY_MESSAGE: Final[tuple[Message, ...]] = (
    Hello(1, 1, "vectors 1"),
    Welcome(1, NOW_MS, 64 * 1024**2, "farmer 0.1.0"),
    *(Refuse(Refused(refusal, 7, 9)) for refusal in Refusal),
    Refuse(Refused(Refusal.TOO_SLOW, 100, 40), final=True),
    End(),
    Redeem(INVITE_BYTES),
    ShowContract(),
    ContractShown(
        ContractStage.ACTIVE, Usage(0, 0, 0, 0), CONTRACT, signing.sign_contract(FARMER, CONTRACT)
    ),
    ContractShown(
        ContractStage.GRACE,
        Usage(8192, 4096, 77824, 2),
        RENEWED,
        signing.sign_contract(FARMER, RENEWED),
    ),
    Store(SMALL_ID, len(SMALL)),
    Accept(0),
    Accept(8 * 1024**2),
    Stored(RECEIPT),
    Retrieve(SMALL_ID, 0, TO_THE_END, proved=False),
    Retrieve(SMALL_ID, 4000, 50, proved=True),
    Send(len(SMALL), 0, len(SMALL)),
    Send(len(SMALL), 0, 4096, (hashlib.sha256(b"\0" + SMALL[4096:]).digest(),)),
    Audit(Challenge(NONCE, AuditKind.SAMPLE, (AuditEntry(SMALL_ID, len(SMALL), 2),))),
    Audit(
        Challenge(
            NONCE,
            AuditKind.FULL,
            (AuditEntry(SMALL_ID, len(SMALL), 0), AuditEntry(ShardId(bytes(32)), 1, 0)),
        )
    ),
    Stat(SMALL_ID),
    STATED,
    replace(STATED, state=ShardState.TRASH, gone_at_ms=NOW_MS + 7 * DAY_MS),
    replace(STATED, state=ShardState.QUARANTINED),
    List(ShardId(bytes(32)), 1000),
    Listed((STATED,), more=True),
    Listed((), more=False),
    Delete(SMALL_ID, erase=False),
    Delete(SMALL_ID, erase=True),
    Deleted(DeletionOutcome.TRASHED, NOW_MS + 7 * DAY_MS),
    Deleted(DeletionOutcome.ERASED, 0),
    Deleted(DeletionOutcome.ERASED_AT_COMPACTION, 0),
    Undelete(SMALL_ID),
    Ping(42),
    Pong(42, NOW_MS, 823_000_000_000, PRICE, "farmer 0.1.0"),
)


def shards() -> Json:
    return {"shards": [_shard(size) for size in SIZES]}


def _shard(size: int) -> Json:
    data = shard_bytes(size)
    tree = tree_of(data)
    hashes = [tree.block_hash(block).hex() for block in range(len(tree.block_hashes) // 32)]
    return {
        "size_bytes": size,
        "label": f"shard {size}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "block_hashes": hashes,
        "root": tree.root().hex(),
        "shard": str(tree.shard_id()),
        "charge_bytes": charge_bytes(size),
    }


def audits() -> Json:
    samples = [_sample(size, k) for size in SIZES for k in (1, 3, 20)]
    return {
        "samples": samples,
        "skips": [_skip()],
        "full": [_full(size) for size in SIZES],
        "ranges": [_range(*asked) for asked in RANGES],
        "rejected": _rejected_proofs(),
    }


RANGES: Final = (
    (0, 0, 0),
    (1, 0, 1),
    (4097, 4000, 50),
    (4097, 4096, 1),
    (4097, 4097, 0),
    (65537, 0, 65537),
    (65537, 65536, 1),
    (65537, 8192, 4096),
    (SIZES[-1], 300_000, 70_000),
    (SIZES[-1], SIZES[-1] - 1, 1),
)


def _nonce(size: int, k: int) -> bytes:
    return stream(f"nonce {size} {k}", 32)


def _prove(data: bytes, leaves: tuple[int, ...]) -> SampleProof:
    return prove_sample(tree_of(data), leaves, lambda block: _block(data, block))


def _block(data: bytes, block: int) -> bytes:
    return data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]


def _sample(size: int, k: int) -> Json:
    data, nonce = shard_bytes(size), _nonce(size, k)
    shard = tree_of(data).shard_id()
    leaves = sample_leaves(nonce, shard, size, k)
    proof = _prove(data, leaves)
    item = encode_item(proof)
    return {
        "size_bytes": size,
        "shard": str(shard),
        "nonce": nonce.hex(),
        "samples": k,
        "leaves": list(leaves),
        "nodes": [node.hex() for node in proof.nodes],
        "item_head": item[:24].hex(),
        "item_bytes": len(item),
        "item_sha256": hashlib.sha256(item).hexdigest(),
    }


def _skip() -> Json:
    """Return a challenge in whose first draw a number is skipped: rare, so searched for."""
    leaves = -(-(1 << 64) // 8193)  # more than any shard has; 2^64 mod it is nearly as large
    unfair = (1 << 64) - (1 << 64) % leaves
    shard = tree_of(b"").shard_id()
    for number in count():
        nonce = stream(f"nonce skip {number}", 32)
        digest = hashlib.sha256(b"farmer/audit/1" + nonce + shard.raw + bytes(4)).digest()
        if any(int.from_bytes(digest[at : at + 8], "big") >= unfair for at in range(0, 32, 8)):
            break
    size = leaves * LEAF_BYTES
    return {
        "size_bytes": size,
        "shard": str(shard),
        "nonce": nonce.hex(),
        "samples": 4,
        "leaves": list(sample_leaves(nonce, shard, size, 4)),
    }


def _full(size: int) -> Json:
    data, nonce = shard_bytes(size), _nonce(size, 0)
    shard = tree_of(data).shard_id()
    digest = FullDigest(nonce, shard)
    digest.update(data)
    answer = digest.finish()
    return {
        "size_bytes": size,
        "shard": str(shard),
        "nonce": nonce.hex(),
        "digest": answer.hex(),
        "item": encode_item(FullProof(answer)).hex(),
    }


def _range(size: int, offset: int, length: int) -> Json:
    data = shard_bytes(size)
    tree = tree_of(data)
    start, widened = whole_leaves(size, offset, length)
    first, end = start // LEAF_BYTES, -(-(start + max(1, widened)) // LEAF_BYTES)
    nodes = prove_range(tree, first, end, lambda block: _block(data, block))
    return {
        "size_bytes": size,
        "shard": str(tree.shard_id()),
        "asked": {"offset": offset, "length": length},
        "sent": {"offset": start, "length": widened},
        "nodes": [node.hex() for node in nodes],
    }


def _rejected_proofs() -> list[Json]:
    """Return answers to one challenge over a shard of 17 leaves; none of them proves it."""
    size, k = 65537, 2
    data = shard_bytes(size)
    nonce = _nonce(size, k)
    shard = tree_of(data).shard_id()
    leaves = sample_leaves(nonce, shard, size, k)
    good = _prove(data, leaves)
    other = tuple((leaf + 1) % 16 for leaf in leaves)
    first, *rest = good.leaves
    turned = bytes((first[0] ^ 1,)) + first[1:]
    swapped = (good.nodes[1], good.nodes[0], *good.nodes[2:])
    broken = (bytes(32), *good.nodes[1:])
    whole = encode_item(good)
    answers: list[tuple[str, bytes]] = [
        ("a bit of a leaf", _item((turned, *rest), good.nodes)),
        ("the leaves in another order", _item(tuple(reversed(good.leaves)), good.nodes)),
        ("leaves that were not asked for", encode_item(_prove(data, tuple(sorted(other))))),
        ("one leaf only", _item(good.leaves[:1], good.nodes)),
        ("a node missing", _item(good.leaves, good.nodes[:-1])),
        ("a node too many", _item(good.leaves, (*good.nodes, bytes(32)))),
        ("two nodes swapped", _item(good.leaves, swapped)),
        ("a wrong node", _item(good.leaves, broken)),
        ("a leaf cut", whole[:4] + b"\x0f\xff" + whole[6 : 24 + 8191] + whole[24 + 8192 :]),
        ("numbers of a refusal beside a proof", whole[:15] + b"\1" + whole[16:]),
        ("an unknown refusal", b"\x27\x0f" + bytes(22)),
        ("cut in the middle", whole[:-1]),
        ("a byte too many", whole + b"\0"),
        ("two answers", whole + whole),
        ("nothing", b""),
        ("the digest of a full audit", encode_item(FullProof(bytes(32)))),
    ]
    return [
        {
            "why": why,
            "size_bytes": size,
            "shard": str(shard),
            "nonce": nonce.hex(),
            "samples": k,
            "stream": item.hex(),
        }
        for why, item in answers
    ]


def _item(leaves: tuple[bytes, ...], nodes: tuple[bytes, ...]) -> bytes:
    item: ProofItem = SampleProof(leaves, nodes)
    return encode_item(item)


def conversation() -> Json:
    """Return every byte of one connection, TLS aside, in order."""
    renter, farmer = RenterConnection(), FarmerConnection()
    steps: list[Json] = []

    def says(who: str, raw: bytes, meaning: str) -> None:
        steps.append({"from": who, "bytes": raw.hex(), "meaning": meaning})
        peer = farmer if who == "renter" else renter
        peer.receive(raw)
        while peer.next_event() is not None:
            pass

    says("renter", renter.send(Hello(1, 1, "vectors 1")), "HELLO")
    says("farmer", farmer.send(Welcome(1, NOW_MS, 1 << 26, "farmer 0.1.0")), "WELCOME")
    says("renter", renter.send(Redeem(INVITE_BYTES)), "REDEEM")
    signature = signing.sign_contract(FARMER, CONTRACT)
    contract = ContractShown(ContractStage.ACTIVE, Usage(), CONTRACT, signature)
    says("farmer", farmer.send(contract), "CONTRACT")
    says("renter", renter.send(Store(SMALL_ID, len(SMALL))), "STORE of shard 4097")
    says("farmer", farmer.send(Accept(0)), "ACCEPT from offset 0")
    says("renter", renter.send_data(SMALL[:4000]), "DATA, 4000 bytes")
    says("renter", renter.send_data(SMALL[4000:]) + renter.send(End()), "DATA, 97 bytes; END")
    says("farmer", farmer.send(Stored(RECEIPT)), "STORED")
    ask = Challenge(NONCE, AuditKind.SAMPLE, (AuditEntry(SMALL_ID, len(SMALL), 1),))
    says("renter", renter.send(Audit(ask)), "AUDIT of one leaf")
    leaves = sample_leaves(NONCE, SMALL_ID, len(SMALL), 1)
    answer = farmer.send_data(encode_item(_prove(SMALL, leaves))) + farmer.send(End())
    says("farmer", answer, "DATA, one item; END")
    both = renter.send(Stat(ShardId(bytes(32)))) + renter.send(Ping(42))
    says("renter", both, "STAT of a shard that is not there, and PING behind it")
    says("farmer", farmer.refuse(Refused(Refusal.NOT_FOUND)), "REFUSE NOT_FOUND")
    farmer.next_event()
    pong = Pong(42, NOW_MS, 823_000_000_000, PRICE, "farmer 0.1.0")
    says("farmer", farmer.send(pong), "PONG")
    says("renter", renter.send(Retrieve(SMALL_ID, 4000, 97, proved=False)), "RETRIEVE")
    send = farmer.send(Send(len(SMALL), 4000, 97)) + farmer.send_data(SMALL[4000:])
    says("farmer", send + farmer.send(End()), "SEND; DATA; END")
    return {"steps": steps}


FILES: Final = {
    "documents.json": documents,
    "messages.json": messages,
    "shards.json": shards,
    "audits.json": audits,
    "conversation.json": conversation,
}


def text_of(name: str) -> str:
    """Return what the file of that name holds."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    for file_name in FILES:
        (HERE / file_name).write_text(text_of(file_name))
