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
from tests.waiting import wait_until

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
        self.threads: list[int] = []
        """Those that have begun it."""
        self.let_go = threading.Event()

    def __call__(self) -> int:
        self.threads.append(threading.get_ident())
        self.let_go.wait(LONG_S)
        return threading.get_ident()

    @property
    def begun(self) -> int:
        return len(self.threads)


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
    close(reactor, door)


def close(reactor: Reactor, door: ThreadDoor) -> None:
    closing = Deferred.fromCoroutine(door.close())
    reactor.run_until(lambda: closing.called)
    wait_until(lambda: not alive(door))
    assert not reactor.getDelayedCalls()


def alive(door: ThreadDoor) -> int:
    """Return how many threads the door has; the threads of other tests may live on."""
    return sum(getattr(thread, "_target", None) == door._serve for thread in threading.enumerate())


def fetched(reactor: Reactor, asked: list[Deferred[int]]) -> list[int]:
    found: list[int] = []
    told = [one.addCallback(found.append) for one in asked]
    reactor.run_until(lambda: len(found) == len(told))
    return found


def grown(reactor: Reactor, door: ThreadDoor, slow: Slow) -> list[Deferred[int]]:
    """Let all threads that there may be wait, and one piece of work more."""
    reactor.busy = 0.1
    asked = [door.run(slow) for _ in range(THREADS + 1)]
    for number in range(1, THREADS + 1):
        wait_until(lambda number=number: slow.begun == number)  # type: ignore[misc]
        reactor.look()
    return asked


def test_while_the_processor_is_busy_one_thread_does_it_however_much_waits(
    reactor: Reactor, door: ThreadDoor
) -> None:
    """Also where no work begins meanwhile: it may be a large file that is hashed."""
    slow = Slow()
    asked = [door.run(slow) for _ in range(10)]
    wait_until(lambda: slow.begun == 1)
    for _ in range(5):
        reactor.look()
    assert alive(door) == 1
    slow.let_go.set()
    assert len(set(fetched(reactor, asked))) == 1


def test_where_all_wait_there_are_more_up_to_as_many_as_there_may_be(
    reactor: Reactor, door: ThreadDoor
) -> None:
    slow = Slow()
    asked = grown(reactor, door, slow)
    reactor.look()
    reactor.look()
    assert (slow.begun, alive(door)) == (THREADS, THREADS)
    slow.let_go.set()
    assert len(set(fetched(reactor, asked))) == THREADS


def test_those_that_are_too_many_end_with_their_work(reactor: Reactor, door: ThreadDoor) -> None:
    slow = Slow()
    asked = grown(reactor, door, slow)
    reactor.busy = 1.0
    for _ in range(THREADS):
        reactor.look()
    assert alive(door) == THREADS, "they are at work"
    slow.let_go.set()
    fetched(reactor, asked)
    wait_until(lambda: alive(door) == 1)


def test_there_are_never_more_than_there_may_be(reactor: Reactor, door: ThreadDoor) -> None:
    """However often it changes what is short."""
    works = [Slow() for _ in range(20)]
    asked = [door.run(work) for work in works]
    for number, work in enumerate(works):
        wait_until(lambda work=work: work.begun == 1)  # type: ignore[misc]
        for busy in (0.1, 0.1, 1.0) if number % 2 else (1.0, 1.0, 0.1):
            reactor.busy = busy
            reactor.look()
            assert 1 <= alive(door) <= THREADS
        work.let_go.set()
    fetched(reactor, asked)


def test_where_the_system_has_no_more_threads_fewer_do_it(
    reactor: Reactor, door: ThreadDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    slow = Slow()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            door.run(slow)
    reactor.busy = 0.1
    asked = [door.run(slow) for _ in range(3)]
    wait_until(lambda: slow.begun == 1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        reactor.look()
    assert alive(door) == 1
    reactor.look()
    wait_until(lambda: slow.begun > 1)
    slow.let_go.set()
    fetched(reactor, asked)


def test_what_waits_behind_a_thread_that_hangs_is_done_before_the_door_is_closed(
    reactor: Reactor,
) -> None:
    door, slow = ThreadDoor(reactor, THREADS), Slow()
    door.run(slow)
    wait_until(lambda: slow.begun == 1)
    quick = door.run(threading.get_ident)
    closing = Deferred.fromCoroutine(door.close())
    reactor.run_until(lambda: quick.called)
    assert not closing.called
    slow.let_go.set()
    reactor.run_until(lambda: closing.called)
