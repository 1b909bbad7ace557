"""Why a farmer was not reached, for people: each address with its reason, and what can be done."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from twisted.internet import error as net

from farmer.client.errors import ConnectionLostError, FarmerTooSlowError

_ADVICE: Final = (
    "is this machine on line, and does the farmer run? If it has moved, a new invite of its "
    "owner's says where (renter join)"
)

_NO_WAY: Final = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


def unreached(why: Sequence[tuple[str, str]]) -> str:
    """Return the words for addresses and why each was not reached."""
    if not why:
        return "the farmer has no address"
    places = ", ".join(f"{address} ({reason})" for address, reason in why)
    return f"cannot reach the farmer at {places}: {_ADVICE}"


def why_no_connection(error: Exception) -> str:
    """Return why an address took no connection; resolvers and endpoints raise much."""
    match error:
        case net.ConnectionRefusedError():
            return "nothing listens there"
        case net.DNSLookupError() | net.UnknownHostError():
            return "this machine finds no such name"
        case net.TimeoutError() | net.TCPTimedOutError():
            return "no answer"
        case net.ConnectError() if error.osError in _NO_WAY:
            return "no way leads there from here"
        case _:
            return str(error).rstrip(".")


def why_no_session(error: ConnectionLostError, *, is_secured: bool) -> str:
    """Return why nothing came of a connection."""
    if isinstance(error, FarmerTooSlowError) and not is_secured:
        return "who answers does not speak as a farmer: is it the port for shards?"
    return str(error)
