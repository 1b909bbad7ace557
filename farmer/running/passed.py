"""
Sockets that the service manager opened for us (sd_listen_fds(3)), and a reactor's side of them.

So a farmer may run without any network of its own: systemd binds the ports, and the unit
forbids the process to open, or to connect, any other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from farmer.node.service import ListenError

FIRST: Final = 3
"""The first passed descriptor; they are numbered without a gap."""

_MOST: Final = 64


class PassedSockets:
    """
    Listening sockets by role, `shards` or `page`; has `listenTCP` as a reactor has.

    A socket is taken over once, by the address that it listens on.
    """

    def __init__(self, reactor: Any, by_role: Mapping[str, list[socket.socket]]) -> None:  # noqa: ANN401  # many interfaces at once
        self._reactor = reactor
        self._by_role = by_role

    def addresses(self, role: str) -> list[tuple[str, int]]:
        """Return where the sockets of a role listen; empty if none was passed."""
        return [_address(one) for one in self._by_role.get(role, [])]

    def listenTCP(  # noqa: N802  # Twisted's name
        self, port: int, factory: IProtocolFactory, backlog: int, interface: str
    ) -> IListeningPort:
        """Serve on the passed socket of this address; how long its queue is was decided."""
        del backlog
        for sockets in self._by_role.values():
            for one in sockets:
                if _address(one) == (interface, port):
                    adopted: IListeningPort = self._reactor.adoptStreamPort(
                        one.fileno(), one.family, factory
                    )
                    # The reactor has a copy of the descriptor.
                    sockets.remove(one)
                    one.close()
                    return adopted
        raise AssertionError(f"no socket for {interface} {port}")


def take(environ: Mapping[str, str], pid: int, reactor: Any) -> PassedSockets:  # noqa: ANN401  # see above
    """
    Return what was passed to this process; nothing, if it was meant for another.

    Names come from `FileDescriptorName=`; a single socket without one is for renters.

    Raises:
        ListenError: what was passed cannot be served on, or is for nothing that we know.

    """
    by_role: dict[str, list[socket.socket]] = {}
    if environ.get("LISTEN_PID") != str(pid):
        return PassedSockets(reactor, by_role)
    count = environ.get("LISTEN_FDS", "")
    if not count.isdecimal() or int(count) > _MOST:
        raise ListenError(f"LISTEN_FDS={count}: not a number of sockets")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for at in range(int(count)):
        name = names[at] if at < len(names) else ""
        role = "shards" if int(count) == 1 and name in {"", "unknown"} else name
        role = "shards" if role == "farmer.socket" else role
        if role not in {"shards", "page"}:
            raise ListenError(
                f'a socket called "{name}" was passed; write FileDescriptorName=shards, or =page,'
                " into its .socket unit"
            )
        by_role.setdefault(role, []).append(_adopt(FIRST + at))
    return PassedSockets(reactor, by_role)


def _adopt(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    try:
        one = socket.socket(fileno=fd)
        listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ListenError(f"descriptor {fd}, passed to us, is no socket: {error}") from error
    if not listens or one.family not in {socket.AF_INET, socket.AF_INET6}:
        raise ListenError(f"descriptor {fd}, passed to us, does not listen for TCP")
    one.setblocking(False)
    return one


def _address(one: socket.socket) -> tuple[str, int]:
    host, port = one.getsockname()[:2]
    return host, port
