"""Why an address cannot be listened on, for a person."""

from __future__ import annotations

import errno
import socket
from typing import Final

_WORDS: Final = {
    errno.EADDRINUSE: "another program is using it",
    errno.EACCES: "this user may not: ports below 1024 are for root, or need CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


def why_not(error: object) -> str:
    """Return what stands in the way; *error* is what the system or Twisted says."""
    if isinstance(error, socket.gaierror):
        return f"that name has no address here ({error.strerror})"
    if isinstance(error, OSError):
        return _WORDS.get(error.errno or 0) or error.strerror or str(error)
    return str(error)
