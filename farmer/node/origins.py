"""Where connections come from: addresses, and the networks around them that one may own."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPV6LENGTH, IPv6Address, ip_address
from typing import Final

HOUSEHOLD_BITS: Final = 64
"""Of an IPv6 address, what its household shares at least."""

WIDER_BITS: Final = (48, 56)
"""
Networks that one household may have as well, or a hundred of a provider: it is not to be seen.

So a /64 is one address, and these are only kept from taking all places.
"""

_KEPT: Final = 1024


@lru_cache(maxsize=_KEPT)
def origin(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return _network(int(address), HOUSEHOLD_BITS)


@lru_cache(maxsize=_KEPT)
def networks(address: str) -> tuple[str, ...]:
    """Return the networks that an `origin` is in, the widest first, and last itself."""
    try:
        number = int(IPv6Address(address.removesuffix(f"/{HOUSEHOLD_BITS}")))
    except ValueError:
        return (address,)
    return (*(_network(number, bits) for bits in WIDER_BITS), address)


def widest(address: str) -> str:
    """Return the widest network that an `origin` is in; itself, if it is of IPv4."""
    return networks(address)[0]


def _network(address: int, bits: int) -> str:
    # A third of the time that `IPv6Network` takes, at each accept of a flood.
    free = IPV6LENGTH - bits
    return f"{IPv6Address(address >> free << free)}/{bits}"
