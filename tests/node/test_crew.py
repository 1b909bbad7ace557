"""How many threads work at once, and how the reactor hears of what they did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from farmer.crew import FULL_ABOVE, IDLE_BELOW, LOOK_S, Crew
from farmer.node import disk as disk_module
from farmer.node.disk import ThreadedDisk
from farmer.node.posts import Posts
from tests.waiting import PATIENCE_S, wait_until


class Used:
    """Clocks of a process that uses a part of one core."""

    def __init__(self, part: float) -> None:
        self.part = part
        self.now_s = self.used_s = 0.0

    def crew(self, most: int = 8) -> Crew:
        return Crew(most, lambda: self.used_s, lambda: self.now_s)

    def look(self, crew: Crew, *, moved: bool = True) -> int:
        self.now_s += LOOK_S
        self.used_s += LOOK_S * self.part
        crew.look(moved=moved)
        return crew.size


def test_more_threads_are_woken_while_the_processor_is_idle_and_no_more_than_there_are() -> None:
    used = Used(IDLE_BELOW - 0.05)
    crew = used.crew(4)
    crew.begin()
    assert [used.look(crew) for _ in range(5)] == [2, 3, 4, 4, 4]


def test_fewer_are_woken_where_the_processor_is_busy_but_never_none() -> None:
    used = Used(0.1)
    crew = used.crew()
    crew.begin()
    used.look(crew)
    used.look(crew)
    used.part = (IDLE_BELOW + FULL_ABOVE) / 2
    assert used.look(crew) == 3
    used.part = 1.2
    assert [used.look(crew) for _ in range(4)] == [2, 1, 1, 1]


def test_where_nothing_moves_another_is_woken_however_busy_the_processor_is() -> None:
    used = Used(1.2)
    crew = used.crew()
    crew.begin()
    assert [used.look(crew, moved=False) for _ in range(2)] == [2, 3]
    assert used.look(crew) == 2


def test_time_in_which_nothing_waited_is_not_judged() -> None:
    used = Used(1.0)
    crew = used.crew()
    crew.begin()
    used.now_s += 3600
    crew.begin()
    assert used.look(crew) == 1


class DoorTests(TestCase):
    def setUp(self) -> None:
        self.disk = ThreadedDisk(reactor, threads=4)  # type: ignore[arg-type]
        self.disk.start()
        self.addCleanup(self.disk.stop)

    @pytest.mark.alone
    async def test_quick_work_is_done_by_one_thread(self) -> None:
        idents = await gatherResults([self.disk.run(threading.get_ident) for _ in range(50)])

        self.assertEqual(1, len(set(idents)))

    @pytest.mark.alone
    async def test_work_that_waits_gets_all_threads(self) -> None:
        began = time.monotonic()
        idents = await gatherResults([self.disk.run(self.at_work, 0.1) for _ in range(16)])

        self.assertEqual(4, len(set(idents)))
        self.assertLess(time.monotonic() - began, 1.2, "one after the other takes 1.6 s")

    async def test_where_work_comes_in_crowds_threads_are_woken_once_for_a_turn(self) -> None:
        """Each one woken earlier would take Python from the reactor at its next call."""
        await gatherResults([self.disk.run(time.sleep, 0.001) for _ in range(8)])
        self.assertEqual([False] * 8, await self.given_in_a_turn(8, begun_within_s=0.02))

    async def test_one_piece_of_work_alone_is_begun_at_once(self) -> None:
        await self.disk.run(lambda: None)
        self.assertEqual([True], await self.given_in_a_turn(1))

    async def test_a_disk_that_hangs_makes_no_crowd(self) -> None:
        """Who is alone beside a thread that is lost is begun at once, as ever."""
        end = threading.Event()
        self.addCleanup(end.set)
        self.disk.run(end.wait)
        while not (lost := dict.fromkeys(self.disk._running, False)):
            await self.disk.run(lambda: None)
        self.disk.stalled = lambda: lost
        self.disk.check()
        await self.disk.run(lambda: None)
        self.assertEqual([True], await self.given_in_a_turn(1))

    async def test_what_was_given_last_is_done_though_the_door_is_shut_before_the_turns_end(
        self,
    ) -> None:
        await gatherResults([self.disk.run(time.sleep, 0.001) for _ in range(8)])
        done = [self.disk.run(lambda: None) for _ in range(3)]
        self.assertTrue(self.disk.stop(20))
        await gatherResults(done)

    def given_in_a_turn(
        self, count: int, begun_within_s: float = PATIENCE_S
    ) -> Deferred[list[bool]]:
        """Give so much work; return for each piece whether it was begun before the turn's end."""
        is_turn, begun = True, threading.Event()

        def work() -> bool:
            begun.set()
            return is_turn

        wait_until(lambda: self.disk._awake == self.disk.busy)  # all others sleep
        given = gatherResults([self.disk.run(work) for _ in range(count)])
        begun.wait(begun_within_s)
        is_turn = False
        return given

    async def test_all_that_was_given_is_done_before_the_door_is_shut(self) -> None:
        done: list[int] = []
        for number in range(20):
            self.disk.run(lambda number: [self.at_work(0.01), done.append(number)], number)

        self.assertTrue(self.disk.stop(20))
        self.assertEqual(list(range(20)), sorted(done))

    async def test_work_is_answered_also_without_memory_to_say_why_it_failed(
        self,
    ) -> None:
        def fails() -> None:
            raise OSError("the disk failed")

        def out_of_memory() -> None:
            raise MemoryError

        self.patch(disk_module, "Failure", out_of_memory)
        with self.assertRaises(MemoryError):
            await self.disk.run(fails)
        self.assertEqual(1, await self.disk.run(lambda: 1), "and its thread goes on")

    async def test_an_answer_for_which_there_is_no_memory_is_given_later(self) -> None:
        left, put = [1, 1], self.disk._posts.put

        def put_at_last(*words: Any) -> None:
            if left:
                left.pop()
                raise MemoryError
            put(*words)

        self.patch(self.disk._posts, "put", put_at_last)
        self.assertEqual(1, await self.disk.run(lambda: 1))

    def at_work(self, seconds: float) -> int:
        time.sleep(seconds)
        return threading.get_ident()


class Counting:
    """A reactor that is woken, and gets round to it later."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], Any]] = []
        self.has_memory = True

    def callFromThread(self, work: Callable[[], Any]) -> None:
        if not self.has_memory:
            raise MemoryError
        self.calls.append(work)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class PostsTests(TestCase):
    def setUp(self) -> None:
        self.reactor = Counting()
        self.posts = Posts(self.reactor)  # type: ignore[arg-type]  # all it asks
        self.heard: list[int] = []

    def test_the_reactor_is_woken_once_for_all_and_hears_them_in_order(self) -> None:
        for number in range(3):
            self.posts.put(self.heard.append, number)
        self.assertEqual(1, len(self.reactor.calls))
        self.reactor.turn()
        self.assertEqual([0, 1, 2], self.heard)
        self.posts.put(self.heard.append, 3)
        self.reactor.turn()
        self.assertEqual([0, 1, 2, 3], self.heard)

    def test_what_is_put_meanwhile_wakes_it_again(self) -> None:
        self.posts.put(lambda: self.posts.put(self.heard.append, 1))
        self.reactor.turn()
        self.assertEqual([], self.heard)
        self.reactor.turn()
        self.assertEqual([1], self.heard)

    def test_what_could_not_wake_the_reactor_is_heard_with_the_next_or_at_a_look(
        self,
    ) -> None:
        for heard_of in (lambda: self.posts.put(self.heard.append, 2), lambda: None):
            self.heard.clear()
            self.reactor.has_memory = False
            self.posts.put(self.heard.append, 1)
            self.reactor.has_memory = True
            heard_of()
            self.reactor.turn()
            self.posts.look()
            self.assertEqual(1, self.heard[0])

    def test_one_that_fails_is_logged_and_stops_none(self) -> None:
        said: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(said.append)
        self.addCleanup(globalLogPublisher.removeObserver, said.append)
        self.posts.put(divmod, 1, 0)
        self.posts.put(self.heard.append, 1)
        self.reactor.turn()
        self.assertEqual([1], self.heard)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertTrue(any("what a thread had to tell" in str(one) for one in said))
