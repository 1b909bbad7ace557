"""A real farmer whose addresses come later than it does, as those of Wi-Fi or a VPN."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.needs import as_root, on_linux
from tests.waiting import wait_until

pytestmark = [on_linux, as_root, pytest.mark.tool("ip")]

ADDRESSES = [("198.51.100.77", "198.51.100.77"), ("fd00:6661::77", "[fd00:6661::77]")]
"""For documentation (RFC 5737), and a private one: nobody has them."""


@contextmanager
def on_this_machine(address: str) -> Iterator[None]:
    whole = f"{address}/{128 if ':' in address else 32}"
    more = ("nodad",) if ":" in address else ()
    subprocess.run(["ip", "address", "add", whole, "dev", "lo", *more], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "address", "del", whole, "dev", "lo"], check=True)


@pytest.mark.parametrize(("address", "shown"), ADDRESSES)
def test_an_address_that_comes_later_is_served_then_and_told_until_then(
    tmp_path: Path, address: str, shown: str
) -> None:
    farmer = Daemon(tmp_path / "home", tmp_path / "volume", with_init=False)
    words = ("init", "--yes", "--volume", f"{farmer.volume}=100MB")
    made = farmer.call(*words, "--listen", f"{shown}:0", "--page", f"{shown}:0")
    assert made.returncode == 0, made.stderr
    with farmer.start():
        wait_until(lambda: len(farmer.status()["alerts"]) == 2)
        status = farmer.status()
        assert {alert["name"] for alert in status["alerts"]} == {"AddressMissing"}
        assert [address in alert["message"] for alert in status["alerts"]] == [True, True]
        page = status["page"].rpartition(":")[2].strip("/")
        with on_this_machine(address):
            for port in (status["listen"][0].rpartition(":")[2], page):
                socket.create_connection((address, int(port)), 5).close()
            wait_until(lambda: farmer.status()["alerts"] == [])
        wait_until(lambda: len(farmer.status()["alerts"]) == 2)
