"""
Listening where the reactor does not: on every address, and on one that is not there yet.

Every address, `::`, is IPv4 too, whatever the system's default is: where net.ipv6.bindv6only is
set a socket on it takes no IPv4, which invites would name all the same.

An address of Wi-Fi, a VPN or a router that starts more slowly than the farmer is listened on
before it is there (IP_FREEBIND): from then on the kernel serves it by itself.  `absent` of
`farmer.running.addresses` tells of it meanwhile.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

EVERY_4: Final = "0.0.0.0"  # noqa: S104  # told apart from others
EVERY_6: Final = "::"

_FREEBIND_4: Final = (socket.IPPROTO_IP, 15)
_FREEBIND_6: Final = (socket.IPPROTO_IPV6, 78)
"""IP_FREEBIND and IPV6_FREEBIND as Linux numbers them."""


class EveryAddress:
    """Has `listenTCP` as a reactor has."""

    def __init__(self, reactor: Any, where: Iterable[tuple[str, int]]) -> None:  # noqa: ANN401  # many interfaces at once
        """*where* are all hosts and ports that will be asked for."""
        self._reactor = reactor
        self._ports_4 = {port for host, port in where if ":" not in host}

    def listenTCP(  # noqa: N802  # Twisted's name
        self, port: int, factory: IProtocolFactory, backlog: int, interface: str
    ) -> IListeningPort:
        """Listen; raises `CannotListenError`."""
        try:
            if interface == EVERY_6:
                # IPv4 on this port is for those who were told to listen there.
                return self._adopted(bound(port, backlog, only_6=port in self._ports_4), factory)
            return self._on_one(port, factory, backlog, interface)
        except OSError as error:
            raise CannotListenError(interface, port, error) from error  # type: ignore[no-untyped-call]  # untyped there

    def _on_one(
        self, port: int, factory: IProtocolFactory, backlog: int, interface: str
    ) -> IListeningPort:
        listening: IListeningPort
        try:
            listening = self._reactor.listenTCP(port, factory, backlog, interface)
        except CannotListenError as error:
            if not may_come(interface, error.socketError):
                raise
            listening = self._adopted(bound_early(interface, port, backlog), factory)
        return listening

    def _adopted(self, wire: socket.socket, factory: IProtocolFactory) -> IListeningPort:
        with wire:
            # The reactor has a copy of the descriptor.
            port: IListeningPort
            port = self._reactor.adoptStreamPort(wire.fileno(), wire.family, factory)
            return port


def bound(
    port: int, backlog: int, *, only_6: bool, wire_of: type[socket.socket] = socket.socket
) -> socket.socket:
    """Return a socket that listens on every address; raises `OSError`."""
    wire = wire_of(socket.AF_INET6, socket.SOCK_STREAM)
    option = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return _listening(wire, (EVERY_6, port), backlog, option, is_set=only_6)


def bound_early(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens on an address that may come later; raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wire = socket.socket(family, socket.SOCK_STREAM)
    return _listening(wire, (host, port), backlog, freebind(host))


def freebind(host: str) -> tuple[int, int]:
    """Return the option, level and name, by which an address need not be there yet."""
    return _FREEBIND_6 if ":" in host else _FREEBIND_4


def _listening(
    wire: socket.socket,
    where: tuple[str, int],
    backlog: int,
    option: tuple[int, int],
    *,
    is_set: bool = True,
) -> socket.socket:
    try:
        wire.setsockopt(*option, is_set)
        # As the reactor does: the port is ours again at once after a restart.
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        wire.setblocking(False)
        wire.bind(where)
        wire.listen(backlog)
    except BaseException:
        wire.close()
        raise
    return wire


def may_come(host: str, error: object) -> bool:
    """Say whether all that is wrong with an address is that this machine does not have it."""
    if sys.platform != "linux":
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL
