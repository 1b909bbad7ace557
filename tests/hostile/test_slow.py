"""Peers that are slow, silent, or never read: each ends, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import fcntl
import termios
import time
from array import array
from typing import Any

import pytest

from farmer.identity.keys import Identity
from farmer.model.audit import AuditEntry, AuditKind, Challenge
from farmer.model.ids import ShardId
from farmer.node import deadlines
from farmer.node.arrival import UNSENT_BYTES
from farmer.node.held import STEP_BYTES
from farmer.node.inbox import STRANGER_AHEAD_BYTES
from farmer.node.ports import CloseReason
from farmer.protocol.connection import DataReceived
from farmer.protocol.messages import encode
from farmer.protocol.opening import Hello, Refuse
from farmer.protocol.questions import List, Ping, Pong
from farmer.protocol.refusals import Refusal
from farmer.protocol.transfers import TO_THE_END, Audit, Retrieve
from tests.fakes import shard_of
from tests.hostile.base import HANDSHAKE_S, HostileCase, Renter

pytestmark = pytest.mark.alone

MIB = 1 << 20
LARGE = bytes(range(256)) * (40 * MIB // 256)
SLACK_S = 8.0
"""For a machine that others use too; the deadlines are about a second."""

HELD_BYTES_MAX = 2 * STEP_BYTES + STRANGER_AHEAD_BYTES + 256 * 1024
"""For one session that neither reads nor stops sending: a step, its ciphertext, a read ahead."""


class SlowTests(HostileCase):
    def drip(self, renter: Renter, data: bytes, every_s: float = 0.1) -> float:
        """Send byte by byte; return after how long it was cut off."""
        began_s = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in data:
                renter.socket.sendall(bytes([byte]))
                time.sleep(every_s)
        return time.monotonic() - began_s

    async def assert_closed(self, reason: CloseReason) -> None:
        await self.until(lambda: reason.value in self.meter.closed)

    async def test_silence_before_the_handshake_is_cut_off(self) -> None:
        """Limit: HANDSHAKE_S."""

        def talk() -> float:
            began_s = time.monotonic()
            with self.dial() as raw, contextlib.suppress(ConnectionResetError):
                assert raw.recv(1) == b""
            return time.monotonic() - began_s

        self.assertLess(await self.in_thread(talk), HANDSHAKE_S + SLACK_S)
        await self.assert_closed(CloseReason.HANDSHAKE)

    async def test_a_handshake_byte_by_byte_is_cut_off(self) -> None:
        """Limit: HANDSHAKE_S, TLS included."""

        def talk() -> float:
            began_s = time.monotonic()
            with self.dial() as raw, contextlib.suppress(OSError):
                for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(500):
                    raw.sendall(bytes([byte]))
                    time.sleep(0.05)
            return time.monotonic() - began_s

        self.assertLess(await self.in_thread(talk), HANDSHAKE_S + SLACK_S)
        await self.assert_closed(CloseReason.HANDSHAKE)

    async def test_a_hello_byte_by_byte_is_cut_off(self) -> None:
        """Limit: HANDSHAKE_S, up to the HELLO."""
        hello = encode(Hello(1, 1, "x" * 60))

        def talk() -> float:
            renter = self.call()
            try:
                return self.drip(renter, hello)
            finally:
                renter.socket.close()

        self.assertLess(await self.in_thread(talk), HANDSHAKE_S + SLACK_S)
        await self.assert_closed(CloseReason.HANDSHAKE)

    async def test_half_a_frame_is_waited_for_no_longer_than_a_whole(self) -> None:
        """Limit: IDLE_S, here of a stranger: HANDSHAKE_S."""
        Identity.create(self.home / "stranger")

        def talk() -> float:
            with self.call("stranger") as renter:
                renter.socket.sendall(encode(Ping(1))[:-1])
                return renter.closed_after_s()

        self.assertLess(await self.in_thread(talk), HANDSHAKE_S + SLACK_S)
        await self.assert_closed(CloseReason.IDLE)

    @pytest.mark.slow
    async def test_a_stranger_cannot_stay_by_pinging(self) -> None:
        """Limit: STRANGER_S."""
        Identity.create(self.home / "stranger")

        def talk() -> int:
            pings = 0
            with self.call("stranger") as renter, contextlib.suppress(OSError):
                while pings < 500:
                    renter.ask(Ping(pings), Pong)
                    pings += 1
                    time.sleep(0.1)
            return pings

        self.assertLess(await self.in_thread(talk), 200)
        await self.assert_closed(CloseReason.STRANGER)

    @pytest.mark.slow
    async def test_a_store_byte_by_byte_ends_and_gives_its_space_back(self) -> None:
        """Limit: RATE_BYTES_PER_S_MIN after RATE_GRACE_S."""

        def talk() -> object:
            with self.call() as renter:
                renter.begin(bytes(100_000))
                frames = renter.connection.send_data(bytes(1000))
                self.drip(renter, frames)
                return renter.connection.next_event() or renter.hear()

        with contextlib.suppress(OSError):
            words = await self.in_thread(talk)
            self.assertEqual(Refusal.TOO_SLOW, words.refused.refusal)
        await self.assert_closed(CloseReason.SLOW)
        await self.until(lambda: self.engine.usage(self.honest).reserved_bytes == 0)
        self.assertEqual(0, self.farm.small_stores.inside_bytes)

    @pytest.mark.slow
    async def test_who_never_reads_a_retrieve_ends_and_holds_little(self) -> None:
        """Limit: IDLE_S without a byte taken; memory: one step in each direction and TLS."""
        self.patch(deadlines, "IDLE_S", 3.0)
        await self.in_thread(lambda: self.honest_answer_s(LARGE))
        renters = [await self.in_thread(lambda: self.call().__enter__()) for _ in range(8)]
        for renter in renters:
            renter.tell(Retrieve(shard_of(LARGE), 0, TO_THE_END, False))
        await self.until(lambda: sum(s._outbox.full for s in self.service.sessions) == 8)

        held = [self.held_bytes(session) for session in self.service.sessions]
        neighbour_s = await self.in_thread(self.honest_answer_s)

        self.assertLess(max(held), HELD_BYTES_MAX)
        self.assertLess(neighbour_s, SLACK_S)
        await self.until(lambda: self.meter.closed.count(CloseReason.SLOW.value) == 8, 40)
        for renter in renters:
            renter.socket.close()

    async def test_the_kernel_keeps_little_for_who_never_reads(self) -> None:
        """Limit: UNSENT_BYTES, beside what the peer's own kernel takes."""
        await self.in_thread(lambda: self.honest_answer_s(LARGE))
        renter = await self.in_thread(lambda: self.call().__enter__())
        renter.tell(Retrieve(shard_of(LARGE), 0, TO_THE_END, False))
        await self.until(lambda: sum(s._outbox.full for s in self.service.sessions) == 1)

        (session,) = self.service.sessions
        wire: Any = session.transport
        queued = array("i", [0])
        fcntl.ioctl(wire.transport.getHandle(), termios.TIOCOUTQ, queued)

        self.assertLess(queued[0], 2 * UNSENT_BYTES)
        renter.socket.close()

    async def test_endless_requests_without_reading_are_not_served_into_memory(self) -> None:
        """Limit: STRANGER_AHEAD_BYTES unread, the wire's 64 KiB unsent."""

        def flood(renter: Renter) -> int:
            ping, sent = encode(List(ShardId(bytes(32)), 1000)) * 100, 0
            renter.socket.settimeout(0.5)
            with contextlib.suppress(OSError):
                while sent < 64 * MIB:
                    renter.socket.sendall(ping)
                    sent += len(ping)
            return sent

        renter = await self.in_thread(lambda: self.call().__enter__())
        sent = await self.in_thread(lambda: flood(renter))
        neighbour_s = await self.in_thread(self.honest_answer_s)

        self.assertLess(sent, 32 * MIB)
        held = [self.held_bytes(session) for session in self.service.sessions]
        self.assertLess(max(held, default=0), HELD_BYTES_MAX)
        self.assertLess(neighbour_s, SLACK_S)
        renter.socket.close()

    @pytest.mark.slow
    async def test_what_follows_a_refusal_ends(self) -> None:
        """Limit: DISCARD_S, whatever is sent meanwhile."""

        def talk() -> float:
            with self.call() as renter:
                renter.begin(bytes(1000))
                began_s = time.monotonic()
                renter.socket.sendall(renter.connection.send_data(bytes(2000)))
                assert isinstance(renter.hear(), Refuse)
                with contextlib.suppress(OSError):
                    while time.monotonic() - began_s < 30:
                        renter.socket.sendall(b"\4\0\0\1x")
                        time.sleep(0.05)
                return time.monotonic() - began_s

        self.assertLess(await self.in_thread(talk), 6 + SLACK_S)
        await self.assert_closed(CloseReason.SLOW)

    async def test_proofs_that_nobody_reads_hold_nobody_up(self) -> None:
        """Limit: PROOF_BYTES_IN_FLIGHT_MAX, only while a proof is made."""
        await self.in_thread(lambda: self.honest_answer_s(LARGE))
        entry = AuditEntry(shard_of(LARGE), len(LARGE), 1024)
        asked = Audit(Challenge(bytes(32), AuditKind.SAMPLE, (entry,)))
        renters = [await self.in_thread(lambda: self.call().__enter__()) for _ in range(6)]
        for renter in renters:
            renter.tell(asked)
        await self.until(lambda: sum(s._outbox.full for s in self.service.sessions) == 6)

        self.assertEqual(0, self.farm.proofs.inside_bytes)
        held = [self.held_bytes(session) for session in self.service.sessions]
        self.assertLess(max(held), HELD_BYTES_MAX)

        def audited() -> int:
            with self.call() as honest:
                honest.tell(asked)
                size = 0
                while isinstance(event := honest.hear(), DataReceived):
                    size += len(event.data)
                return size

        self.assertGreater(await self.in_thread(audited), 4 * MIB)
        for renter in renters:
            renter.socket.close()
