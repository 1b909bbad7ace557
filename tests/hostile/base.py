"""The real node with a real engine behind real TLS on loopback, its deadlines shortened."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from farmer.identity.keys import Identity
from farmer.identity.tls import farmer_side
from farmer.model.contract import Offer
from farmer.model.ids import InviteSerial, NodeId
from farmer.node import deadlines, exchange, service
from farmer.node.admission import Places, Sessions
from farmer.node.disk import ThreadedDisk
from farmer.node.farm import Farm
from farmer.node.service import FarmerService
from farmer.node.session import Session
from farmer.protocol.connection import DataReceived, Event, RenterConnection
from farmer.protocol.messages import Message
from farmer.protocol.opening import End, Hello, Welcome
from farmer.protocol.state import State
from farmer.protocol.transfers import TO_THE_END, Accept, Retrieve, Send, Store
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import OsFiles
from tests.fakes import MemoryBook, MemoryMeter, TestSigner, shard_of
from tests.node.wires import OFFER

reactor: Any = _reactor

FRAME = 256 * 1024
QUOTA_BYTES = 256 << 20
HANDSHAKE_S = 1.0
"""What the farmer's ten seconds are in these tests; the other deadlines are as much shorter."""


class Renter:
    """A blocking renter that can be rude; to be used in a thread."""

    def __init__(self, home: Path, address: str, source: str = "127.0.0.1") -> None:
        host, _, port = address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(home / "identity.crt", home / "identity.key")
        there = (host.strip("[]"), int(port))
        raw = socket.create_connection(there, timeout=20, source_address=(source, 0))
        try:
            self.socket = context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        self.connection = RenterConnection()

    def __enter__(self) -> Renter:
        if self.connection.state is State.OPENED:
            self.hello()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hello(self) -> Event:
        self.tell(Hello(1, 1, "hostile"))
        return self.hear(Welcome)

    def tell(self, *messages: Message) -> None:
        self.socket.sendall(b"".join(self.connection.send(message) for message in messages))

    def hear(self, kind: type | None = None) -> Any:
        while (event := self.connection.next_event()) is None:
            data = self.socket.recv(FRAME)
            if not data:
                raise ConnectionError("closed")
            self.connection.receive(data)
        assert kind is None or isinstance(event, kind), event
        return event

    def ask(self, message: Message, kind: type | None = None) -> Any:
        self.tell(message)
        return self.hear(kind)

    def begin(self, data: bytes) -> None:
        self.ask(Store(shard_of(data), len(data)), Accept)

    def store(self, data: bytes) -> Any:
        begun = self.ask(Store(shard_of(data), len(data)))
        if isinstance(begun, Accept):
            for at in range(begun.offset, len(data), FRAME):
                self.socket.sendall(self.connection.send_data(data[at : at + FRAME]))
            self.tell(End())
            begun = self.hear()
        return begun

    def retrieve(self, data: bytes) -> bytes:
        self.ask(Retrieve(shard_of(data), 0, TO_THE_END, False), Send)
        found = bytearray()
        while isinstance(event := self.hear(), DataReceived):
            found += event.data
        return bytes(found)

    def closed_after_s(self, within_s: float = 20) -> float:
        """Wait for the farmer's close, whatever it says before; return how long it took."""
        began_s = time.monotonic()
        self.socket.settimeout(within_s)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self.socket.recv(FRAME):
                pass
        return time.monotonic() - began_s


class HostileCase(TestCase):
    """One farmer; `self.home/<name>` are its renters."""

    timeout = 120
    places = Places()

    def setUp(self) -> None:
        for module in (deadlines, exchange, service):
            self.shorten(module)
        self.home = Path(mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        self.identity = Identity.create(self.home / "farmer")
        self.meter = MemoryMeter()
        self.book = MemoryBook(TestSigner())
        self.engine = self.make_engine()
        self.addCleanup(self.engine.close)
        self.disk = ThreadedDisk(reactor)
        self.disk.start()
        self.addCleanup(self.disk.stop)
        self.farm = Farm(
            signer=self.identity,
            store=self.engine,
            book=self.book,
            disk=self.disk,
            meter=self.meter,
            clock=reactor,
            now_ms=lambda: 1_000,
        )
        side, sessions = farmer_side(self.identity), Sessions(self.places)
        self.service = FarmerService(reactor, self.farm, side, [("127.0.0.1", 0)], sessions)
        self.service.start()
        self.addCleanup(self.end)
        self.honest = self.join("honest")

    def shorten(self, module: Any) -> None:
        """A tenth of each deadline, and looked at ten times as often."""
        for name in (
            *("HANDSHAKE_S", "IDLE_S", "RATE_GRACE_S", "HURRIED_S", "STRANGER_S", "DISCARD_S"),
            *("CHECK_S", "TURN_S", "CLOSE_S"),
        ):
            if hasattr(module, name):
                self.patch(module, name, getattr(module, name) / 10)

    def make_engine(self) -> Engine:
        node, path = self.identity.node_id, self.home / "volume"
        create_volume(path, node, OsFiles(), 1_000)
        return Engine(
            [VolumeSettings(path, QUOTA_BYTES)],
            node,
            OsFiles(),
            clock_ms=lambda: 1_000,
            observed_ms=lambda: 1_000,
            limits=EngineLimits(shard_bytes_max=64 << 20),
        )

    def join(self, name: str, offer: Offer = OFFER) -> NodeId:
        """Make a renter with a contract."""
        renter = Identity.create(self.home / name).node_id
        serial = InviteSerial(renter.raw[:16])
        self.book.mint(serial, offer)
        self.book.redeem(serial, renter)
        return renter

    def end(self) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.service.drain(0.1))

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.service.addresses[0].rpartition(":")
        return host, int(port)

    def call(self, name: str = "honest", source: str = "127.0.0.1") -> Renter:
        return Renter(self.home / name, self.service.addresses[0], source)

    def dial(self, source: str = "127.0.0.1") -> socket.socket:
        """Connect and say nothing."""
        return socket.create_connection(self.address, timeout=20, source_address=(source, 0))

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        return await deferToThread(work)

    async def until(self, true: Callable[[], bool], within_s: float = 20) -> None:
        deadline_s = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline_s, "it did not come true"
            await deferLater(reactor, 0.01, lambda: None)

    def honest_answer_s(self, data: bytes = b"honest") -> float:
        """Return how long a store and a retrieve of somebody else take; blocking."""
        began_s = time.monotonic()
        with self.call() as renter:
            stored = renter.store(data)
            assert type(stored).__name__ == "Stored", stored
            assert renter.retrieve(data) == data
        return time.monotonic() - began_s

    async def serve_honest(self) -> None:
        """Have somebody else served meanwhile, within its own client's patience."""
        await self.in_thread(self.honest_answer_s)

    def held_bytes(self, session: Session) -> int:
        """Return what lies in memory for one session: unread, unsent, and in TLS."""
        tls: Any = session.transport
        tcp = tls.transport
        unsent = len(tcp.dataBuffer) + tcp._tempDataLen
        waiting = sum(map(len, getattr(tls, "_appSendBuffer", ())))
        return session._connection.waiting_bytes + unsent + waiting
