"""Which leaves a challenge asks for."""

from collections import Counter
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from farmer.audit.challenge import sample_leaves
from farmer.model.ids import ShardId
from farmer.model.shard import LEAF_BYTES, leaf_count

SHARD = ShardId(bytes(range(32)))
hashes = st.binary(min_size=32, max_size=32)


def slow(nonce: bytes, shard: bytes, count: int, wanted: int) -> list[int]:
    """The page's words, as one would write them down in another language."""
    found: list[int] = []
    draw = 0
    while len(found) < min(count, wanted):
        block = sha256(b"farmer/audit/1" + nonce + shard + draw.to_bytes(4, "big")).digest()
        draw += 1
        for word in range(4):
            number = int.from_bytes(block[8 * word : 8 * word + 8], "big")
            leaf = number % count
            if number >= 2**64 - 2**64 % count or leaf in found or len(found) == wanted:
                continue
            found.append(leaf)
    return sorted(found)


@given(hashes, hashes, st.integers(0, 3_000_000), st.integers(1, 100))
def test_leaves_are_those_of_the_plain_reading(
    nonce: bytes, shard: bytes, size: int, samples: int
) -> None:
    leaves = sample_leaves(nonce, ShardId(shard), size, samples)
    assert list(leaves) == slow(nonce, shard, leaf_count(size), samples)


def test_leaves_are_distinct_ascending_and_as_many_as_asked() -> None:
    leaves = sample_leaves(bytes(32), SHARD, 4 * 1024**3, 1024)
    assert len(leaves) == 1024
    assert list(leaves) == sorted(set(leaves))
    assert leaves[-1] < 1024**2


def test_a_small_shard_is_asked_for_all_its_leaves() -> None:
    assert sample_leaves(bytes(32), SHARD, 0, 20) == (0,)
    assert sample_leaves(bytes(32), SHARD, 5 * LEAF_BYTES - 1, 20) == (0, 1, 2, 3, 4)
    assert sample_leaves(bytes(32), SHARD, 5 * LEAF_BYTES, 5) == (0, 1, 2, 3, 4)


def test_nonce_and_shard_both_decide() -> None:
    size = 64 * 1024**2
    asked = sample_leaves(bytes(32), SHARD, size, 20)
    assert asked != sample_leaves(b"\1" + bytes(31), SHARD, size, 20)
    assert asked != sample_leaves(bytes(32), ShardId(bytes(32)), size, 20)


def test_no_leaf_is_likelier_than_another() -> None:
    """Chi-squared over 5 leaves and 4000 nonces; 18.5 would be one in a thousand."""
    nonces = (sha256(n.to_bytes(4, "big")).digest() for n in range(4000))
    hits = Counter(sample_leaves(nonce, SHARD, 5 * LEAF_BYTES, 1)[0] for nonce in nonces)
    assert sum((hits[leaf] - 800) ** 2 / 800 for leaf in range(5)) < 18.5


def test_a_draw_that_would_favour_low_leaves_is_skipped() -> None:
    """With 3 * 2^62 leaves every fourth number is above the fair bound."""
    size = 3 * 2**62 * LEAF_BYTES
    found = [sample_leaves(bytes([n]) * 32, SHARD, size, 1)[0] for n in range(50)]
    expected = [slow(bytes([n]) * 32, SHARD.raw, leaf_count(size), 1)[0] for n in range(50)]
    first_words = [
        int.from_bytes(
            sha256(b"farmer/audit/1" + bytes([n]) * 32 + SHARD.raw + bytes(4)).digest()[:8], "big"
        )
        for n in range(50)
    ]
    assert found == expected
    assert any(word >= 3 * 2**62 for word in first_words)
