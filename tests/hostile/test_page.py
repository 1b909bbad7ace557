"""The owner's HTTP port under attack: slow and huge requests, foreign names, what it is not."""

from __future__ import annotations

import contextlib
import fcntl
import selectors
import socket
import struct
import termios
import threading
import time
from ipaddress import ip_address
from typing import Any, cast

import pytest
from twisted.internet.task import deferLater
from twisted.internet.tcp import Server
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from farmer.monitor import page
from farmer.monitor.page import (
    BODY_BYTES_MAX,
    CONNECTIONS_MAX,
    READ_BYTES,
    StatusPage,
    page_site,
)
from farmer.node.accepting import accept_few
from farmer.protocol.questions import Ping, Pong
from farmer.running.listening import PAGE_ACCEPTS_PER_TURN
from farmer.settings.schema import Settings
from tests.hostile.base import HostileCase, reactor
from tests.monitor.sample import NOW_S, STATUS, metrics

pytestmark = pytest.mark.alone

ENDED_S_MAX = 5.0
ANSWERED_S_MAX = 0.2
"""A PING takes a millisecond, and ten while the page is asked without end; it took 500."""

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class PageCase(TestCase):
    timeout = 60
    idle_s = page.IDLE_S

    def setUp(self) -> None:
        self.patch(page, "IDLE_S", self.idle_s)
        self.port = page_port()
        self.addCleanup(self.port.stopListening)
        self.sockets: list[socket.socket] = []
        self.addCleanup(self.hang_up)

    def hang_up(self) -> None:
        for one in self.sockets:
            one.close()

    def dial(self) -> socket.socket:
        address = ("127.0.0.1", self.port.getHost().port)
        self.sockets.append(socket.create_connection(address, timeout=20))
        return self.sockets[-1]

    def ask(self, raw: bytes) -> bytes:
        """Send and read to the close."""
        one, said = self.dial(), bytearray()
        with contextlib.suppress(OSError):
            one.sendall(raw)
            while data := one.recv(65536):
                said += data
        return bytes(said)

    def get(self, extra: str = "", host: str = "localhost") -> bytes:
        head = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n{extra}Connection: close\r\n\r\n"
        return self.ask(head.encode())


class PageUnderAttackTests(PageCase):
    idle_s = 2.0

    async def test_slow_requests_do_not_lock_the_owner_out(self) -> None:
        """Limits: CONNECTIONS_MAX, the oldest makes room; IDLE_S."""

        def hold() -> None:
            for _ in range(2 * CONNECTIONS_MAX):
                self.dial().sendall(b"GET / HTTP/1.1\r\nX-")

        await deferToThread(hold)
        for _ in range(3):
            began_s = time.monotonic()
            assert (await deferToThread(self.get)).startswith(b"HTTP/1.1 200")
            assert time.monotonic() - began_s < 8

    async def test_a_byte_now_and_then_ends(self) -> None:
        """Limit: AGE_S, since each byte begins IDLE_S anew."""
        self.patch(page, "AGE_S", 3.0)

        def drip() -> float:
            one, began_s = self.dial(), time.monotonic()
            one.sendall(b"GET /")
            with contextlib.suppress(OSError):
                while time.monotonic() - began_s < 20:
                    one.sendall(b"x")
                    time.sleep(0.1)
            return time.monotonic() - began_s

        assert await deferToThread(drip) < 15

    async def test_a_foreign_name_is_not_answered(self) -> None:
        """DNS rebinding: a stranger's page points its own name at us and would read."""
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "0"):
            said = await deferToThread(self.get, "", host)
            assert said.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400")), (host, said[:50])

    async def test_it_speaks_no_websocket_and_allows_no_origin(self) -> None:
        upgrade = (
            "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n"
        )
        said = await deferToThread(self.get, upgrade)

        assert said.startswith(b"HTTP/1.1 200")
        assert b"access-control" not in said.lower()
        assert b"sec-websocket" not in said.lower()


class TurnTests(PageCase):
    async def test_a_long_request_is_read_a_little_at_a_time(self) -> None:
        """Limit: READ_BYTES; between two reads whoever else is being served has a turn."""
        one, read = self.dial(), []
        while not (ours := other_end(one)):
            await deferLater(reactor, 0, lambda: None)
        # The reactor waits for this thread, so all of it comes at once.
        one.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 480)
        left = unread_bytes(ours)
        while left:
            await deferLater(reactor, 0, lambda: None)
            read.append(left - unread_bytes(ours))
            left -= read[-1]
        assert max(read) <= READ_BYTES


class RentersMeanwhileTests(HostileCase):
    """The page beside renters, on one reactor."""

    async def asked(self, pings: int) -> float:
        """Return how long a renter waits for so many answers, one after another."""

        def ask() -> float:
            with self.call() as renter:
                began_s = time.monotonic()
                for token in range(pings):
                    renter.ask(Ping(token), Pong)
                return time.monotonic() - began_s

        return float(await deferToThread(ask))

    def setUp(self) -> None:
        super().setUp()
        port = page_port()
        self.addCleanup(port.stopListening)
        self.page = ("127.0.0.1", port.getHost().port)

    async def test_a_packet_of_requests_stops_nobody(self) -> None:
        """1,400 answers at once took 7 s, and 47 MB."""
        with socket.create_connection(self.page, timeout=20) as one:
            await deferLater(reactor, 0.1, lambda: None)
            one.sendall(SCRAPE * 1400)
            assert await self.asked(1) < ANSWERED_S_MAX

    async def test_who_asks_without_end_takes_little_of_a_turn(self) -> None:
        """Limits: KEPT_S, PAGE_ACCEPTS_PER_TURN."""
        ended = threading.Event()
        asking = deferToThread(scrape_until, ended, self.page)
        try:
            await deferLater(reactor, 0.5, lambda: None)
            assert await self.asked(20) < 20 * ANSWERED_S_MAX
        finally:
            ended.set()
            await asking


def scrape_until(ended: threading.Event, page_address: tuple[str, int]) -> None:
    """Ask for the metrics over many connections, as fast as it answers; blocking."""
    with selectors.DefaultSelector() as waiting:

        def dial() -> None:
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(page_address)
            waiting.register(one, selectors.EVENT_WRITE)

        def go_on(one: socket.socket) -> None:
            with contextlib.suppress(OSError):
                if waiting.get_key(one).events == selectors.EVENT_WRITE or one.recv(1 << 20):
                    one.sendall(SCRAPE)
                    waiting.modify(one, selectors.EVENT_READ)
                    return
            waiting.unregister(one)
            one.close()
            dial()

        for _ in range(CONNECTIONS_MAX - 4):
            dial()
        while not ended.is_set():
            for key, _ in waiting.select(0.1):
                go_on(cast(socket.socket, key.fileobj))
        for key in list(waiting.get_map().values()):
            cast(socket.socket, key.fileobj).close()


def other_end(one: socket.socket) -> Any:
    """Return our transport of a connection, once it was taken in."""
    taken_in = [reader for reader in reactor.getReaders() if isinstance(reader, Server)]
    port = one.getsockname()[1]
    return next((server for server in taken_in if server.getPeer().port == port), None)


def unread_bytes(transport: Any) -> int:
    """Return how much the kernel has for it."""
    answer = fcntl.ioctl(transport.fileno(), termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def page_port() -> Any:
    """Return a port on which the page is served as the farmer does it."""
    root = StatusPage(lambda: STATUS, metrics(), lambda: NOW_S, reactor.seconds)
    port = reactor.listenTCP(0, page_site(root, reactor), interface="127.0.0.1")
    accept_few(port, PAGE_ACCEPTS_PER_TURN)
    return port


class HugeRequestTests(PageCase):
    """The idle time is as it is: what is too large ends for that reason, and at once."""

    async def test_huge_requests_end(self) -> None:
        """Limits: twisted's 16 KiB of headers and 500 of them, BODY_BYTES_MAX."""
        assert self.idle_s > ENDED_S_MAX
        for raw in (
            b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
            b"\0" * 100_000,
        ):
            began_s = time.monotonic()
            said = await deferToThread(self.ask, raw)
            assert time.monotonic() - began_s < ENDED_S_MAX, raw[:10]
            assert b"200 OK" not in said
        assert (await deferToThread(self.get)).startswith(b"HTTP/1.1 200")
        assert BODY_BYTES_MAX <= 1 << 16


def test_the_page_listens_on_loopback_unless_the_owner_says_otherwise() -> None:
    host, _, _port = Settings(version=1).listen.page.rpartition(":")
    assert ip_address(host.strip("[]")).is_loopback
