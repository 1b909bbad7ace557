"""The owner's HTTP port under attack: slow and huge requests, foreign names, what it is not."""

from __future__ import annotations

import contextlib
import socket
import time
from ipaddress import ip_address

import pytest
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from farmer.monitor import page
from farmer.monitor.page import BODY_BYTES_MAX, CONNECTIONS_MAX, StatusPage, page_site
from farmer.settings.schema import Settings
from tests.hostile.base import reactor
from tests.monitor.sample import NOW_S, STATUS, metrics

pytestmark = pytest.mark.alone

ENDED_S_MAX = 5.0


class PageCase(TestCase):
    timeout = 60
    idle_s = page.IDLE_S

    def setUp(self) -> None:
        self.patch(page, "IDLE_S", self.idle_s)
        root = StatusPage(lambda: STATUS, metrics(), lambda: NOW_S, ())
        self.port = reactor.listenTCP(0, page_site(root, reactor), interface="127.0.0.1")
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

    async def test_a_scraper_keeps_its_connection(self) -> None:
        def scrape() -> int:
            one, answers = self.dial(), 0
            for _ in range(5):
                one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answers += one.recv(65536).startswith(b"HTTP/1.1 200")
            return answers

        assert await deferToThread(scrape) == 5

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
