"""Tasks, chores and the door to the threads."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from farmer.node.chores import Chore
from farmer.node.disk import ThreadedDisk
from farmer.node.tasks import Tasks


class TasksTests(SynchronousTestCase):
    def test_a_drain_waits_for_all_also_for_later_ones(self) -> None:
        tasks = Tasks()
        first: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()

        async def chain() -> None:
            await first
            tasks.start("second", wait(second))

        tasks.start("first", chain())
        drained = Deferred.fromCoroutine(tasks.drain())
        first.callback(None)
        self.assertNoResult(drained)
        second.callback(None)

        self.successResultOf(drained)
        self.assertEqual(0, len(tasks))

    def test_a_failure_is_logged_and_counted(self) -> None:
        tasks = Tasks()
        trouble: Deferred[None] = Deferred()
        tasks.start("trouble", wait(trouble))

        trouble.errback(ZeroDivisionError())

        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual((1, 0), (tasks.failures, len(tasks)))
        self.successResultOf(Deferred.fromCoroutine(tasks.drain()))


async def wait(deferred: Deferred[Any]) -> None:
    await deferred


class ChoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tasks = Tasks()
        self.turns: list[Deferred[None]] = []
        self.chore = Chore("sweep", 60, self.work, self.clock, self.tasks)

    async def work(self) -> None:
        turn: Deferred[None] = Deferred()
        self.turns.append(turn)
        await turn

    def test_the_next_turn_is_counted_from_the_end_of_the_last(self) -> None:
        self.chore.start()
        self.clock.advance(60)
        self.clock.advance(600)
        self.assertEqual(1, len(self.turns))

        self.turns[0].callback(None)
        self.clock.advance(59)
        self.assertEqual(1, len(self.turns))
        self.clock.advance(1)

        self.assertEqual(2, len(self.turns))
        self.turns[1].callback(None)

    def test_it_never_overlaps_itself(self) -> None:
        self.chore.start(first_after_s=0)
        self.clock.advance(0)
        self.chore.run_now()
        self.assertEqual(1, len(self.turns))

        self.turns[0].callback(None)
        self.chore.run_now()

        self.assertEqual((2, 1), (len(self.turns), self.chore.runs))
        self.assertEqual([], self.clock.calls)
        self.turns[1].callback(None)

    def test_a_failure_is_counted_and_the_next_turn_comes(self) -> None:
        self.chore.start()
        self.clock.advance(60)
        self.turns[0].errback(OSError("disk"))
        self.assertEqual(1, len(self.flushLoggedErrors(OSError)))

        self.clock.advance(60)

        self.assertEqual((2, 1), (len(self.turns), self.chore.failures))
        self.assertEqual(0, self.tasks.failures)
        self.turns[1].callback(None)

    def test_what_fails_each_time_is_told_until_it_does_not(self) -> None:
        """
        Three times in a row is each time; one good turn begins the count anew.
        """
        self.chore.start()
        told = []
        for error in (OSError(), None, OSError(), OSError("a"), OSError("b"), OSError(), None):
            self.clock.advance(60)
            turn = self.turns.pop()
            turn.callback(None) if error is None else turn.errback(error)
            told.append(dict(self.tasks.failing))
        self.flushLoggedErrors(OSError)
        self.assertEqual([{}] * 4 + [{"sweep": "b"}, {"sweep": "OSError"}, {}], told)

    def test_stopped_it_finishes_and_begins_no_more(self) -> None:
        self.chore.start()
        self.clock.advance(60)
        self.chore.stop()
        self.assertEqual(1, len(self.tasks))

        self.turns[0].callback(None)
        self.clock.advance(1000)

        self.assertEqual((1, 0), (len(self.turns), len(self.tasks)))


class ThreadedDiskTests(TestCase):
    def setUp(self) -> None:
        self.disk = ThreadedDisk(reactor, threads=2)  # type: ignore[arg-type]
        self.disk.start()
        self.addCleanup(self.disk.stop)

    async def test_work_is_done_in_a_thread_of_its_own(self) -> None:
        thread = await self.disk.run(threading.current_thread)

        self.assertIsNot(threading.current_thread(), thread)

    async def test_errors_come_through(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            await self.disk.run(divmod, 1, 0)

    async def test_a_future_settled_by_another_thread_fires_on_the_reactor(self) -> None:
        good: Future[int] = Future()
        bad: Future[int] = Future()
        settled = [self.disk.settle(good), self.disk.settle(bad)]
        threading.Thread(target=good.set_result, args=(7,)).start()
        threading.Thread(target=bad.set_exception, args=(OSError("sync"),)).start()

        self.assertEqual(7, await settled[0])
        with self.assertRaises(OSError):
            await settled[1]

    async def test_a_settled_future_fires_too(self) -> None:
        future: Future[int] = Future()
        future.set_result(1)

        self.assertEqual(1, await self.disk.settle(future))
