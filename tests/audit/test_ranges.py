"""Range proofs, checked while the bytes stream by."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farmer.audit.proof import ProofError
from farmer.audit.ranges import RangeVerifier, prove_range, whole_leaves
from tests.audit.reference import bytes_of, leaves_of
from tests.audit.test_proof import Held, flipped, sizes, slow_nodes


@st.composite
def proved_ranges(draw: st.DrawFn) -> tuple[Held, int, int, tuple[bytes, ...]]:
    """A shard, a run of its whole leaves (offset and length), and the nodes that prove it."""
    held = Held(bytes_of(draw(sizes)))
    size = len(held.data)
    start = draw(st.integers(0, size))
    offset, length = whole_leaves(size, start, draw(st.integers(0, size - start)))
    return held, offset, length, nodes_of(held, offset, length)


def nodes_of(held: Held, offset: int, length: int) -> tuple[bytes, ...]:
    first = offset // 4096
    end = max(first + 1, -(-(offset + length) // 4096))
    return prove_range(held.tree, first, end, held.read_block)


def verifier(held: Held, offset: int, length: int, nodes: tuple[bytes, ...]) -> RangeVerifier:
    return RangeVerifier(held.shard, len(held.data), offset, length, nodes)


@given(proved_ranges(), st.lists(st.integers(0, 200_000), max_size=5))
def test_an_honest_range_passes_in_any_slices(
    proved: tuple[Held, int, int, tuple[bytes, ...]], cuts: list[int]
) -> None:
    held, offset, length, nodes = proved
    data = held.data[offset : offset + length]
    checked = verifier(held, offset, length, nodes)
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    for start, end in itertools.pairwise(edges):
        checked.update(data[start:end])
    checked.finish()


@given(proved_ranges())
def test_nodes_are_those_of_the_plain_tree_and_two_blocks_are_read_at_most(
    proved: tuple[Held, int, int, tuple[bytes, ...]],
) -> None:
    held, offset, length, nodes = proved
    leaves = leaves_of(held.data)
    first = offset // 4096
    wanted = range(first, max(first + 1, -(-(offset + length) // 4096)))
    assert list(nodes) == slow_nodes(leaves, wanted)
    assert len(held.reads) <= 2


@given(proved_ranges(), st.data())
def test_one_flipped_bit_anywhere_is_turned_down(
    proved: tuple[Held, int, int, tuple[bytes, ...]], data: st.DataObject
) -> None:
    held, offset, length, nodes = proved
    parts = [held.data[offset : offset + length], *nodes]
    part = data.draw(st.integers(0, len(parts) - 1))
    assume(parts[part])
    parts[part] = flipped(parts[part], data.draw(st.integers(0, 8 * len(parts[part]) - 1)))
    checked = verifier(held, offset, length, tuple(parts[1:]))
    checked.update(parts[0])
    with pytest.raises(ProofError, match="do not lead"):
        checked.finish()


@given(proved_ranges(), st.data())
def test_a_node_too_many_or_too_few_is_turned_down(
    proved: tuple[Held, int, int, tuple[bytes, ...]], data: st.DataObject
) -> None:
    held, offset, length, nodes = proved
    at = data.draw(st.integers(0, len(nodes)))
    for wrong in ((*nodes[:at], bytes(32), *nodes[at:]), (*nodes[:at], *nodes[at + 1 :])):
        if wrong != nodes:
            with pytest.raises(ProofError):
                run(held, offset, length, wrong)


def run(held: Held, offset: int, length: int, nodes: tuple[bytes, ...]) -> None:
    checked = verifier(held, offset, length, nodes)
    checked.update(held.data[offset : offset + length])
    checked.finish()


def test_bytes_of_a_neighbouring_range_are_turned_down() -> None:
    held = Held(bytes_of(300_001))
    checked = verifier(held, 8192, 4096, nodes_of(held, 8192, 4096))
    checked.update(held.data[4096:8192])
    with pytest.raises(ProofError, match="do not lead"):
        checked.finish()


def test_more_or_fewer_bytes_are_turned_down() -> None:
    held = Held(bytes_of(300_001))
    nodes = nodes_of(held, 8192, 4096)
    checked = verifier(held, 8192, 4096, nodes)
    checked.update(bytes(4000))
    with pytest.raises(ProofError, match="96 bytes of the range are missing"):
        checked.finish()
    with pytest.raises(ProofError, match="4 bytes beyond the range"):
        checked.update(bytes(100))


@pytest.mark.parametrize(
    ("offset", "length"), [(1, 4096), (0, 4097), (4096, 0), (8192, 1), (0, 300_000)]
)
def test_what_is_not_whole_leaves_is_turned_down(offset: int, length: int) -> None:
    held = Held(bytes_of(300_001))
    with pytest.raises(ProofError, match="not whole leaves"):
        verifier(held, offset, length, ())


@pytest.mark.parametrize(("offset", "length"), [(-4096, 4096), (0, 303_104), (4096, -1)])
def test_what_lies_outside_the_shard_is_turned_down(offset: int, length: int) -> None:
    held = Held(bytes_of(300_001))
    with pytest.raises(ProofError, match="of a shard of 300001"):
        verifier(held, offset, length, ())


def test_a_missing_node_before_the_range_is_told_at_once() -> None:
    with pytest.raises(ProofError, match="a node is missing"):
        verifier(Held(bytes_of(300_001)), 4096, 4096, ())


def test_a_whole_shard_needs_no_nodes() -> None:
    for size in (0, 1, 65536, 300_001):
        held = Held(bytes_of(size))
        assert nodes_of(held, 0, size) == ()
        run(held, 0, size, ())


@pytest.mark.parametrize(
    ("size", "offset", "length", "expected"),
    [
        (0, 0, 0, (0, 0)),
        (1, 0, 1, (0, 1)),
        (1, 1, 0, (0, 1)),
        (4096, 4096, 0, (0, 4096)),
        (10_000, 0, 10_000, (0, 10_000)),
        (10_000, 4095, 2, (0, 8192)),
        (10_000, 4096, 4096, (4096, 4096)),
        (10_000, 5000, 0, (4096, 4096)),
        (10_000, 9999, 1, (8192, 1808)),
        (10_000, 10_000, 0, (8192, 1808)),
    ],
)
def test_a_range_is_widened_to_whole_leaves(
    size: int, offset: int, length: int, expected: tuple[int, int]
) -> None:
    assert whole_leaves(size, offset, length) == expected
