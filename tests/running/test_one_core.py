"""A busy farmer's threads on one core; the real ones in a process of their own."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from farmer.node.farm import Served
from farmer.running.one_core import AT_ONCE, FREE_S, MANY, SMALL_BYTES, TURN_S, OneCore
from tests.needs import on_two_cores

REAL = """
import os, threading, time
from farmer.running.one_core import OwnThreads, TASKS, core_of

def cores():
    return [sorted(os.sched_getaffinity(int(task.name))) for task in TASKS.iterdir()]

end = threading.Event()
for _ in range(3):
    threading.Thread(target=end.wait).start()
everywhere, own = cores()[0], OwnThreads()
own.gather()
core = core_of(threading.get_native_id())
other = next(one for one in everywhere if one != core)
assert cores() == [[core]] * 4, cores()
threading.Thread(target=end.wait).start()
assert cores() == [[core]] * 5, "one begun meanwhile is with them"
{moved}
own.spread()
assert cores() == [{expected}] * 5, cores()
own.spread()
assert cores() == [{expected}] * 5, "once is enough"
end.set()
"""


class Noting:
    """Cores that note what they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None

    def gather(self) -> None:
        self._ask("gather")

    def spread(self) -> None:
        self._ask("spread")

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error


class Farm:
    """One of which so much is asked."""

    def __init__(self) -> None:
        self.served = Served()
        self.clock, self.cores = Clock(), Noting()
        self.one_core = OneCore(self.clock, self.served, self.cores)

    def turn(self, requests: int, moved_bytes: int = 0, at_once: float = AT_ONCE) -> list[str]:
        """Serve so many, then look; return what was asked of the system."""
        self.served.took_s += (at_once - AT_ONCE) * TURN_S
        self.begin_turn(requests, moved_bytes)
        self.clock.advance(FREE_S)
        return self.asked()

    def begin_turn(self, requests: int, moved_bytes: int = 0) -> None:
        self.served.requests += requests
        self.served.moved_bytes += moved_bytes
        self.served.took_s += AT_ONCE * TURN_S
        Deferred.fromCoroutine(self.one_core.turn())

    def asked(self) -> list[str]:
        asked, self.cores.asked = self.cores.asked, []
        return asked


def test_threads_are_kept_together_only_while_many_requests_come() -> None:
    farm = Farm()
    assert farm.turn(MANY - 1) == []
    assert farm.turn(MANY) == ["gather"]
    assert farm.turn(MANY) == ["spread", "gather"], "the kernel may choose anew"
    assert farm.turn(0) == ["spread"]
    assert farm.turn(0) == []


def test_where_much_is_moved_for_each_they_are_left_alone() -> None:
    """Small ones of one renter do not decide it for the large transfers of another."""
    farm = Farm()
    assert farm.turn(MANY, MANY * SMALL_BYTES) == ["gather"]
    assert farm.turn(MANY, MANY * SMALL_BYTES + 1) == ["spread"]


def test_where_one_is_served_after_the_other_they_are_left_alone() -> None:
    """Nobody waits for Python's lock then, and a renter beside us may need the core."""
    farm = Farm()
    assert farm.turn(1000, at_once=0.99) == []
    assert farm.turn(MANY) == ["gather"]


def test_the_kernel_has_time_to_place_them() -> None:
    farm = Farm()
    farm.begin_turn(MANY)
    farm.clock.advance(FREE_S / 2)
    assert farm.asked() == []


def test_an_owner_who_does_not_want_it_has_them_spread_at_the_next_turn() -> None:
    farm = Farm()
    farm.turn(MANY)
    farm.one_core.is_wanted = False
    assert farm.turn(MANY) == ["spread"]
    assert farm.turn(MANY) == []


def test_a_system_that_refuses_is_asked_once() -> None:
    """As the units of systemd have it: they would be less closed with that call."""
    farm = Farm()
    farm.cores.error = PermissionError(errno.EPERM, "Operation not permitted")
    assert farm.turn(MANY) == ["gather"]
    assert farm.turn(MANY) == ["spread"], "some may have been moved"
    assert farm.turn(MANY) == []


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_what_passes_leaves_nobody_on_one_core_for_ever(error: Exception) -> None:
    farm = Farm()
    farm.turn(MANY)
    farm.cores.error = error
    assert farm.turn(MANY) == ["spread"], "and they are not gathered again before that is done"
    assert farm.turn(0) == ["spread"]
    farm.cores.error = None
    assert farm.turn(0) == ["spread"]
    assert farm.turn(MANY) == ["gather"]


def test_a_farmer_that_stops_has_all_cores_for_what_is_left_to_do() -> None:
    farm = Farm()
    farm.turn(MANY)
    farm.one_core.stop()
    assert farm.asked() == ["spread"]


def test_nothing_is_begun_after_the_stop() -> None:
    farm = Farm()
    farm.begin_turn(MANY)
    farm.one_core.stop()
    farm.clock.advance(1)
    assert farm.asked() == []


def really(moved: str, expected: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", REAL.format(moved=moved, expected=expected)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ran.returncode == 0, ran.stderr


@on_two_cores
def test_all_threads_of_a_process_go_to_its_core_and_come_back() -> None:
    really("", "everywhere")


@on_two_cores
@pytest.mark.parametrize(
    "moved",
    [
        "os.sched_setaffinity(0, {other})",
        "for task in TASKS.iterdir(): os.sched_setaffinity(int(task.name), {other})",
    ],
)
def test_whoever_moved_it_meanwhile_has_the_last_word(moved: str) -> None:
    """As `taskset -p` does with the first thread, and `taskset -ap` with all."""
    really(moved, "[other]")
