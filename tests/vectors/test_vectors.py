from __future__ import annotations

import json
from typing import Any

import pytest

from farmer.audit.proof import ProofError, verify_sample
from farmer.audit.ranges import RangeVerifier
from farmer.identity import signing
from farmer.identity.signing import InviteLinkError, parse_link
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import ShardId
from farmer.protocol.documents import read_contract, read_invite, read_receipt
from farmer.protocol.fields import LayoutError, Reader
from farmer.protocol.frames import ControlFrame, DataPart, FrameReader, data_header
from farmer.protocol.messages import MESSAGES, decode, encode
from farmer.protocol.proofs import ProofItemReader
from farmer.protocol.refusals import Refusal, RemoteProtocolError
from farmer.protocol.transfers import Send
from farmer.protocol.types import Type
from tests.vectors import cast, make


def load(name: str) -> Any:
    return json.loads((make.HERE / name).read_text())


@pytest.mark.parametrize("name", make.FILES)
def test_the_code_still_makes_exactly_these(name: str) -> None:
    assert (make.HERE / name).read_text() == make.text_of(name), "python -m tests.vectors.make"


def test_every_message_and_every_refusal_is_there() -> None:
    rows = load("messages.json")["messages"]
    assert {row["type"] for row in rows} == {int(kind) for kind in MESSAGES}
    refused = {row["fields"]["refused"]["refusal"] for row in rows if row["name"] == "REFUSE"}
    assert refused == {int(refusal) for refusal in Refusal}


@pytest.mark.parametrize("row", load("messages.json")["messages"], ids=lambda row: row["name"])
def test_frames_are_read_back(row: dict[str, Any]) -> None:
    frame = bytes.fromhex(row["frame"])
    message = decode(Type(frame[0]), frame[4:])
    assert make.shown(message) == row["fields"]
    assert encode(message) == frame


@pytest.mark.parametrize("row", load("documents.json")["rejected"], ids=lambda row: row["why"])
def test_rejected_documents_are_rejected(row: dict[str, Any]) -> None:
    assert not accepted(row["kind"], row["text"])


def accepted(kind: str, text: str) -> bool:
    try:
        match kind:
            case "link":
                parse_link(text)
                return True
            case "invite":
                return signing.invite_is_ours(cast.FARMER, read_invite(bytes.fromhex(text)))
            case "contract":
                return contract_accepted(bytes.fromhex(text))
            case _:
                return signing.receipt_is_valid(read_receipt(bytes.fromhex(text)))
    except (LayoutError, InviteLinkError):
        return False


def contract_accepted(raw: bytes) -> bool:
    reader = Reader(raw)
    contract, signature = read_contract(reader), reader.raw(64)
    reader.end()
    ours = signing.node_id_of_key(contract.farmer_key) == cast.FARMER.node_id
    mine = contract.renter == cast.RENTER.node_id
    return ours and mine and signing.contract_is_valid(contract, signature)


def test_the_good_ones_among_the_documents_are_accepted() -> None:
    rows = load("documents.json")
    assert all(accepted("invite", row["bytes"]) for row in rows["invites"])
    assert all(accepted("contract", row["bytes"]) for row in rows["contracts"])
    assert all(accepted("receipt", row["bytes"]) for row in rows["receipts"])


@pytest.mark.parametrize("row", load("messages.json")["data"], ids=lambda row: len(row["body"]))
def test_data_frames_are_read_back(row: dict[str, Any]) -> None:
    reader = FrameReader()
    reader.feed(bytes.fromhex(row["frame"]))
    assert reader.take() == DataPart(bytes.fromhex(row["body"]))
    assert reader.take() is None
    assert data_header(len(row["body"]) // 2).hex() + row["body"] == row["frame"]


@pytest.mark.parametrize("row", load("messages.json")["malformed"], ids=lambda row: row["why"])
def test_malformed_frames_are_refused(row: dict[str, Any]) -> None:
    reader = FrameReader()
    reader.feed(bytes.fromhex(row["frame"]))
    with pytest.raises(RemoteProtocolError) as caught:
        read(reader.take())
    assert caught.value.refused.refusal == row["refusal"]


def read(frame: object) -> None:
    assert isinstance(frame, ControlFrame), frame
    decode(Type(frame.kind), frame.body)


@pytest.mark.parametrize("row", load("audits.json")["rejected_ranges"], ids=lambda row: row["why"])
def test_rejected_ranges_are_rejected(row: dict[str, Any]) -> None:
    reader, data = FrameReader(), bytearray()
    reader.feed(bytes.fromhex(row["answer"]))
    head = reader.take()
    assert isinstance(head, ControlFrame)
    send: Any = decode(Type.SEND, head.body)
    while isinstance(part := reader.take(), DataPart):
        data += part.data
    with pytest.raises(ProofError):
        check_range(row, send, bytes(data))


def check_range(row: dict[str, Any], send: Send, data: bytes) -> None:
    start, end = row["asked"]["offset"], row["asked"]["offset"] + row["asked"]["length"]
    if not send.offset <= start <= end <= send.offset + send.length:
        raise ProofError("another range")
    shard = ShardId.parse(row["shard"])
    verifier = RangeVerifier(shard, send.size_bytes, send.offset, send.length, send.nodes)
    verifier.update(data)
    verifier.finish()


@pytest.mark.parametrize("row", load("audits.json")["rejected"], ids=lambda row: row["why"])
def test_rejected_proofs_are_rejected(row: dict[str, Any]) -> None:
    entry = AuditEntry(ShardId.parse(row["shard"]), row["size_bytes"], row["samples"])
    challenge = Challenge(bytes.fromhex(row["nonce"]), AuditKind.SAMPLE, (entry,))
    reader = ProofItemReader(challenge)
    with pytest.raises((LayoutError, ProofError)):
        prove(reader, challenge, bytes.fromhex(row["stream"]))


def prove(reader: ProofItemReader, challenge: Challenge, stream: bytes) -> None:
    items: Any = reader.feed(stream)
    reader.end()
    for entry, item in zip(challenge.entries, items, strict=True):
        verify_sample(entry.shard, entry.size_bytes, challenge.nonce, entry.samples, item)
