"""A client written from the protocol page alone, at a real farmer over real TLS."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.e2e.daemon import Daemon
from tests.protocol import stranger as s
from tests.vectors import cast


@contextmanager
def at(link: str, key: Ed25519PrivateKey) -> Iterator[s.Stranger]:
    farmer, addresses, _ = s.parse_link(link)
    wire = s.connect(addresses[0], farmer, key)
    talk = s.Stranger(wire, farmer, s.node_id(s.raw_key(key)))
    talk.hello()
    yield talk
    s.hang_up(wire)


def test_a_stranger_stores_proves_and_retrieves_also_after_a_restart(daemon: Daemon) -> None:
    key, link = Ed25519PrivateKey.generate(), daemon.invite()
    shards = {size: cast.shard_bytes(size) for size in (*cast.SIZES, 3_000_001)}
    with at(link, key) as talk:
        talk.redeem(s.parse_link(link)[2])
        receipts = {size: talk.store(data) for size, data in shards.items()}
    assert daemon.stop() == 0
    daemon.start()
    with at(daemon.invite(), key) as talk:
        for size, data in shards.items():
            assert talk.retrieve(receipts[size].shard) == data
            assert talk.audit_full(secrets.token_bytes(32), data)
        entries = [(receipt.shard, size, 5) for size, receipt in receipts.items()]
        assert talk.audit(secrets.token_bytes(32), entries) == [None] * len(entries)
        largest = receipts[3_000_001].shard
        part = talk.retrieve_proved(largest, 1_000_000, 500_000)
        assert part == shards[3_000_001][1_000_000:1_500_000]
        assert [row.shard for row in talk.list(page=3)] == sorted(
            receipt.shard for receipt in receipts.values()
        )


def test_a_stranger_notices_another_farmer(daemon: Daemon) -> None:
    _, addresses, _ = s.parse_link(daemon.invite())
    with pytest.raises(s.WrongError, match="another farmer"):
        s.connect(addresses[0], bytes(32), Ed25519PrivateKey.generate())
