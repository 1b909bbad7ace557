"""Where a farmer is reached: one grammar for what owners announce and invites carry."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

ADDRESSES_MAX: Final = 8
"""Of one farmer: some ways into one house.  Who does not answer at one costs a renter seconds."""

_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[([0-9A-Fa-f:.]{2,45})\]):([0-9]{1,5})")
"""A host name or IPv4 address, or an IPv6 address in brackets, and a port."""


def is_address(text: str) -> bool:
    """Say whether a text is `host:port`, as ASCII, with a port that can be called."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match[2]) <= 65_535:
        return False
    try:
        return match[1] is None or bool(IPv6Address(match[1]))
    except ValueError:
        return False
