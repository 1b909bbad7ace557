from __future__ import annotations

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
from tests.protocol.strategies import contracts, invites, prices, receipts


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


@given(st.binary(max_size=400))
def test_any_bytes_are_the_one_encoding_of_an_invite_or_none(raw: bytes) -> None:
    for read, write in ((read_invite, invite_bytes), (read_receipt, receipt_bytes)):
        for candidate in (raw, b"\x01" + raw):
            try:
                document = read(candidate)
            except LayoutError:
                continue
            assert write(document) == candidate


@given(invites)
def test_documents_of_another_version_are_not_read(invite: Invite) -> None:
    with pytest.raises(LayoutError, match="document version 2, this release reads 1"):
        read_invite(b"\x02" + invite_bytes(invite)[1:])


@pytest.mark.parametrize(("at", "what"), [(17, "space"), (25, "duration")])
@given(invite=invites)
def test_an_invite_to_nothing_is_none(at: int, what: str, invite: Invite) -> None:
    raw = invite_bytes(invite)
    with pytest.raises(LayoutError, match="without space or duration"):
        read_invite(raw[:at] + u64(0) + raw[at + 8 :])
