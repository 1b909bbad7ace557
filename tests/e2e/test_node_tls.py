"""The serving node behind real sockets and TLS; the other end is the standard library's TLS."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
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
from farmer.protocol.limits import HANDSHAKE_S, SESSIONS_PER_ADDRESS_MAX
from farmer.protocol.messages import Message
from farmer.protocol.opening import End, Hello, Refuse, Welcome
from farmer.protocol.questions import Ping, Pong
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import TO_THE_END, Accept, Retrieve, Send, Store, Stored
from tests.crash.live import free_port
from tests.fakes import MemoryBook, MemoryMeter, MemoryStore, TestSigner, shard_of
from tests.identity.test_tls import certificate_for, wide_certificate
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


def pem_of(key: Any, certificates: list[x509.Certificate]) -> bytes:
    kind, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    shown = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
    return bytes(key.private_bytes(serialization.Encoding.PEM, kind, secret)) + shown


def rsa_pem() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return pem_of(key, [certificate_for(key, algorithm=SHA256())])


def wide_pem() -> bytes:
    key = Ed25519PrivateKey.generate()
    return pem_of(key, [wide_certificate(key)])


def chain_pem() -> bytes:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    return pem_of(key, [certificate_for(key), certificate_for(other, name="other")])


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

    async def until_nothing_is_read(self) -> None:
        """Wait until reading has begun and stands still: the renter takes no more."""
        before = 0
        while not before or before != self.store.bytes_read:
            before = self.store.bytes_read
            await deferLater(reactor, 0.2, lambda: None)  # type: ignore[arg-type]

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

    async def test_a_drain_tells_who_never_ends_and_closes_in_order(self) -> None:
        def talk() -> Any:
            with self.call() as caller:
                caller.tell(Store(shard_of(DATA), len(DATA)))
                caller.hear()
                begun.set()
                words = caller.hear()
                assert caller.socket.recv(1) == b"", "more than last words"
                return words

        begun = threading.Event()
        talking = deferToThread(talk)
        await deferToThread(begun.wait, 20)

        self.assertFalse(await Deferred.fromCoroutine(self.service.drain(0.05)))

        words = await talking
        self.assertEqual((Refusal.DRAINING, True), (words.refused.refusal, words.final))
        self.assertEqual({}, self.store.uploads)

    async def test_a_drain_closes_idle_connections_in_order(self) -> None:
        def talk() -> bytes:
            with self.call() as caller:
                begun.set()
                return caller.socket.recv(1)

        begun = threading.Event()
        talking = deferToThread(talk)
        await deferToThread(begun.wait, 20)

        self.assertTrue(await Deferred.fromCoroutine(self.service.drain(20)))

        self.assertEqual(b"", await talking)

    async def test_a_store_during_a_drain_is_answered_before_the_close(self) -> None:
        begun, go_on, idle_done = threading.Event(), threading.Event(), threading.Event()

        def finish() -> Event:
            with self.call() as caller:
                return caller.store(DATA, lambda: (begun.set(), go_on.wait(20)))

        def ask_late() -> tuple[Event, bytes]:
            with self.call() as caller:
                idle_done.set()
                assert go_late.wait(20)
                caller.tell(Store(shard_of(b"late"), 4))
                return caller.hear(), caller.socket.recv(1)

        go_late = threading.Event()
        finishing, asking = deferToThread(finish), deferToThread(ask_late)
        await deferToThread(begun.wait, 20)
        await deferToThread(idle_done.wait, 20)
        drained = Deferred.fromCoroutine(self.service.drain(20))
        await self.until(lambda: not self.service.addresses)
        go_late.set()

        answer, end = await asking
        go_on.set()

        assert isinstance(answer, Refuse)
        self.assertEqual(Refusal.DRAINING, answer.refused.refusal)
        self.assertFalse(answer.final)
        self.assertEqual(b"", end)
        self.assertIsInstance(await finishing, Stored)
        self.assertTrue(await drained)

    async def test_a_certificate_that_names_nobody_is_dropped_before_a_word(self) -> None:
        host, _, port = self.service.addresses[0].rpartition(":")
        names = {"wide": wide_pem(), "chain": chain_pem(), "rsa": rsa_pem()}
        certificate, tls = CloseReason.CERTIFICATE.value, CloseReason.TLS.value
        reasons = [certificate, certificate, tls]

        def talk(path: Path) -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(path)
            raw = socket.create_connection((host, int(port)), timeout=HANDSHAKE_S / 2)
            # Who has no key of ours shows nothing, since asked for no other.
            ended = contextlib.suppress(ConnectionError, ssl.SSLError)
            with ended, context.wrap_socket(raw) as shown:
                assert not shown.recv(1)

        for number, (name, pem) in enumerate(names.items(), 1):
            path = self.home / name
            path.write_bytes(pem)
            await deferToThread(talk, path)
            expected = reasons[:number]
            await self.until(lambda expected=expected: self.meter.closed == expected)  # type: ignore[misc]
            self.assertEqual(expected, self.meter.handshakes)

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

    async def test_for_a_renter_whose_tls_ends_no_more_is_read_and_its_place_is_free(self) -> None:
        huge, is_full = bytes(32 << 20), threading.Event()

        def talk() -> int:
            with self.call() as caller:
                caller.tell(Retrieve(shard, 0, TO_THE_END, False))
                assert is_full.wait(20)
                # Past TLS: a record that nobody has sealed.
                socket.socket.sendall(caller.socket, b"\x17\x03\x03\x00\x28" + bytes(40))
                taken = 0
                while data := socket.socket.recv(caller.socket, FRAME):
                    taken += len(data)
                return taken

        shard = shard_of(huge)
        begun = self.store.begin(self.book.contracts[self.renter.node_id], shard, len(huge))
        begun.write(huge)  # type: ignore[union-attr]
        begun.commit()  # type: ignore[union-attr]
        talking = deferToThread(talk)
        await self.until_nothing_is_read()
        is_full.set()

        self.assertLess(await talking, len(huge))
        await self.until(lambda: not len(self.service.sessions))
        self.assertLess(self.store.bytes_read, len(huge))

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

        told = f"{self.service.addresses[0]}: another program is using it"
        with self.assertRaisesRegex(ListenError, told.replace("[", r"\[")):
            second.start()

        self.assertEqual((), second.addresses)
        await Deferred.fromCoroutine(second.drain(0))

    async def test_what_could_be_had_is_let_go_at_once_where_not_all_can(self) -> None:
        """
        Whoever goes on with another port for the one in use wants the others again.
        """
        host, _, taken = self.service.addresses[0].rpartition(":")
        free = [(host, free_port()), (host, free_port())]
        second, third = self.make_service([*free, (host, int(taken))]), self.make_service(free)
        with self.assertRaises(ListenError):
            second.start()

        third.start()

        self.assertEqual(tuple(f"{host}:{port}" for _, port in free), third.addresses)
        await Deferred.fromCoroutine(second.drain(0))
        await deferToThread(lambda: socket.create_connection(free[1], timeout=20).close())
        await Deferred.fromCoroutine(third.drain(0))
