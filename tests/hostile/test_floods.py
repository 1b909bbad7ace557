"""Floods of connections from many addresses, networks and keys; renters get in all the same."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from twisted.internet.task import deferLater

from farmer.model.ids import NodeId
from farmer.node.accepting import ACCEPTS_PER_TURN
from farmer.node.admission import NETWORK_PARTS, Places, Sessions, Welcomed
from farmer.node.origins import origin
from farmer.node.ports import CloseReason
from farmer.protocol.limits import SESSIONS_MAX, SESSIONS_PER_ADDRESS_MAX
from farmer.protocol.opening import Hello
from farmer.protocol.questions import Ping, Pong
from farmer.protocol.refusals import Refusal
from tests.hostile.base import HostileCase, Renter, reactor

FLOOD_S = 40.0
"""It takes a second; where none may wait to be accepted, each connection takes as long."""


class Flood:
    """Sockets that are to be closed together."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def close(self) -> None:
        for one in self.sockets:
            one.close()


class FloodTests(HostileCase):
    places = Places(most=64, per_address=8, per_renter=8)

    def flood(self, addresses: int, each: int) -> Flood:
        """Connect from many addresses and say nothing."""
        flood, end_s = Flood(), time.monotonic() + FLOOD_S
        for n in range(addresses):
            for _ in range(each):
                assert time.monotonic() < end_s, "the kernel lets them wait to be accepted"
                with contextlib.suppress(OSError):
                    flood.sockets.append(self.dial(f"127.9.{n // 250}.{n % 250 + 1}"))
        return flood

    async def test_connections_from_many_addresses_never_exceed_the_places(self) -> None:
        """Limit: SESSIONS_MAX (here 64); a newcomer puts a stranger out, not a renter."""
        with await self.in_thread(lambda: self.call().__enter__()) as renter:
            flood = await self.in_thread(lambda: self.flood(100, 4))
            self.addCleanup(flood.close)
            self.assertLessEqual(len(self.service.sessions), 64)

            await self.serve_honest()

            pong = await self.in_thread(lambda: renter.ask(Ping(7), Pong))
            self.assertEqual(7, pong.token)
        self.assertIn(CloseReason.SHED.value, self.meter.closed)

    async def test_a_flood_is_accepted_a_few_at_a_time(self) -> None:
        """Limit: ACCEPTS_PER_TURN; who is being served has a turn between them."""
        flood = Flood()
        self.addCleanup(flood.close)
        for part in range(2):
            # The reactor waits for this thread, so all of them come at once.
            for n in range(48):
                flood.sockets.append(self.dial(f"127.9.{n // 8}.{part + 1}"))
            accepted = []
            while sum(accepted) < 48 and len(accepted) < 1000:
                before = self.meter.opened
                await deferLater(reactor, 0, lambda: None)
                accepted.append(self.meter.opened - before)
            self.assertLessEqual(max(accepted), ACCEPTS_PER_TURN)

    async def test_one_address_gets_its_share(self) -> None:
        """Limit: SESSIONS_PER_ADDRESS_MAX (here 8)."""
        flood = await self.in_thread(lambda: self.flood(1, 30))
        self.addCleanup(flood.close)
        await self.until(lambda: self.meter.refusals.count("TOO_MANY_SESSIONS") >= 22)

        self.assertLessEqual(len(self.service.sessions), 8)

    async def test_one_key_from_many_addresses_gets_its_share(self) -> None:
        """Limit: SESSIONS_PER_RENTER_MAX (here 8)."""
        self.join("greedy")

        def talk() -> tuple[list[Renter], list[Any]]:
            renters, words = [], []
            for n in range(12):
                renter = self.call("greedy", f"127.8.0.{n + 1}")
                renter.tell(Hello(1, 1, "greedy"))
                words.append(renter.hear())
                renters.append(renter)
            return renters, words

        renters, words = await self.in_thread(talk)

        refused = [one.refused.refusal for one in words if hasattr(one, "refused")]
        self.assertEqual([Refusal.TOO_MANY_SESSIONS] * 4, refused)
        await self.serve_honest()
        for renter in renters:
            renter.socket.close()

    async def test_many_keys_make_room_for_another_renter(self) -> None:
        """The idlest session of whoever has most goes; strangers' places stay strangers'."""
        names = [f"renter{n}" for n in range(8)]
        for name in names:
            self.join(name)

        def talk() -> list[Renter]:
            renters = []
            for n, name in enumerate(names):
                for _ in range(8):
                    renters.append(self.call(name, f"127.7.0.{n + 1}"))
                    with contextlib.suppress(ConnectionError, AssertionError):
                        renters[-1].hello()
            return renters

        renters = await self.in_thread(talk)
        known = [session for session in self.service.sessions if session.known]
        self.assertLessEqual(len(known), self.places.for_renters)

        await self.serve_honest()
        self.assertIn(CloseReason.SHED.value, self.meter.closed)
        for renter in renters:
            renter.socket.close()

    async def test_after_the_flood_nothing_is_left(self) -> None:
        flood = await self.in_thread(lambda: self.flood(60, 2))
        flood.close()

        await self.until(lambda: not len(self.service.sessions))

        self.assertEqual(0, self.service.sessions.busy)


class Passer:
    """All that admission asks of a session."""

    def __init__(self, address: str, *, known: bool = False) -> None:
        self.address, self.known = address, known


def enter(sessions: Sessions, address: str) -> Any:
    decision = sessions.decide(address)
    if not isinstance(decision, Welcomed):
        return decision
    if decision.instead is not None:
        sessions.leave(decision.instead)
    passer: Any = Passer(address)
    sessions.enter(passer)
    return passer


def with_renters() -> tuple[Sessions, set[Any]]:
    """Return a farmer's sessions, and 200 renters who have places."""
    sessions = Sessions()
    renters = []
    for n in range(200):
        renters.append(enter(sessions, origin(f"2001:db8:{n:x}::1")))
        renters[-1].known = True
        key = NodeId(n.to_bytes(32, "big"))
        assert isinstance(sessions.introduce(renters[-1], key, known=True), Welcomed)

    return sessions, set(renters)


def test_thousands_of_networks_put_out_no_renter() -> None:
    """Whoever owns a /32 has as many /48; renters keep their places."""
    sessions, renters = with_renters()

    for n in range(20_000):
        enter(sessions, origin(f"2001:db9:{n:x}::1"))

    assert len(sessions) == SESSIONS_MAX
    assert renters <= set(sessions)


def test_a_whole_ipv6_network_of_a_provider_leaves_room_for_others() -> None:
    """A /48 has 65,536 networks of a household each, a /56 has 256."""
    for networks, part in ((65_536, NETWORK_PARTS[0]), (256, NETWORK_PARTS[1])):
        sessions, renters = with_renters()
        neighbour = enter(sessions, origin("2001:db8:fffe::1"))

        for n in range(20_000):
            enter(sessions, origin(f"2001:db8:ffff:{n % networks:x}::{n:x}"))

        assert len(sessions) == len(renters) + 1 + SESSIONS_MAX // part
        assert renters | {neighbour} <= set(sessions)


def test_the_networks_of_one_provider_are_put_out_before_others() -> None:
    """Who comes when all is full does not take the place of a stranger who is alone."""
    sessions, _ = with_renters()
    alone = [enter(sessions, origin(f"2001:db8:fffe:{n:x}::1")) for n in range(2)]
    for n in range(400):
        enter(sessions, origin(f"2001:db8:{0xF000 + n % 2:x}:{n:x}::1"))
    assert len(sessions) == SESSIONS_MAX

    for n in range(100):
        enter(sessions, origin(f"2001:db9:{n:x}::1"))
        enter(sessions, origin(f"2001:db8:f000:{n:x}::1"))

    assert set(alone) <= set(sessions)


def test_one_ipv6_household_is_one_address_however_many_it_uses() -> None:
    sessions = Sessions()
    let_in = [enter(sessions, origin(f"2001:db8:1:2::{n:x}")) for n in range(1000)]

    assert sum(isinstance(one, Passer) for one in let_in) == SESSIONS_PER_ADDRESS_MAX
    assert len(sessions) == SESSIONS_PER_ADDRESS_MAX
