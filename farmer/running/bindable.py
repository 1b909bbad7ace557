"""Whether a farmer could listen on an address, tried without listening."""

from __future__ import annotations

import errno
import socket

from farmer.node.listen_errors import why_not
from farmer.settings.kinds import split_address


def why_not_bindable(address: str) -> str:
    """Return why nobody can listen on `host:port` now; empty if somebody can."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(where)
    except OSError as error:
        # Where there is no IPv6, the other one is taken instead.
        return "" if error.errno == errno.EAFNOSUPPORT else why_not(error)
    return ""
