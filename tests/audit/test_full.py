"""The digest of a full audit."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from farmer.audit.full import FullDigest
from farmer.model.ids import ShardId

SHARD = ShardId(b"s" * 32)


@given(st.lists(st.binary(max_size=100)))
def test_any_slicing_gives_the_digest_over_everything(parts: list[bytes]) -> None:
    digest = FullDigest(b"n" * 32, SHARD)
    for part in parts:
        digest.update(part)
    whole = b"farmer/full-audit/1" + b"n" * 32 + b"s" * 32 + b"".join(parts)
    assert digest.finish() == sha256(whole).digest()


def test_nonce_shard_and_bytes_all_decide() -> None:
    cases = [(b"n", b"s", b"x"), (b"m", b"s", b"x"), (b"n", b"t", b"x"), (b"n", b"s", b"y")]
    answers = set()
    for nonce, shard, data in cases:
        digest = FullDigest(nonce * 32, ShardId(shard * 32))
        digest.update(data)
        answers.add(digest.finish())
    assert len(answers) == len(cases)
