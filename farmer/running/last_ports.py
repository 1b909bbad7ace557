"""
Port 0 means any port, but the same one after a restart, if it is still free.

Renters keep the address that their invite named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from farmer.running.files import has_room, read_json, write_json
from farmer.running.home import Home
from farmer.settings.kinds import split_address

PORTS_FILE: Final = "ports.json"
SHARDS: Final = "shards"
PAGE: Final = "page"


def with_last_ports(home: Home, role: str, asked: Sequence[str]) -> list[str]:
    """Return the addresses of the settings with the last run's port in place of each 0."""
    last = _last(home, role)
    got = last.get("got")
    if last.get("asked") != list(asked) or not isinstance(got, list) or len(got) != len(asked):
        return list(asked)
    return [then if _is_any(now) else now for now, then in zip(asked, got, strict=True)]


def remember_ports(home: Home, role: str, asked: Sequence[str], got: Sequence[str]) -> None:
    """Keep, for the next run, where we listen for what the settings asked, if there is room."""
    row = {"asked": list(asked), "got": list(got)}
    if any(map(_is_any, asked)) and row != _last(home, role):
        has_room(lambda: write_json(home.state / PORTS_FILE, _all(home) | {role: row}))


def _is_any(address: str) -> bool:
    return split_address(address)[1] == 0


def _all(home: Home) -> dict[str, Any]:
    return read_json(home.state / PORTS_FILE) or {}


def _last(home: Home, role: str) -> dict[str, Any]:
    row = _all(home).get(role)
    return row if isinstance(row, dict) else {}
