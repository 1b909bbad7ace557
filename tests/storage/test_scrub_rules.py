"""When a scrub works, how long, what it notes and what it tells; its clock is turned by hand."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from farmer.storage.directory import Paths
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.health import Health
from farmer.storage.scrub import ALERTS, PINNED_S, SAVE_S, Scrub, Turn
from farmer.storage.scrub_notes import SEGMENTS_MAX, is_named, name_segment
from tests.storage.bench import Farm, noise
from tests.storage.rot import flip, rot, row_of, volume_of

SMALL = 4 * 65_536
EVERY_MS = 1000
START_MS = 1_800_000_000_000
ALL_S = 1e9


class Bench:
    """A farm's scrub; each look at its clock takes as long as is said."""

    def __init__(self, farm: Farm, shards: int = 4) -> None:
        self.farm = farm
        self.shards = [farm.store(noise(SMALL, number)).shard for number in range(shards)]
        self.now_s = 100.0
        self.look_s = 0.0
        self.now_ms = START_MS
        self.scrub = self.fresh()

    def clock(self) -> float:
        self.now_s += self.look_s
        return self.now_s

    def fresh(self) -> Scrub:
        scrub = Scrub(volume_of(self.farm), self.clock)
        scrub.take_charge()
        return scrub

    def turn(self, work_s: float = ALL_S) -> Turn:
        return self.scrub.turn(work_s, self.now_ms, EVERY_MS)

    @property
    def is_pinned(self) -> bool:
        return volume_of(self.farm).handles.pinned > 0

    @property
    def state(self) -> str:
        return self.scrub.status().state

    def notes(self) -> dict[str, Any]:
        path = Paths(self.farm.path).scrub_notes
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def alerts(self) -> set[str]:
        return {alert.name for alert in volume_of(self.farm).ground.health.alerts()}


@pytest.fixture
def bench(farm: Farm) -> Bench:
    return Bench(farm)


def test_the_first_turn_begins_a_pass_and_one_that_has_the_time_ends_it(bench: Bench) -> None:
    assert bench.state == "idle"
    before = bench.scrub.status()
    assert (before.began_at_ms, before.ended_at_ms, before.done_bytes) == (0, 0, 0)
    turn = bench.turn()
    assert not turn.is_idle
    assert turn.read_bytes >= 4 * SMALL
    status = bench.scrub.status()
    assert (status.state, status.checked, status.done_bytes) == ("idle", 4, 0)
    assert (status.began_at_ms, status.ended_at_ms) == (START_MS, START_MS)
    assert bench.notes()["phase"] == ""


@pytest.mark.parametrize(
    ("passed_ms", "is_idle"), [(0, True), (EVERY_MS - 1, True), (EVERY_MS, False), (-1, False)]
)
def test_the_next_pass_begins_so_long_after_the_last_one_began(
    bench: Bench, passed_ms: int, is_idle: bool
) -> None:
    """A clock that was ahead then makes it due, not never."""
    bench.turn()
    bench.now_ms += passed_ms
    assert bench.turn().is_idle is is_idle
    assert bench.scrub.status().began_at_ms == START_MS + (0 if is_idle else passed_ms)


def test_a_turn_works_until_its_time_is_over_and_the_next_one_goes_on(bench: Bench) -> None:
    bench.look_s = 1.0
    turns: list[Turn] = []
    while not turns or bench.state == "running":
        turns.append(bench.turn(2.5))
    assert len(turns) > 2
    assert not any(turn.is_idle for turn in turns)
    assert all(2.5 <= turn.worked_s < 10 for turn in turns[:-1])
    assert bench.scrub.status().checked == 4
    idle = bench.turn()
    assert (idle.is_idle, idle.read_bytes, idle.worked_s) == (True, 0, 0.0)


def test_a_turn_without_time_takes_one_step(bench: Bench) -> None:
    assert bench.turn(0) == Turn(4096, 0.0)
    status = bench.scrub.status()
    assert (status.state, status.done_bytes, status.checked) == ("running", 4096, 0)
    assert bench.is_pinned
    second = bench.turn(0)
    assert bench.scrub.status().done_bytes == 4096 + second.read_bytes


def test_what_is_done_is_no_more_than_there_is(bench: Bench) -> None:
    account = volume_of(bench.farm).ground.account
    bench.farm.delete(bench.shards[0])
    trashed, live = account.total.trash_bytes, account.total.live_bytes
    assert trashed > 0
    status = bench.scrub.status()
    assert status.total_bytes == live + trashed + account.log_bytes
    bench.turn(0)
    seen = []
    while bench.state == "running":
        seen.append(bench.scrub.status().done_bytes)
        bench.turn(0)
    assert seen == sorted(seen)
    assert seen[-1] <= status.total_bytes


def test_only_so_much_work_is_lost_by_a_crash(bench: Bench) -> None:
    bench.turn(0)
    assert bench.notes()["done_bytes"] == 0, "the beginning is noted at once"
    assert bench.notes()["phase"] == "log"
    bench.look_s = SAVE_S / 6
    worked_s, noted = 0.0, list[bool]()
    for _ in range(4):
        worked_s += bench.turn(0).worked_s
        noted.append(bench.notes()["done_bytes"] == bench.scrub.status().done_bytes)
        assert noted[-1] is (worked_s >= SAVE_S)
        if noted[-1]:
            worked_s = 0.0
    assert set(noted) == {True, False}


def test_a_pass_goes_on_where_it_was_noted(bench: Bench) -> None:
    for _ in range(3):
        bench.turn(0)
    bench.scrub.close()
    assert not bench.is_pinned
    assert bench.turn().is_idle
    noted = bench.notes()["done_bytes"]
    assert noted > 4096
    bench.scrub = bench.fresh()
    assert bench.state == "running"
    assert bench.scrub.status().done_bytes == noted
    bench.now_ms += 5
    assert not bench.turn().is_idle
    status = bench.scrub.status()
    assert (status.began_at_ms, status.ended_at_ms) == (START_MS, START_MS + 5)


def test_marks_that_cannot_be_read_are_told_also_after_a_rest(bench: Bench) -> None:
    bench.farm.delete(bench.shards[0])
    (marks,) = volume_of(bench.farm).ground.index.marks()
    segment = volume_of(bench.farm).ground.paths.segment(marks.place.segment)
    flip(segment, marks.place.offset + 256 + 50)
    bench.turn(0)
    for _ in range(100):
        bench.turn(0)
        if bench.scrub._notes.phase == "rows":
            break
    bench.scrub.close()
    bench.scrub = bench.fresh()
    bench.turn()
    assert bench.scrub.status().disagreements == 1
    assert bench.alerts() == {"LogDamaged"}
    bench.now_ms += EVERY_MS
    bench.turn(0)
    assert bench.notes()["doubtful"] == [], "the next pass sees for itself"


def test_more_segments_than_the_notes_can_name_stand_for_all(bench: Bench) -> None:
    segments: list[int] = []
    for number in range(1, 2000):
        assert is_named(segments, number) is (number > SEGMENTS_MAX + 1)
        name_segment(segments, number)
        name_segment(segments, number)
    assert len(segments) == SEGMENTS_MAX + 1
    bench.turn(0)
    long = [2**32 - 1 - number for number in segments]
    path = Paths(bench.farm.path).scrub_notes
    path.write_text(json.dumps(bench.notes() | {"spotted": long, "doubtful": long}))
    assert bench.fresh().status().state == "running", "they are short enough to be read"


def test_a_pass_that_an_earlier_release_began_goes_on(bench: Bench) -> None:
    for _ in range(3):
        bench.turn(0)
    bench.scrub.close()
    notes = bench.notes()
    newer = {name: notes.pop(name) for name in ("spotted", "doubtful")}
    path = Paths(bench.farm.path).scrub_notes
    path.write_text(json.dumps(notes))
    assert bench.fresh().status().done_bytes == notes["done_bytes"] > 0
    for wrong in ("many", [-1], ["1"], [1.5], {"1": 1}):
        path.write_text(json.dumps(notes | newer | {"spotted": wrong}))
        assert bench.fresh().status().state == "idle", "no notes"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("segment", value) for value in (1 << 62, 1 << 70, 10**400)),
        *(("done_bytes", value) for value in (1 << 64, True)),
        *(("offset", value) for value in (1, 4095, 5000)),
        ("spotted", [1 << 63]),
        ("doubtful", list(range(SEGMENTS_MAX + 2))),
        *(("shard", value) for value in ("0", "ab" * 32, "AB" * 32, " ".join(["ab"] * 32))),
        ("renter", "ab" * 32),
    ],
)
def test_a_note_that_no_scrub_writes_means_a_new_pass(
    bench: Bench, field: str, value: object
) -> None:
    """A number that the index cannot be asked for, and a place where no record begins."""
    bench.turn(0)
    bench.scrub.close()
    path = Paths(bench.farm.path).scrub_notes
    path.write_text(json.dumps(bench.notes() | {field: value}))
    assert bench.fresh().status().state == "idle", "no notes"


def test_deeply_nested_notes_mean_a_new_pass(bench: Bench) -> None:
    Paths(bench.farm.path).scrub_notes.write_text("[" * 4096)
    assert bench.fresh().status().state == "idle"


def test_a_volume_that_is_gone_is_not_written_when_its_scrub_is_closed(bench: Bench) -> None:
    bench.turn(0)
    before = bench.notes()
    bench.turn(0)
    bench.scrub.close(in_order=False)
    assert bench.notes() == before
    assert bench.turn().is_idle


def test_hours_and_pauses_are_states_that_a_person_understands(bench: Bench) -> None:
    bench.turn(0)
    assert (bench.state, bench.is_pinned) == ("running", True)
    bench.scrub.is_within_hours = False
    assert bench.state == "waiting"
    assert bench.turn().is_idle
    assert not bench.is_pinned, "nothing stays pinned for hours"
    assert bench.notes()["done_bytes"] == bench.scrub.status().done_bytes
    bench.scrub.begin_now()
    assert bench.state == "running"
    assert not bench.turn(0).is_idle
    bench.scrub.pause(paused=True)
    assert (bench.state, bench.is_pinned) == ("paused", False)
    assert bench.notes()["is_paused"] is True
    bench.scrub.is_within_hours = True
    assert bench.turn().is_idle
    assert bench.fresh().status().state == "paused", "over restarts"
    bench.scrub.pause(paused=False)
    assert (bench.state, bench.notes()["is_paused"]) == ("running", False)
    assert not bench.turn().is_idle


def test_outside_the_hours_no_pass_begins_unless_somebody_wants_it_now(bench: Bench) -> None:
    bench.scrub.is_within_hours = False
    assert (bench.turn().is_idle, bench.state) == (True, "idle")
    bench.scrub.begin_now()
    assert bench.state == "running"
    assert not bench.turn().is_idle
    assert (bench.state, bench.scrub.status().checked) == ("idle", 4)
    bench.now_ms += EVERY_MS
    assert bench.turn().is_idle, "it was wanted once"


def test_now_means_also_when_none_is_due_and_while_paused(bench: Bench) -> None:
    bench.turn()
    bench.scrub.pause(paused=True)
    bench.now_ms += 1
    assert bench.turn().is_idle
    bench.scrub.begin_now()
    assert bench.state == "running"
    bench.turn()
    assert bench.scrub.status().began_at_ms == START_MS + 1
    assert bench.state == "idle"


def test_a_pause_takes_back_what_was_wanted_now_and_going_on_does_not(bench: Bench) -> None:
    bench.scrub.is_within_hours = False
    bench.scrub.begin_now()
    bench.scrub.pause(paused=False)
    assert not bench.turn(0).is_idle
    bench.scrub.pause(paused=True)
    bench.scrub.pause(paused=False)
    assert bench.state == "waiting"
    assert bench.turn().is_idle


def test_what_is_wanted_now_goes_on_with_the_pass_that_is_under_way(bench: Bench) -> None:
    for _ in range(3):
        bench.turn(0)
    done_bytes = bench.scrub.status().done_bytes
    bench.now_ms += 7
    bench.scrub.begin_now()
    bench.turn(0)
    status = bench.scrub.status()
    assert status.began_at_ms == START_MS
    assert status.done_bytes > done_bytes


class HeldByHanging:
    """The lock of a scrub whose turn waits for its disk; meanwhile that is seen to hang."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def acquire(self, timeout: float) -> bool:
        assert timeout > 0
        self._health.hang("it hangs")
        return False


def test_who_tells_the_scrub_of_a_disk_that_hangs_in_a_turn_is_told_so(bench: Bench) -> None:
    health = volume_of(bench.farm).ground.health
    lock = bench.scrub._lock
    bench.scrub._lock = HeldByHanging(health)  # type: ignore[assignment]
    for tell in (bench.scrub.begin_now, partial(bench.scrub.pause, paused=True)):
        with pytest.raises(VolumeUnavailableError, match="it hangs"):
            tell()
        health.returned()
    assert bench.state == "idle"
    bench.scrub._lock = lock
    bench.scrub.pause(paused=True)
    assert bench.state == "paused"


def test_a_volume_that_hangs_keeps_no_other_from_being_told(tmp_path: Path) -> None:
    farm = Farm(tmp_path, volumes=2)
    with closing(farm.engine) as engine:
        first, _second = engine.scrubs.names()
        engine.scrubs.pause([first], paused=False)
        volume, scrub = engine.scrubs._scrubs[first]
        scrub._lock = HeldByHanging(volume.ground.health)  # type: ignore[assignment]
        with pytest.raises(VolumeUnavailableError, match=f"{first}: it hangs"):
            engine.scrubs.pause(paused=True)
        scrub._lock = Lock()
        assert [one.scrub.state for one in engine.volumes()] == ["idle", "paused"]


def test_a_volume_that_is_not_there_is_left_alone(bench: Bench) -> None:
    health = volume_of(bench.farm).ground.health
    bench.turn(0)
    health.go("unplugged")
    assert bench.turn().is_idle
    assert not bench.is_pinned
    health.reopened()
    assert not bench.turn().is_idle


def test_a_pass_that_finds_nothing_ends_the_alerts_of_those_before(bench: Bench) -> None:
    health = volume_of(bench.farm).ground.health
    for name in (*ALERTS, "Another"):
        health.raise_alert(name, "words")
    rot(bench.farm, row_of(bench.farm, bench.shards[0]), "payload")
    bench.turn()
    assert bench.alerts() == {*ALERTS, "Another"}
    assert bench.scrub.status().damaged == 1
    bench.farm.delete(bench.shards[0], erase=True)
    bench.now_ms += EVERY_MS
    bench.turn()
    assert bench.alerts() == {"Another"}
    assert bench.scrub.status().damaged == 0


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_arguments: object) -> Any:
        raise error

    return fail


def test_an_index_that_cannot_be_read_ends_the_turn_and_blames_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.turn(0)
    index = volume_of(bench.farm).ground.index
    with monkeypatch.context() as patch:
        patch.setattr(index, "find", failing(sqlite3.OperationalError("disk I/O error")))
        with pytest.raises(VolumeUnavailableError, match="the index cannot be read: disk I/O"):
            bench.turn()
    assert not bench.is_pinned
    assert not volume_of(bench.farm).ground.health.is_read_only
    assert not bench.turn().is_idle
    assert bench.scrub.status().checked == 4


def test_a_rotten_index_closes_the_volume(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.turn(0)
    index, rotten = volume_of(bench.farm).ground.index, sqlite3.DatabaseError("malformed")
    rotten.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    monkeypatch.setattr(index, "find", failing(rotten))
    with pytest.raises(VolumeUnavailableError, match="malformed"):
        bench.turn()
    assert volume_of(bench.farm).ground.health.is_read_only
    assert not bench.is_pinned


def test_whatever_ends_a_turn_leaves_nothing_pinned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.turn(0)
    index = volume_of(bench.farm).ground.index
    monkeypatch.setattr(index, "find", failing(ValueError("our own mistake")))
    with pytest.raises(ValueError, match="our own mistake"):
        bench.turn()
    assert not bench.is_pinned
    with pytest.raises(ValueError, match="our own mistake"):
        bench.turn()


def test_notes_that_cannot_be_written_do_not_matter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.farm.files, "rename", failing(OSError("no")))
    assert not bench.turn().is_idle
    assert bench.scrub.status().checked == 4


def test_a_turn_is_put_off_while_the_pass_is_ahead_of_its_time(bench: Bench) -> None:
    def put_off(passed_ms: int) -> bool:
        return bench.scrub.put_off(START_MS + passed_ms, 1000)

    assert not put_off(0), "nothing is under way"
    bench.turn(0)
    while (done := bench.scrub.status().progress) < 0.4:
        bench.turn(0)
    assert put_off(0)
    assert put_off(int(done * 1000) - 1)
    assert not put_off(int(done * 1000) + 1)
    assert not put_off(-1), "the clock was set back"
    bench.scrub.begin_now()
    assert not put_off(0), "somebody waits for it"


def test_what_is_put_off_for_long_pins_nothing(bench: Bench) -> None:
    """Else it could not be given back until the pass goes on, which may be days."""
    bench.turn(0)
    while not bench.is_pinned:
        bench.turn(0)
    before = bench.scrub.status()
    assert bench.scrub.put_off(START_MS, 1000)
    assert bench.is_pinned, "it may go on in a moment"
    bench.now_s += PINNED_S + 0.1
    assert bench.scrub.put_off(START_MS, 1000)
    assert not bench.is_pinned
    assert bench.notes()["done_bytes"] == before.done_bytes
    bench.turn()
    assert (bench.state, bench.scrub.status().checked) == ("idle", 4)


def test_outside_its_hours_or_paused_it_is_not_put_off_but_rests(bench: Bench) -> None:
    bench.turn(0)
    bench.scrub.is_within_hours = False
    assert not bench.scrub.put_off(START_MS, 1000)
    assert bench.turn().is_idle
    assert not bench.is_pinned
    bench.scrub.is_within_hours = True
    bench.scrub.pause(paused=True)
    assert not bench.scrub.put_off(START_MS, 1000)


def test_what_was_put_off_does_not_count_as_slowness(bench: Bench) -> None:
    bench.turn(0)
    bench.now_s += 10
    bench.turn(0)
    before = bench.scrub.status().bytes_per_s
    assert before > 0
    assert bench.scrub.put_off(START_MS, 1000)
    bench.now_s += 5000
    bench.turn(0)
    assert bench.scrub.status().bytes_per_s == before
    bench.now_s += 10
    read = bench.turn(0).read_bytes
    assert bench.scrub.status().bytes_per_s == pytest.approx((before * 10 + read) / 20)


def test_the_speed_is_that_of_the_whole_pass_with_its_pauses(bench: Bench) -> None:
    def rate() -> float:
        return bench.scrub.status().bytes_per_s

    bench.turn(0)
    assert rate() == 0.0, "one look is no stretch"
    bench.now_s += 10
    second = bench.turn(0).read_bytes
    assert rate() == pytest.approx(second / 10)
    bench.turn(0)
    assert rate() == pytest.approx(second / 10), "no time has passed"
    bench.now_s += 30
    fourth = bench.turn(0).read_bytes
    assert rate() == pytest.approx((second + fourth) / 40)
    bench.now_s += 2000
    fifth = bench.turn(0).read_bytes
    assert rate() == pytest.approx((second + fourth + fifth) / 2040)
    before = rate()
    bench.now_s += 100
    sixth = bench.turn(0).read_bytes
    assert rate() == pytest.approx((before * 600 + sixth) / 700), "it forgets"
    bench.turn()
    assert rate() == 0.0, "nothing is under way"
    bench.now_ms += EVERY_MS
    bench.now_s += 50
    bench.turn(0)
    assert rate() == 0.0, "each pass has its own"


def test_one_turn_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: list[Turn] = []
    bench.turn(0)
    index = volume_of(bench.farm).ground.index
    find = index.find

    def finding(*arguments: Any) -> Any:
        inner.append(bench.turn())
        return find(*arguments)

    monkeypatch.setattr(index, "find", finding)
    assert not bench.turn(0).is_idle
    assert inner[0].is_idle
    monkeypatch.undo()
    assert not bench.turn().is_idle


def test_the_volume_tells_how_far_it_is_and_closes_it(bench: Bench) -> None:
    bench.turn(0)
    volume = volume_of(bench.farm)
    assert volume.status().scrub == bench.scrub.status()
    bench.farm.engine.close()
    assert bench.turn().is_idle
    assert bench.notes()["phase"] == "log"
