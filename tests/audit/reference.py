"""RFC 6962, section 2.1, word by word: slow, recursive, independent of the tested code."""

from hashlib import sha256


def mth(leaves: list[bytes]) -> bytes:
    """Return the Merkle tree hash, MTH(D[n]) of the RFC, with one or more entries."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + mth(leaves[:split]) + mth(leaves[split:])).digest()


def leaves_of(shard: bytes) -> list[bytes]:
    return [shard[at : at + 4096] for at in range(0, len(shard), 4096)] or [b""]


def id_of(shard: bytes) -> bytes:
    head = len(shard).to_bytes(8, "big") + (4096).to_bytes(4, "big")
    return sha256(b"farmer/shard/1" + head + mth(leaves_of(shard))).digest()


def bytes_of(size: int, seed: int = 1) -> bytes:
    """Return well mixed bytes, the same for the same size and seed."""
    blocks = -(-size // 32)
    stream = b"".join(sha256(bytes([seed]) + n.to_bytes(8, "big")).digest() for n in range(blocks))
    return stream[:size]
