"""The renter's door: one thread while the processor is what is short, more where disks are."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from farmer.client import door as door_module
from farmer.client.door import ThreadDoor
from farmer.crew import LOOK_S, Crew

THREADS = 3
LONG_S = 20.0


class Reactor(Clock):
    """Time passes when the test says so; how busy the processor is, too."""

    def __init__(self) -> None:
        super().__init__()
        self._calls_from_threads: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.used_s = 0.0
        self.busy = 1.0

    def callFromThread(self, call: Callable[..., object], *words: object) -> None:
        self._calls_from_threads.append((call, words))

    def look(self) -> None:
        self.used_s += self.busy * LOOK_S
        self.advance(LOOK_S)

    def run_until(self, is_so: Callable[[], bool]) -> None:
        until_s = time.monotonic() + LONG_S
        while not is_so():
            assert time.monotonic() < until_s
            if self._calls_from_threads:
                call, words = self._calls_from_threads.popleft()
                call(*words)
            else:
                time.sleep(0.001)


class Slow:
    """Work that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.let_go = threading.Event()

    def __call__(self) -> int:
        self.begun += 1
        self.let_go.wait(LONG_S)
        return threading.get_ident()


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Reactor:
    reactor = Reactor()

    def crew(most: int) -> Crew:
        return Crew(most, lambda: reactor.used_s, reactor.seconds)

    monkeypatch.setattr(door_module, "Crew", crew)
    return reactor


@pytest.fixture
def door(reactor: Reactor) -> Iterator[ThreadDoor]:
    door = ThreadDoor(reactor, THREADS)
    yield door
    closing = Deferred.fromCoroutine(door.close())
    reactor.run_until(lambda: closing.called)
    assert not reactor.getDelayedCalls()


def fetched(reactor: Reactor, asked: list[Deferred[int]]) -> list[int]:
    found: list[int] = []
    for one in asked:
        one.addCallback(found.append)
    reactor.run_until(lambda: len(found) == len(asked))
    return found


def test_while_the_processor_is_busy_and_work_moves_one_thread_does_it(
    reactor: Reactor, door: ThreadDoor
) -> None:
    threads = set()
    for _ in range(5):
        threads |= set(fetched(reactor, [door.run(threading.get_ident) for _ in range(10)]))
        reactor.look()
    assert len(threads) == 1


def test_where_all_wait_there_are_more_up_to_as_many_as_there_may_be(
    reactor: Reactor, door: ThreadDoor
) -> None:
    slow = Slow()
    asked = [door.run(slow) for _ in range(THREADS + 1)]
    for number in range(1, THREADS + 1):
        reactor.run_until(lambda number=number: slow.begun == number)  # type: ignore[misc]
        reactor.look()
    reactor.look()
    assert slow.begun == THREADS
    slow.let_go.set()
    assert len(set(fetched(reactor, asked))) == THREADS


def test_where_the_processor_is_idle_there_are_more_though_work_moves(
    reactor: Reactor, door: ThreadDoor
) -> None:
    reactor.busy = 0.1
    slow, quick = Slow(), Slow()
    quick.let_go.set()
    asked = [door.run(quick), door.run(slow), door.run(slow), door.run(slow)]
    reactor.run_until(lambda: quick.begun == slow.begun == 1)
    reactor.look()
    reactor.run_until(lambda: slow.begun == 2)
    slow.let_go.set()
    fetched(reactor, asked)


def test_those_that_are_too_many_end(reactor: Reactor, door: ThreadDoor) -> None:
    slow = Slow()
    asked = [door.run(slow) for _ in range(THREADS + 1)]
    for number in range(1, THREADS + 1):
        reactor.run_until(lambda number=number: slow.begun == number)  # type: ignore[misc]
        reactor.look()
    assert renters_threads() == THREADS
    slow.let_go.set()
    fetched(reactor, asked)

    for left in (THREADS - 1, 1):
        quick = Slow()
        quick.let_go.set()
        asked = [door.run(quick) for _ in range(10)]
        # It moves, the processor is busy, and the reactor has not heard of the end of any.
        wait_until(lambda quick=quick: quick.begun == 10)  # type: ignore[misc]
        reactor.look()
        wait_until(lambda left=left: renters_threads() == left)  # type: ignore[misc]
        fetched(reactor, asked)


def renters_threads() -> int:
    return sum(thread.name.startswith("renter ") for thread in threading.enumerate())


def wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.001)
