"""The serving node behind real sockets and TLS; the other end is the standard library's TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from farmer.identity.keys import Identity
from farmer.identity.tls import farmer_side
from farmer.model.ids import NodeId
from farmer.node.disk import ThreadedDisk
from farmer.node.farm import Farm
from farmer.node.ports import CloseReason
from farmer.node.service import FarmerService, ListenError
from farmer.protocol.connection import DataReceived, Event, RenterConnection
from farmer.protocol.limits import SESSIONS_PER_ADDRESS_MAX
from farmer.protocol.messages import Message
from farmer.protocol.opening import End, Hello, Welcome
from farmer.protocol.questions import Ping, Pong
from farmer.protocol.transfers import TO_THE_END, Accept, Retrieve, Send, Store, Stored
from tests.fakes import MemoryBook, MemoryMeter, MemoryStore, TestSigner, shard_of
from tests.node.wires import OFFER, SERIAL

DATA = bytes(range(256)) * 5000
FRAME = 256 * 1024


class Caller:
    """A blocking renter; used in a thread."""

    def __init__(self, home: Path, address: str) -> None:
        host, _, port = address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(home / "identity.crt", home / "identity.key")
        raw = socket.create_connection((host.strip("[]"), int(port)), timeout=20)
        self.socket = context.wrap_socket(raw)
        self.connection = RenterConnection()

    def __enter__(self) -> Caller:
        self.tell(Hello(1, 1, "caller"))
        assert isinstance(self.hear(), Welcome)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def tell(self, message: Message) -> None:
        self.socket.sendall(self.connection.send(message))

    def hear(self) -> Event:
        while (event := self.connection.next_event()) is None:
            data = self.socket.recv(FRAME)
            if not data:
                raise ConnectionError("closed")
            self.connection.receive(data)
        return event

    def store(self, data: bytes, pause: Callable[[], object] = lambda: None) -> Event:
        self.tell(Store(shard_of(data), len(data)))
        accept = self.hear()
        assert isinstance(accept, Accept), accept
        pause()
        for at in range(0, len(data), FRAME):
            self.socket.sendall(self.connection.send_data(data[at : at + FRAME]))
        self.tell(End())
        return self.hear()

    def retrieve(self, data: bytes) -> bytes:
        self.tell(Retrieve(shard_of(data), 0, TO_THE_END, False))
        assert isinstance(self.hear(), Send)
        found = bytearray()
        while isinstance(event := self.hear(), DataReceived):
            found += event.data
        assert isinstance(event, End), event
        return bytes(found)


class NodeOverTlsTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.home = Path(mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        farmer, renter = self.home / "farmer", self.home / "renter"
        self.identity, self.renter = Identity.create(farmer), Identity.create(renter)
        self.store, self.meter = MemoryStore(), MemoryMeter()
        self.book = MemoryBook(TestSigner())
        self.give_contract(self.renter.node_id)
        self.disk = ThreadedDisk(reactor, threads=3)  # type: ignore[arg-type]
        self.disk.start()
        self.addCleanup(self.disk.stop)
        self.service = self.make_service([("127.0.0.1", 0)])
        self.service.start()
        self.addCleanup(self.end)

    def make_service(self, listen: list[tuple[str, int]]) -> FarmerService:
        farm = Farm(
            signer=self.identity,
            store=self.store,
            book=self.book,
            disk=self.disk,
            meter=self.meter,
            clock=reactor,  # type: ignore[arg-type]
            now_ms=lambda: 1_000,
        )
        return FarmerService(
            reactor,  # type: ignore[arg-type]
            farm,
            farmer_side(self.identity),
            listen,
        )

    def give_contract(self, renter: NodeId) -> None:
        self.book.mint(SERIAL, OFFER)
        self.book.redeem(SERIAL, renter)

    def end(self) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.service.drain(0.1))

    def call(self) -> Caller:
        return Caller(self.home / "renter", self.service.addresses[0])

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await deferLater(reactor, 0.005, lambda: None)  # type: ignore[arg-type]

    async def test_what_is_stored_comes_back(self) -> None:
        def talk() -> tuple[Event, bytes]:
            with self.call() as caller:
                return caller.store(DATA), caller.retrieve(DATA)

        answer, found = await deferToThread(talk)

        assert isinstance(answer, Stored)
        self.assertEqual(self.renter.node_id, answer.receipt.renter)
        self.assertEqual(DATA, found)
        await self.until(lambda: self.meter.closed == [CloseReason.LEFT.value])

    async def test_a_drain_lets_a_store_finish(self) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def pause() -> None:
            begun.set()
            assert go_on.wait(20)

        def talk() -> Event:
            with self.call() as caller:
                return caller.store(DATA, pause)

        talking = deferToThread(talk)
        await deferToThread(begun.wait, 20)
        drained = Deferred.fromCoroutine(self.service.drain(20))
        await self.until(lambda: not self.service.addresses)
        go_on.set()

        self.assertIsInstance(await talking, Stored)
        self.assertTrue(await drained)
        self.assertEqual([], (self.service.tasks.failures and ["failed"]) or [])

    async def test_a_drain_cuts_off_who_never_ends(self) -> None:
        def talk() -> Any:
            with self.call() as caller:
                caller.tell(Store(shard_of(DATA), len(DATA)))
                caller.hear()
                begun.set()
                return caller.hear()

        begun = threading.Event()
        talking = deferToThread(talk)
        await deferToThread(begun.wait, 20)

        self.assertFalse(await Deferred.fromCoroutine(self.service.drain(0.05)))

        with self.assertRaises((ConnectionError, ssl.SSLError)):
            await talking
        self.assertEqual({}, self.store.uploads)

    async def test_what_is_not_tls_ends_as_a_failed_handshake(self) -> None:
        host, _, port = self.service.addresses[0].rpartition(":")

        def talk() -> None:
            with socket.create_connection((host, int(port)), timeout=20) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
                while raw.recv(100):
                    pass

        await deferToThread(talk)

        await self.until(lambda: self.meter.closed == [CloseReason.TLS.value])
        self.assertEqual([CloseReason.TLS.value], self.meter.handshakes)

    async def test_one_address_has_a_bounded_number_of_connections(self) -> None:
        host, _, port = self.service.addresses[0].rpartition(":")

        def talk() -> int:
            raws = [
                socket.create_connection((host, int(port)), timeout=20)
                for _ in range(SESSIONS_PER_ADDRESS_MAX + 1)
            ]
            closed = raws[-1].recv(1)
            for raw in raws:
                raw.close()
            return len(closed)

        self.assertEqual(0, await deferToThread(talk))
        await self.until(lambda: not len(self.service.sessions))
        self.assertEqual(["TOO_MANY_SESSIONS"], self.meter.refusals)

    async def test_last_words_arrive_before_the_close(self) -> None:
        def talk() -> tuple[Event, bytes]:
            with self.call() as caller:
                caller.socket.sendall(b"\xff\xff\xff\xff")
                return caller.hear(), caller.socket.recv(1)

        words, end = await deferToThread(talk)

        self.assertTrue(words.final)  # type: ignore[union-attr]
        self.assertEqual(b"", end)

    async def test_connections_are_prompt_and_notice_a_dead_peer(self) -> None:
        def talk() -> list[bool]:
            with self.call():
                (session,) = self.service.sessions
                wire: Any = session.transport
                return [wire.getTcpNoDelay(), wire.getTcpKeepAlive()]

        self.assertEqual([True, True], [bool(on) for on in await deferToThread(talk)])

    async def test_pings_sent_ahead_are_answered(self) -> None:
        def talk() -> list[Event]:
            with self.call() as caller:
                for token in range(50):
                    caller.tell(Ping(token))
                return [caller.hear() for _ in range(50)]

        answers = await deferToThread(talk)

        self.assertEqual([Pong] * 50, [type(answer) for answer in answers])

    async def test_a_port_in_use_is_named(self) -> None:
        host, _, port = self.service.addresses[0].rpartition(":")
        second = self.make_service([(host, 0), (host, int(port))])

        with self.assertRaisesRegex(ListenError, f"{self.service.addresses[0]}.*in use"):
            second.start()

        self.assertEqual((), second.addresses)
        await Deferred.fromCoroutine(second.drain(0))
