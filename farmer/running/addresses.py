"""Which addresses an invite names: what the owner announces, else what we really listen on."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from farmer.model.addresses import ADDRESSES_MAX
from farmer.model.status import Alert
from farmer.settings.kinds import join_address, split_address

_V4_PROBE: Final = ("192.0.2.1", 9)
_V6_PROBE: Final = ("2001:db8::1", 9)
"""Documentation addresses (RFC 5737, RFC 3849): asked for the way there, never sent to."""

_ADDRESS_PREFERENCES: Final = 72
_PREFER_PUBLIC: Final = 2
"""IPV6_ADDR_PREFERENCES and IPV6_PREFER_SRC_PUBLIC (RFC 5014) as Linux numbers them."""


class NoAddressError(Exception):
    """There is nothing that an invite could name."""


def announced(
    announce: Iterable[str], listening: Iterable[str], local: Callable[[], list[str]]
) -> tuple[str, ...]:
    """
    Return the addresses for invites: never 0.0.0.0, never port 0, no more than one can carry.

    *listening* is where the farmer listens; every-address ones are replaced by what *local*
    returns, this machine's own addresses.

    Raises:
        NoAddressError: nothing announced, and the port is not known yet, or this machine has no
            address of its own.

    """
    chosen = tuple(announce)
    if chosen:
        return chosen
    known = [(host, port) for host, port in map(split_address, listening) if port]
    if not known:
        raise NoAddressError(
            "an invite names the farmer's address, which is not known yet: start the farmer, or "
            "set announce: in the settings"
        )
    found = [join_address(one, port) for host, port in known for one in _hosts(host, local)]
    if not found:
        raise NoAddressError(
            "an invite names the farmer's address, and the farmer sees none of this machine that "
            "others can call (there is no network, or its service may not see it): set announce: "
            "in the settings; or, only to try it on this machine, start the farmer with "
            f"FARMER_ANNOUNCE=127.0.0.1:{known[0][1]}"
        )
    return tuple(dict.fromkeys(found))[:ADDRESSES_MAX]


def _hosts(host: str, local: Callable[[], list[str]]) -> list[str]:
    if host not in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        return [host]
    return [one for one in local() if host == "::" or ":" not in one]


def local_addresses(wire_of: Callable[[int, int], socket.socket] = socket.socket) -> list[str]:
    """Return the addresses from which this machine would call the world, IPv4 first."""
    found = []
    for family, probe in ((socket.AF_INET, _V4_PROBE), (socket.AF_INET6, _V6_PROBE)):
        try:
            with wire_of(family, socket.SOCK_DGRAM) as wire:
                if family == socket.AF_INET6:
                    _prefer_lasting(wire)
                wire.connect(probe)
                address = str(wire.getsockname()[0])
        except OSError:
            continue
        if not ipaddress.ip_address(address).is_link_local:
            found.append(address)
    return found


def _prefer_lasting(wire: socket.socket) -> None:
    """Ask for no temporary address (RFC 8981): it is gone in a week, an invite lasts longer."""
    if sys.platform == "linux":
        with suppress(OSError):
            wire.setsockopt(socket.IPPROTO_IPV6, _ADDRESS_PREFERENCES, _PREFER_PUBLIC)


def absent(addresses: Iterable[str], names: str = "listen.shards") -> list[Alert]:
    """Return an alert for each address, of those that a setting *names*, that is not there."""
    return [
        Alert(
            name="AddressMissing",
            since_ms=0,
            message=f"{host}, which {names} names, is no address of this machine now, so nobody "
            "reaches the farmer there. When it comes (by Wi-Fi, a VPN, DHCP), it is served at "
            "once; if it is a slip, or the machine has got another one, mend the settings and "
            "restart",
            command="ip address",
            about=address,
        )
        for address in addresses
        if _is_absent(host := split_address(address)[0])
    ]


def _is_absent(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ipaddress.ip_address(host)
        with socket.socket(family, socket.SOCK_DGRAM) as wire:
            wire.bind((host, 0))
    except ValueError:
        return False
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL
    return False


def has_ipv6() -> bool:
    """Tell whether this machine can listen on IPv6 at all."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as wire:
            wire.bind(("::", 0))
    except OSError:
        return False
    return True
