"""The client of the peers, against a small Twisted server; both ends in memory."""

from __future__ import annotations

import io
import random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as ServerRequest

from benchmarks.peers.clients import Held, HttpClient
from benchmarks.peers.dialects import dav, swift, tahoe
from benchmarks.peers.http import HttpConnection, HttpError, Request
from farmer.client.limits import READ_AHEAD_BYTES
from farmer.client.storing import Source
from tests.client.fake_farmer import InlineDoor
from tests.client.pipes import Pipe, World

SIZES = (1, 65536, 2 * 1024 * 1024 + 7)


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Files(ServerRequest):
    """A server that keeps what it is sent under its path, and gives it back in chunks or whole."""

    kept: dict[bytes, bytes]
    in_chunks: bool
    seen: list[bytes]

    def process(self) -> None:
        self.seen.append(self.method)
        path = self.uri
        if self.method in {b"PUT", b"PATCH"}:
            self.kept[path] = self.content.read()
            self.setResponseCode(201)
            self.setHeader("content-length", "0")
        elif self.method == b"POST":
            self.setHeader("content-length", "2")
            self.write(b"ok")
        elif path in self.kept:
            if not self.in_chunks:
                self.setHeader("content-length", str(len(self.kept[path])))
            self.write(self.kept[path])
        else:
            self.setResponseCode(404)
            self.setHeader("content-length", "4")
            self.write(b"none")
        self.finish()


class ServerChannel(HTTPChannel):
    """Twisted's server side, without clock and socket."""

    def __init__(self, clock: Any, files: type[Files]) -> None:
        super().__init__()
        self.callLater = clock.callLater
        self.requestFactory = files
        self.timeOut = None

    def makeConnection(self, transport: Any) -> None:  # noqa: N802 - Twisted's name
        transport.disconnecting = False
        transport.writeSequence = lambda parts: transport.write(b"".join(parts))
        transport.getPeer = transport.getHost = lambda: IPv4Address("TCP", "127.0.0.1", 1)
        super().makeConnection(transport)


class HttpCase(SynchronousTestCase):
    """A connection to a server that keeps files."""

    in_chunks = False

    def setUp(self):
        self.world = World()
        self.kept: dict[bytes, bytes] = {}
        self.seen: list[bytes] = []
        told = {"kept": self.kept, "in_chunks": self.in_chunks, "seen": self.seen}
        files = type("TheseFiles", (Files,), told)
        self.connection = HttpConnection()
        self.pipe = Pipe(self.connection, ServerChannel(self.world.clock, files))
        self.world.pipes.append(self.pipe)

    def client(self, dialect):
        return HttpClient(self.connection, dialect, InlineDoor())

    def store(self, client, content):
        return self.world.run(client.store(io.BytesIO(content)))

    def retrieved(self, client, held):
        target = io.BytesIO()
        self.world.run(client.retrieve(held, target))
        return target.getvalue()


class EveryDialectTests(HttpCase):
    """Whole answers."""

    def test_what_is_stored_comes_back(self):
        for dialect in (dav(), swift(), tahoe("secret")):
            client = self.client(dialect)
            for size in SIZES:
                held = self.store(client, content_of(size))
                self.assertEqual(held.size_bytes, size)
                self.assertEqual(self.retrieved(client, held), content_of(size))

    def test_tahoe_is_asked_for_room_first(self):
        self.store(self.client(tahoe("secret")), b"a share")
        self.assertEqual(self.seen, [b"POST", b"PATCH"])

    def test_other_bytes_are_not_taken_for_the_shard(self):
        client = self.client(dav())
        held = self.store(client, content_of(70_000))
        [path] = self.kept
        self.kept[path] = self.kept[path][:-1] + b"?"
        with self.assertRaisesRegex(HttpError, "came back with other bytes"):
            self.retrieved(client, held)

    def test_a_refusal_is_told_with_what_was_said(self):
        shard = Source.hashed(io.BytesIO(b"never stored")).shard
        with self.assertRaisesRegex(HttpError, "404 to GET /.*: none"):
            self.retrieved(self.client(dav()), Held(shard, 12))

    def test_the_connection_lives_on_after_a_refusal(self):
        with self.assertRaises(HttpError):
            self.world.run(self.connection.ask(Request("GET", "/nothing")))
        self.test_what_is_stored_comes_back()

    def test_a_lost_connection_is_no_answer(self):
        self.pipe.cut()
        with self.assertRaisesRegex(HttpError, "the connection broke"):
            self.world.run(self.connection.ask(Request("GET", "/nothing")))


class ChunkedTests(EveryDialectTests):
    """The same in chunks."""

    in_chunks = True


class BackpressureTests(HttpCase):
    """No more than a step and a little lies in memory."""

    def test_a_large_store_waits_for_the_wire(self):
        self.store(self.client(dav()), content_of(4 * 1024 * 1024))
        [(_, ours), _] = self.pipe.ends
        self.assertLess(ours.most_waiting, 4 * READ_AHEAD_BYTES)

    def test_reading_stops_while_nobody_takes(self):
        [(_, ours), _] = self.pipe.ends
        self.connection.dataReceived(b"x" * (READ_AHEAD_BYTES - 1))
        self.assertTrue(ours.reading)
        self.connection.dataReceived(b"x")
        self.assertFalse(ours.reading)
