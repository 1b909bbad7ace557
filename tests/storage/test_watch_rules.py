"""Calls under way, one by one: who is stalled, who waits, and what is promised meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.pace import Meter
from farmer.storage.watch import STALLED_S, WAITING_MAX, Noted, Promises, Watch
from tests.waiting import wait_until


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(clock)


@contextmanager
def stalled(watch: Watch, clock: Clock) -> Iterator[None]:
    """Be in a call that holds others up, and has for longer than a moment."""
    with watch.call("read", holds_up=True):
        clock.now_s += STALLED_S + 1
        yield


def visit(watch: Watch) -> str:
    """Visit; return what is said against it."""
    try:
        with watch.visit("look-up"):
            return ""
    except VolumeUnavailableError as error:
        return str(error)


def until_somebody_waits(watch: Watch, answer: Future[str]) -> None:
    wait_until(lambda: watch.waiting or answer.done())
    assert not answer.done()


def test_a_call_stalls_when_it_takes_longer_than_a_moment(watch: Watch, clock: Clock) -> None:
    assert not watch.is_stalled
    with watch.call("read", holds_up=True):
        assert not watch.is_stalled
        clock.now_s += STALLED_S
        assert not watch.is_stalled
        assert watch.stalled_threads() == {}
        clock.now_s += 0.5
        assert watch.is_stalled
        assert watch.stalled_threads() == {threading.get_ident(): False}
    assert not watch.is_stalled
    assert watch.stalled_threads() == {}


def test_a_call_that_holds_nobody_up_keeps_its_thread_all_the_same(
    watch: Watch, clock: Clock
) -> None:
    with watch.call("sync"):
        clock.now_s += STALLED_S + 1
        assert not watch.is_stalled
        assert watch.stalled_threads() == {threading.get_ident(): False}
        watch.declare("it hangs")
        assert watch.stalled_threads() == {threading.get_ident(): True}
        watch.declare("")
        assert visit(watch) == ""


def test_the_oldest_call_is_the_one_that_counts(watch: Watch, clock: Clock) -> None:
    first, second = watch.call("first"), watch.call("second")
    second.__enter__()
    clock.now_s += 2
    first.__enter__()
    clock.now_s += 3
    assert watch.longest() == (5.0, "second")
    second.__exit__(None, None, None)
    assert watch.longest() == (3.0, "first")
    first.__exit__(None, None, None)
    assert watch.longest() == (0.0, "")


def test_a_meter_learns_how_long_its_calls_took(watch: Watch, clock: Clock) -> None:
    for _ in range(2):
        with watch.call("sync", meter=watch.meters.syncs):
            clock.now_s += 3
        with watch.call("read"):
            clock.now_s += 3
    assert watch.meters.syncs.average_s(clock.now_s) > 0
    assert not watch.meters.reads.is_known(clock.now_s)
    waits = dict(watch.waits_s())
    assert waits == {
        "sync": watch.meters.syncs.average_s(clock.now_s),
        "read": 0.0,
        "write": 0.0,
    }


def test_a_call_that_fails_is_over_and_its_error_may_become_another(
    watch: Watch, clock: Clock
) -> None:
    class Telling(Noted):
        def failed(self, error: BaseException) -> None:
            raise ValueError("another") from error

    meter = Meter()
    with pytest.raises(OSError, match="the first"), watch.call("read", meter=meter):
        raise OSError("the first")
    assert meter.is_known(clock.now_s)
    with pytest.raises(ValueError, match="another"), Telling(watch, "read", True, None):
        raise OSError("the first")
    with Telling(watch, "read", True, None):
        pass
    assert watch.longest() == (0.0, "")


def test_a_visit_is_as_old_as_the_last_call_that_it_made(watch: Watch, clock: Clock) -> None:
    with watch.visit("store"):
        clock.now_s += 3
        assert watch.longest() == (3.0, "store")
        with watch.call("write", meter=watch.meters.writes):
            clock.now_s += 1
            assert watch.longest() == (4.0, "store")
        assert watch.longest() == (0.0, "store")
        with watch.visit("look-up"):
            clock.now_s += 2
            with watch.call("read"):
                pass
            assert watch.longest() == (2.0, "store"), "the inner one has got on, the outer not"
        assert watch.longest() == (0.0, "store")
        clock.now_s += 1
        with watch.call("read"):
            pass
        assert watch.longest() == (0.0, "store"), "it is the one around again"
    assert watch.longest() == (0.0, "")


def test_a_call_of_one_thread_says_nothing_of_another_one_s_visit(
    watch: Watch, clock: Clock
) -> None:
    def call() -> None:
        with watch.call("read"):
            pass

    with watch.visit("store"):
        clock.now_s += 3
        with ThreadPoolExecutor(1) as pool:
            pool.submit(call).result(10)
        assert watch.longest() == (3.0, "store")


def test_who_comes_to_a_stalled_volume_waits_until_it_answers(watch: Watch, clock: Clock) -> None:
    with ThreadPoolExecutor(1) as pool:
        with stalled(watch, clock):
            answer = pool.submit(visit, watch)
            until_somebody_waits(watch, answer)
            (waiting,) = watch.waiting
            assert watch.stalled_threads() == {threading.get_ident(): False, waiting: False}
        assert answer.result(3) == ""
    assert not watch.waiting


def test_who_waits_is_told_when_it_hangs_and_who_comes_then_does_not_wait(
    watch: Watch, clock: Clock
) -> None:
    with ThreadPoolExecutor(1) as pool, stalled(watch, clock):
        answer = pool.submit(visit, watch)
        until_somebody_waits(watch, answer)
        watch.declare("it does not answer any more")
        assert answer.result(3) == "it does not answer any more"
        assert visit(watch) == "it does not answer any more"
        watch.waiting.update(range(WAITING_MAX))
        assert visit(watch) == "it does not answer any more"
        watch.waiting.clear()
    assert visit(watch) == "it does not answer any more", "the call has returned: that is not all"
    watch.declare("")
    assert visit(watch) == ""


def test_one_of_many_is_let_wait_and_the_next_one_is_turned_away(
    watch: Watch, clock: Clock
) -> None:
    others = set(range(31))
    with ThreadPoolExecutor(1) as pool:
        with stalled(watch, clock):
            watch.waiting |= others
            answer = pool.submit(visit, watch)
            wait_until(lambda: len(watch.waiting) == WAITING_MAX or answer.done())
            assert not answer.done()
            assert visit(watch) == "the disk does not answer at the moment"
            assert len(watch.waiting) == 32
        assert answer.result(3) == ""
    assert watch.waiting == others


def test_what_has_to_wait_is_done_once_and_in_order(watch: Watch) -> None:
    done: list[str] = []
    watch.when_it_answers(lambda: done.append("first"))
    watch.when_it_answers(lambda: watch.when_it_answers(lambda: done.append("third")))
    watch.when_it_answers(lambda: done.append("second"))
    assert done == []
    watch.catch_up()
    assert done == ["first", "second", "third"]
    watch.catch_up()
    assert len(done) == 3


def test_a_promise_has_the_outcome_of_the_truth() -> None:
    promises = Promises()
    truth, lie = Future[int](), Future[int]()
    kept, failed = promises.of(truth), promises.of(lie)
    assert not kept.done()
    assert not kept.cancel(), "nobody can give it up"
    truth.set_result(3)
    lie.set_exception(OSError("no"))
    assert kept.result(0) == 3
    with pytest.raises(OSError, match="no"):
        failed.result(0)
    promises.break_all("hung")
    assert kept.result(0) == 3


def test_what_is_known_already_cannot_be_broken() -> None:
    promises, truth, ended = Promises(), Future[int](), []
    truth.set_result(3)
    assert promises.of(truth, lambda: ended.append(1)) is truth
    promises.break_one(truth, "hung")
    promises.break_all("hung")
    assert (truth.result(0), ended) == (3, [1])


def test_one_promise_can_be_broken_and_each_ends_once() -> None:
    promises = Promises()
    truths = [Future[int]() for _ in range(3)]
    ended: list[int] = []
    first, second, third = (
        promises.of(truth, lambda number=number: ended.append(number))  # type: ignore[misc]  # mypy does not know the type of a lambda with a default
        for number, truth in enumerate(truths)
    )
    promises.break_one(second, "the one hangs")
    promises.break_one(second, "again")
    assert ended == [1]
    assert not first.done()
    truths[0].set_result(5)
    promises.break_all("all hang")
    truths[1].set_result(5)
    truths[2].set_exception(OSError("too late"))
    assert ended == [1, 0, 2]
    assert first.result(0) == 5
    for promise, reason in ((second, "the one hangs"), (third, "all hang")):
        with pytest.raises(VolumeUnavailableError, match=reason):
            promise.result(0)
