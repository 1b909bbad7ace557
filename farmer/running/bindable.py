"""Whether a farmer could listen on an address, tried without listening."""

from __future__ import annotations

import errno
import socket

from farmer.node.listen_errors import why_not
from farmer.running.every_address import freebind, may_come
from farmer.settings.kinds import split_address


def doubt_about(address: str) -> str:
    """Return what to know before a farmer is to listen on `host:port`; empty for nothing."""
    host, port = split_address(address)
    try:
        _try(host, port)
    except OSError as error:
        if not may_come(host, error):
            return _cannot(address, error)
    else:
        return ""
    try:
        _try(host, port, freebind(host))
    except OSError as error:
        return _cannot(address, error)
    return f"{host} is no address of this machine now; it is served when it comes"


def _try(host: str, port: int, option: tuple[int, int] | None = None) -> None:
    family, kind, protocol, _, where = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if option is not None:
            trial.setsockopt(*option, 1)
        trial.bind(where)


def _cannot(address: str, error: OSError) -> str:
    if error.errno == errno.EAFNOSUPPORT:
        # Where there is no IPv6, the other one is taken instead.
        return ""
    return f"the farmer could not listen on {address} now: {why_not(error)}"
