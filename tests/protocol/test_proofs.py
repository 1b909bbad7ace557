"""The items of an audit's answer, from bytes and back."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.model.audit import AuditEntry, AuditKind, Challenge, SampleProof
from farmer.model.ids import ShardId
from farmer.protocol.fields import LayoutError
from farmer.protocol.proofs import FullProof, ProofItem, ProofItemReader, encode_item
from farmer.protocol.refusals import Refusal, Refused

SHARD = ShardId(bytes(32))
NODE = bytes(range(32))


def challenge(*entries: tuple[int, int], kind: AuditKind = AuditKind.SAMPLE) -> Challenge:
    """A challenge of (size, samples) entries."""
    return Challenge(bytes(32), kind, tuple(AuditEntry(SHARD, *entry) for entry in entries))


def full(count: int = 1) -> Challenge:
    return challenge(*[(0, 0)] * count, kind=AuditKind.FULL)


@st.composite
def answered(draw: st.DrawFn) -> tuple[Challenge, list[ProofItem]]:
    kind = draw(st.sampled_from(AuditKind))
    entries, items = [], []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(0, 20_000))
        count = max(1, -(-size // 4096))
        samples = draw(st.integers(1, 8)) if kind is AuditKind.SAMPLE else 0
        entries.append((size, samples))
        items.append(draw(st.one_of(refusals(), proofs(kind, size, min(samples, count)))))
    return challenge(*entries, kind=kind), items


def refusals() -> st.SearchStrategy[ProofItem]:
    numbers = st.integers(0, 2**63 - 1)
    return st.builds(Refused, st.sampled_from(Refusal), numbers, numbers)


def proofs(kind: AuditKind, size: int, leaves: int) -> st.SearchStrategy[ProofItem]:
    if kind is AuditKind.FULL:
        return st.builds(FullProof, st.binary(min_size=32, max_size=32))
    count = max(1, -(-size // 4096))
    last = st.sampled_from([4096, size - (count - 1) * 4096])
    nodes = st.lists(st.binary(min_size=32, max_size=32), max_size=leaves * (count - 1) // 2)
    return st.builds(
        lambda length, found: SampleProof(
            (*(bytes([n]) * 4096 for n in range(leaves - 1)), b"z" * length), tuple(found)
        ),
        last,
        nodes,
    )


@given(answered(), st.lists(st.integers(0, 40_000), max_size=8))
def test_items_come_out_as_they_went_in_however_the_stream_is_cut(
    case: tuple[Challenge, list[ProofItem]], cuts: list[int]
) -> None:
    asked, items = case
    stream = b"".join(encode_item(item) for item in items)
    reader = ProofItemReader(asked)
    found = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        found += reader.feed(stream[start:end])
    reader.end()
    assert found == items


@given(answered())
def test_a_stream_that_stops_early_leaves_entries_unanswered(
    case: tuple[Challenge, list[ProofItem]],
) -> None:
    asked, items = case
    reader = ProofItemReader(asked)
    reader.feed(b"".join(encode_item(item) for item in items)[:-1])
    with pytest.raises(LayoutError, match="1 audit entries were not answered"):
        reader.end()


def test_the_layout_stands_where_the_page_says() -> None:
    refused = encode_item(Refused(Refusal.NOT_FOUND, 1, 2))
    assert refused.hex() == "001e" + "0000" * 3 + "0000000000000001" + "0000000000000002"
    sample = encode_item(SampleProof((bytes(4096), b"abc"), (NODE,)))
    assert sample[:24].hex() == "0000" + "0002" + "0003" + "0001" + "00" * 16
    assert sample[24:] == bytes(4096) + b"abc" + NODE
    assert encode_item(FullProof(NODE)) == bytes(7) + b"\1" + bytes(16) + NODE


def test_an_empty_shard_has_one_leaf_without_bytes() -> None:
    reader = ProofItemReader(challenge((0, 5)))
    assert reader.feed(encode_item(SampleProof((b"",), ()))) == [SampleProof((b"",), ())]
    reader.end()


def test_bytes_after_the_last_item_are_refused() -> None:
    reader = ProofItemReader(full())
    with pytest.raises(LayoutError, match="1 bytes after the last"):
        reader.feed(encode_item(FullProof(NODE)) + b"x")
    reader = ProofItemReader(full())
    reader.feed(encode_item(FullProof(NODE)))
    with pytest.raises(LayoutError, match="3 bytes after the last"):
        reader.feed(b"xyz")


def head(
    refusal: int = 0,
    leaves: int = 0,
    last: int = 0,
    nodes: int = 0,
    first: int = 0,
    second: int = 0,
) -> bytes:
    counts = b"".join(number.to_bytes(2, "big") for number in (refusal, leaves, last, nodes))
    return counts + first.to_bytes(8, "big") + second.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (head(leaves=2, last=4096), "a sample proof of 2 leaves, not 3"),
        (head(leaves=4, last=4096), "a sample proof of 4 leaves, not 3"),
        (head(leaves=3, last=4095), "no leaf of the shard has 4095 bytes"),
        (head(leaves=3, last=4097), "no leaf of the shard has 4097 bytes"),
        (head(leaves=3, last=4096, nodes=10), "10 nodes are more"),
        (head(leaves=3, last=4096, first=1), "with a refusal's numbers"),
        (head(leaves=3, last=4096, second=1), "with a refusal's numbers"),
        (head(leaves=3, last=4096, second=1 << 63), "number too large"),
        (head(refusal=9999), "unknown refusal 9999"),
        (head(refusal=Refusal.NOT_FOUND, leaves=1), "with leaves or nodes"),
        (head(refusal=Refusal.NOT_FOUND, last=1), "with leaves or nodes"),
        (head(refusal=Refusal.NOT_FOUND, nodes=1), "with leaves or nodes"),
    ],
)
def test_a_head_that_cannot_answer_a_sample_is_refused_before_its_body(
    wrong: bytes, reason: str
) -> None:
    """Five leaves, the last of one byte, three asked for: at most 3 x 3 nodes."""
    reader = ProofItemReader(challenge((4 * 4096 + 1, 3)))
    with pytest.raises(LayoutError, match=reason):
        reader.feed(wrong)


@pytest.mark.parametrize("wrong", [head(), head(nodes=2), head(leaves=1, nodes=1), head(last=1)])
def test_a_full_proof_is_one_digest_and_nothing_else(wrong: bytes) -> None:
    with pytest.raises(LayoutError, match="one digest and nothing else"):
        ProofItemReader(full()).feed(wrong)


def test_a_stranger_cannot_make_the_reader_hold_more_than_one_item() -> None:
    """1024 leaves of the largest shard: 4 MiB of leaves, 640 KiB of nodes."""
    reader = ProofItemReader(challenge((4 * 1024**3, 1024)))
    reader.feed(head(leaves=1024, last=4096, nodes=20 * 1024))
    assert reader._head is not None
    assert reader._head.tail_bytes <= 5 * 1024**2
