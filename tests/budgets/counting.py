"""A farmer in memory but for its disk, on which every call is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.task import Clock

from farmer.model.audit import NONCE_BYTES, AuditEntry, AuditKind, Challenge
from farmer.model.contract import Contract
from farmer.model.ids import InviteSerial, ShardId
from farmer.node.admission import Sessions
from farmer.node.farm import Farm
from farmer.node.handlers import Conversation
from farmer.node.session import Session, Surroundings
from farmer.node.tasks import Tasks
from farmer.protocol.opening import End
from farmer.protocol.transfers import TO_THE_END, Accept, Audit, Retrieve, Send, Store, Stored
from tests.budgets.budgets import Cost
from tests.fakes import MemoryBook, MemoryMeter, TestSigner, shard_of
from tests.node.wires import OFFER, RENTER, Peer
from tests.storage import bench
from tests.storage.recording import RecordingFiles

P = ParamSpec("P")
R = TypeVar("R")

DATA_BYTES = 256 * 1024
WRITES, SYNCS, READS = {"pwritev"}, {"sync_data", "sync_directory"}, {"pread", "pread_cached"}


class CountingDoor:
    """Work is done at once; how often is counted."""

    is_idle = True

    def __init__(self) -> None:
        self.count = 0

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        self.count += 1
        return execute(work, *args, **kwargs)

    def follow(
        self, work: Callable[P, Future[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]:
        return self.run(lambda: work(*args, **kwargs).result(20))

    def settle(self, future: Future[R]) -> Deferred[R]:
        self.count += 1
        return succeed(future.result(20))


class WarmFiles(RecordingFiles):
    """Memory holds all of them, whatever the filesystem below says of it."""

    def pread_cached(self, fd: int, length: int, offset: int) -> bytes:
        call = self._named("pread_cached", fd, length)
        return self._do(call, lambda: self._os.pread(fd, length, offset))


class Counted:
    """One renter and the farmer, with every cost in view."""

    def __init__(self, folder: Path, volumes: int = 1) -> None:
        self.files = WarmFiles()
        self.farm = bench.Farm(
            folder, files=self.files, quota_bytes=512 * 1024 * 1024, volumes=volumes
        )
        self.clock, self.door = Clock(), CountingDoor()
        self.statements: list[str] = []
        signer = TestSigner()
        book = MemoryBook(signer, self._now_ms)
        serial = InviteSerial(RENTER.raw[:16])
        book.mint(serial, OFFER)
        self.contract: Contract = book.redeem(serial, RENTER)
        farm = Farm(
            signer=signer,
            store=self.farm.engine,
            book=book,
            disk=self.door,
            meter=MemoryMeter(),
            clock=self.clock,
            now_ms=self._now_ms,
        )
        guests = Sessions()
        around = Surroundings(
            clock=self.clock,
            tasks=Tasks(),
            meter=farm.meter,
            visitors=guests,
            identify=lambda _: RENTER,
            serve=Conversation(farm, guests.began, guests.ended, guests.introduce).serve,
        )
        self.peer = Peer(Session(around, "192.0.2.1"), self.clock)
        self.peer.hello()
        self._turns = 0
        self._count_turns()
        self._trace()

    def close(self) -> None:
        self.peer.leave()
        self.farm.engine.close()

    def store(self, data: bytes) -> ShardId:
        peer = self.peer
        peer.send(Store(shard_of(data), len(data)))
        assert isinstance(peer.answer(), Accept)
        for start in range(0, len(data), DATA_BYTES):
            peer.send_data(data[start : start + DATA_BYTES])
        peer.send(End())
        assert isinstance(peer.answer(), Stored)
        return shard_of(data)

    def retrieve(self, shard: ShardId) -> bytes:
        peer = self.peer
        peer.send(Retrieve(shard, 0, TO_THE_END, False))
        assert isinstance(peer.answer(), Send)
        data = peer.received()
        assert isinstance(peer.answer(), End)
        return data

    def audit(self, shard: ShardId, size_bytes: int) -> None:
        entries = (AuditEntry(shard, size_bytes, 1),)
        challenge = Challenge(bytes(NONCE_BYTES), AuditKind.SAMPLE, entries)
        self.peer.send(Audit(challenge))
        self.peer.pump()
        assert self.peer.events
        self.peer.events.clear()

    @contextmanager
    def cost(self) -> Iterator[list[Cost]]:
        """Count what happens within the block; the list has it afterwards."""
        found: list[Cost] = []
        self.files.forget()
        self.statements.clear()
        hand_offs, turns = self.door.count, self._turns
        sends, hurried = self.peer.wire.writes, self.peer.wire.hurried
        yield found
        calls = Counter(call.name for call in self.files.calls)
        size = Counter[str]()
        for call in self.files.calls:
            size[call.name] += call.length
        known = WRITES | SYNCS | READS
        found.append(
            Cost(
                writes=sum(calls[name] for name in WRITES),
                syncs=sum(calls[name] for name in SYNCS),
                reads=sum(calls[name] for name in READS),
                others=sum(count for name, count in calls.items() if name not in known),
                written_bytes=size["pwritev"],
                read_bytes=size["pread"] + size["pread_cached"],
                statements=len(self.statements),
                hand_offs=self.door.count - hand_offs,
                turns=self._turns - turns,
                sends=self.peer.wire.writes - sends,
                delayed_sends=self.peer.wire.writes - sends - (self.peer.wire.hurried - hurried),
            )
        )

    def _now_ms(self) -> int:
        return 1_000_000 + int(self.clock.seconds() * 1000)

    def _count_turns(self) -> None:
        call_later = self.clock.callLater

        def counted(delay_s: float, *what: Any, **named: Any) -> Any:
            self._turns += not delay_s
            return call_later(delay_s, *what, **named)

        self.clock.callLater = counted  # type: ignore[method-assign]

    def _trace(self) -> None:
        for volume in self.farm.engine.opened():
            index = volume.ground.index
            readers = [index._readers.get() for _ in range(index._readers.qsize())]
            for connection in (index._writer, *readers):
                connection.set_trace_callback(self.statements.append)
            for reader in readers:
                index._readers.put(reader)
