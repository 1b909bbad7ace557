"""Every value of the wire, as hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.contract import Contract, ContractStage, Invite, Offer, Price, Receipt
from farmer.model.ids import ContractId, InviteSerial, NodeId, ShardId
from farmer.model.shard import DeletionOutcome, ShardState, Usage
from farmer.protocol import messages as m
from farmer.protocol.refusals import Refusal, Refused

u8 = st.integers(0, 255)
u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 63) - 1)
sizes = st.one_of(st.integers(0, 1 << 20), u64)
hashes = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
shards = st.builds(ShardId, hashes)
nodes = st.builds(NodeId, hashes)
printable = st.characters(codec="utf-8").filter(str.isprintable)


def texts(size: int = 64) -> st.SearchStrategy[str]:
    letters = st.text(printable, max_size=size)
    return letters.filter(lambda word: len(word.encode()) <= size)


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
    revision=u32,
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
stated = st.builds(m.Stated, shards, u64, u64, st.sampled_from(ShardState), u64)

BY_TYPE: dict[m.Type, st.SearchStrategy[m.Message]] = {
    m.Type.HELLO: st.tuples(u16, u16, texts()).map(
        lambda parts: m.Hello(min(parts[:2]), max(parts[:2]), parts[2])
    ),
    m.Type.WELCOME: st.builds(m.Welcome, u16, u64, u64, texts()),
    m.Type.REFUSE: st.builds(m.Refuse, refused, st.booleans()),
    m.Type.END: st.just(m.End()),
    m.Type.REDEEM: st.builds(m.Redeem, st.binary(max_size=200)),
    m.Type.SHOW_CONTRACT: st.just(m.ShowContract()),
    m.Type.CONTRACT: st.builds(
        m.ContractShown,
        st.sampled_from([stage for stage in ContractStage if stage is not ContractStage.GONE]),
        st.builds(Usage, u64, u64, u64, u64),
        contracts,
        signatures,
    ),
    m.Type.STORE: st.builds(m.Store, shards, u64),
    m.Type.ACCEPT: st.builds(m.Accept, u64),
    m.Type.STORED: st.builds(m.Stored, receipts),
    m.Type.RETRIEVE: st.builds(m.Retrieve, shards, u64, u64, st.booleans()),
    m.Type.SEND: st.builds(m.Send, u64, u64, u64, st.lists(hashes, max_size=40).map(tuple)),
    m.Type.AUDIT: st.builds(m.Audit, challenges),
    m.Type.STAT: st.builds(m.Stat, shards),
    m.Type.STATED: stated,
    m.Type.LIST: st.builds(m.List, shards, st.integers(1, 1000)),
    m.Type.LISTED: st.builds(m.Listed, st.lists(stated, max_size=5).map(tuple), st.booleans()),
    m.Type.DELETE: st.builds(m.Delete, shards, st.booleans()),
    m.Type.DELETED: st.builds(m.Deleted, st.sampled_from(DeletionOutcome), u64),
    m.Type.UNDELETE: st.builds(m.Undelete, shards),
    m.Type.PING: st.builds(m.Ping, u64),
    m.Type.PONG: st.builds(m.Pong, u64, u64, u64, prices, texts()),
}
messages = st.one_of(*BY_TYPE.values())
