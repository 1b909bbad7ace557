"""
The address of every address, `::`: IPv4 too, whatever the system's default is.

Where net.ipv6.bindv6only is set a socket on it takes no IPv4, which invites would name all the
same.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

EVERY_4: Final = "0.0.0.0"  # noqa: S104  # told apart from others
EVERY_6: Final = "::"


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
        listening: IListeningPort
        if interface != EVERY_6:
            listening = self._reactor.listenTCP(port, factory, backlog, interface)
            return listening
        try:
            # IPv4 on this port is for those who were told to listen there.
            with bound(port, backlog, only_6=port in self._ports_4) as wire:
                # The reactor has a copy of the descriptor.
                listening = self._reactor.adoptStreamPort(wire.fileno(), wire.family, factory)
                return listening
        except OSError as error:
            raise CannotListenError(interface, port, error) from error  # type: ignore[no-untyped-call]  # untyped there


def bound(
    port: int, backlog: int, *, only_6: bool, wire_of: type[socket.socket] = socket.socket
) -> socket.socket:
    """Return a socket that listens on every address; raises `OSError`."""
    wire = wire_of(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_6)
        # As the reactor does: the port is ours again at once after a restart.
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
        wire.setblocking(False)
        wire.bind((EVERY_6, port))
        wire.listen(backlog)
    except BaseException:
        wire.close()
        raise
    return wire
