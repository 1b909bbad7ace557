from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.model.contract import Contract, Invite, Price, Receipt
from farmer.protocol.documents import (
    contract_body,
    invite_bytes,
    price_bytes,
    read_contract,
    read_invite,
    read_price,
    read_receipt,
    receipt_bytes,
)
from farmer.protocol.fields import LayoutError, Reader, u64
from tests.protocol.strategies import contracts, invites, nearly, prices, receipts


@given(invites)
def test_an_invite_has_one_encoding(invite: Invite) -> None:
    assert read_invite(invite_bytes(invite)) == invite


@given(receipts)
def test_a_receipt_has_one_encoding(receipt: Receipt) -> None:
    assert read_receipt(receipt_bytes(receipt)) == receipt
    assert len(receipt_bytes(receipt)) == 249


@given(contracts)
def test_a_contract_has_one_encoding(contract: Contract) -> None:
    reader = Reader(contract_body(contract))
    assert read_contract(reader) == contract
    reader.end()


@given(contracts)
def test_a_contract_whose_revision_is_0_is_none(contract: Contract) -> None:
    with pytest.raises(LayoutError, match="from 1"):
        read_contract(Reader(contract_body(replace(contract, revision=0))))


@given(prices)
def test_a_price_has_one_encoding(price: Price) -> None:
    reader = Reader(price_bytes(price))
    assert read_price(reader) == price
    reader.end()


@given(invite=invites, data=st.data())
def test_a_cut_or_longer_invite_is_none(invite: Invite, data: st.DataObject) -> None:
    raw = invite_bytes(invite)
    with pytest.raises(LayoutError):
        read_invite(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(LayoutError):
        read_invite(raw + b"\0")


@pytest.mark.parametrize(
    ("read", "write", "documents"),
    [(read_invite, invite_bytes, invites), (read_receipt, receipt_bytes, receipts)],
)
def test_any_bytes_are_the_one_encoding_of_a_document_or_none(
    read: Callable[[bytes], Any], write: Callable[[Any], bytes], documents: st.SearchStrategy[Any]
) -> None:
    """Bytes by chance are no document at all, so most of these begin as one."""
    tried = []

    @given(st.one_of(st.binary(max_size=400), nearly(documents.map(write))))
    def check(raw: bytes) -> None:
        tried.append(False)
        try:
            document = read(raw)
        except LayoutError:
            return
        tried[-1] = True
        assert write(document) == raw

    check()
    assert sum(tried) > len(tried) / 10


@pytest.mark.parametrize(("at", "what"), [(17, "space"), (25, "duration")])
@given(invite=invites)
def test_an_invite_to_nothing_is_none(at: int, what: str, invite: Invite) -> None:
    raw = invite_bytes(invite)
    with pytest.raises(LayoutError, match="without space or duration"):
        read_invite(raw[:at] + u64(0) + raw[at + 8 :])


@pytest.mark.parametrize("version", [0, 2, 255])
@given(invite=invites, receipt=receipts, contract=contracts)
def test_no_document_of_another_version_is_read(
    version: int, invite: Invite, receipt: Receipt, contract: Contract
) -> None:
    """Also of an older one: it would have a second encoding, under the same signature."""
    head, why = bytes((version,)), f"document version {version}, this release reads 1"
    with pytest.raises(LayoutError, match=why):
        read_invite(head + invite_bytes(invite)[1:])
    with pytest.raises(LayoutError, match=why):
        read_receipt(head + receipt_bytes(receipt)[1:])
    with pytest.raises(LayoutError, match=why):
        read_contract(Reader(head + contract_body(contract)[1:]))
