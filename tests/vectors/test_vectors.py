from __future__ import annotations

import json
from typing import Any

import pytest

from farmer.audit.proof import ProofError, verify_sample
from farmer.identity import signing
from farmer.identity.signing import InviteLinkError, parse_link
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import ShardId
from farmer.protocol.documents import read_invite, read_receipt
from farmer.protocol.fields import LayoutError
from farmer.protocol.messages import MESSAGES, decode, encode
from farmer.protocol.proofs import ProofItemReader
from farmer.protocol.refusals import Refusal
from farmer.protocol.types import Type
from tests.vectors import make


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
                return signing.invite_is_ours(make.FARMER, read_invite(bytes.fromhex(text)))
            case _:
                return signing.receipt_is_valid(read_receipt(bytes.fromhex(text)))
    except (LayoutError, InviteLinkError):
        return False


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
