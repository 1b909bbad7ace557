"""What must not be accepted, and why: documents, proofs, ranges, frames."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from farmer.audit.challenge import sample_leaves
from farmer.identity import signing
from farmer.identity.keys import Identity
from farmer.model.audit import SAMPLES_MAX, SampleProof
from farmer.model.contract import Contract
from farmer.model.ids import ShardId
from farmer.protocol.documents import contract_body, invite_bytes, receipt_body
from farmer.protocol.fields import u8, u16, u64
from farmer.protocol.frames import data_header
from farmer.protocol.limits import (
    AUDIT_ENTRIES_MAX,
    CONTROL_BYTES_MAX,
    DATA_BYTES_MAX,
    LIST_ENTRIES_MAX,
)
from farmer.protocol.messages import encode
from farmer.protocol.opening import End
from farmer.protocol.proofs import FullProof, ProofItem, encode_item
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import Send
from farmer.protocol.types import Type
from tests.vectors.cast import (
    CONTRACT,
    FARMER,
    FREE_INVITE,
    INVITE,
    OFFER,
    OTHER,
    RECEIPT,
    Json,
    link_of,
    nonce_of,
    prove,
    range_of,
    sender_name,
    shard_bytes,
    tree_of,
)

SHARD: Final = ShardId(bytes(range(32)))


def documents() -> list[Json]:
    raw = invite_bytes(INVITE)
    code = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    link = signing.format_link(link_of(INVITE))
    free = invite_bytes(FREE_INVITE)
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
        *(_no("contract", why, raw.hex()) for why, raw in _contracts()),
    ]


def _contracts() -> list[tuple[str, bytes]]:
    body, domain = contract_body(CONTRACT), b"farmer/contract/1\0"
    signature = signing.sign_contract(FARMER, CONTRACT)
    raised = body[:85] + b"\x01" + body[86:]
    theirs = replace(CONTRACT, farmer_key=OTHER.public_key)
    for_other = replace(CONTRACT, renter=OTHER.node_id)
    later = b"\x02" + body[1:]
    return [
        ("signed by another farmer", body + OTHER.sign(domain + body)),
        ("one bit of the signature", body + signature[:-1] + bytes((signature[-1] ^ 1,))),
        ("more space than was signed", raised + signature),
        ("signed as a receipt", body + FARMER.sign(b"farmer/receipt/1\0" + body)),
        ("no signature", body),
        ("version 2, signed", later + FARMER.sign(domain + later)),
        ("one byte too many", body + signature + b"\0"),
        ("well signed, of another farmer", _signed(OTHER, theirs)),
        ("well signed, for another renter", _signed(FARMER, for_other)),
    ]


def _signed(who: Identity, contract: Contract) -> bytes:
    return contract_body(contract) + signing.sign_contract(who, contract)


def _no(kind: str, why: str, text: str) -> Json:
    return {"kind": kind, "why": why, "text": text}


def _next(letter: str) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return letters[letters.index(letter) + 1]


def _forged_receipt() -> bytes:
    body = receipt_body(RECEIPT)
    return body + OTHER.sign(b"farmer/receipt/1\0" + body)


def proofs() -> list[Json]:
    """Return answers to one challenge over a shard of 17 leaves; none of them proves it."""
    size, k = 65537, 2
    data = shard_bytes(size)
    nonce = nonce_of(size, k)
    shard = tree_of(data).shard_id()
    leaves = sample_leaves(nonce, shard, size, k)
    good = prove(data, leaves)
    other = tuple((leaf + 1) % 16 for leaf in leaves)
    first, *rest = good.leaves
    turned = bytes((first[0] ^ 1,)) + first[1:]
    swapped = (good.nodes[1], good.nodes[0], *good.nodes[2:])
    broken = (bytes(32), *good.nodes[1:])
    whole = encode_item(good)
    answers: list[tuple[str, bytes]] = [
        ("a bit of a leaf", _item((turned, *rest), good.nodes)),
        ("the leaves in another order", _item(tuple(reversed(good.leaves)), good.nodes)),
        ("leaves that were not asked for", encode_item(prove(data, tuple(sorted(other))))),
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


def ranges() -> list[Json]:
    """Return answers to one proved retrieve of a shard of 17 leaves; none of them proves it."""
    size, offset, length = 65537, 10_000, 2_000
    data = shard_bytes(size)
    return [
        {
            "why": why,
            "size_bytes": size,
            "shard": str(tree_of(data).shard_id()),
            "asked": {"offset": offset, "length": length},
            "answer": _answer(send, sent).hex(),
        }
        for why, send, sent in _ranges(data, range_of(data, offset, length))
    ]


def _answer(send: Send, sent: bytes) -> bytes:
    data = data_header(len(sent)) + sent if sent else b""
    return encode(send) + data + encode(End())


def _ranges(data: bytes, good: Send) -> Iterator[tuple[str, Send, bytes]]:
    at, nodes = good.offset, good.nodes
    leaf = data[at : at + good.length]
    swapped = (nodes[1], nodes[0], *nodes[2:])
    other = range_of(data, at + 4096, 1)
    yield "a bit of the data", good, bytes((leaf[0] ^ 1,)) + leaf[1:]
    yield "a wrong node", replace(good, nodes=(bytes(32), *nodes[1:])), leaf
    yield "a node missing", replace(good, nodes=nodes[:-1]), leaf
    yield "a node too many", replace(good, nodes=(*nodes, bytes(32))), leaf
    yield "two nodes swapped", replace(good, nodes=swapped), leaf
    yield "no proof at all", replace(good, nodes=()), leaf
    yield "another leaf, well proved", other, data[at + 4096 : at + 8192]
    yield "said to be elsewhere", replace(other, offset=at), data[at + 4096 : at + 8192]
    yield "only what was asked, not whole leaves", Send(len(data), 10_000, 2_000), leaf[1808:3808]
    yield "another size of the shard", replace(good, size_bytes=len(data) - 1), leaf
    yield "a range beyond the end", replace(good, size_bytes=at + 4095), leaf
    yield "a byte too few", good, leaf[:-1]
    yield "a byte too many", good, leaf + b"\0"
    yield "no data", good, b""


def frames() -> list[Json]:
    """Return frames that no side may accept, with the refusal that a farmer answers."""
    rows = [(why, Type(kind), _frame(kind, body), Refusal.MALFORMED) for why, kind, body in BODIES]
    rows.append(("no byte", Type.DATA, _frame(Type.DATA, b""), Refusal.MALFORMED))
    for kind, allowed in ((Type.PING, CONTROL_BYTES_MAX), (Type.DATA, DATA_BYTES_MAX)):
        header = u8(kind) + (allowed + 1).to_bytes(3, "big")
        rows.append(("longer than allowed, header only", kind, header, Refusal.FRAME_TOO_LARGE))
    return [
        {
            "why": why,
            "name": kind.name,
            "sender": sender_name(kind),
            "frame": frame.hex(),
            "refusal": int(refusal),
        }
        for why, kind, frame, refusal in rows
    ]


def _frame(kind: Type, body: bytes) -> bytes:
    return u8(kind) + len(body).to_bytes(3, "big") + body


def audit_body(kind: int, samples: int, count: int, entries: int | None = None) -> bytes:
    entry = SHARD.raw + u64(9) + u16(samples)
    shown = count if entries is None else entries
    return bytes((kind,)) + bytes(32) + u16(shown) + entry * count


def contract_at(stage: int) -> bytes:
    return u8(stage) + u64(0) * 4 + _signed(FARMER, CONTRACT)


BODIES: Final[list[tuple[str, Type, bytes]]] = [
    ("not our magic", Type.HELLO, b"HTTP" + u16(1) + u16(1) + b"\0"),
    ("lowest above highest", Type.HELLO, b"FARM" + u16(2) + u16(1) + b"\0"),
    ("text too long", Type.HELLO, b"FARM" + u16(1) + u16(1) + b"\x41" + b"x" * 65),
    ("text not ASCII", Type.HELLO, b"FARM" + u16(1) + u16(1) + b"\x02\xc3\xa9"),
    ("control character", Type.HELLO, b"FARM" + u16(1) + u16(1) + b"\x01\n"),
    ("delete character", Type.HELLO, b"FARM" + u16(1) + u16(1) + b"\x01\x7f"),
    ("currency not ASCII", Type.PONG, u64(0) * 5 + b"\x03\xe2\x82\xac" + b"\0"),
    ("text beyond the body", Type.HELLO, b"FARM" + u16(1) + u16(1) + b"\x02x"),
    ("top bit of a u64", Type.PING, b"\x80" + bytes(7)),
    ("unknown refusal", Type.REFUSE, u16(9999) + u64(0) + u64(0) + b"\0"),
    ("refusal zero", Type.REFUSE, u16(0) + u64(0) + u64(0) + b"\0"),
    ("flag of two", Type.REFUSE, u16(1) + u64(0) + u64(0) + b"\2"),
    ("END with a body", Type.END, b"\0"),
    ("audit kind zero", Type.AUDIT, audit_body(0, 1, 1)),
    ("audit kind three", Type.AUDIT, audit_body(3, 1, 1)),
    ("no entries", Type.AUDIT, audit_body(1, 1, 0)),
    ("too many entries", Type.AUDIT, audit_body(2, 0, AUDIT_ENTRIES_MAX + 1)),
    ("fewer entries than said", Type.AUDIT, audit_body(1, 1, 1, entries=2)),
    ("sample audit of no leaf", Type.AUDIT, audit_body(1, 0, 1)),
    ("full audit of a leaf", Type.AUDIT, audit_body(2, 1, 1)),
    ("too many samples", Type.AUDIT, audit_body(1, SAMPLES_MAX, 2)),
    ("page of none", Type.LIST, SHARD.raw + u16(0)),
    ("page too large", Type.LIST, SHARD.raw + u16(LIST_ENTRIES_MAX + 1)),
    ("erase neither yes nor no", Type.DELETE, SHARD.raw + b"\xff"),
    ("unknown state", Type.STATED, SHARD.raw + u64(1) + u64(1) + b"\x03" + u64(0)),
    ("unknown outcome", Type.DELETED, b"\x03" + u64(0)),
    ("currency too long", Type.PONG, u64(0) * 5 + b"\x11" + b"x" * 17 + b"\0"),
    ("a contract that is gone", Type.CONTRACT, contract_at(3)),
    ("unknown stage", Type.CONTRACT, contract_at(4)),
    ("receipt of version 2", Type.STORED, b"\x02" + bytes(248)),
]
