"""One socket for IPv6 and IPv4, whatever the system's default is."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory
from twisted.internet.testing import MemoryReactor

from farmer.running.addresses import absent, has_ipv6
from farmer.running.every_address import EveryAddress, bound
from tests.needs import on_linux

pytestmark = pytest.mark.needs(has_ipv6(), "IPv6")


class SixAlone(socket.socket):
    """As each is where net.ipv6.bindv6only is set."""

    def __init__(self, *kind: Any, **more: Any) -> None:
        super().__init__(*kind, **more)
        self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)


def test_it_takes_ipv4_where_the_system_would_not() -> None:
    with bound(0, 5, only_6=False, wire_of=SixAlone) as wire:
        port = wire.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), 5).close()


def test_ipv4_is_left_to_who_listens_there_on_the_same_port() -> None:
    with bound(0, 5, only_6=True) as wire, socket.socket() as other:
        other.bind(("0.0.0.0", wire.getsockname()[1]))
        other.listen()


class Reactor(MemoryReactor):
    """Takes over what listens, and says of it whether it leaves IPv4 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.only_6: list[int] = []

    def adoptStreamPort(self, fd: int, family: int, factory: Any) -> Any:  # noqa: N802  # Twisted's name
        with socket.socket(family, socket.SOCK_STREAM, fileno=socket.dup(fd)) as wire:
            self.only_6.append(wire.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        return super().adoptStreamPort(fd, family, factory)


@pytest.mark.parametrize(
    ("others", "only_6"),
    [([], 0), ([("192.0.2.1", 1)], 0), ([("::1", 0)], 0), ([("0.0.0.0", 0)], 1)],
)
def test_the_reactor_takes_it_over(others: list[tuple[str, int]], only_6: int) -> None:
    reactor = Reactor()
    tcp = EveryAddress(reactor, [("::", 0), *others])
    tcp.listenTCP(0, ServerFactory(), 5, "::")
    assert reactor.only_6 == [only_6]
    assert reactor.tcpServers == []


def test_every_other_address_is_the_reactors_own() -> None:
    reactor, factory = Reactor(), ServerFactory()
    EveryAddress(reactor, [("127.0.0.1", 7)]).listenTCP(7, factory, 5, "127.0.0.1")
    assert reactor.tcpServers == [(7, factory, 5, "127.0.0.1")]


def test_a_port_that_is_taken_is_told_as_the_reactor_tells_it() -> None:
    with bound(0, 5, only_6=False) as wire:
        port = wire.getsockname()[1]
        with pytest.raises(CannotListenError) as refused:
            EveryAddress(Reactor(), []).listenTCP(port, ServerFactory(), 5, "::")
    assert refused.value.socketError.errno == errno.EADDRINUSE


class Refusing(MemoryReactor):
    """Listens nowhere by itself, and says why."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def listenTCP(self, port: int, *what: Any, **more: Any) -> Any:  # noqa: N802  # Twisted's name
        raise CannotListenError("", port, OSError(self.number, "no"))  # type: ignore[no-untyped-call]  # untyped there


@on_linux
def test_an_address_that_this_machine_does_not_have_yet_is_listened_on() -> None:
    reactor = Refusing(errno.EADDRNOTAVAIL)
    tcp = EveryAddress(reactor, [("192.0.2.1", 0)])
    tcp.listenTCP(0, ServerFactory(), 5, "192.0.2.1")
    assert len(reactor.adoptedPorts) == 1


@pytest.mark.parametrize(
    ("host", "number"), [("192.0.2.1", errno.EADDRINUSE), ("a.name", errno.EADDRNOTAVAIL)]
)
def test_what_is_wrong_with_an_address_for_good_is_told(host: str, number: int) -> None:
    tcp = EveryAddress(Refusing(number), [(host, 0)])
    with pytest.raises(CannotListenError):
        tcp.listenTCP(0, ServerFactory(), 5, host)


def test_an_address_that_is_not_there_is_told() -> None:
    found = absent(["127.0.0.1:1", "[::]:2", "192.0.2.1:3", "a.name:4", "[2001:db8::1]:5"])
    assert [alert.about for alert in found] == ["192.0.2.1:3", "[2001:db8::1]:5"]
    assert found[0].message.startswith("192.0.2.1, which listen.shards names, is no address")
