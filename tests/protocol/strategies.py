"""Every value of the wire, as hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.contract import Contract, ContractStage, Invite, Offer, Price, Receipt
from farmer.model.ids import ContractId, InviteSerial, NodeId, ShardId
from farmer.model.shard import BadBlocks, DeletionOutcome, ShardState, Usage, block_count
from farmer.protocol.messages import Message
from farmer.protocol.opening import End, Hello, Refuse, Welcome
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
from farmer.protocol.transfers import Accept, Audit, Retrieve, Send, Store, Stored
from farmer.protocol.types import Type

u8 = st.integers(0, 255)
u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 63) - 1)
sizes = st.one_of(st.integers(0, 1 << 20), u64)
hashes = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
shards = st.builds(ShardId, hashes)
nodes = st.builds(NodeId, hashes)
printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


def texts(size: int = 64) -> st.SearchStrategy[str]:
    return st.text(printable, max_size=size)


prices = st.builds(Price, currency=texts(16), stored_micros=u64, served_micros=u64)
offers = st.builds(
    Offer,
    space_bytes=st.integers(1, (1 << 63) - 1),
    duration_ms=st.integers(1, (1 << 63) - 1),
    created_at_ms=u64,
    expires_at_ms=u64,
    price=prices,
)
serials = st.builds(InviteSerial, st.binary(min_size=16, max_size=16))
invites = st.builds(Invite, serial=serials, offer=offers, signature=signatures)
contract_ids = st.builds(ContractId, st.binary(min_size=16, max_size=16))
contracts = st.builds(
    Contract,
    contract=contract_ids,
    farmer_key=hashes,
    renter=nodes,
    revision=st.integers(1, 2**32 - 1),
    space_bytes=u64,
    from_ms=u64,
    until_ms=u64,
    price=prices,
    issued_at_ms=u64,
    previous=hashes,
)
receipts = st.builds(
    Receipt,
    farmer_key=hashes,
    renter=nodes,
    contract=contract_ids,
    shard=shards,
    size_bytes=u64,
    charge_bytes=u64,
    stored_at_ms=u64,
    issued_at_ms=u64,
    until_ms=u64,
    previous=hashes,
    signature=signatures,
)


def _challenge(kind: AuditKind) -> st.SearchStrategy[Challenge]:
    samples = st.integers(1, 51) if kind is AuditKind.SAMPLE else st.just(0)
    entry = st.builds(AuditEntry, shards, sizes, samples)
    entries = st.lists(entry, min_size=1, max_size=20).map(tuple)
    return st.builds(Challenge, hashes, st.just(kind), entries)


challenges = st.one_of(_challenge(AuditKind.SAMPLE), _challenge(AuditKind.FULL))
refused = st.builds(Refused, st.sampled_from(Refusal), u64, u64)
stated = st.builds(Stated, shards, u64, u64, st.sampled_from(ShardState), u64)

bad_blocks = st.integers(0, 1 << 32).flatmap(
    lambda size: st.builds(
        BadBlocks,
        st.just(size),
        st.sets(st.integers(0, block_count(size) - 1), max_size=20).map(
            lambda blocks: tuple(sorted(blocks))
        ),
    )
)

BY_TYPE: dict[Type, st.SearchStrategy[Message]] = {
    Type.HELLO: st.tuples(u16, u16, texts()).map(
        lambda parts: Hello(min(parts[:2]), max(parts[:2]), parts[2])
    ),
    Type.WELCOME: st.builds(Welcome, u16, u64, u64, texts()),
    Type.REFUSE: st.builds(Refuse, refused, st.booleans()),
    Type.END: st.just(End()),
    Type.REDEEM: st.builds(Redeem, st.binary(max_size=200)),
    Type.SHOW_CONTRACT: st.just(ShowContract()),
    Type.CONTRACT: st.builds(
        ContractShown,
        st.sampled_from([stage for stage in ContractStage if stage is not ContractStage.GONE]),
        st.builds(Usage, u64, u64, u64, u64),
        contracts,
        signatures,
    ),
    Type.STORE: st.builds(Store, shards, u64),
    Type.EXAMINE: st.builds(Examine, shards),
    Type.REPAIR: st.builds(Repair, shards),
    Type.BAD_BLOCKS: st.builds(BadBlocksNamed, bad_blocks),
    Type.ACCEPT: st.builds(Accept, u64),
    Type.STORED: st.builds(Stored, receipts),
    Type.RETRIEVE: st.builds(Retrieve, shards, u64, u64, st.booleans()),
    Type.SEND: st.builds(Send, u64, u64, u64, st.lists(hashes, max_size=40).map(tuple)),
    Type.AUDIT: st.builds(Audit, challenges),
    Type.STAT: st.builds(Stat, shards),
    Type.STATED: stated,
    Type.LIST: st.builds(List, shards, st.integers(1, 1000)),
    Type.LISTED: st.builds(Listed, st.lists(stated, max_size=5).map(tuple), st.booleans()),
    Type.DELETE: st.builds(Delete, shards, st.booleans()),
    Type.DELETED: st.builds(Deleted, st.sampled_from(DeletionOutcome), u64),
    Type.UNDELETE: st.builds(Undelete, shards),
    Type.PING: st.builds(Ping, u64),
    Type.PONG: st.builds(Pong, u64, u64, u64, prices, texts()),
}
messages = st.one_of(*BY_TYPE.values())


@st.composite
def nearly(draw: st.DrawFn, encodings: st.SearchStrategy[bytes]) -> bytes:
    """Return an encoding in which a few bytes were changed, cut or put in: at times none."""
    raw = bytearray(draw(encodings))
    for _ in range(draw(st.integers(0, 3))):
        at, size = draw(st.integers(0, len(raw))), draw(st.integers(0, 2))
        is_change = draw(st.booleans())
        raw[at : at + size] = draw(st.binary(min_size=size if is_change else 0, max_size=2))
    return bytes(raw)
