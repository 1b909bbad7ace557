"""The scrub keeps to the owner's hours and rate, gives way to others, and says what it lacks."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from farmer.model.status import ScrubStatus, VolumeState, VolumeStatus
from farmer.node.tasks import Tasks
from farmer.running import scrubbing as scrubbing_module
from farmer.running.errors import OwnerError
from farmer.running.scrubbing import IDLE_S, Pace, Scrubbing, scrub_alerts, scrub_verbs
from farmer.settings.kinds import HOURS, RATE, Hours
from farmer.settings.schema import ScrubSettings
from farmer.storage.scrub import DAY_MS, Turn
from tests.fakes import InlineDisk
from tests.storage.bench import Farm, noise

MB = 1_000_000


@pytest.mark.parametrize(
    ("text", "inside", "outside", "share"),
    [
        ("01:00-07:00", [60, 419], [59, 420, 0], 0.25),
        ("22:00-4:30", [1320, 1439, 0, 269], [270, 1319], 6.5 / 24),
        ("0:00-24:00", [0, 1439], [], 1.0),
        ("always", [0, 1439], [], 1.0),
    ],
)
def test_hours_may_pass_midnight(
    text: str, inside: list[int], outside: list[int], share: float
) -> None:
    hours = Hours.parse(text)
    assert all(hours.contain(minute) for minute in inside)
    assert not any(hours.contain(minute) for minute in outside)
    assert hours.share == pytest.approx(share)
    assert HOURS.parse(HOURS.show(hours)) == hours


@pytest.mark.parametrize(
    "text", ["", "1-7", "01:00-01:00", "25:00-07:00", "01:60-02:00", "24:01-3:00"]
)
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="01:00-07:00, or always"):
        Hours.parse(text)


def test_rates_are_read_with_or_without_their_unit_of_time() -> None:
    assert RATE.parse("20MB/s") == RATE.parse("20MB") == 20 * MB
    assert RATE.parse("max") == 0
    assert all(RATE.parse(RATE.show(rate)) == rate for rate in (0, 1, 20 * MB, 123_456))
    for text in ("0", "20MB/h", "fast"):
        with pytest.raises(ValueError, match=r"."):
            RATE.parse(text)


def test_it_rests_longer_the_longer_it_worked_and_the_more_others_work() -> None:
    pace = Pace(ScrubSettings(rate=0, tranquility=2))
    assert pace.rest_s(Turn(MB, 0.1), 0, 0) == pytest.approx(0.2)
    assert pace.rest_s(Turn(MB, 0.3), 0, 0) == pytest.approx(0.6)
    assert pace.rest_s(Turn(MB, 0.1), 0, 3) == pytest.approx(0.8)
    assert pace.rest_s(Turn(MB, 0.1), 0.5, 0) > 10
    assert pace.rest_s(Turn(is_idle=True), 0, 0) == IDLE_S


def test_the_rate_is_kept_over_many_turns() -> None:
    pace = Pace(ScrubSettings(rate=5 * MB, tranquility=0))
    turns = [Turn(read, worked) for read in (MB, 4096, 3 * MB) for worked in (0.01, 0.1, 0.4)]
    passed_s = sum(turn.worked_s + pace.rest_s(turn, 0, 0) for turn in turns)
    assert sum(turn.read_bytes for turn in turns) / passed_s <= 5 * MB


def test_the_scrubs_are_told_whether_their_hours_are_open() -> None:
    told: list[bool] = []
    scrubs: Any = SimpleNamespace(open_hours=lambda *, are_open: told.append(are_open))
    settings = replace(ScrubSettings(), hours=HOURS.parse("02:00-05:00"))
    for hour in (1, 3, 12):
        now_ms = int(time.mktime((2026, 1, 1, hour, 0, 0, 0, 0, -1)) * 1000)
        Scrubbing(scrubs, InlineDisk(), lambda ms=now_ms: ms, settings)._tell_hours()
    assert told == [False, True, False]


def volume(**scrub: Any) -> VolumeStatus:
    return VolumeStatus(
        name="attic", path="/mnt/attic", state=VolumeState.HEALTHY, scrub=ScrubStatus(**scrub)
    )


def test_hours_and_a_rate_that_cannot_do_it_are_told_with_the_rate_that_can() -> None:
    settings = ScrubSettings(rate=1 * MB, hours=Hours.parse("01:00-07:00"))
    tight = volume(total_bytes=4_000_000 * MB)
    (alert,) = scrub_alerts((tight,), settings, DAY_MS, {})
    assert alert.name == "ScrubTooSlow"
    assert "18.5 MB" in alert.message, alert.message
    wide = replace(settings, rate=19 * MB)
    assert scrub_alerts((tight,), wide, DAY_MS, {}) == []
    assert scrub_alerts((tight,), replace(settings, rate=0), DAY_MS, {}) == []


def test_a_disk_that_is_too_slow_is_told() -> None:
    now_ms = 100 * DAY_MS
    going = {"state": "running", "total_bytes": 10**13, "done_bytes": 10**12}
    slow = volume(
        **going, bytes_per_s=10**6, began_at_ms=now_ms - DAY_MS, ended_at_ms=now_ms - DAY_MS
    )
    (alert,) = scrub_alerts((slow,), ScrubSettings(rate=0), now_ms, {})
    assert "takes 105 days" in alert.message
    quick = volume(
        **going, bytes_per_s=10**8, began_at_ms=now_ms - DAY_MS, ended_at_ms=now_ms - DAY_MS
    )
    assert scrub_alerts((quick,), ScrubSettings(rate=0), now_ms, {}) == []
    late = volume(state="paused", began_at_ms=now_ms - 31 * DAY_MS, total_bytes=5, done_bytes=1)
    (alert,) = scrub_alerts((late,), ScrubSettings(rate=0), now_ms, {})
    assert "is not done yet (it is paused)" in alert.message


@pytest.mark.parametrize(("state", "ended"), [("idle", True), ("idle", False), ("paused", False)])
def test_a_pass_that_is_due_and_never_begins_is_told(state: str, ended: bool) -> None:
    """Counted from the end of the last one, or from when the volume was made."""
    for days, is_told in ((29, False), (31, True)):
        read_ms = (100 - days) * DAY_MS
        times = {"began_at_ms": read_ms - DAY_MS, "ended_at_ms": read_ms} if ended else {}
        unread = volume(state=state, total_bytes=5, **times)
        made_ms = DAY_MS if ended else read_ms
        found = scrub_alerts((unread,), ScrubSettings(), 100 * DAY_MS, {"attic": made_ms})
        assert ["has ended for 31 days" in alert.message for alert in found] == [True] * is_told


def test_a_pass_that_the_first_turn_may_begin_is_not_missed_before_it() -> None:
    """The machine was off for long, and the farmer has just started."""
    unread = volume(total_bytes=5, began_at_ms=DAY_MS, ended_at_ms=DAY_MS)
    assert scrub_alerts((unread,), ScrubSettings(), 100 * DAY_MS, {}) == []
    assert scrub_alerts((unread,), ScrubSettings(), 100 * DAY_MS, {"attic": 100 * DAY_MS}) != []


def test_a_volume_that_is_not_open_has_no_scrub_to_be_late() -> None:
    closed = replace(volume(), scrub=None)
    assert scrub_alerts((closed,), ScrubSettings(), 100 * DAY_MS, {"attic": 1}) == []


def test_a_volume_that_is_empty_or_not_there_is_not_told_as_unread() -> None:
    gone = replace(volume(total_bytes=5), state=VolumeState.GONE)
    for one in (gone, volume()):
        assert scrub_alerts((one,), ScrubSettings(), 100 * DAY_MS, {"attic": 1}) == []


class ScrubbingTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.farm = Farm(Path(directory.name))
        self.addCleanup(self.farm.engine.close)
        self.clock = Clock()
        self.tasks = Tasks()
        self.scrubbing = Scrubbing(
            *(self.farm.engine.scrubs, InlineDisk(), lambda: self.farm.clocks.now_ms),
            ScrubSettings(),
        )

    def scrub(self) -> ScrubStatus:
        return self.farm.engine.volumes()[0].scrub

    def ask(self, verb: str, **words: Any) -> Any:
        asked = Deferred.fromCoroutine(scrub_verbs(self.scrubbing, InlineDisk())[verb](words))
        return self.successResultOf(asked)

    def test_a_pass_is_done_in_the_background(self) -> None:
        for number in range(3):
            self.farm.store(noise(5000, number))
        self.scrubbing.start(self.clock, self.tasks)
        self.clock.pump([1.0] * 200)
        self.scrubbing.stop()
        self.assertEqual(3, self.scrub().checked)
        self.assertEqual("idle", self.scrub().state)
        self.assertFalse(self.clock.getDelayedCalls())

    def test_it_gives_way_to_who_is_being_served_as_long_as_it_has_time(self) -> None:
        for number in range(60):
            self.farm.store(noise(200_000, number))
        serving = [False]
        self.scrubbing = Scrubbing(
            *(self.farm.engine.scrubs, InlineDisk(), lambda: self.farm.clocks.now_ms),
            ScrubSettings(),
            is_serving=lambda: serving[0],
        )
        self.patch(scrubbing_module, "WORK_S", 0.0)
        self.scrubbing.start(self.clock, self.tasks)
        while self.scrub().progress < 0.2:
            self.clock.advance(0.5)
        serving[0] = True
        before = self.scrub().done_bytes
        self.clock.pump([0.5] * 100)
        self.assertEqual(before, self.scrub().done_bytes)
        # At five days a pass, two of them want two fifths of it; little more than one is done.
        self.farm.clocks.pass_days(2)
        self.clock.pump([0.5] * 3)
        self.assertGreater(self.scrub().done_bytes, before)
        serving[0] = False
        self.clock.pump([0.5] * 400)
        self.assertEqual("idle", self.scrub().state)
        self.scrubbing.stop()

    def test_a_volume_that_was_never_read_is_judged_by_when_it_was_made(self) -> None:
        """Also by a farmer that has just started, at an hour at which it must not read."""
        self.farm.store(noise(5000))
        now_ms = self.farm.clocks.now_ms
        asked: list[str] = []

        def made_ms(name: str) -> int:
            asked.append(name)
            return now_ms - 40 * DAY_MS

        hour = time.localtime(now_ms / 1000).tm_hour
        elsewhen = f"{(hour + 2) % 24}:00-{(hour + 3) % 24}:00"
        scrubbing = Scrubbing(
            *(self.farm.engine.scrubs, InlineDisk(), lambda: now_ms),
            ScrubSettings(hours=Hours.parse(elsewhen)),
        )
        scrubbing.made_ms = made_ms
        scrubbing.start(self.clock, self.tasks)
        self.clock.pump([1.0] * 200)
        scrubbing.stop()
        [alert] = scrubbing.alerts(self.farm.engine.volumes())
        self.assertIn("has ended for 40 days", alert.message)
        self.assertEqual(["volume0"], asked)

    def test_a_new_volume_is_not_taken_for_a_retired_one_of_its_name(self) -> None:
        """It was made just now; the other one's last pass was not its own."""
        self.farm.store(noise(5000))
        [volume] = self.farm.engine.volumes()
        made_ms = self.farm.clocks.now_ms
        self.scrubbing.made_ms = lambda _name: made_ms
        self.scrubbing.start(self.clock, self.tasks)
        self.clock.pump([1.0] * 10)
        self.farm.engine.remove_volume(Path(volume.path))
        self.clock.pump([1.0] * 130)
        made_ms += 40 * DAY_MS
        self.farm.clocks.pass_days(40)
        self.farm.engine.add_volume(self.farm.settings[0])
        self.clock.pump([1.0] * 130)
        self.scrubbing.stop()
        unread = replace(volume, scrub=replace(volume.scrub, ended_at_ms=0, total_bytes=5))
        self.assertEqual([], self.scrubbing.alerts((unread,)))

    def test_a_damaged_contract_database_is_told(self) -> None:
        path = Path(self.farm.path) / "book.sqlite"
        rows = sqlite3.connect(path)
        rows.execute("CREATE TABLE contracts (id BLOB PRIMARY KEY, space INTEGER)")
        rows.executemany(
            "INSERT INTO contracts VALUES (?, 1)", [(bytes([n]),) for n in range(200)]
        )
        rows.commit()
        rows.close()
        scrubbing = Scrubbing(
            *(self.farm.engine.scrubs, InlineDisk(), lambda: 1, ScrubSettings()), book=path
        )
        self.successResultOf(Deferred.fromCoroutine(scrubbing.check_book()))
        self.assertEqual([], scrubbing.alerts(()))
        raw = bytearray(path.read_bytes())
        raw[4096 : 4096 + 100] = bytes(100)
        path.write_bytes(raw)
        self.successResultOf(Deferred.fromCoroutine(scrubbing.check_book()))
        self.assertEqual(["ContractsDamaged"], [one.name for one in scrubbing.alerts(())])

    def test_the_owner_stops_it_and_lets_it_go_on(self) -> None:
        self.farm.store(noise(5000))
        self.scrubbing.start(self.clock, self.tasks)
        self.clock.pump([1.0] * 10)
        self.assertEqual({"schema": 1, "volumes": ["volume0"]}, self.ask("scrub-pause"))
        self.assertEqual("paused", self.scrub().state)
        self.ask("scrub-resume", volumes=["volume0"])
        self.farm.clocks.pass_days(1)
        ended_ms = self.scrub().ended_at_ms
        self.ask("scrub-now")
        self.clock.pump([1.0] * 100)
        self.assertGreater(self.scrub().ended_at_ms, ended_ms)
        asked = Deferred.fromCoroutine(
            scrub_verbs(self.scrubbing, InlineDisk())["scrub-now"]({"volumes": ["cellar"]})
        )
        self.failureResultOf(asked, OwnerError)
        self.scrubbing.stop()
