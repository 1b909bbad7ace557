"""Sample proofs: what must pass passes, and everything else is turned down."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farmer.audit.challenge import sample_leaves
from farmer.audit.proof import ProofError, prove_sample, verify_sample
from farmer.audit.tree import ShardTree, TreeHasher
from farmer.model.audit import SampleProof
from farmer.model.ids import ShardId
from tests.audit.reference import bytes_of, leaves_of, mth

EDGES = [0, 1, 4095, 4096, 4097, 8192, 65535, 65536, 65537, 131072, 131073, 300_001, 1_048_581]
sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, 400_000))
nonces = st.binary(min_size=32, max_size=32)
samples = st.integers(1, 40)
NONCE = bytes(range(32))


@dataclass
class Held:
    """A shard as a farmer holds it: its tree, and a count of the blocks that were read."""

    data: bytes
    reads: list[int] = field(default_factory=list)

    @property
    def tree(self) -> ShardTree:
        hasher = TreeHasher()
        hasher.update(self.data)
        return hasher.finish()

    @property
    def shard(self) -> ShardId:
        return self.tree.shard_id()

    def read_block(self, block: int) -> bytes:
        self.reads.append(block)
        return self.data[block * 65536 : (block + 1) * 65536]

    def prove(self, nonce: bytes, count: int) -> SampleProof:
        wanted = sample_leaves(nonce, self.shard, len(self.data), count)
        return prove_sample(self.tree, wanted, self.read_block)

    def verify(self, proof: SampleProof, nonce: bytes = NONCE, count: int = 5) -> None:
        verify_sample(self.shard, len(self.data), nonce, count, proof)


def slow_nodes(leaves: list[bytes], wanted: Sequence[int], base: int = 0) -> list[bytes]:
    """Top down, as the RFC splits: a sub-tree without a wanted leaf is one node."""
    inside = [leaf for leaf in wanted if base <= leaf < base + len(leaves)]
    if not inside:
        return [mth(leaves)]
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left = slow_nodes(leaves[:split], wanted, base)
    return left + slow_nodes(leaves[split:], wanted, base + split)


@given(sizes, nonces, samples)
def test_a_proof_is_the_leaves_and_nodes_of_the_plain_tree(
    size: int, nonce: bytes, count: int
) -> None:
    held = Held(bytes_of(size))
    leaves = leaves_of(held.data)
    wanted = sample_leaves(nonce, held.shard, size, count)
    proof = held.prove(nonce, count)
    assert list(proof.leaves) == [leaves[leaf] for leaf in wanted]
    assert list(proof.nodes) == slow_nodes(leaves, wanted)


@given(sizes, nonces, samples)
def test_an_honest_proof_passes(size: int, nonce: bytes, count: int) -> None:
    held = Held(bytes_of(size))
    held.verify(held.prove(nonce, count), nonce, count)


@given(sizes, nonces, samples)
def test_each_block_with_a_wanted_leaf_is_read_once_and_no_other(
    size: int, nonce: bytes, count: int
) -> None:
    held = Held(bytes_of(size))
    held.prove(nonce, count)
    wanted = sample_leaves(nonce, held.shard, size, count)
    assert held.reads == sorted({leaf // 16 for leaf in wanted})


@given(sizes, nonces, samples, st.data())
def test_one_flipped_bit_anywhere_is_turned_down(
    size: int, nonce: bytes, count: int, data: st.DataObject
) -> None:
    held = Held(bytes_of(size))
    proof = held.prove(nonce, count)
    parts = [*proof.leaves, *proof.nodes]
    part = data.draw(st.integers(0, len(parts) - 1))
    assume(parts[part])
    bit = data.draw(st.integers(0, 8 * len(parts[part]) - 1))
    parts[part] = flipped(parts[part], bit)
    split = len(proof.leaves)
    with pytest.raises(ProofError, match="do not lead"):
        held.verify(SampleProof(tuple(parts[:split]), tuple(parts[split:])), nonce, count)


@given(sizes, nonces, samples, st.data())
def test_a_node_too_many_or_too_few_is_turned_down(
    size: int, nonce: bytes, count: int, data: st.DataObject
) -> None:
    held = Held(bytes_of(size))
    proof = held.prove(nonce, count)
    at = data.draw(st.integers(0, len(proof.nodes)))
    more = (*proof.nodes[:at], bytes(32), *proof.nodes[at:])
    with pytest.raises(ProofError, match="a node too many"):
        held.verify(replace(proof, nodes=more), nonce, count)
    if at < len(proof.nodes):
        fewer = proof.nodes[:at] + proof.nodes[at + 1 :]
        with pytest.raises(ProofError, match="a node is missing"):
            held.verify(replace(proof, nodes=fewer), nonce, count)


@given(st.integers(100_000, 400_000), st.integers(1, 5))
def test_a_proof_of_neighbouring_leaves_is_turned_down(size: int, count: int) -> None:
    """The classic off-by-one: right leaves of the right shard, but not those asked for."""
    held = Held(bytes_of(size))
    wanted = sample_leaves(NONCE, held.shard, size, count)
    shifted = [leaf + 1 for leaf in wanted]
    assume(shifted[-1] < len(leaves_of(held.data)))
    with pytest.raises(ProofError):
        held.verify(prove_sample(held.tree, shifted, held.read_block), NONCE, count)


def test_a_proof_for_another_nonce_is_turned_down() -> None:
    held = Held(bytes_of(300_001))
    with pytest.raises(ProofError):
        held.verify(held.prove(b"\1" * 32, 5))


def test_a_proof_of_another_shard_is_turned_down() -> None:
    held, other = Held(bytes_of(300_001)), Held(bytes_of(300_001, seed=2))
    wanted = sample_leaves(NONCE, held.shard, 300_001, 5)
    with pytest.raises(ProofError, match="do not lead"):
        held.verify(prove_sample(other.tree, wanted, other.read_block))


@pytest.mark.parametrize("size", [300_000, 300_002, 299_008, 1, 0])
def test_a_proof_under_another_size_is_turned_down(size: int) -> None:
    held = Held(bytes_of(300_001))
    with pytest.raises(ProofError):
        verify_sample(held.shard, size, NONCE, 5, held.prove(NONCE, 5))


def test_the_wrong_number_of_leaves_is_turned_down() -> None:
    held = Held(bytes_of(300_001))
    proof = held.prove(NONCE, 5)
    for leaves in ((), proof.leaves[:4], (*proof.leaves, proof.leaves[0])):
        with pytest.raises(ProofError, match=f"{len(leaves)} leaves instead of 5"):
            held.verify(replace(proof, leaves=leaves))


def test_leaves_in_another_order_are_turned_down() -> None:
    held = Held(bytes_of(300_001))
    proof = held.prove(NONCE, 5)
    with pytest.raises(ProofError):
        held.verify(replace(proof, leaves=proof.leaves[::-1]))


def test_a_leaf_of_the_wrong_length_is_turned_down() -> None:
    held = Held(bytes_of(8193))
    proof = held.prove(NONCE, 3)
    assert [len(leaf) for leaf in proof.leaves] == [4096, 4096, 1]
    for at, leaf in enumerate(proof.leaves):
        for wrong in (leaf[:-1], leaf + b"\0"):
            leaves = (*proof.leaves[:at], wrong, *proof.leaves[at + 1 :])
            with pytest.raises(ProofError, match=f"leaf {at} has {len(wrong)} bytes"):
                held.verify(replace(proof, leaves=leaves), count=3)


def test_an_inner_node_is_not_taken_for_a_leaf() -> None:
    """Without the prefixes of the RFC two nodes side by side would pass as one short leaf."""
    held = Held(bytes_of(8192))
    left, right = (sha256(b"\0" + leaf).digest() for leaf in leaves_of(held.data))
    forged = SampleProof((left + right,), ())
    with pytest.raises(ProofError, match="do not lead"):
        verify_sample(held.shard, 64, NONCE, 1, forged)


def test_a_node_of_the_wrong_length_is_turned_down() -> None:
    held = Held(bytes_of(300_001))
    proof = held.prove(NONCE, 5)
    with pytest.raises(ProofError, match="a node of 31 bytes"):
        held.verify(replace(proof, nodes=(proof.nodes[0][:31], *proof.nodes[1:])))


def test_what_reading_raises_passes_through() -> None:
    held = Held(bytes_of(300_001))

    def failing(_block: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        prove_sample(held.tree, [3], failing)


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
