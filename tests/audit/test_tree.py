"""The hash tree against a plain reading of RFC 6962."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmer.audit.tree import ShardTree, TreeHasher, fold, hash_block, hash_leaf, hash_node
from tests.audit.reference import bytes_of, id_of, leaves_of, mth

EDGES = [0, 1, 4095, 4096, 4097, 8192, 65535, 65536, 65537, 131072, 131073, 300_001, 1_048_581]
sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, 400_000))


def tree_of(shard: bytes) -> ShardTree:
    hasher = TreeHasher()
    hasher.update(shard)
    return hasher.finish()


@pytest.mark.parametrize("size", EDGES)
def test_root_and_id_are_those_of_the_plain_tree(size: int) -> None:
    shard = bytes_of(size)
    tree = tree_of(shard)
    assert tree.size_bytes == size
    assert tree.root() == mth(leaves_of(shard))
    assert tree.shard_id().raw == id_of(shard)


def test_ids_never_change() -> None:
    """These are printed in docs/protocol.md and live on other people's disks."""
    known = {
        0: "05d51c0e96a61b9f0924da8493dc4ad120588945ba3725d228e819d3a591b067",
        1: "8a13e8c7d636aaec33f6efae485723d49cb273078775ef6f464ef95e4a1632fe",
        70_000: "aabbb8908af03579ba639439da9c59041af972cc52281d2b759ecffe18e6728f",
    }
    assert {size: str(tree_of(bytes(size)).shard_id()) for size in known} == known


@given(sizes, st.lists(st.integers(0, 200_000), max_size=6))
def test_any_slicing_gives_the_same_tree(size: int, cuts: list[int]) -> None:
    shard = bytes_of(size)
    hasher = TreeHasher()
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    for start, end in pairwise(edges):
        hasher.update(memoryview(shard)[start:end])
    assert hasher.finish() == tree_of(shard)


def test_bytes_may_come_one_by_one_and_in_any_buffer() -> None:
    shard = bytes_of(5000)
    hasher = TreeHasher()
    for at in range(5000):
        hasher.update(bytearray(shard[at : at + 1]))
    assert hasher.finish() == tree_of(shard)


def test_a_finished_hasher_goes_on() -> None:
    """A store that resumes asks for nothing else, and a wrong early finish spoils nothing."""
    hasher = TreeHasher()
    hasher.update(bytes_of(70_000)[:66_000])
    early = hasher.finish()
    hasher.update(bytes_of(70_000)[66_000:])
    assert early == tree_of(bytes_of(70_000)[:66_000])
    assert hasher.finish() == tree_of(bytes_of(70_000))


def test_a_block_hash_is_the_node_over_its_leaves() -> None:
    shard = bytes_of(200_000)
    tree = tree_of(shard)
    for block in range(4):
        part = shard[block * 65536 : (block + 1) * 65536]
        assert tree.block_hash(block) == hash_block(part) == mth(leaves_of(part))
    assert tree.fold_blocks(1, 3) == hash_node(tree.block_hash(1), tree.block_hash(2))


def test_a_leaf_is_never_a_node() -> None:
    left, right = hash_leaf(b"a"), hash_leaf(b"b")
    assert hash_leaf(left + right) != hash_node(left, right) == fold([left, right])


def test_zeros_of_different_sizes_have_different_ids() -> None:
    assert len({tree_of(bytes(size)).shard_id() for size in EDGES}) == len(EDGES)


def test_a_tree_with_the_wrong_number_of_hashes_is_not_born() -> None:
    with pytest.raises(ValueError, match="64 bytes of block hashes, not 32"):
        ShardTree(65536, bytes(64))
