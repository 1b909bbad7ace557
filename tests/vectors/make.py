"""
Makes the test vectors beside this file: `python -m tests.vectors.make`.

Everything is a function of fixed keys, nonces and a stated stream of bytes, so the files are
the same on every machine; a test compares.  docs/protocol.md explains each field.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum
from itertools import count
from pathlib import Path
from typing import Any, Final

from farmer.audit.challenge import sample_leaves
from farmer.audit.full import FullDigest
from farmer.identity import signing
from farmer.identity.keys import Identity
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.contract import (
    Contract,
    ContractStage,
    Invite,
    Receipt,
)
from farmer.model.ids import ShardId
from farmer.model.shard import (
    LEAF_BYTES,
    BadBlocks,
    DeletionOutcome,
    ShardState,
    Usage,
    charge_bytes,
)
from farmer.protocol.connection import FarmerConnection, RenterConnection
from farmer.protocol.documents import contract_body, invite_body, invite_bytes, receipt_body
from farmer.protocol.frames import data_header
from farmer.protocol.messages import Message, encode
from farmer.protocol.opening import End, Hello, Refuse, Welcome
from farmer.protocol.proofs import FullProof, encode_item
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
from farmer.protocol.repairs import BadBlocksNamed, Examine, Repair
from farmer.protocol.transfers import TO_THE_END, Accept, Audit, Retrieve, Send, Store, Stored
from farmer.protocol.types import Type
from tests.vectors import rejected
from tests.vectors.cast import (
    CONTRACT,
    DAY_MS,
    FARMER,
    FREE_INVITE,
    INVITE,
    INVITE_BYTES,
    NOW_MS,
    OTHER,
    PRICE,
    RECEIPT,
    RENEWED,
    RENTER,
    SIZES,
    SMALL,
    SMALL_ID,
    Json,
    link_of,
    nonce_of,
    prove,
    range_of,
    receipt,
    sender_name,
    shard_bytes,
    stream,
    tree_of,
)

HERE: Final = Path(__file__).parent


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
        "invites": [_invite(INVITE), _invite(FREE_INVITE)],
        "contracts": [_contract(CONTRACT), _contract(RENEWED)],
        "receipts": [_receipt(RECEIPT), _receipt(_second_receipt())],
        "rejected": rejected.documents(),
    }


def _key(name: str, who: Identity) -> Json:
    return {
        "name": name,
        "private_key": stream(f"key {name}", 32).hex(),
        "public_key": who.public_key.hex(),
        "subject_public_key_info": (signing.SPKI_PREFIX + who.public_key).hex(),
        "node_id": str(who.node_id),
    }


def _invite(invite: Invite) -> Json:
    body = invite_body(invite.serial, invite.offer)
    return {
        "fields": {"serial": str(invite.serial), **shown(invite.offer)},
        "signed": (b"farmer/invite/1\0" + FARMER.node_id.raw + body).hex(),
        "signature": invite.signature.hex(),
        "bytes": invite_bytes(invite).hex(),
        "link": signing.format_link(link_of(invite)),
    }


def _contract(contract: Contract) -> Json:
    body = contract_body(contract)
    return {
        "fields": shown(contract),
        "signed": (b"farmer/contract/1\0" + body).hex(),
        "signature": signing.sign_contract(FARMER, contract).hex(),
        "bytes": (body + signing.sign_contract(FARMER, contract)).hex(),
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


def messages() -> Json:
    return {
        "messages": [_message(message) for message in EVERY_MESSAGE],
        "data": [_data(size) for size in (1, 300)],
        "malformed": rejected.frames(),
    }


def _data(size: int) -> Json:
    body = stream("data", size)
    frame = data_header(size) + body
    return {
        "name": "DATA",
        "type": int(Type.DATA),
        "sender": sender_name(Type.DATA),
        "body": body.hex(),
        "frame": frame.hex(),
    }


def _message(message: Message) -> Json:
    kind = message.TYPE
    return {
        "name": kind.name,
        "type": int(kind),
        "sender": sender_name(kind),
        "fields": shown(message),
        "frame": encode(message).hex(),
    }


STATED: Final = Stated(SMALL_ID, len(SMALL), NOW_MS + 1000, ShardState.LIVE, 0)
NONCE: Final = stream("nonce", 32)
EVERY_MESSAGE: Final[tuple[Message, ...]] = (
    Hello(1, 1, "vectors/1"),
    Welcome(1, NOW_MS, 64 * 1024**2, "farmer/0.1.0"),
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
    Examine(SMALL_ID),
    Repair(SMALL_ID),
    BadBlocksNamed(BadBlocks(0, ())),
    BadBlocksNamed(BadBlocks(65_537, (1,))),
    BadBlocksNamed(BadBlocks(10 * 65_536, (0, 7, 9))),
    Ping(42),
    Pong(42, NOW_MS, 823_000_000_000, PRICE, "farmer/0.1.0"),
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
        "rejected": rejected.proofs(),
        "rejected_ranges": rejected.ranges(),
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


def _sample(size: int, k: int) -> Json:
    data, nonce = shard_bytes(size), nonce_of(size, k)
    shard = tree_of(data).shard_id()
    leaves = sample_leaves(nonce, shard, size, k)
    proof = prove(data, leaves)
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
    data, nonce = shard_bytes(size), nonce_of(size, 0)
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
    sent = range_of(data, offset, length)
    return {
        "size_bytes": size,
        "shard": str(tree_of(data).shard_id()),
        "asked": {"offset": offset, "length": length},
        "sent": {"offset": sent.offset, "length": sent.length},
        "nodes": [node.hex() for node in sent.nodes],
    }


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

    says("renter", renter.send(Hello(1, 1, "vectors/1")), "HELLO")
    says("farmer", farmer.send(Welcome(1, NOW_MS, 1 << 26, "farmer/0.1.0")), "WELCOME")
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
    answer = farmer.send_data(encode_item(prove(SMALL, leaves))) + farmer.send(End())
    says("farmer", answer, "DATA, one item; END")
    both = renter.send(Stat(ShardId(bytes(32)))) + renter.send(Ping(42))
    says("renter", both, "STAT of a shard that is not there, and PING behind it")
    says("farmer", farmer.refuse(Refused(Refusal.NOT_FOUND)), "REFUSE NOT_FOUND")
    farmer.next_event()
    pong = Pong(42, NOW_MS, 823_000_000_000, PRICE, "farmer/0.1.0")
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
