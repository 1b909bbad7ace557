"""Both real ends of the protocol, joined in memory by a wire that fills up like a real one."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from farmer.identity.records import READ_BYTES
from farmer.model.contract import Contract, ContractStage, Offer
from farmer.model.ids import InviteSerial, NodeId, ShardId
from farmer.node.admission import Sessions
from farmer.node.farm import Farm
from farmer.node.handlers import Conversation
from farmer.node.outbox import Outbox
from farmer.node.session import Session, Surroundings
from farmer.node.tasks import Tasks
from farmer.protocol.connection import DataReceived, Event, RenterConnection
from farmer.protocol.messages import Message
from farmer.protocol.opening import Hello, Refuse, Welcome
from farmer.protocol.refusals import Refused
from farmer.protocol.transfers import Accept, Store, Stored
from tests.fakes import (
    InlineDisk,
    MemoryBook,
    MemoryMeter,
    MemoryStore,
    SteppingDisk,
    TestSigner,
    shard_of,
)

WIRE_BYTES = 64 * 1024
DAY_MS = 86_400_000
RENTER = NodeId(b"r" * 32)
OTHER = NodeId(b"o" * 32)
STRANGER = NodeId(b"s" * 32)
SERIAL = InviteSerial(b"i" * 16)
OFFER = Offer(
    space_bytes=1 << 34, duration_ms=90 * DAY_MS, created_at_ms=0, expires_at_ms=30 * DAY_MS
)


class ForgetfulClock(Clock):
    """One that has no memory for the first few calls."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def callLater(self, when, what, *words, **named):  # type: ignore[no-untyped-def]
        if self.failures:
            self.failures -= 1
            raise MemoryError
        return super().callLater(when, what, *words, **named)


class MemoryWire:
    """A transport: what was written waits here until the renter takes it."""

    def __init__(self) -> None:
        self.unsent = bytearray()
        self.reading = True
        self.producer: Outbox | None = None
        self.disconnecting = False
        self.lost: Failure | None = None
        self.most_unsent = 0
        self.writes = 0
        self.hurried = 0
        """How many answers were not to wait for company."""
        self.read_bytes = READ_BYTES

    def write(self, data: bytes) -> None:
        assert self.lost is None, "write after the end"
        self.writes += 1
        self.unsent += data
        self.most_unsent = max(self.most_unsent, len(self.unsent))
        if len(self.unsent) > WIRE_BYTES and self.producer is not None:
            self.producer.pauseProducing()

    def write_now(self, data: bytes) -> None:
        self.hurried += 1
        self.write(data)

    def take(self, size: int = 1 << 30) -> bytes:
        part = bytes(self.unsent[:size])
        del self.unsent[:size]
        if not self.unsent and self.producer is not None and self.producer.full:
            self.producer.resumeProducing()
        return part

    def pauseProducing(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resumeProducing(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True

    def read_at_most(self, size_bytes: int) -> None:
        self.read_bytes = size_bytes

    def registerProducer(self, producer: Outbox, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.lost = Failure(ConnectionLost())


class Peer:
    """A renter at the other end of a session."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self.session = session
        self.clock = clock
        self.wire = MemoryWire()
        self.connection = RenterConnection()
        self.events: list[Event] = []
        self.outgoing = bytearray()
        self.takes = True
        self.slice_bytes = 1 << 20
        self.closed = False
        session.makeConnection(self.wire)  # type: ignore[arg-type]
        session.handshakeCompleted()

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.outgoing += self.connection.send(message)
        self.pump()

    def send_data(self, data: bytes) -> None:
        self.outgoing += self.connection.send_data(data)
        self.pump()

    def send_raw(self, data: bytes) -> None:
        self.outgoing += data
        self.pump()

    def pump(self) -> None:
        """Move bytes both ways until nothing moves."""
        while not self.closed and (self._deliver() or self._take() or self._turn()):
            pass
        if not self.closed and self.wire.lost is not None:
            self._lose(self.wire.lost)
        elif not self.closed and self.wire.disconnecting and not self.wire.unsent:
            self._lose(Failure(ConnectionDone()))

    def _deliver(self) -> bool:
        if not self.outgoing or not self.wire.reading or self.wire.lost is not None:
            return False
        part = bytes(self.outgoing[: self.slice_bytes])
        del self.outgoing[: self.slice_bytes]
        self.session.dataReceived(part)
        return True

    def _turn(self) -> bool:
        """Give the session its next turn on the reactor, if it has asked for one."""
        if not any(call.getTime() <= self.clock.seconds() for call in self.clock.calls):
            return False
        self.clock.advance(0)
        return True

    def _take(self) -> bool:
        if not self.takes or not self.wire.unsent:
            return False
        self.connection.receive(self.wire.take(self.slice_bytes))
        while (event := self.connection.next_event()) is not None:
            self.events.append(event)
        return True

    def leave(self) -> None:
        """Vanish."""
        if not self.closed:
            self._lose(Failure(ConnectionLost()))

    def _lose(self, reason: Failure) -> None:
        self.closed = True
        self.wire.lost = reason
        self.session.connectionLost(reason)

    def hello(self) -> None:
        self.send(Hello(1, 1, "test"))
        assert isinstance(self.answer(), Welcome)

    def answer(self) -> Event:
        """Take the oldest event."""
        self.pump()
        assert self.events, f"no answer; {self.session.state}"
        return self.events.pop(0)

    def refusal(self) -> Refused:
        event = self.answer()
        assert isinstance(event, Refuse), event
        return event.refused

    def received(self) -> bytes:
        """Take the data up to the next message."""
        data = bytearray()
        while self.events and isinstance(self.events[0], DataReceived):
            data += self.events.pop(0).data  # type: ignore[union-attr]
        return bytes(data)


class NodeCase(SynchronousTestCase):
    """A farm of fakes, and renters who call."""

    disk: Any

    def setUp(self) -> None:
        self.clock = Clock()
        self.peers: list[Peer] = []
        self.signer = TestSigner()
        self.meter = MemoryMeter()
        self.store = MemoryStore(now_ms=self.now_ms)
        self.book = MemoryBook(self.signer, self.now_ms)
        self.disk = self.make_disk()
        self.farm = Farm(
            signer=self.signer,
            store=self.store,
            book=self.book,
            disk=self.disk,
            meter=self.meter,
            clock=self.clock,
            now_ms=self.now_ms,
        )
        self.tasks = Tasks()
        self.sessions = Sessions()
        guests = self.sessions
        conversation = Conversation(self.farm, guests.began, guests.ended, guests.introduce)
        self.who = RENTER
        self.around = Surroundings(
            clock=self.clock,
            tasks=self.tasks,
            meter=self.meter,
            visitors=self.sessions,
            identify=lambda _: self.who,
            serve=conversation.serve,
        )
        for renter in (RENTER, OTHER):
            self.give_contract(renter)

    def tearDown(self) -> None:
        for peer in self.peers:
            peer.leave()
        self.assertEqual(0, len(self.sessions))
        self.assertEqual(0, self.store.readers_open)
        self.assertEqual(0, self.around.held.total_bytes)
        self.assertEqual(0, self.farm.small_stores.waiting)
        self.assertEqual(0, self.farm.whole_stores.waiting)
        self.assertEqual(0, self.farm.proofs.waiting)

    def make_disk(self) -> Any:
        return InlineDisk()

    def now_ms(self) -> int:
        return 1_000_000 + int(self.clock.seconds() * 1000)

    def give_contract(
        self, renter: NodeId, stage: ContractStage = ContractStage.ACTIVE
    ) -> Contract:
        serial = InviteSerial(renter.raw[:16])
        self.book.mint(serial, OFFER)
        contract = self.book.redeem(serial, renter)
        self.book.stages[renter] = stage
        return contract

    def call(self, renter: NodeId = RENTER, address: str = "192.0.2.1") -> Peer:
        """Connect without a word."""
        self.who = renter
        peer = Peer(Session(self.around, address), self.clock)
        self.peers.append(peer)
        return peer

    def greet(self, renter: NodeId = RENTER) -> Peer:
        """Connect and say HELLO."""
        peer = self.call(renter)
        peer.hello()
        return peer

    def hold(self, data: bytes, renter: NodeId = RENTER) -> ShardId:
        """Have the store hold a shard."""
        shard = shard_of(data)
        begun = self.store.begin(self.book.contracts[renter], shard, len(data))
        begun.write(data)  # type: ignore[union-attr]
        begun.commit()  # type: ignore[union-attr]
        return shard

    def begin_store(self, peer: Peer, data: bytes) -> Accept:
        peer.send(Store(shard_of(data), len(data)))
        answer = peer.answer()
        assert isinstance(answer, Accept), answer
        return answer

    def pass_s(self, seconds: float, *peers: Peer) -> None:
        """Let time pass with the deadlines checked every second."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.sessions.check()
            for peer in peers:
                peer.pump()

    def result(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(deferred)


def pass_turn(clock: Clock) -> None:
    """Let one turn pass, as a reactor does: what it asks for waits for the next."""
    due, clock.calls = clock.calls, []
    later = [call for call in due if call.getTime() > clock.seconds()]
    for call in due:
        if call not in later:
            call.called = 1
            call.func(*call.args, **call.kw)
    clock.calls += later


def stored(event: Event) -> Stored:
    assert isinstance(event, Stored), event
    return event


class StepByStepCase(NodeCase):
    """The disk's door does its work when the test says so."""

    disk: SteppingDisk

    def make_disk(self) -> SteppingDisk:
        return SteppingDisk()

    def greet_step_by_step(self, renter: NodeId = RENTER, address: str = "192.0.2.1") -> Peer:
        peer = self.call(renter, address)
        peer.outgoing += bytes.fromhex("0100000e") + b"FARM\0\1\0\1\5tests"
        peer.connection.state = type(peer.connection.state).GREETING
        peer.pump()
        self.disk.run_all()
        peer.pump()
        self.assertIsInstance(peer.answer(), Welcome)
        return peer
