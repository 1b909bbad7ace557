"""
A crowd on IPv6 that calls a farmer and says nothing, and two honest renters among it.

    python -m tests.hostile.crowd ADDRESS RENTER_HOME

Prints one JSON object: how many of its calls the farmer held at a time, and how the renters fared.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from farmer.protocol.questions import Ping, Pong
from tests.hostile.base import Renter

ONE_NETWORK, ONE_PROVIDER, NETWORKS = 400, 600, 1500
HONEST = "2001:db8:8000::7"
ROUNDS = 5


def household(number: int) -> str:
    """Return one address of a single /64."""
    return f"2001:db8:9000:1::{number + 1:x}"


def neighbour(number: int) -> str:
    """Return an address in a /64 of its own, all of them in one /48."""
    return f"2001:db8:9001:{number:x}::1"


def abroad(number: int) -> str:
    """Return an address in a /48 of its own."""
    return f"2001:db8:{0xA000 + number:x}::1"


class Crowd:
    """Calls that are held for as long as the farmer lets them."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._calls: list[socket.socket] = []

    def call(self, source: str) -> None:
        """Call from an address and say nothing."""
        one = socket.socket(socket.AF_INET6)
        one.bind((source, 0))
        one.settimeout(5)
        try:
            one.connect(self._address)
        except OSError:
            one.close()
            return
        self._calls.append(one)

    def held(self) -> int:
        """Return how many have not been hung up on."""
        poll = select.poll()
        for one in self._calls:
            poll.register(one, select.POLLIN)
        gone = {fd for fd, _ in poll.poll(0)}
        left = [one for one in self._calls if one.fileno() not in gone]
        for one in self._calls:
            if one not in left:
                one.close()
        self._calls = left
        return len(left)

    def settled(self) -> int:
        """Return that once it stays so: what the kernel holds is not yet the farmer's."""
        before, now = len(self._calls) + 1, len(self._calls)
        while now < before:
            time.sleep(1)
            before, now = now, self.held()
        return now

    def leave(self) -> None:
        """Hang up."""
        for one in self._calls:
            one.close()
        self._calls.clear()


def answer_s(home: Path, address: str) -> float:
    """Return how long a newcomer with a contract takes to store and fetch something."""
    began_s, data = time.monotonic(), os.urandom(5000)
    with Renter(home, address, HONEST) as renter:
        assert type(renter.store(data)).__name__ == "Stored"
        assert renter.retrieve(data) == data
    return time.monotonic() - began_s


def main(address: str, home: Path) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    host, _, port = address.rpartition(":")
    crowd = Crowd((host.strip("[]"), int(port)))
    told: dict[str, Any] = {"newcomers_s": []}
    with Renter(home, address, HONEST) as early:
        for number in range(ONE_NETWORK):
            crowd.call(household(number))
        told["one network"] = crowd.settled()
        told["newcomers_s"].append(answer_s(home, address))
        crowd.leave()
        for number in range(ONE_PROVIDER):
            crowd.call(neighbour(number))
        told["one provider"] = crowd.settled()
        told["newcomers_s"].append(answer_s(home, address))
        crowd.leave()
        told["networks"] = 0
        for part in range(ROUNDS):
            for number in range(part, NETWORKS, ROUNDS):
                crowd.call(abroad(number))
            told["networks"] = max(told["networks"], crowd.settled())
            told["newcomers_s"].append(answer_s(home, address))
            told["early"] = early.ask(Ping(part), Pong).token == part
    crowd.leave()
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]))) + "\n")
