"""The page is enough: a client that shares no code with us agrees with code and vectors."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from farmer.identity import signing
from farmer.model.contract import ContractStage
from farmer.model.ids import InviteSerial, NodeId
from tests.node.wires import OFFER, NodeCase, Peer
from tests.protocol import stranger as s
from tests.protocol.stranger import Items, RefusedError, Stranger, WrongError
from tests.vectors import cast, make

NONCE = bytes(range(32))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def load(name: str) -> Any:
    return json.loads((make.HERE / name).read_text())


def ids(row: dict[str, Any]) -> str:
    return str(row.get("why", row.get("size_bytes")))


def test_the_stranger_shares_no_code_with_us() -> None:
    tree = ast.parse(Path(s.__file__).read_text())
    names = {
        name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    tops = {name.partition(".")[0] for name in names}
    assert tops - sys.stdlib_module_names == {"cryptography"}


@pytest.mark.parametrize("row", load("shards.json")["shards"], ids=ids)
def test_it_makes_the_same_shard_ids(row: dict[str, Any]) -> None:
    data = cast.stream(row["label"], row["size_bytes"])
    assert s.sha(data).hex() == row["sha256"]
    assert s.shard_id(data).hex() == row["shard"]


@pytest.mark.parametrize("row", load("audits.json")["samples"], ids=ids)
def test_it_derives_the_same_leaves_and_accepts_the_proofs(row: dict[str, Any]) -> None:
    nonce, shard = bytes.fromhex(row["nonce"]), bytes.fromhex(row["shard"])
    asked = s.sample(nonce, shard, row["size_bytes"], row["samples"])
    assert asked == row["leaves"]
    every = s.leaves_of(cast.shard_bytes(row["size_bytes"]))
    nodes = [bytes.fromhex(node) for node in row["nodes"]]
    s.prove(shard, row["size_bytes"], asked, [every[leaf] for leaf in asked], nodes)


def test_it_skips_the_numbers_that_would_make_a_leaf_likelier() -> None:
    (row,) = load("audits.json")["skips"]
    nonce, shard = bytes.fromhex(row["nonce"]), bytes.fromhex(row["shard"])
    assert s.sample(nonce, shard, row["size_bytes"], row["samples"]) == row["leaves"]


@pytest.mark.parametrize("row", load("audits.json")["rejected"], ids=ids)
def test_it_rejects_what_must_be_rejected(row: dict[str, Any]) -> None:
    with pytest.raises((WrongError, RefusedError)):
        check_stream(row)


def check_stream(row: dict[str, Any]) -> None:
    nonce, shard = bytes.fromhex(row["nonce"]), bytes.fromhex(row["shard"])
    asked = s.sample(nonce, shard, row["size_bytes"], row["samples"])
    items = Items(bytes.fromhex(row["stream"]))
    s.prove(shard, row["size_bytes"], asked, *items.proof(len(asked)))
    s.check(not items.raw, "bytes after the last item")


@pytest.mark.parametrize("row", load("audits.json")["ranges"], ids=ids)
def test_it_accepts_the_range_proofs(row: dict[str, Any]) -> None:
    offset, length = row["sent"]["offset"], row["sent"]["length"]
    data = cast.shard_bytes(row["size_bytes"])[offset : offset + length]
    first = offset // s.LEAF
    asked = range(first, first + s.leaf_count(length))
    nodes = [bytes.fromhex(node) for node in row["nodes"]]
    s.prove(bytes.fromhex(row["shard"]), row["size_bytes"], asked, s.leaves_of(data), nodes)


def test_it_reads_the_documents_and_believes_their_signatures() -> None:
    documents = load("documents.json")
    farmer = bytes.fromhex(documents["keys"][0]["node_id"])
    renter = bytes.fromhex(documents["keys"][1]["node_id"])
    reader = Stranger(Deaf(), farmer, renter)
    for row in documents["receipts"]:
        assert reader._receipt(bytes.fromhex(row["bytes"])).size == row["fields"]["size_bytes"]
    for row in documents["invites"]:
        name, addresses, invite = s.parse_link(row["link"])
        assert (name, invite.hex()) == (farmer, row["bytes"])
        assert addresses[2] == ("2001:db8::7", 4646)
    for row in documents["rejected"]:
        if row["kind"] == "link":
            with pytest.raises(WrongError):
                s.parse_link(row["text"])


@pytest.mark.parametrize(
    "row",
    [row for row in load("documents.json")["rejected"] if row["kind"] in ("contract", "receipt")],
    ids=ids,
)
def test_it_believes_no_forged_document(row: dict[str, Any]) -> None:
    documents = load("documents.json")
    farmer, renter = (bytes.fromhex(row["node_id"]) for row in documents["keys"][:2])
    reader, raw = Stranger(Deaf(), farmer, renter), bytes.fromhex(row["text"])
    with pytest.raises(WrongError):
        reader._contract(bytes(33) + raw) if row["kind"] == "contract" else reader._receipt(raw)


@pytest.mark.parametrize("row", load("audits.json")["rejected_ranges"], ids=ids)
def test_it_rejects_ranges_that_prove_nothing(row: dict[str, Any]) -> None:
    pipe = Answers(bytes.fromhex(row["answer"]))
    asked = row["asked"]
    with pytest.raises(WrongError):
        Stranger(pipe, bytes(32), bytes(32)).retrieve_proved(
            bytes.fromhex(row["shard"]), asked["offset"], asked["length"]
        )


class Answers:
    """A pipe that says what it was made with, whatever it is asked."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def sendall(self, data: bytes) -> None:
        del data

    def recv(self, size: int) -> bytes:
        part, self.raw = self.raw[:size], self.raw[size:]
        return part


class Deaf:
    """A pipe to nobody."""

    def sendall(self, data: bytes) -> None:
        raise AssertionError("nothing is sent here")

    def recv(self, size: int) -> bytes:
        raise AssertionError("nothing is read here")


class Replay:
    """Plays the farmer's half of a conversation, and wants the renter's half byte for byte."""

    def __init__(self, steps: list[dict[str, str]]) -> None:
        self.steps = [(step["from"], bytes.fromhex(step["bytes"])) for step in steps]
        self.said = b""

    def sendall(self, data: bytes) -> None:
        self.said += data
        while self.steps and self.steps[0][0] == "renter":
            wanted = self.steps[0][1]
            if len(self.said) < len(wanted):
                return
            assert self.said[: len(wanted)] == wanted
            self.said = self.said[len(wanted) :]
            self.steps.pop(0)

    def recv(self, size: int) -> bytes:
        assert self.steps[0][0] == "farmer", "the farmer says nothing before it is asked"
        who, raw = self.steps[0]
        self.steps[0] = (who, raw[size:])
        if len(raw) <= size:
            self.steps.pop(0)
        return raw[:size]


def test_it_holds_the_conversation_of_the_vectors() -> None:
    documents = load("documents.json")
    farmer = bytes.fromhex(documents["keys"][0]["node_id"])
    renter = bytes.fromhex(documents["keys"][1]["node_id"])
    replay = Replay(load("conversation.json")["steps"])
    talk = Stranger(replay, farmer, renter)
    talk.send(s.HELLO, b"FARM\0\1\0\1\x09vectors/1")
    talk.expect(s.WELCOME)
    assert talk.redeem(cast.INVITE_BYTES).space == 200_000_000_000
    data = cast.stream("shard 4097", 4097)
    assert talk.store(data, piece=4000).size == 4097
    shard, nonce = s.shard_id(data), cast.stream("nonce", 32)
    assert talk.audit(nonce, [(shard, 4097, 1)]) == [None]
    talk.send(s.STAT, bytes(32))
    talk.send(s.PING, (42).to_bytes(8, "big"))
    with pytest.raises(RefusedError, match="refusal 30"):
        talk.expect(s.STATED)
    talk.expect(s.PONG)
    assert talk.retrieve(shard, 4000, 97) == data[4000:]
    assert not replay.steps


class MemoryPipe:
    """A blocking socket to a real session, joined in memory."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def sendall(self, data: bytes) -> None:
        self.peer.outgoing += data
        while self.peer._deliver() or self.peer._turn():
            pass

    def recv(self, size: int) -> bytes:
        while self.peer._deliver() or self.peer._turn():
            pass
        return self.peer.wire.take(size)


class StrangerAtTheNode(NodeCase):
    """The stranger and the serving farmer, each from its own source."""

    def meet(self, renter: NodeId | None = None) -> Stranger:
        who = renter or NodeId(s.node_id(s.raw_key(KEY)))
        talk = Stranger(MemoryPipe(self.call(who)), self.signer.node_id.raw, who.raw)
        talk.hello()
        return talk

    def joined(self) -> Stranger:
        talk = self.meet()
        serial = InviteSerial(b"x" * 16)
        self.book.mint(serial, OFFER)
        invite = signing.make_invite(self.signer, serial, OFFER)
        from farmer.protocol.documents import invite_bytes

        assert talk.redeem(invite_bytes(invite)).stage == 0
        return talk

    def test_it_stores_retrieves_and_audits_every_size(self) -> None:
        talk = self.joined()
        entries = []
        for size in cast.SIZES:
            data = cast.shard_bytes(size)
            receipt = talk.store(data)
            assert talk.retrieve(receipt.shard) == data
            assert talk.audit_full(NONCE, data)
            entries.append((receipt.shard, size, 5))
        assert talk.audit(NONCE, entries) == [None] * len(entries)
        assert talk.show_contract().shards == len(entries)

    def test_proved_ranges_hold(self) -> None:
        talk = self.joined()
        data = cast.shard_bytes(cast.SIZES[-1])
        shard = talk.store(data).shard
        for offset, length in ((0, 1), (4095, 2), (300_000, 70_000), (len(data) - 1, 1)):
            assert talk.retrieve_proved(shard, offset, length) == data[offset : offset + length]
        assert talk.retrieve(shard, 5, 10) == data[5:15]

    def test_a_store_of_what_is_held_is_answered_at_once(self) -> None:
        talk = self.joined()
        assert talk.store(b"twice").shard == talk.store(b"twice").shard

    def test_missing_shards_fail_their_entry_alone(self) -> None:
        talk = self.joined()
        shard = talk.store(b"here").shard
        missing, here = talk.audit(NONCE, [(bytes(32), 9, 1), (shard, 4, 1)])
        assert isinstance(missing, RefusedError)
        assert missing.code == 30
        assert here is None

    def test_list_delete_undelete_and_stat(self) -> None:
        talk = self.joined()
        shards = sorted(talk.store(b"%d" % number).shard for number in range(5))
        assert [row.shard for row in talk.list(page=2)] == shards
        outcome, gone_at = talk.delete(shards[0])
        assert (outcome, talk.stat(shards[0]).state) == (0, 1)
        assert talk.stat(shards[0]).gone_at == gone_at
        assert talk.undelete(shards[0]).state == 0
        assert talk.delete(shards[1], erase=True)[0] in (1, 2)
        with pytest.raises(RefusedError, match="refusal 30"):
            talk.stat(shards[1])

    def test_refusals_are_heard_and_the_connection_goes_on(self) -> None:
        talk = self.joined()
        with pytest.raises(RefusedError, match="refusal 32"):
            talk.retrieve(talk.store(b"short").shard, 0, 100)
        talk.send(0xEE, b"?")
        with pytest.raises(RefusedError, match="refusal 3 "):
            talk.frame()
        assert talk.ping(5) > 0

    def test_without_a_contract_only_ping_is_answered(self) -> None:
        talk = self.meet(NodeId(b"n" * 32))
        assert talk.ping(1) > 0
        for ask in (talk.list, talk.show_contract, lambda: talk.store(b"x")):
            with pytest.raises(RefusedError, match="refusal 10 "):
                ask()

    def test_in_grace_nothing_is_stored(self) -> None:
        talk = self.joined()
        shard = talk.store(b"kept").shard
        self.book.stages[NodeId(talk.renter)] = ContractStage.GRACE
        with pytest.raises(RefusedError, match="refusal 11 "):
            talk.store(b"new")
        assert talk.retrieve(shard) == b"kept"

    def test_out_of_order_ends_the_connection_with_last_words(self) -> None:
        talk = self.joined()
        talk.send(s.END)
        with pytest.raises(RefusedError, match="refusal 4 ") as caught:
            talk.frame()
        assert caught.value.final
