"""
Two machines on one cable, made of network namespaces: a farmer's, and the rest of the world's.

The world owns all of `WORLD`: any address of it can be called from (a local route, so that no
address has to be configured).  Nothing outside of the two namespaces is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.needs import lack

FARMER, NEIGHBOUR = "2001:db8:a::1", "2001:db8:a::2"
WORLD = "2001:db8:8000::/33"


@dataclass(frozen=True)
class Cable:
    """The two ends, as prefixes of a command that is to run there."""

    farmer: tuple[str, ...]
    world: tuple[str, ...]


def missing() -> str:
    """Return what is missing for namespaces here, or nothing."""
    if os.geteuid() != 0:
        return "to be root"
    if shutil.which("ip") is None:
        return "the program 'ip' (iproute2)"
    if not Path("/proc/net/if_inet6").exists():
        return "a kernel with IPv6"
    return ""


@contextmanager
def cable() -> Iterator[Cable]:
    """Make both ends; skips the test where that cannot be, but never in CI."""
    if what := missing():
        lack(what)
    farmer, world = (f"farmer-{os.getpid()}-{end}" for end in ("home", "world"))
    made = []
    try:
        for name in (farmer, world):
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip(
            *("link", "add", "cable", "netns", farmer, "type", "veth"),
            *("peer", "name", "cable", "netns", world),
        )
        for name, address in ((farmer, FARMER), (world, NEIGHBOUR)):
            _ip("-n", name, "address", "add", f"{address}/64", "dev", "cable", "nodad")
            _ip("-n", name, "link", "set", "cable", "up")
        _ip("-n", farmer, "route", "add", WORLD, "via", NEIGHBOUR)
        _ip("-n", world, "route", "add", "local", WORLD, "dev", "lo")
        foreign = "echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind"
        _ip("netns", "exec", world, "sh", "-c", foreign)
        yield Cable(*(("ip", "netns", "exec", name) for name in (farmer, world)))
    finally:
        for name in made:
            _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    ended = subprocess.run(["ip", *words], check=False, capture_output=True, text=True, timeout=20)
    if ended.returncode:
        sys.stderr.write(ended.stderr)
        ended.check_returncode()
