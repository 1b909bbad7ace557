"""A farmer in memory: honest by default, and as hostile as a test scripts it."""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Protocol

from farmer.audit.challenge import sample_leaves
from farmer.audit.full import FullDigest
from farmer.audit.proof import prove_sample
from farmer.audit.ranges import prove_range, whole_leaves
from farmer.audit.tree import TreeHasher
from farmer.client.errors import ConnectionFailedError
from farmer.client.session import Session
from farmer.client.wire import Wire
from farmer.identity.keys import Identity
from farmer.identity.signing import sign_contract, sign_receipt
from farmer.identity.tls import peer_id
from farmer.model.audit import AuditKind
from farmer.model.contract import Contract, ContractStage, Receipt
from farmer.model.ids import ContractId, ShardId
from farmer.model.shard import BLOCK_BYTES, LEAF_BYTES, DeletionOutcome, ShardState, Usage
from farmer.model.shard import charge_bytes as charge_of
from farmer.protocol.connection import DataReceived, FarmerConnection
from farmer.protocol.limits import DATA_BYTES_SENT
from farmer.protocol.messages import Message
from farmer.protocol.opening import End, Welcome
from farmer.protocol.proofs import FullProof, encode_item
from farmer.protocol.questions import ContractShown, Deleted, Listed, Pong, Stated
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import TO_THE_END, Accept, Send, Stored
from farmer.protocol.types import Type
from tests.client.pipes import Pipe, World


def tree_of(content: bytes):
    hasher = TreeHasher()
    hasher.update(content)
    return hasher.finish()


def shard_of(content: bytes) -> ShardId:
    return tree_of(content).shard_id()


class FakeFarmer:
    """What it holds and signs; `script` replaces the answer to a message type."""

    def __init__(self, renter: Identity):
        self.identity = Identity.of_key(Ed25519PrivateKey.generate())
        self.renter = renter
        self.contract = Contract(
            contract=ContractId(bytes(16)),
            farmer_key=self.identity.public_key,
            renter=renter.node_id,
            revision=1,
            space_bytes=10**9,
            from_ms=1,
            until_ms=10**13,
            issued_at_ms=1,
        )
        self.stage = ContractStage.ACTIVE
        self.usage = Usage()
        self.shards: dict[ShardId, bytes] = {}
        self.trash: dict[ShardId, bytes] = {}
        self.partial: dict[ShardId, bytes] = {}
        self.script: dict[Type, object] = {}
        """Message type -> callable(talk, message), called instead of the honest answer."""
        self.on_data = None
        """callable(talk) after each DATA received."""
        self.asked: list[Message] = []
        self.talks: list[Talk] = []
        self.renter_is_whoever_calls = False
        """Needs TLS, which tells who calls."""

    def receipt(self, shard: ShardId, size_bytes: int) -> Receipt:
        return sign_receipt(
            self.identity,
            Receipt(
                farmer_key=self.identity.public_key,
                renter=self.contract.renter,
                contract=self.contract.contract,
                shard=shard,
                size_bytes=size_bytes,
                charge_bytes=charge_of(size_bytes),
                stored_at_ms=5,
                issued_at_ms=6,
                until_ms=self.contract.until_ms,
            ),
        )

    def shown(self) -> ContractShown:
        signature = sign_contract(self.identity, self.contract)
        return ContractShown(self.stage, self.usage, self.contract, signature)

    def stated(self, shard: ShardId) -> Stated:
        if shard in self.shards:
            return Stated(shard, len(self.shards[shard]), 5, ShardState.LIVE, 0)
        return Stated(shard, len(self.trash[shard]), 5, ShardState.TRASH, 99)


class Talk(Protocol):
    """One connection, the farmer's end."""

    def __init__(self, farmer: FakeFarmer):
        self.farmer = farmer
        self.connection = FarmerConnection()
        self.open: tuple[ShardId, int, bytearray] | None = None
        self.lost = False
        farmer.talks.append(self)

    def send(self, message: Message) -> None:
        self.transport.write(self.connection.send(message))

    def data(self, data: bytes) -> None:
        for at in range(0, len(data), DATA_BYTES_SENT):
            self.transport.write(self.connection.send_data(data[at : at + DATA_BYTES_SENT]))

    def refuse(self, refusal: Refusal, first: int = 0, second: int = 0) -> None:
        self.transport.write(self.connection.refuse(Refused(refusal, first, second)))

    def cut(self) -> None:
        if not self.lost:
            self.transport.abortConnection()

    def connectionLost(self, reason):
        self.lost = True
        if self.open is not None:
            shard, _, taken = self.open
            self.farmer.partial[shard] = bytes(taken)

    def dataReceived(self, data):
        self.connection.receive(data)
        while not self.lost and (event := self.connection.next_event()) is not None:
            if isinstance(event, DataReceived):
                if self.open is not None:
                    self.open[2].extend(event.data)
                if self.farmer.on_data is not None:
                    self.farmer.on_data(self)
                continue
            self.farmer.asked.append(event)
            answer = self.farmer.script.get(event.TYPE, type(self).answer)
            answer(self, event)

    def answer(self, message):
        getattr(self, f"on_{message.TYPE.name.lower()}")(message)

    def on_hello(self, _hello):
        if self.farmer.renter_is_whoever_calls:
            caller = peer_id(self.transport)
            self.farmer.contract = replace(self.farmer.contract, renter=caller)
        self.send(Welcome(1, 1000, 64 * 1024 * 1024, "fake 1"))

    def on_redeem(self, _redeem):
        self.send(self.farmer.shown())

    def on_show_contract(self, _show):
        self.send(self.farmer.shown())

    def on_store(self, store):
        if store.shard in self.farmer.shards:
            self.send(Stored(self.farmer.receipt(store.shard, store.size_bytes)))
            return
        taken = bytearray(self.farmer.partial.pop(store.shard, b""))
        self.open = (store.shard, store.size_bytes, taken)
        self.send(Accept(len(taken)))

    def on_end(self, _end):
        if self.open is None:
            return
        (shard, size, taken), self.open = self.open, None
        if self.connection.state.name == "IDLE":
            return
        if len(taken) != size:
            self.refuse(Refusal.WRONG_SIZE, size, len(taken))
        elif shard_of(bytes(taken)) != shard:
            self.refuse(Refusal.WRONG_HASH)
        else:
            self.farmer.shards[shard] = bytes(taken)
            self.send(Stored(self.farmer.receipt(shard, size)))

    def on_retrieve(self, asked):
        content = self.farmer.shards.get(asked.shard)
        if content is None:
            self.refuse(Refusal.NOT_FOUND)
            return
        end = len(content) if asked.length == TO_THE_END else asked.offset + asked.length
        if not asked.offset <= end <= len(content):
            self.refuse(Refusal.BAD_RANGE, end, len(content))
            return
        offset, length, nodes = asked.offset, end - asked.offset, ()
        if asked.proved:
            offset, length = whole_leaves(len(content), offset, length)
            first = offset // LEAF_BYTES
            last = max(first + 1, -(-(offset + length) // LEAF_BYTES))
            nodes = prove_range(tree_of(content), first, last, reader(content))
        self.send(Send(len(content), offset, length, nodes))
        self.data(content[offset : offset + length])
        self.send(End())

    def on_audit(self, audit):
        challenge = audit.challenge
        for entry in challenge.entries:
            self.data(encode_item(self.item(challenge, entry)))
        self.send(End())

    def item(self, challenge, entry):
        content = self.farmer.shards.get(entry.shard)
        if content is None or len(content) != entry.size_bytes:
            return Refused(Refusal.NOT_FOUND)
        if challenge.kind is AuditKind.FULL:
            digest = FullDigest(challenge.nonce, entry.shard)
            digest.update(content)
            return FullProof(digest.finish())
        leaves = sample_leaves(challenge.nonce, entry.shard, entry.size_bytes, entry.samples)
        return prove_sample(tree_of(content), leaves, reader(content))

    def on_stat(self, stat):
        if stat.shard in self.farmer.shards or stat.shard in self.farmer.trash:
            self.send(self.farmer.stated(stat.shard))
        else:
            self.refuse(Refusal.NOT_FOUND)

    def on_list(self, asked):
        known = sorted({*self.farmer.shards, *self.farmer.trash})
        after = [shard for shard in known if shard > asked.after]
        page = tuple(self.farmer.stated(shard) for shard in after[: asked.limit])
        self.send(Listed(page, len(after) > asked.limit))

    def on_delete(self, delete):
        content = self.farmer.shards.pop(delete.shard, None)
        if self.farmer.partial.pop(delete.shard, None) is not None:
            self.send(Deleted(DeletionOutcome.ERASED, 0))
        elif content is None:
            self.refuse(Refusal.NOT_FOUND)
        elif delete.erase:
            self.send(Deleted(DeletionOutcome.ERASED, 0))
        else:
            self.farmer.trash[delete.shard] = content
            self.send(Deleted(DeletionOutcome.TRASHED, 99))

    def on_undelete(self, undelete):
        content = self.farmer.trash.pop(undelete.shard, None)
        if content is None:
            self.refuse(Refusal.NOT_FOUND)
            return
        self.farmer.shards[undelete.shard] = content
        self.send(self.farmer.stated(undelete.shard))

    def on_ping(self, ping):
        self.send(Pong(ping.token, 1000, 7, self.farmer.contract.price, "fake 1"))


def reader(content: bytes):
    return lambda block: content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]


class FakeDialer:
    """Joins a fresh wire to a fresh end of the fake farmer, in memory."""

    def __init__(self, world: World, farmer: FakeFarmer):
        self.world = world
        self.farmer = farmer
        self.reachable = True
        self.slice_bytes = 65536
        self.dialed = 0

    async def dial(self) -> Session:
        if not self.reachable:
            raise ConnectionFailedError("cannot reach the farmer")
        self.dialed += 1
        wire = Wire(self.world.clock)
        self.world.pipes.append(Pipe(wire, Talk(self.farmer), self.slice_bytes))
        session = Session(wire)
        await session.greet()
        return session


class InlineDoor:
    """Does the work at once, and counts it."""

    def __init__(self):
        self.count = 0

    def run(self, work, *args, **kwargs) -> Deferred:
        self.count += 1
        try:
            return succeed(work(*args, **kwargs))
        except Exception:
            return fail()
