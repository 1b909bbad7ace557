"""What every `ShardStore` promises, held against the fake and the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest

from farmer.audit.full import FullDigest
from farmer.audit.proof import verify_sample
from farmer.audit.ranges import RangeVerifier, whole_leaves
from farmer.model.audit import AuditEntry
from farmer.model.contract import Contract
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import (
    Deletion,
    DeletionOutcome,
    ShardState,
    StoredShard,
    Usage,
    charge_bytes,
)
from farmer.node.ports import ShardStore, Upload
from farmer.storage.errors import (
    BadRangeError,
    BusyError,
    ContractFullError,
    NoSpaceError,
    ShardNotFoundError,
    ShardTooLargeError,
    WrongHashError,
    WrongSizeError,
)
from tests.contracts.stores import QUOTA_BYTES, SHARD_BYTES_MAX, STORES, Opened
from tests.fakes import shard_of

R = TypeVar("R")

ME, YOU = NodeId(b"m" * 32), NodeId(b"y" * 32)
SMALL = bytes(range(256)) * 300
LARGE = bytes(range(256)) * (2 * 4096 + 100)
NONCE = b"n" * 32


def contract(renter: NodeId = ME, space_bytes: int = 1 << 40) -> Contract:
    return Contract(
        contract=ContractId(renter.raw[:16]),
        farmer_key=bytes(32),
        renter=renter,
        revision=1,
        space_bytes=space_bytes,
        from_ms=0,
        until_ms=1 << 50,
        issued_at_ms=0,
    )


@pytest.fixture(params=STORES, ids=lambda make: make.__name__)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ShardStore]:
    opened: Opened = request.param(tmp_path)
    yield opened.store
    opened.close()


def durable(future: Future[R]) -> R:
    return future.result(timeout=20)


def begun(store: ShardStore, data: bytes, renter: NodeId = ME) -> Upload:
    upload = store.begin(contract(renter), shard_of(data), len(data))
    assert not isinstance(upload, StoredShard)
    return upload


def hold(store: ShardStore, data: bytes, renter: NodeId = ME) -> StoredShard:
    upload = begun(store, data, renter)
    for at in range(upload.offset, len(data), 100_000):
        upload.write(data[at : at + 100_000])
    return durable(upload.commit())


@pytest.mark.parametrize(
    "data", [b"", b"x", SMALL, LARGE], ids=["empty", "tiny", "small", "large"]
)
def test_what_was_committed_is_held(store: ShardStore, data: bytes) -> None:
    stored = hold(store, data)

    assert (stored.renter, stored.shard, stored.size_bytes) == (ME, shard_of(data), len(data))
    assert (stored.state, stored.contract) == (ShardState.LIVE, contract().contract)
    assert store.stat(ME, stored.shard) == stored
    assert store.usage(ME) == Usage(charge_bytes(len(data)), 0, 0, 1)
    reader = store.open(ME, stored.shard)
    assert reader.stored == stored
    assert reader.read(0, len(data)) == data
    reader.close()
    reader.close()


def test_any_part_is_read_exactly(store: ShardStore) -> None:
    reader = store.open(ME, hold(store, LARGE).shard)
    for offset, length in ((0, 1), (65_535, 2), (65_536, 65_536), (len(LARGE) - 1, 1), (5, 0)):
        assert reader.read(offset, length) == LARGE[offset : offset + length]
    with pytest.raises(BadRangeError):
        reader.read(len(LARGE), 1)
    reader.close()


def test_ranges_prove_themselves(store: ShardStore) -> None:
    stored = hold(store, LARGE)
    reader = store.open(ME, stored.shard)
    for wanted, size in ((0, len(LARGE)), (5000, 1), (65_536, 70_000), (len(LARGE) - 1, 1)):
        offset, length = whole_leaves(len(LARGE), wanted, size)
        nodes = reader.prove_range(offset, length)
        verifier = RangeVerifier(stored.shard, len(LARGE), offset, length, nodes)
        verifier.update(reader.read(offset, length))
        verifier.finish()
    reader.close()


def test_audits_prove_what_is_held(store: ShardStore) -> None:
    for data in (b"", SMALL, LARGE):
        shard = hold(store, data).shard
        proof = store.prove_sample(ME, NONCE, AuditEntry(shard, len(data), 7))
        verify_sample(shard, len(data), NONCE, 7, proof)
        reader = store.open(ME, shard)
        assert reader.prove_sample(NONCE, 7) == proof
        reader.close()
        digest = FullDigest(NONCE, shard)
        digest.update(data)
        assert store.prove_full(ME, NONCE, AuditEntry(shard, len(data), 0)) == digest.finish()


def test_a_second_store_of_a_held_shard_is_answered_at_once(store: ShardStore) -> None:
    stored = hold(store, SMALL)

    assert store.begin(contract(), stored.shard, len(SMALL)) == stored


def test_the_same_shard_at_the_same_time_is_busy(store: ShardStore) -> None:
    for data in (SMALL, LARGE):
        first = begun(store, data)
        with pytest.raises(BusyError):
            store.begin(contract(), shard_of(data), len(data))
        first.abandon()


def test_each_renter_has_a_copy_and_sees_only_that(store: ShardStore) -> None:
    shard = hold(store, SMALL, ME).shard
    for look in (store.open, store.stat, store.undelete):
        with pytest.raises(ShardNotFoundError):
            look(YOU, shard)  # type: ignore[operator]
    with pytest.raises(ShardNotFoundError):
        store.delete(YOU, shard, erase=True)
    with pytest.raises(ShardNotFoundError):
        store.prove_sample(YOU, NONCE, AuditEntry(shard, len(SMALL), 1))
    assert store.page(YOU, ShardId(bytes(32)), 10) == []

    hold(store, SMALL, YOU)
    durable(store.delete(YOU, shard, erase=True))

    assert store.stat(ME, shard).state is ShardState.LIVE


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_space_is_reserved_from_the_beginning_and_given_back(
    store: ShardStore, data: bytes
) -> None:
    free = store.free_bytes()
    upload = begun(store, data)
    assert store.usage(ME).reserved_bytes == charge_bytes(len(data))
    assert store.free_bytes() <= free - charge_bytes(len(data))

    upload.write(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(WrongHashError):
        durable(upload.commit())
    upload.abandon()
    upload.abandon()

    assert store.usage(ME) == Usage()
    assert store.free_bytes() == free


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_wrong_size_ends_a_store_and_leaves_nothing(store: ShardStore, data: bytes) -> None:
    free = store.free_bytes()
    upload = begun(store, data)
    upload.write(data[:-1])
    with pytest.raises(WrongSizeError):
        upload.write(b"xx")
    assert store.usage(ME) == Usage()

    again = begun(store, data)
    upload.abandon()
    assert again.offset == 0
    again.write(data[:-1])
    with pytest.raises(WrongSizeError):
        durable(again.commit())
    assert store.usage(ME) == Usage()
    assert begun(store, data).offset == 0
    again.abandon()

    assert store.free_bytes() < free
    with pytest.raises(ShardNotFoundError):
        store.stat(ME, shard_of(data))


def test_storing_and_ending_at_once_gives_a_lease_up(store: ShardStore) -> None:
    upload = begun(store, LARGE)
    upload.write(LARGE[:100_000])
    upload.abandon()

    with pytest.raises(WrongSizeError):
        durable(begun(store, LARGE).commit())

    assert store.usage(ME) == Usage()
    assert begun(store, LARGE).offset == 0


def test_what_would_be_read_again_is_known(store: ShardStore) -> None:
    shard = shard_of(LARGE)
    upload = begun(store, LARGE)
    assert store.begun_bytes(ME, shard) == 0
    upload.write(LARGE[:100_000])
    upload.abandon()

    assert store.begun_bytes(ME, shard) == 100_000
    assert store.begun_bytes(YOU, shard) == 0
    store.delete(ME, shard, erase=True).result(5)
    assert store.begun_bytes(ME, shard) == 0


def test_a_small_one_begins_at_its_first_byte_whatever_is_there(store: ShardStore) -> None:
    """An id has one size, so such a store fails in the end; nothing is read again for it."""
    upload = begun(store, LARGE)
    upload.write(LARGE[:100_000])
    upload.abandon()

    small = store.begin(contract(), shard_of(LARGE), 5000, 0)
    assert not isinstance(small, StoredShard)
    assert small.offset == 0
    small.abandon()
    assert store.begun_bytes(ME, shard_of(LARGE)) == 0
    assert store.usage(ME) == Usage()


def test_more_than_was_known_is_not_read_again(store: ShardStore) -> None:
    """It takes nothing: whoever asks with what is there now goes on."""
    shard = shard_of(LARGE)
    upload = begun(store, LARGE)
    upload.write(LARGE[:100_000])
    upload.abandon()

    with pytest.raises(BusyError):
        store.begin(contract(), shard, len(LARGE), 99_999)

    again = store.begin(contract(), shard, len(LARGE), 100_000)
    assert not isinstance(again, StoredShard)
    assert again.offset == 100_000


def test_an_abandoned_store_of_no_byte_leaves_nothing(store: ShardStore) -> None:
    free = store.free_bytes()
    begun(store, LARGE).abandon()

    assert store.usage(ME) == Usage()
    assert store.free_bytes() == free


@pytest.mark.parametrize("erase", [False, True])
def test_deleting_what_is_only_half_stored_gives_it_up(store: ShardStore, erase: bool) -> None:
    upload = begun(store, LARGE)
    upload.write(LARGE[:100_000])
    upload.abandon()

    deletion = durable(store.delete(ME, shard_of(LARGE), erase=erase))

    assert deletion == Deletion(DeletionOutcome.ERASED, 0)
    assert store.usage(ME) == Usage()
    with pytest.raises(ShardNotFoundError):
        store.delete(ME, shard_of(LARGE), erase=erase)
    assert begun(store, LARGE).offset == 0


def test_a_store_under_way_is_not_deleted(store: ShardStore) -> None:
    upload = begun(store, LARGE)
    upload.write(LARGE)
    with pytest.raises(ShardNotFoundError):
        store.delete(ME, shard_of(LARGE), erase=True)

    assert durable(upload.commit()).state is ShardState.LIVE


@pytest.mark.parametrize("trashed", [False, True])
def test_no_bytes_of_another_length_have_the_id_of_a_held_shard(
    store: ShardStore, trashed: bool
) -> None:
    stored = hold(store, SMALL)
    if trashed:
        durable(store.delete(ME, stored.shard, erase=False))

    with pytest.raises(WrongHashError):
        store.begin(contract(), stored.shard, len(SMALL) + 1)

    assert store.stat(ME, stored.shard).state is (ShardState.TRASH if trashed else ShardState.LIVE)


def test_an_abandoned_large_store_keeps_its_place(store: ShardStore) -> None:
    upload = begun(store, LARGE)
    upload.write(LARGE[:100_000])
    upload.abandon()
    assert store.usage(ME).reserved_bytes == charge_bytes(len(LARGE))

    upload = begun(store, LARGE)
    assert 0 <= upload.offset <= 100_000
    upload.write(LARGE[upload.offset :])

    assert durable(upload.commit()).size_bytes == len(LARGE)
    assert store.usage(ME).reserved_bytes == 0


def test_an_abandoned_small_store_is_forgotten(store: ShardStore) -> None:
    upload = begun(store, SMALL)
    upload.write(SMALL[:100])
    upload.abandon()

    assert store.usage(ME) == Usage()


def test_abandoning_after_commit_changes_nothing(store: ShardStore) -> None:
    for data in (SMALL, LARGE):
        upload = begun(store, data)
        upload.write(data)
        future = upload.commit()
        upload.abandon()
        durable(future)
        upload.abandon()
        assert store.stat(ME, shard_of(data)).size_bytes == len(data)


def test_limits_are_refused_with_their_numbers(store: ShardStore) -> None:
    with pytest.raises(ShardTooLargeError) as large:
        store.begin(contract(), shard_of(b"?"), SHARD_BYTES_MAX + 1)
    assert large.value.allowed_bytes == SHARD_BYTES_MAX

    with pytest.raises(ContractFullError) as full:
        store.begin(contract(space_bytes=5000), shard_of(SMALL), len(SMALL))
    assert full.value.wanted_bytes == charge_bytes(len(SMALL))
    assert full.value.available_bytes == 5000

    uploads: list[Upload] = []
    with pytest.raises(NoSpaceError):
        for n in range(2 + QUOTA_BYTES // SHARD_BYTES_MAX):
            upload = store.begin(contract(), ShardId(bytes([n]) * 32), SHARD_BYTES_MAX)
            assert not isinstance(upload, StoredShard)
            uploads.append(upload)
    for upload in uploads:
        upload.abandon()


def test_the_trash_can_be_emptied_and_can_give_back(store: ShardStore) -> None:
    stored = hold(store, SMALL)
    deletion = durable(store.delete(ME, stored.shard, erase=False))
    assert deletion.outcome is DeletionOutcome.TRASHED
    again = durable(store.delete(ME, stored.shard, erase=False))
    trashed = store.stat(ME, stored.shard)
    assert (trashed.state, trashed.gone_at_ms) == (ShardState.TRASH, deletion.gone_at_ms)
    assert again == deletion
    assert store.usage(ME) == Usage(0, charge_bytes(len(SMALL)), 0, 1)
    with pytest.raises(ShardNotFoundError):
        store.open(ME, stored.shard)

    assert durable(store.undelete(ME, stored.shard)) == stored
    assert durable(store.undelete(ME, stored.shard)) == stored
    durable(store.delete(ME, stored.shard, erase=False))
    assert store.begin(contract(), stored.shard, len(SMALL)) == stored

    durable(store.delete(ME, stored.shard, erase=False))
    erased = durable(store.delete(ME, stored.shard, erase=True))
    assert erased.outcome is not DeletionOutcome.TRASHED
    assert store.usage(ME) == Usage()
    with pytest.raises(ShardNotFoundError):
        store.stat(ME, stored.shard)


def test_pages_go_through_all_in_order(store: ShardStore) -> None:
    held = sorted(hold(store, bytes([n]) * n).shard for n in range(1, 8))
    durable(store.delete(ME, held[3], erase=False))
    hold(store, b"yours", YOU)
    found: list[ShardId] = []
    after = ShardId(bytes(32))
    while page := store.page(ME, after, 3):
        assert len(page) <= 3
        found += [stored.shard for stored in page]
        after = found[-1]

    assert found == held
