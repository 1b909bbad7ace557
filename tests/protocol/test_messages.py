from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.model.audit import SAMPLES_MAX, AuditEntry, AuditKind, Challenge
from farmer.model.contract import ContractStage
from farmer.model.shard import SHARD_BYTES_MAX, ShardState, Usage, block_count
from farmer.protocol.fields import LayoutError, Reader, u16, u32, u64
from farmer.protocol.limits import (
    AUDIT_ENTRIES_MAX,
    CONTROL_BYTES_MAX,
    FRAME_HEADER_BYTES,
    LIST_ENTRIES_MAX,
)
from farmer.protocol.messages import MESSAGES, Message, decode, encode
from farmer.protocol.questions import ContractShown, Listed, Stated
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import Audit
from farmer.protocol.types import Type
from tests.protocol.strategies import BY_TYPE, messages, nearly
from tests.vectors.cast import CONTRACT
from tests.vectors.rejected import BODIES, SHARD, audit_body

KINDS = sorted(MESSAGES)


def body_of(message: Message) -> bytes:
    return encode(message)[FRAME_HEADER_BYTES:]


def test_every_type_but_data_is_a_message_with_a_strategy() -> None:
    assert set(Type) - {Type.DATA} == set(MESSAGES) == set(BY_TYPE)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(data=st.data())
def test_encode_and_decode_are_inverse(kind: Type, data: st.DataObject) -> None:
    message = data.draw(BY_TYPE[kind])
    frame = encode(message)
    assert frame[0] == kind
    assert int.from_bytes(frame[1:4], "big") == len(frame) - FRAME_HEADER_BYTES
    assert decode(kind, body_of(message)) == message


@given(message=messages, data=st.data())
def test_a_truncated_message_is_malformed(message: Message, data: st.DataObject) -> None:
    body = body_of(message)
    if not body or message.TYPE is Type.REDEEM:  # the invite inside is checked by its reader
        return
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(LayoutError) as caught:
        decode(message.TYPE, body[:cut])
    assert caught.value.refused.refusal is Refusal.MALFORMED
    assert caught.value.refused.first == message.TYPE


@given(message=messages, more=st.binary(min_size=1, max_size=70))
def test_nothing_may_follow_the_last_field(message: Message, more: bytes) -> None:
    if message.TYPE is Type.REDEEM:
        return
    with pytest.raises(LayoutError):
        decode(message.TYPE, body_of(message) + more)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_bytes_are_malformed_or_the_one_encoding_of_a_value(kind: Type) -> None:
    """Bytes by chance are hardly ever a value, so most of these begin as one."""
    tried = []

    @given(st.one_of(st.binary(max_size=400), nearly(BY_TYPE[kind].map(body_of))))
    def check(body: bytes) -> None:
        tried.append(False)
        try:
            message = decode(kind, body)
        except LayoutError:
            return
        tried[-1] = True
        assert body_of(message) == body

    check()
    assert any(tried)


@given(message=messages, data=st.data())
def test_a_changed_byte_is_another_message_or_malformed(
    message: Message, data: st.DataObject
) -> None:
    body = bytearray(body_of(message))
    if not body:
        return
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(message.TYPE, bytes(body))
    except LayoutError:
        return
    assert other != message
    assert body_of(other) == bytes(body)


def test_the_largest_messages_fit_a_control_frame() -> None:
    entry = AuditEntry(SHARD, 1, 1)
    audit = Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,) * AUDIT_ENTRIES_MAX))
    row = Stated(SHARD, 1, 1, ShardState.LIVE, 0)
    listed = Listed((row,) * LIST_ENTRIES_MAX, more=True)
    for message in (audit, listed):
        assert len(body_of(message)) <= CONTROL_BYTES_MAX
        assert decode(message.TYPE, body_of(message)) == message


@pytest.mark.parametrize(("_why", "kind", "body"), BODIES, ids=[row[0] for row in BODIES])
def test_forbidden_values_are_malformed(_why: str, kind: Type, body: bytes) -> None:
    with pytest.raises(LayoutError, match=rf"^{kind.name}: "):
        decode(kind, body)


def test_samples_may_reach_the_limit() -> None:
    message: Any = decode(Type.AUDIT, audit_body(1, SAMPLES_MAX // 2, 2))
    assert sum(entry.samples for entry in message.challenge.entries) == SAMPLES_MAX


@given(value=st.integers(0, (1 << 63) - 1))
def test_numbers_are_big_endian(value: int) -> None:
    reader = Reader(u64(value) + u32(value % (1 << 32)) + u16(value % (1 << 16)))
    assert reader.u64() == value
    assert reader.u32() == value % (1 << 32)
    assert reader.u16() == value % (1 << 16)
    reader.end()


def test_our_own_numbers_never_have_the_top_bit() -> None:
    with pytest.raises(AssertionError):
        u64(1 << 63)
    with pytest.raises(AssertionError):
        u64(-1)


def test_a_contract_that_is_gone_is_never_shown() -> None:
    """All of it is there, so that nothing but its stage is at fault."""
    shown = ContractShown(ContractStage.GONE, Usage(), CONTRACT, bytes(64))
    with pytest.raises(LayoutError, match="gone is never shown"):
        decode(Type.CONTRACT, body_of(shown))


def test_no_audit_has_more_entries_than_the_limit() -> None:
    """Full ones: of so many others the samples would be too many, too."""
    with pytest.raises(LayoutError, match="1025 audit entries"):
        decode(Type.AUDIT, audit_body(2, 0, AUDIT_ENTRIES_MAX + 1))


@pytest.mark.parametrize(
    ("size_bytes", "bits", "why"),
    [
        (SHARD_BYTES_MAX + 1, bytes(-(-block_count(SHARD_BYTES_MAX + 1) // 8)), "no shard has"),
        (1, b"\x40", "behind the shard's end"),
        (1, b"\x01", "behind the shard's end"),
    ],
)
def test_no_block_is_bad_that_no_shard_has(size_bytes: int, bits: bytes, why: str) -> None:
    with pytest.raises(LayoutError, match=why):
        decode(Type.BAD_BLOCKS, u64(size_bytes) + bits)
