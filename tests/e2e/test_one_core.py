"""A real farmer that is asked for much stays on one core, as long as its owner lets it."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from threading import Thread

import pytest

from farmer.client import blocking
from farmer.identity.signing import parse_link
from tests.e2e.daemon import Daemon
from tests.needs import on_two_cores
from tests.waiting import wait_until

A_WHILE_S = 2.5
"""Longer than two turns: once in each all threads may be anywhere for a moment."""

AT_ONCE = 8

pytestmark = [pytest.mark.apart, on_two_cores]


@pytest.mark.slow
def test_threads_are_together_while_many_requests_come_unless_the_owner_does_not_want_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    assert daemon.process is not None
    pid, everywhere = daemon.process.pid, len(os.sched_getaffinity(0))
    link = parse_link(daemon.invite("100MB"))
    identity = blocking.Identity.create(tmp_path / "renter")
    with blocking.connect(link, identity) as farmer:
        farmer.redeem(link.invite)

        def ask(until: float) -> None:
            while time.monotonic() < until:
                farmer.store(io.BytesIO(os.urandom(1000)))

        def seen() -> list[set[int]]:
            """Ask for much for a while; return on how many cores threads were, at each moment."""
            moments, until = [], time.monotonic() + A_WHILE_S
            renters = [Thread(target=ask, args=(until,)) for _ in range(AT_ONCE)]
            for renter in renters:
                renter.start()
            while time.monotonic() < until:
                time.sleep(0.05)
                moments.append(cores_of(pid))
            for renter in renters:
                renter.join()
            return moments

        wait_until(lambda: {1} in seen(), shown=lambda: "its threads were never together")
        with (daemon.home / "farmer.yaml").open("a") as settings:
            settings.write("processor: {one_core: never}\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: all(cores == {everywhere} for cores in seen()))


def cores_of(pid: int) -> set[int]:
    """Return on how many cores each thread of a process may be, each number once."""
    return {
        len(os.sched_getaffinity(int(task.name))) for task in Path(f"/proc/{pid}/task").iterdir()
    }
