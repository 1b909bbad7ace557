from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.contract import Contract, Offer, Price, renewed
from farmer.model.ids import ContractId, InviteSerial, NodeId, ShardId
from farmer.model.shard import (
    BLOCK_BYTES,
    LEAF_BYTES,
    StoredShard,
    Usage,
    block_count,
    charge_bytes,
    leaf_count,
)
from tests.protocol.strategies import contracts, offers


@pytest.mark.parametrize("name", [NodeId, ShardId, ContractId, InviteSerial])
def test_a_name_is_read_as_it_is_shown(name) -> None:
    value = name(bytes(range(name.SIZE_BYTES)))
    assert name.parse(str(value)) == value
    assert value.short == "00010203"


@pytest.mark.parametrize("name", [NodeId, ShardId, ContractId, InviteSerial])
def test_a_name_of_another_length_is_none(name) -> None:
    digits = 2 * name.SIZE_BYTES
    with pytest.raises(ValueError, match=f"a {name.NOUN} has"):
        name(bytes(name.SIZE_BYTES + 1))
    for text in ("", "00" * (name.SIZE_BYTES - 1), "zz" * name.SIZE_BYTES, " " + "0" * digits):
        with pytest.raises(ValueError, match=f"{digits} hex digits"):
            name.parse(text)


def test_blanks_between_digits_are_no_name() -> None:
    with pytest.raises(ValueError, match="hex digits"):
        NodeId.parse("00 " * 21 + "0")


@pytest.mark.parametrize(
    ("size_bytes", "leaves", "blocks"),
    [
        (0, 1, 1),
        (1, 1, 1),
        (LEAF_BYTES, 1, 1),
        (LEAF_BYTES + 1, 2, 1),
        (BLOCK_BYTES, 16, 1),
        (BLOCK_BYTES + 1, 17, 2),
    ],
)
def test_a_shard_has_at_least_one_leaf_and_one_block(size_bytes, leaves, blocks) -> None:
    assert (leaf_count(size_bytes), block_count(size_bytes)) == (leaves, blocks)


@given(st.integers(0, 1 << 34))
def test_a_shard_is_charged_whole_disk_blocks_for_all_that_it_takes(size_bytes: int) -> None:
    charge = charge_bytes(size_bytes)
    needed = 256 + size_bytes + 36 * block_count(size_bytes)
    assert charge % 4096 == 0
    assert needed <= charge < needed + 4096


def test_a_stored_shard_and_its_size_cost_the_same() -> None:
    node, contract = NodeId(bytes(32)), ContractId(bytes(16))
    stored = StoredShard(
        renter=node,
        shard=ShardId(bytes(32)),
        contract=contract,
        size_bytes=70_000,
        stored_at_ms=0,
    )
    assert stored.charge_bytes == charge_bytes(70_000)


def test_usage_counts_live_trash_and_reserved() -> None:
    assert Usage(1, 2, 4, 9).total_bytes == 7


@given(contract=contracts, offer=offers, now_ms=st.integers(0, 1 << 50))
def test_a_renewal_never_shortens_or_shrinks(
    contract: Contract, offer: Offer, now_ms: int
) -> None:
    later = renewed(contract, offer, now_ms, bytes(32))
    assert later.until_ms >= max(contract.until_ms, now_ms + offer.duration_ms)
    assert later.space_bytes == max(contract.space_bytes, offer.space_bytes)
    assert (later.revision, later.price) == (contract.revision + 1, offer.price)
    assert (later.contract, later.renter) == (contract.contract, contract.renter)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"currency": "x" * 17}, "at most 16"),
        ({"currency": "a\nb"}, "printable"),
        ({"currency": "\u20ac"}, "ASCII"),
        ({"stored_micros": -1}, "not negative"),
        ({"served_micros": 1 << 63}, "63 bits"),
    ],
)
def test_a_price_that_cannot_be_written_is_none(change, words) -> None:
    with pytest.raises(ValueError, match=words):
        Price(**change)


def test_an_offer_of_nothing_is_none() -> None:
    good = Offer(space_bytes=1, duration_ms=1, created_at_ms=0, expires_at_ms=0)
    for change in ({"space_bytes": 0}, {"duration_ms": 0}):
        with pytest.raises(ValueError, match="some space and some duration"):
            replace(good, **change)


def test_a_nonce_has_32_bytes() -> None:
    entry = AuditEntry(ShardId(bytes(32)), 1, 1)
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Challenge(bytes(31), AuditKind.SAMPLE, (entry,))
