"""Calls that do not return: seen, gone around, and settled when they do."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from farmer.model.status import VolumeState
from farmer.storage.errors import ShardNotFoundError, VolumeUnavailableError
from farmer.storage.files import Filesystem, OsFiles
from farmer.storage.fill import Fill
from farmer.storage.index import Index
from farmer.storage.opening import in_a_thread
from farmer.storage.watch import HUNG_S, STALLED_S, WAITING_MAX, Noted, Promises, Watch
from farmer.storage.watched import watched_connect
from tests.storage.bench import ALICE, MIB, Farm, contract_of, noise
from tests.storage.recording import RecordingFiles
from tests.waiting import wait_until


class Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_oldest_call_is_known_until_it_returns() -> None:
    clock = Time()
    watch = Watch(clock)
    with watch.call("sync"):
        clock.now_s += 3
        with watch.call("read", holds_up=True):
            clock.now_s += 4
            assert watch.longest() == (7.0, "sync")
            assert watch.is_stalled
            assert watch.stalled_threads() == {threading.get_ident(): False}
        assert not watch.is_stalled, "a long sync holds no reader up"
    assert watch.longest() == (0.0, "")


def test_a_visit_that_gets_on_is_no_call_that_hangs() -> None:
    """Reading four gigabytes again takes long, and each of its calls a moment."""
    clock = Time()
    watch = Watch(clock)
    with watch.visit("store"):
        for _ in range(20):
            with watch.call("read"):
                clock.now_s += 0.9
            with watch.visit("look-up"):
                assert watch.longest() == (0.0, "store")
        assert not watch.is_stalled
        clock.now_s += 5
        assert watch.longest() == (5.0, "store")
        assert watch.is_stalled, "it waits for something else"
    assert not watch.visiting


def test_a_hung_volume_turns_visitors_away_at_once() -> None:
    watch = Watch(Time())
    watch.declare("it sleeps")
    with pytest.raises(VolumeUnavailableError, match="it sleeps"):
        watch.visit("look-up")
    watch.declare("")
    with watch.visit("look-up"):
        pass


def test_only_so_many_wait_for_a_stalled_volume() -> None:
    clock = Time()
    watch = Watch(clock)
    told: list[str] = []

    def visit() -> None:
        try:
            watch.visit("look-up")
        except VolumeUnavailableError as error:
            told.append(str(error))

    with watch.call("read", holds_up=True):
        clock.now_s += 2
        threads = [threading.Thread(target=visit) for _ in range(WAITING_MAX)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(watch.stalled_threads()) > WAITING_MAX)
        visit()
        assert told == ["the disk does not answer at the moment"]
        watch.declare("hung")
        for thread in threads:
            thread.join(10)
    assert told[1:] == ["hung"] * WAITING_MAX


def test_a_broken_promise_stays_broken_and_the_truth_is_still_told() -> None:
    promises = Promises()
    truth: Future[int] = Future()
    kept, other = promises.of(truth), Future[int]()
    other_kept = promises.of(other)
    other.set_result(1)
    promises.break_all("hung")
    with pytest.raises(VolumeUnavailableError):
        kept.result(0)
    truth.set_result(2)
    assert other_kept.result(0) == 1
    failed: Future[int] = Future()
    promise = promises.of(failed)
    failed.set_exception(OSError("no"))
    with pytest.raises(OSError, match="no"):
        promise.result(0)


@pytest.mark.parametrize("is_broken", [False, True])
def test_what_a_promise_holds_ends_once_and_before_anybody_knows_of_it(is_broken: bool) -> None:
    promises, truth = Promises(), Future[int]()
    known: list[tuple[str, bool]] = []

    def noted(what: str) -> Callable[[], None]:
        return lambda: known.append((what, promise.done()))

    promise = promises.of(truth, noted("ended"), noted("broken"))
    if is_broken:
        promises.break_all("hung")
    truth.set_result(1)
    promises.break_all("hung")
    assert promise.done()
    assert known == [("broken", False)] * is_broken + [("ended", False)]


def test_what_a_promise_holds_ends_where_the_truth_is_known_already() -> None:
    truth, ended = Future[int](), []
    truth.set_result(1)
    assert Promises().of(truth, lambda: ended.append(1)).result(0) == 1
    assert ended == [1]


def test_database_calls_are_noted(tmp_path: Path) -> None:
    noted: list[str] = []

    class Noting(dict[int, Noted]):
        def __setitem__(self, number: int, call: Noted) -> None:
            noted.append(call.what)
            super().__setitem__(number, call)

    watch = Watch(time.monotonic)
    watch.calls = Noting()
    connection = watched_connect(watch)(tmp_path / "a")
    connection.executescript("CREATE TABLE t (a)")
    assert noted == ["index"] * 2
    connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
    noted.clear()
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (2,)]
    assert connection.execute("SELECT a FROM t").fetchone() == (1,)
    assert noted == ["index"] * 4
    connection.close()


class Hanging(RecordingFiles):
    """Calls below one directory wait until they are let go."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sick = ""
        self.let_go = threading.Event()
        self.syncs = False

    def _wait(self, path: Path) -> None:
        if self.sick and self.sick in path.parts:
            assert self.let_go.wait(60)

    def exists(self, path: Path) -> bool:
        self._wait(path)
        return super().exists(path)

    def filesystem(self, path: Path) -> Filesystem:
        self._wait(path)
        return super().filesystem(path)

    def sync_data(self, fd: int) -> None:
        if self.syncs:
            assert self.let_go.wait(60)
        super().sync_data(fd)


class HangingFarm:
    """Two volumes, of which the first can be made to hang; time goes on by hand."""

    def __init__(self, root: Path) -> None:
        self.clock = Time()
        self.files = Hanging()
        self.farm = Farm(root, volumes=2, files=self.files)
        self.farm.engine.close()
        self.reopen()

    def reopen(self) -> None:
        from farmer.storage.engine import Engine
        from tests.storage.bench import LIMITS, NODE

        self.engine = self.farm.engine = Engine(
            self.farm.settings,
            NODE,
            self.files,
            clock_ms=lambda: self.farm.clocks.now_ms,
            observed_ms=lambda: self.farm.clocks.observed_ms,
            limits=LIMITS,
            monotonic_s=self.clock,
            spawn=in_a_thread,
        )
        self.engine.fill = Fill.FIRST

    def states(self) -> list[VolumeState]:
        return [status.state for status in self.engine.volumes()]

    def until(self, states: list[VolumeState]) -> None:
        def are_so() -> bool:
            if self.states() != states:
                self.engine.watch_disks()
            return self.states() == states

        wait_until(are_so, shown=self.states)


GONE_FIRST = [VolumeState.GONE, VolumeState.HEALTHY]
BOTH = [VolumeState.HEALTHY, VolumeState.HEALTHY]


def test_a_hung_volume_is_gone_until_its_call_returns_and_nothing_is_leaked(
    tmp_path: Path,
) -> None:
    hanging = HangingFarm(tmp_path)
    farm, engine = hanging.farm, hanging.engine
    first = farm.store(noise(100)).shard
    waiting = farm.begin(noise(200))
    waiting.write(noise(200))
    hanging.files.syncs = True
    answer = waiting.commit()
    wait_until(lambda: engine._slots[0].watch.longest()[1])
    hanging.clock.now_s += HUNG_S + 1
    hanging.until(GONE_FIRST)
    with pytest.raises(VolumeUnavailableError, match="does not answer"):
        answer.result(10)
    assert engine.volumes()[0].reserved_bytes > 0, "it may still become true"
    assert [alert.name for alert in engine.trouble()] == ["VolumeHung"]
    with pytest.raises(VolumeUnavailableError):
        farm.read(first)
    hanging.files.syncs = False
    other = farm.store(noise(300)).shard
    assert farm.read(other) == noise(300)
    assert engine.volumes()[1].shards == 1
    hanging.files.let_go.set()
    hanging.until(BOTH)
    assert farm.read(first) == noise(100)
    wait_until(lambda: not engine.volumes()[0].reserved_bytes)
    assert not engine.trouble()
    engine.close()


def test_a_store_that_is_turned_away_is_not_begun_again_before_its_lease_is_there(
    tmp_path: Path,
) -> None:
    hanging = HangingFarm(tmp_path)
    farm, data = hanging.farm, noise(3 * MIB)
    upload = farm.begin(data)
    upload.write(data[: 2 * MIB])
    watch = hanging.engine._slots[0].watch
    watch.waiting.update(range(WAITING_MAX))
    with watch.call("read", holds_up=True):
        hanging.clock.now_s += STALLED_S + 1
        with pytest.raises(VolumeUnavailableError):
            upload.write(data[2 * MIB :])
    watch.waiting.clear()
    assert farm.begin(data).offset == 2 * MIB
    hanging.engine.close()


def test_a_store_that_is_turned_away_at_its_end_can_be_begun_again(tmp_path: Path) -> None:
    hanging = HangingFarm(tmp_path)
    farm, data = hanging.farm, noise(300)
    upload = farm.begin(data)
    upload.write(data)
    watch = hanging.engine._slots[0].watch
    watch.waiting.update(range(WAITING_MAX))
    with watch.call("read", holds_up=True):
        hanging.clock.now_s += STALLED_S + 1
        with pytest.raises(VolumeUnavailableError):
            upload.commit()
    watch.waiting.clear()
    assert farm.store(data).size_bytes == 300
    hanging.engine.close()


def test_a_store_asks_no_volume_that_stalls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for that disk, and so would the renter."""
    hanging = HangingFarm(tmp_path)
    stalled = hanging.engine._slots[0].watch
    asked = []
    visit = Watch.visit

    def note(watch: Watch, what: str) -> object:
        if watch is stalled:
            asked.append(what)
        return visit(watch, what)

    monkeypatch.setattr(Watch, "visit", note)
    with stalled.call("read", holds_up=True):
        hanging.clock.now_s += STALLED_S + 1
        stored = hanging.farm.store(noise(300))
        assert asked == []
    assert hanging.farm.read(stored.shard) == noise(300)
    assert hanging.engine.volumes()[1].shards == 1
    hanging.engine.close()


def test_a_store_waits_for_what_stalls_if_no_other_is_there(tmp_path: Path) -> None:
    """Its bytes would go to one of them, only to find that they are there."""
    hanging = HangingFarm(tmp_path)
    stored = hanging.farm.store(noise(300))
    first, second = (slot.watch for slot in hanging.engine._slots)
    with ThreadPoolExecutor(1) as pool:
        with first.call("read", holds_up=True), second.call("read", holds_up=True):
            hanging.clock.now_s += STALLED_S + 1
            answer = pool.submit(hanging.engine.begin, contract_of(ALICE), stored.shard, 300)
            wait_until(lambda: first.waiting or answer.done())
            assert not answer.done()
        assert answer.result(10) == stored
    hanging.engine.close()


def test_a_volume_that_hangs_at_the_start_or_the_end_stops_nobody(tmp_path: Path) -> None:
    hanging = HangingFarm(tmp_path)
    first = hanging.farm.store(noise(100)).shard
    hanging.engine.close()
    hanging.files.sick = "volume0"

    class Running(Time):
        def __call__(self) -> float:
            self.now_s += 0.5
            return self.now_s

    hanging.clock = Running()
    hanging.reopen()
    assert hanging.states() == GONE_FIRST
    other = hanging.farm.store(noise(300)).shard
    with pytest.raises(VolumeUnavailableError):
        hanging.farm.read(first)
    hanging.engine.close()
    assert hanging.farm.settings[1].path.exists()
    hanging.files.sick = ""
    hanging.files.let_go.set()
    hanging.clock = Time()
    wait_until(hanging.engine._slots[0].job.done)
    hanging.reopen()
    hanging.until(BOTH)
    assert hanging.farm.read(first) == noise(100)
    assert hanging.farm.read(other) == noise(300)
    with pytest.raises(ShardNotFoundError):
        hanging.farm.read(type(first)(bytes(32)))
    hanging.engine.close()


@contextmanager
def all_look_ups_hanging(index: Index) -> Iterator[None]:
    """Have each connection for look-ups wait for its disk, so that none is left for others."""
    looking = [index._readers.get() for _ in range(index._readers.qsize())]
    try:
        yield
    finally:
        for reader in looking:
            index._readers.put(reader)


def test_a_look_at_the_disks_that_waits_for_look_ups_that_hang_is_seen_to_hang(
    tmp_path: Path,
) -> None:
    """Else it was never told that it waits in vain, and no disk was looked at any more."""
    hanging = HangingFarm(tmp_path)
    engine, ended = hanging.engine, threading.Event()

    def look() -> None:
        engine.look_after_disks()
        ended.set()

    with all_look_ups_hanging(engine.opened()[0].ground.index):
        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        wait_until(lambda: engine._slots[0].watch.longest()[1])
        hanging.clock.now_s += HUNG_S + 1
        hanging.until(GONE_FIRST)
        # Ours, or that of a look that the waiting for the state has begun.
        assert list(engine.stalled_threads().values()) == [True]
        assert [alert.name for alert in engine.trouble()] == ["VolumeHung"]
        engine.look_after_disks()
    assert ended.wait(10)
    hanging.until(BOTH)
    engine.close()


def test_an_exchanged_directory_is_noticed_and_opened_anew(tmp_path: Path) -> None:
    """A copy has a valid marker; the farmer must not go on with the files of the other one."""
    import shutil

    farm = Farm(tmp_path)
    before = farm.store(noise(100)).shard
    copy = farm.path.with_name("copy")
    shutil.copytree(farm.path, copy)
    after = farm.store(noise(200)).shard
    farm.path.rename(farm.path.with_name("old"))
    copy.rename(farm.path)
    farm.engine.look_after_disks()
    assert farm.engine.volumes()[0].state is VolumeState.HEALTHY
    assert "VolumeExchanged" in [alert.name for alert in farm.engine.trouble()]
    assert farm.read(before) == noise(100)
    with pytest.raises(ShardNotFoundError):
        farm.read(after)
    stored = farm.store(noise(300)).shard
    farm.reopen()
    assert farm.read(stored) == noise(300)
    farm.engine.close()


class RollingFiles(OsFiles):
    """In the middle of a look, the writer goes on to its next segment."""

    def __init__(self) -> None:
        self.before: dict[int, Callable[[], None]] = {}

    def inode(self, place: Path | int) -> tuple[int, int]:
        """Do what was to be done just before this descriptor is asked for."""
        if isinstance(place, int):
            self.before.pop(place, lambda: None)()
        return super().inode(place)


def test_a_segment_that_is_finished_during_a_look_is_no_exchange(tmp_path: Path) -> None:
    """Its descriptor is closed, and the number may already be another file's."""
    files = RollingFiles()
    farm = Farm(tmp_path, files=files)
    (volume,) = farm.engine.opened()
    kept = farm.store(noise(100)).shard
    tail = volume.writer.tail
    assert tail is not None

    def finish_segment() -> None:
        for number in range(10):
            farm.store(noise(MIB // 2, number))

    files.before[tail.fd] = finish_segment
    farm.engine.look_after_disks()
    assert volume.writer.tail is not tail
    assert farm.engine.opened() == [volume]
    assert not farm.engine.trouble()
    assert farm.read(kept) == noise(100)
    farm.engine.close()


@pytest.mark.slow
def test_statements_leave_nothing_behind(tmp_path: Path) -> None:
    """SQLite's module keeps a weak reference to each cursor, and forgets it only sometimes."""
    rows = watched_connect(Watch(Time()))(tmp_path / "some.sqlite")
    rows.execute("PRAGMA synchronous = OFF")
    rows.execute("CREATE TABLE some (thing)")

    def held_bytes() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = held_bytes()
        for number in range(5000):
            rows.execute("INSERT INTO some VALUES (?)", (number,))
            rows.executemany("INSERT INTO some VALUES (?)", [(number,)])
        assert held_bytes() - before < 100_000
    finally:
        tracemalloc.stop()
        rows.close()
