"""Fakes that keep the promises of the ports, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, execute

from farmer.audit.challenge import sample_leaves
from farmer.audit.full import FullDigest
from farmer.audit.proof import prove_sample
from farmer.audit.ranges import prove_range
from farmer.audit.tree import ShardTree, TreeHasher
from farmer.identity.signing import node_id_of_key
from farmer.model.audit import AuditEntry, SampleProof
from farmer.model.contract import Contract, ContractStage, Offer, renewed
from farmer.model.ids import ContractId, InviteSerial, NodeId, ShardId
from farmer.model.shard import (
    BLOCK_BYTES,
    BLOCK_CHECKSUM_BYTES,
    LEAF_BYTES,
    BadBlocks,
    Deletion,
    DeletionOutcome,
    ShardState,
    StoredShard,
    Usage,
    block_count,
    charge_bytes,
)
from farmer.node.disk import fire
from farmer.node.ports import Result, Verb
from farmer.protocol.frames import Piece
from farmer.storage.errors import (
    BadRangeError,
    BusyError,
    ContractFullError,
    CorruptShardError,
    InviteExpiredError,
    InviteSpentError,
    InviteUnknownError,
    NoContractError,
    NoSpaceError,
    ShardNotFoundError,
    ShardTooLargeError,
    StorageError,
    TooManyError,
    WrongHashError,
    WrongSizeError,
)

P = ParamSpec("P")
R = TypeVar("R")

GONE_AFTER_MS = 7 * 86_400_000
SMALL_BYTES_MAX = 1024 * 1024


def done(value: R) -> Future[R]:
    future: Future[R] = Future()
    future.set_result(value)
    return future


def tree_of(data: bytes) -> ShardTree:
    hasher = TreeHasher()
    hasher.update(data)
    return hasher.finish()


def shard_of(data: bytes) -> ShardId:
    return tree_of(data).shard_id()


class TestSigner:
    """A fixed Ed25519 key."""

    __test__ = False

    def __init__(self, seed: int = 1) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.node_id = node_id_of_key(self.public_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class InlineDisk:
    """A door whose work is done before `run` returns."""

    @property
    def is_idle(self) -> bool:
        return True

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        return execute(work, *args, **kwargs)

    def follow(
        self, work: Callable[P, Future[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]:
        return self.run(work, *args, **kwargs).addCallback(self.settle)

    def settle(self, future: Future[R]) -> Deferred[R]:
        settled: Deferred[R] = Deferred()
        future.add_done_callback(lambda ended: fire(ended, settled))
        return settled


class SteppingDisk(InlineDisk):
    """A door whose work is done when the test says `step`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Callable[[], None]]] = []

    @property
    def is_idle(self) -> bool:
        return not self.waiting

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        result: Deferred[R] = Deferred(_never_cancelled)

        def step() -> None:
            execute(work, *args, **kwargs).chainDeferred(result)

        self.waiting.append((getattr(work, "__name__", str(work)), step))
        return result

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.waiting]

    def step(self) -> str:
        name, work = self.waiting.pop(0)
        work()
        return name

    def run_all(self, steps_max: int = 10_000) -> int:
        steps = 0
        while self.waiting:
            self.step()
            steps += 1
            assert steps < steps_max, self.names
        return steps


def _never_cancelled(_: Deferred[Any]) -> None:
    raise AssertionError("work in a thread was cancelled")


@dataclass
class _Held:
    stored: StoredShard
    data: bytes
    tree: ShardTree
    pins: int = 0
    is_damaged: bool = False

    def quarantine(self) -> None:
        self.is_damaged = True
        if self.stored.state is ShardState.LIVE:
            self.stored = replace(self.stored, state=ShardState.QUARANTINED)


class MemoryStore:
    """A `ShardStore` in a dict; large uploads become leases as in the real one."""

    def __init__(
        self,
        *,
        quota_bytes: int = 1 << 40,
        shard_bytes_max: int = 64 << 20,
        uploads_max: int = 64,
        now_ms: Callable[[], int] = lambda: 1_000,
    ) -> None:
        self.quota_bytes = quota_bytes
        self.shard_bytes_max = shard_bytes_max
        self.uploads_max = uploads_max
        self.now_ms = now_ms
        self.held: dict[tuple[NodeId, ShardId], _Held] = {}
        self.uploads: dict[tuple[NodeId, ShardId], MemoryUpload] = {}
        self.leases: dict[tuple[NodeId, ShardId], tuple[int, bytes]] = {}
        self.readers_open = 0
        self.is_in_memory = False
        """Whether what is read need not be waited for."""
        self.bytes_read = 0
        self.fail_next: dict[str, Exception] = {}
        self.commits: list[Future[StoredShard]] | None = None
        """When a list, commits wait in it until the test calls `sync`."""

    def sync(self) -> None:
        """Let the commits that wait become durable."""
        waiting, self.commits = self.commits or [], []
        for future in waiting:
            future.set_running_or_notify_cancel()
            future.set_result(future.outcome)  # type: ignore[attr-defined]

    def trip(self, name: str) -> None:
        error = self.fail_next.pop(name, None)
        if error is not None:
            raise error

    def reserved(self, renter: NodeId | None = None) -> int:
        sizes = {key: size for key, (size, _) in self.leases.items()}
        sizes |= {key: upload.size_bytes for key, upload in self.uploads.items()}
        mine = (size for (owner, _), size in sizes.items() if renter in (None, owner))
        return sum(charge_bytes(size) for size in mine)

    def begin(
        self,
        contract: Contract,
        shard: ShardId,
        size_bytes: int,
        again_bytes_max: int | None = None,
    ) -> MemoryUpload | StoredShard:
        self.trip("begin")
        key = (contract.renter, shard)
        held = self.held.get(key)
        if held is not None and not held.is_damaged:
            if held.stored.size_bytes != size_bytes:
                raise WrongHashError
            held.stored = replace(held.stored, state=ShardState.LIVE, gone_at_ms=0)
            return held.stored
        if key in self.uploads:
            raise BusyError
        is_known = size_bytes <= SMALL_BYTES_MAX or again_bytes_max is None
        if not is_known and self.begun_bytes(*key) > again_bytes_max:
            raise BusyError
        if size_bytes > self.shard_bytes_max:
            raise ShardTooLargeError(size_bytes, self.shard_bytes_max)
        if key in self.leases and self.leases[key][0] != size_bytes:
            del self.leases[key]
        if key not in self.leases:
            self._reserve(contract, size_bytes)
        _, begun = self.leases.pop(key, (0, b""))
        upload = MemoryUpload(self, contract, shard, size_bytes, begun)
        self.uploads[key] = upload
        return upload

    def _reserve(self, contract: Contract, size_bytes: int) -> None:
        wanted = charge_bytes(size_bytes)
        under_way = sum(key[0] == contract.renter for key in {**self.uploads, **self.leases})
        if under_way >= self.uploads_max:
            raise TooManyError(under_way, self.uploads_max)
        left = contract.space_bytes - self.usage(contract.renter).total_bytes
        if wanted > left:
            raise ContractFullError(wanted, left)
        if wanted > self.free_bytes():
            raise NoSpaceError(wanted, self.free_bytes())

    def open(self, renter: NodeId, shard: ShardId) -> MemoryReader:
        self.trip("open")
        return MemoryReader(self, self._there(renter, shard))

    def _there(self, renter: NodeId, shard: ShardId) -> _Held:
        held = self.held.get((renter, shard))
        if held is None or held.stored.state is ShardState.TRASH:
            raise ShardNotFoundError
        return held

    def _live(self, renter: NodeId, shard: ShardId) -> _Held:
        held = self._there(renter, shard)
        if held.stored.state is ShardState.QUARANTINED:
            raise CorruptShardError(0, held.stored.size_bytes)
        return held

    def prove_sample(self, renter: NodeId, nonce: bytes, entry: AuditEntry) -> SampleProof:
        self.trip("prove_sample")
        held = self._live(renter, entry.shard)
        if held.stored.size_bytes != entry.size_bytes:
            raise ShardNotFoundError
        leaves = sample_leaves(nonce, entry.shard, held.stored.size_bytes, entry.samples)
        return prove_sample(held.tree, leaves, lambda block: self._block(held, block))

    def prove_full(self, renter: NodeId, nonce: bytes, entry: AuditEntry) -> bytes:
        self.trip("prove_full")
        held = self._live(renter, entry.shard)
        digest = FullDigest(nonce, entry.shard)
        digest.update(held.data)
        self.bytes_read += len(held.data)
        return digest.finish()

    def examine(self, renter: NodeId, shard: ShardId) -> BadBlocks:
        self.trip("examine")
        held = self._there(renter, shard)
        size, blocks = held.stored.size_bytes, range(block_count(held.stored.size_bytes))
        bad = tuple(
            block
            for block in blocks
            if tree_of_block(self._block(held, block)) != held.tree.block_hash(block)
        )
        if bad:
            held.quarantine()
        return BadBlocks(size, bad)

    def repair(self, contract: Contract, shard: ShardId) -> MemoryMending | StoredShard:
        self.trip("repair")
        bad, held = self.examine(contract.renter, shard), self.held[contract.renter, shard]
        if not bad.blocks and not held.is_damaged:
            return held.stored
        key = (contract.renter, shard)
        if key in self.uploads:
            raise BusyError
        self.leases.pop(key, None)
        roomy = replace(contract, space_bytes=contract.space_bytes + held.stored.charge_bytes)
        self._reserve(roomy, bad.size_bytes)
        upload = MemoryUpload(self, contract, shard, bad.size_bytes, b"")
        self.uploads[key] = upload
        return MemoryMending(held, bad, upload)

    def _block(self, held: _Held, block: int) -> bytes:
        self.bytes_read += BLOCK_BYTES
        return held.data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]

    def stat(self, renter: NodeId, shard: ShardId) -> StoredShard:
        self.trip("stat")
        held = self.held.get((renter, shard))
        if held is None:
            raise ShardNotFoundError
        return held.stored

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[StoredShard]:
        mine = sorted(
            (held.stored for (owner, shard), held in self.held.items() if owner == renter),
            key=lambda stored: stored.shard,
        )
        return [stored for stored in mine if stored.shard > after][:limit]

    def delete(self, renter: NodeId, shard: ShardId, *, erase: bool) -> Future[Deletion]:
        self.trip("delete")
        if self.leases.pop((renter, shard), None) and (renter, shard) not in self.held:
            return done(Deletion(DeletionOutcome.ERASED, 0))
        stored = self.stat(renter, shard)
        if erase:
            del self.held[renter, shard]
            return done(Deletion(DeletionOutcome.ERASED, 0))
        if stored.state is not ShardState.TRASH:
            gone_at_ms = self.now_ms() + GONE_AFTER_MS
            stored = replace(stored, state=ShardState.TRASH, gone_at_ms=gone_at_ms)
            self.held[renter, shard].stored = stored
        return done(Deletion(DeletionOutcome.TRASHED, stored.gone_at_ms))

    def undelete(self, renter: NodeId, shard: ShardId) -> Future[StoredShard]:
        self.trip("undelete")
        stored = self.stat(renter, shard)
        if stored.state is ShardState.TRASH:
            held = self.held[renter, shard]
            state = ShardState.QUARANTINED if held.is_damaged else ShardState.LIVE
            stored = held.stored = replace(stored, state=state, gone_at_ms=0)
        return done(stored)

    def usage(self, renter: NodeId) -> Usage:
        mine = [held.stored for (owner, _), held in self.held.items() if owner == renter]
        trash = sum(s.charge_bytes for s in mine if s.state is ShardState.TRASH)
        live = sum(s.charge_bytes for s in mine if s.state is not ShardState.TRASH)
        return Usage(live, trash, self.reserved(renter), len(mine))

    def begun_bytes(self, renter: NodeId, shard: ShardId) -> int:
        return len(self.leases.get((renter, shard), (0, b""))[1])

    def free_bytes(self) -> int:
        used = sum(held.stored.charge_bytes for held in self.held.values())
        return self.quota_bytes - used - self.reserved()


class MemoryUpload:
    def __init__(
        self, store: MemoryStore, contract: Contract, shard: ShardId, size: int, begun: bytes
    ) -> None:
        self._store, self._contract, self._shard = store, contract, shard
        self.size_bytes = size
        self.offset = len(begun)
        self.data = bytearray(begun)
        self.steps: list[int] = []
        self.inside = False
        self.over = False

    @property
    def _key(self) -> tuple[NodeId, ShardId]:
        return self._contract.renter, self._shard

    def write(self, data: Piece) -> None:
        self._store.trip("write")
        assert not self.over, "write after the end"
        if len(self.data) + len(data) > self.size_bytes:
            self._drop()
            raise WrongSizeError(self.size_bytes, len(self.data) + len(data))
        self.data += data
        self.steps.append(len(data))

    def commit(self) -> Future[StoredShard]:
        self._store.trip("commit")
        assert not self.over, "commit after the end"
        if len(self.data) != self.size_bytes:
            self._drop()
            raise WrongSizeError(self.size_bytes, len(self.data))
        data = bytes(self.data)
        tree = tree_of(data)
        if tree.shard_id() != self._shard:
            raise WrongHashError
        self.over = True
        del self._store.uploads[self._key]
        stored = StoredShard(
            renter=self._contract.renter,
            shard=self._shard,
            contract=self._contract.contract,
            size_bytes=len(data),
            stored_at_ms=self._store.now_ms(),
        )
        self._store.held[self._key] = _Held(stored, data, tree)
        future: Future[StoredShard] = Future()
        if self._store.commits is None:
            future.set_result(stored)
        else:
            future.outcome = stored  # type: ignore[attr-defined]
            self._store.commits.append(future)
        return future

    def _drop(self) -> None:
        self.over = True
        del self._store.uploads[self._key]

    def abandon(self) -> None:
        if self.over:
            return
        self._drop()
        if self.size_bytes > SMALL_BYTES_MAX and 0 < len(self.data) < self.size_bytes:
            self._store.leases[self._key] = (self.size_bytes, bytes(self.data))


class MemoryMending:
    def __init__(self, held: _Held, bad: BadBlocks, upload: MemoryUpload) -> None:
        self.bad, self.wanted_bytes = bad, bad.wanted_bytes
        self._held, self._upload = held, upload
        self._data = b""

    def write(self, data: Piece) -> None:
        self._data += bytes(data)
        try:
            self._check()
        except StorageError:
            self.abandon()
            raise

    def _check(self) -> None:
        if len(self._data) > self.wanted_bytes:
            raise WrongSizeError(self.wanted_bytes, len(self._data))
        for number, block in enumerate(self.bad.blocks):
            whole = self._data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            length = min(BLOCK_BYTES, self.bad.size_bytes - block * BLOCK_BYTES)
            if len(whole) == length and tree_of_block(whole) != self._held.tree.block_hash(block):
                raise WrongHashError

    def commit(self) -> Future[StoredShard]:
        if len(self._data) != self.wanted_bytes:
            self.abandon()
            raise WrongSizeError(self.wanted_bytes, len(self._data))
        whole = bytearray(self._held.data)
        for number, block in enumerate(self.bad.blocks):
            part = self._data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            whole[block * BLOCK_BYTES : block * BLOCK_BYTES + len(part)] = part
        self._upload.write(bytes(whole))
        return self._upload.commit()

    def abandon(self) -> None:
        if not self._upload.over:
            self._upload._drop()


class MemoryReader:
    def __init__(self, store: MemoryStore, held: _Held) -> None:
        self._store, self._held = store, held
        self._open = True
        store.readers_open += 1

    @property
    def stored(self) -> StoredShard:
        return self._held.stored

    def read(self, offset: int, length: int) -> bytes:
        self._store.trip("read")
        assert self._open, "read after close"
        end = offset + length
        if end > self.stored.size_bytes:
            raise BadRangeError(end, self.stored.size_bytes)
        part = self._held.data[offset:end]
        for block in range(offset // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            whole = self._held.data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
            if tree_of_block(whole) != self._held.tree.block_hash(block):
                self._held.quarantine()
                raise CorruptShardError(block * BLOCK_BYTES, len(whole))
        self._store.bytes_read += length
        return part

    def prepare(self) -> None:
        assert self._open, "read after close"

    @property
    def kept_bytes(self) -> int:
        return block_count(self.stored.size_bytes) * BLOCK_CHECKSUM_BYTES

    def read_cached(self, offset: int, length: int) -> bytes | None:
        assert self._open, "read after close"
        return self.read(offset, length) if self._store.is_in_memory else None

    def prove_range(self, offset: int, length: int) -> tuple[bytes, ...]:
        assert self._open, "read after close"
        first = offset // LEAF_BYTES
        end = max(first + 1, -(-(offset + length) // LEAF_BYTES))
        held = self._held
        return prove_range(held.tree, first, end, lambda block: self._store._block(held, block))

    def prove_sample(self, nonce: bytes, samples: int) -> SampleProof:
        assert self._open, "proof after close"
        self._store.trip("prove_sample")
        held = self._held
        leaves = sample_leaves(nonce, held.stored.shard, held.stored.size_bytes, samples)
        return prove_sample(held.tree, leaves, lambda block: self._store._block(held, block))

    def close(self) -> None:
        if self._open:
            self._open = False
            self._store.readers_open -= 1
        self._store.trip("close")


def tree_of_block(block: bytes) -> bytes:
    return tree_of(block).root()


@dataclass
class MemoryBook:
    """A `ContractBook` in a dict."""

    signer: TestSigner
    now_ms: Callable[[], int] = lambda: 1_000
    offers: dict[InviteSerial, Offer] = field(default_factory=dict)
    spent: dict[InviteSerial, NodeId] = field(default_factory=dict)
    contracts: dict[NodeId, Contract] = field(default_factory=dict)
    stages: dict[NodeId, ContractStage] = field(default_factory=dict)
    fail_next: StorageError | None = None

    def mint(self, serial: InviteSerial, offer: Offer) -> None:
        self.offers[serial] = offer

    def redeem(self, serial: InviteSerial, renter: NodeId) -> Contract:
        offer = self.offers.get(serial)
        if offer is None:
            raise InviteUnknownError
        if serial in self.spent:
            if self.spent[serial] == renter:
                return self.contracts[renter]
            raise InviteSpentError
        if self.now_ms() >= offer.expires_at_ms:
            raise InviteExpiredError(offer.expires_at_ms)
        self.spent[serial] = renter
        old = self.contracts.get(renter)
        if old is None:
            self.contracts[renter] = self._first(renter, offer)
        else:
            self.contracts[renter] = renewed(old, offer, self.now_ms(), bytes(32))
        self.stages[renter] = ContractStage.ACTIVE
        return self.contracts[renter]

    def _first(self, renter: NodeId, offer: Offer) -> Contract:
        now_ms = self.now_ms()
        return Contract(
            contract=ContractId(renter.raw[:16]),
            farmer_key=self.signer.public_key,
            renter=renter,
            revision=1,
            space_bytes=offer.space_bytes,
            from_ms=now_ms,
            until_ms=now_ms + offer.duration_ms,
            price=offer.price,
            issued_at_ms=now_ms,
        )

    def find(self, renter: NodeId) -> tuple[Contract, ContractStage]:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        if renter not in self.contracts:
            raise NoContractError
        return self.contracts[renter], self.stages[renter]


@dataclass
class MemoryMeter:
    """A `Meter` that keeps its counts."""

    opened: int = 0
    closed: list[str] = field(default_factory=list)
    handshakes: list[str] = field(default_factory=list)
    started: Counter[Verb] = field(default_factory=Counter)
    finished: Counter[tuple[Verb, Result]] = field(default_factory=Counter)
    served: int = 0
    refusals: list[str] = field(default_factory=list)
    first_bytes: int = 0
    bytes_in: Counter[Verb] = field(default_factory=Counter)
    bytes_out: Counter[Verb] = field(default_factory=Counter)
    stored: list[int] = field(default_factory=list)
    audits: list[str] = field(default_factory=list)

    def connection_opened(self) -> None:
        self.opened += 1

    def connection_closed(self, reason: str) -> None:
        self.closed.append(reason)

    def handshake_failed(self, reason: str) -> None:
        self.handshakes.append(reason)

    def request_started(self, verb: Verb) -> None:
        self.started[verb] += 1

    def request_finished(self, verb: Verb, result: Result, seconds: float) -> None:
        assert seconds >= 0
        self.finished[verb, result] += 1

    def renter_served(self) -> None:
        self.served += 1

    def refused(self, refusal_name: str) -> None:
        self.refusals.append(refusal_name)

    def first_byte(self, seconds: float) -> None:
        self.first_bytes += 1

    def received(self, verb: Verb, size_bytes: int) -> None:
        self.bytes_in[verb] += size_bytes

    def sent(self, verb: Verb, size_bytes: int) -> None:
        self.bytes_out[verb] += size_bytes

    def shard_stored(self, size_bytes: int) -> None:
        self.stored.append(size_bytes)

    def audited(self, result: str, seconds: float) -> None:
        self.audits.append(result)
