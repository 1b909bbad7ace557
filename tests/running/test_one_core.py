"""A busy farmer's threads on one core; the real ones in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from farmer.running.one_core import FREE_S, MANY, OneCore

REAL = """
import os, threading, time
from farmer.running.one_core import OwnThreads, TASKS, core_of

def cores():
    return [sorted(os.sched_getaffinity(int(task.name))) for task in TASKS.iterdir()]

end = threading.Event()
for _ in range(3):
    threading.Thread(target=end.wait).start()
everywhere, own = cores(), OwnThreads()
own.gather()
gathered = cores()
assert len(gathered) == 4 and all(one == gathered[0] for one in gathered), gathered
assert gathered[0] == [core_of(threading.get_native_id())], gathered
threading.Thread(target=end.wait).start()
assert cores() == [gathered[0]] * 5, "one begun meanwhile is with them"
{moved}
own.spread()
print(cores() == [everywhere[0]] * 5)
end.set()
"""


class Counted:
    """Cores that note what they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refuses = False

    def gather(self) -> None:
        self._ask("gather")

    def spread(self) -> None:
        self._ask("spread")

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.refuses:
            raise PermissionError(1, "Operation not permitted")


class Farm:
    """One of which so much is asked."""

    def __init__(self) -> None:
        self.served = 0
        self.clock, self.cores = Clock(), Counted()
        self.one_core = OneCore(self.clock, lambda: self.served, self.cores)

    def turn(self, requests: int) -> list[str]:
        """Serve so many, then look; return what was asked of the system."""
        self.served += requests
        Deferred.fromCoroutine(self.one_core.turn())
        self.clock.advance(FREE_S)
        asked, self.cores.asked = self.cores.asked, []
        return asked


def test_threads_are_kept_together_only_while_many_requests_come() -> None:
    farm = Farm()
    assert farm.turn(MANY - 1) == []
    assert farm.turn(MANY) == ["gather"]
    assert farm.turn(MANY) == ["spread", "gather"], "the kernel may choose anew"
    assert farm.turn(0) == ["spread"]
    assert farm.turn(0) == []


def test_the_kernel_has_time_to_place_them() -> None:
    farm = Farm()
    farm.served = MANY
    Deferred.fromCoroutine(farm.one_core.turn())
    farm.clock.advance(FREE_S / 2)
    assert farm.cores.asked == []


def test_an_owner_who_does_not_want_it_has_them_spread_at_the_next_turn() -> None:
    farm = Farm()
    farm.turn(MANY)
    farm.one_core.is_wanted = False
    assert farm.turn(MANY) == ["spread"]
    assert farm.turn(MANY) == []


def test_a_system_that_refuses_is_asked_once() -> None:
    """As the units of systemd have it: they would be less closed with that call."""
    farm = Farm()
    farm.cores.refuses = True
    assert farm.turn(MANY) == ["gather"]
    assert farm.turn(MANY) == ["spread"], "some may have been moved"
    assert farm.turn(MANY) == []


def test_nothing_is_begun_after_the_stop() -> None:
    farm = Farm()
    farm.served = MANY
    Deferred.fromCoroutine(farm.one_core.turn())
    farm.one_core.stop()
    farm.clock.advance(1)
    assert farm.cores.asked == []


def really(moved: str) -> str:
    told = subprocess.run(
        [sys.executable, "-c", REAL.format(moved=moved)],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return told.stdout.strip()


needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there is one core",
)


@needs_two_cores
def test_all_threads_of_a_process_go_to_its_core_and_come_back() -> None:
    assert really("") == "True"


@needs_two_cores
def test_whoever_moved_them_meanwhile_has_the_last_word() -> None:
    assert really("os.sched_setaffinity(0, {1 - gathered[0][0] % 2})") == "False"
