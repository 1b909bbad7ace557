"""Many renters in one process: real TLS over loopback, one epoll, a small script for each."""

from __future__ import annotations

import errno
import heapq
import select
import socket
import time
from collections.abc import Generator
from functools import lru_cache
from hashlib import sha256
from itertools import count
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from farmer.identity.keys import Identity
from farmer.protocol.connection import Event, RenterConnection
from farmer.protocol.messages import Message
from farmer.protocol.opening import Hello
from farmer.protocol.refusals import RemoteProtocolError

READ_BYTES: Final = 64 * 1024
EVENT: Final = -1.0
"""What a script yields to be given the next event; a number above makes it sleep."""

Script = Generator[float, Event | None, None]


@lru_cache(maxsize=4096)
def identity_of(number: int) -> Identity:
    """Return the identity of a renter of this load; every process makes the same."""
    return Identity.of_key(_key_of(number))


def _key_of(number: int) -> Ed25519PrivateKey:
    seed = sha256(f"load renter {number}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


class Line:
    """One connection and the script that talks over it."""

    def __init__(self, crowd: Crowd, who: Identity | None, source: str) -> None:
        self._crowd = crowd
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        # As every client of ours: else a small frame behind another waits 40 ms for an answer.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self.socket.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            self.socket.bind((source, 0))
        self.tls: Any = None
        if who is not None:
            self.tls = SSL.Connection(crowd.context, self.socket)
            self.tls.use_certificate(who.certificate)
            self.tls.use_privatekey(who.private_key)
            self.tls.set_connect_state()
        self.connection = RenterConnection()
        self.script: Script | None = None
        self._unsent = bytearray()
        self._shaken = False
        self._awaits = select.EPOLLOUT
        """What the handshake waits for; the connection itself, at first."""
        self.over = False
        self.reads = True
        """Whether it takes what the farmer sends; see `read_no_more`."""
        self.socket.connect_ex(crowd.farmer)
        crowd.watch(self)

    def say(self, message: Message) -> None:
        """Send a message."""
        self._unsent += self.connection.send(message)
        self._flush()

    def data(self, data: bytes) -> None:
        """Send shard bytes."""
        self._unsent += self.connection.send_data(data)
        self._flush()

    def raw(self, data: bytes) -> None:
        """Send whatever."""
        self._unsent += data
        self._flush()

    def read_no_more(self) -> None:
        """Take nothing of what the farmer sends from now on."""
        self.reads = False
        self._crowd.adjust(self)

    @property
    def wants(self) -> int:
        """What to wait for, as epoll's flags."""
        if not self._shaken:
            return self._awaits
        return (select.EPOLLIN if self.reads else 0) | (select.EPOLLOUT if self._unsent else 0)

    @property
    def is_up(self) -> bool:
        """Whether it is connected, and through the handshake if it makes one."""
        return self._shaken and not self.over

    @property
    def drained(self) -> bool:
        """Whether all that was said is with the kernel."""
        return not self._unsent

    def close(self) -> None:
        """Hang up."""
        if not self.over:
            self.over = True
            self._crowd.forget(self)
            self.socket.close()

    def turn(self) -> None:
        """Do what the socket is ready for."""
        try:
            if not self._shaken and not self._shake():
                return
            self._flush()
            if self.reads:
                self._read()
        except (SSL.Error, OSError, RemoteProtocolError) as error:
            self._crowd.lost(self, error)

    def _shake(self) -> bool:
        if self.tls is not None:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self._await(select.EPOLLIN)
                return False
            except SSL.WantWriteError:
                self._await(select.EPOLLOUT)
                return False
        elif self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError("refused")
        self._shaken = True
        self._crowd.shaken(self)
        return True

    def _await(self, flags: int) -> None:
        if flags != self._awaits:
            self._awaits = flags
            self._crowd.adjust(self)

    def _flush(self) -> None:
        if not self._shaken or self.over:
            return
        wire = self.tls or self.socket
        while self._unsent:
            try:
                sent = wire.send(bytes(self._unsent[:READ_BYTES]))
            except (SSL.WantReadError, SSL.WantWriteError, BlockingIOError):
                self._crowd.adjust(self)
                return
            except (SSL.Error, OSError):
                # The next read says the same, at a moment when no script is running.
                self._unsent.clear()
                return
            del self._unsent[:sent]

    def _read(self) -> None:
        wire = self.tls or self.socket
        while not self.over:
            try:
                data = wire.recv(READ_BYTES)
            except (SSL.WantReadError, BlockingIOError):
                return
            if not data:
                raise OSError(errno.ECONNRESET, "closed")
            self.connection.receive(data)
            while not self.over and (event := self.connection.next_event()) is not None:
                self._crowd.step(self, event)


class Crowd:
    """All lines of a process."""

    def __init__(self, farmer: tuple[str, int]) -> None:
        self.farmer = farmer
        self.lines: dict[int, Line] = {}
        self.connected = 0
        self.losses: list[str] = []
        self.on_lost: Any = None
        """Called with a line that was lost, if set."""
        self._epoll = select.epoll()
        self._timers: list[tuple[float, int, Line, Script]] = []
        self._numbers = count()
        self.context: Any = SSL.Context(SSL.TLS_METHOD)
        self.context.set_min_proto_version(SSL.TLS1_3_VERSION)
        self.context.set_options(SSL.OP_NO_TICKET)
        self.context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        self.context.set_verify(SSL.VERIFY_PEER, lambda *_: True)

    def call(self, who: Identity | None, source: str = "") -> Line:
        """Begin a connection; give it a script at once."""
        return Line(self, who, source)

    def watch(self, line: Line) -> None:
        self.lines[line.socket.fileno()] = line
        self._epoll.register(line.socket.fileno(), line.wants)

    def forget(self, line: Line) -> None:
        self._epoll.unregister(line.socket.fileno())
        del self.lines[line.socket.fileno()]

    def adjust(self, line: Line) -> None:
        self._epoll.modify(line.socket.fileno(), line.wants)

    def shaken(self, line: Line) -> None:
        self.adjust(line)
        self.connected += 1
        self._go(line, None)

    def lost(self, line: Line, error: BaseException) -> None:
        self.losses.append(f"{type(error).__name__}: {error}")
        line.close()
        if line.script is not None:
            line.script.close()
        if self.on_lost is not None:
            self.on_lost(line)

    def step(self, line: Line, event: Event) -> None:
        """Give a script the event that it waits for."""
        self._go(line, event)

    def _go(self, line: Line, event: Event | None) -> None:
        script = line.script
        if script is None:
            return
        try:
            wish = script.send(event)
        except StopIteration:
            if line.script is script:
                line.script = None
            return
        if wish >= 0:
            moment = time.monotonic() + wish
            heapq.heappush(self._timers, (moment, next(self._numbers), line, script))

    def run(self, seconds: float) -> None:
        """Serve all lines for a time, or one round if it is 0."""
        end = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                _, _, line, script = heapq.heappop(self._timers)
                if not line.over and line.script is script:
                    self._go(line, None)
            wait = min([end, *(timer[0] for timer in self._timers[:1])]) - time.monotonic()
            for descriptor, mask in self._epoll.poll(max(0.0, min(wait, 0.5)), 512):
                line = self.lines.get(descriptor)
                if line is None:
                    continue
                if mask & (select.EPOLLHUP | select.EPOLLERR) and not line.reads:
                    self.lost(line, OSError(errno.ECONNRESET, "closed"))
                    continue
                line.turn()
                if mask & select.EPOLLOUT and not line.over:
                    self.adjust(line)
            if time.monotonic() >= end:
                return


def greeting(line: Line) -> Script:
    """Say HELLO and take the WELCOME; part of every script."""
    line.say(Hello(1, 1, "load/1"))
    yield EVENT
