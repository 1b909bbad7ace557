"""What of a volume's health is counted, told, and open to readers and writers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from farmer.model.status import VolumeState
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.health import OVER_S, SYNC_FAILURES_WITHIN_S, Health


class Clock:
    """A wall clock that can be set, and one that only runs."""

    now_ms = 1_800_000_000_000
    now_s = 1000.0

    def __call__(self) -> int:
        return self.now_ms

    def go_on(self, seconds: int) -> None:
        self.now_s += seconds
        self.now_ms += seconds * 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health("attic", clock, lambda: clock.now_s)


def alerts(health: Health) -> list[str]:
    return [alert.name for alert in health.alerts()]


@pytest.mark.parametrize(
    ("kind", "fail"),
    [
        ("write", lambda health: health.write_failed("EIO")),
        ("sync", lambda health: health.sync_failed("EIO")),
        ("read_only", lambda health: health.read_only("EROFS")),
        ("no_space", Health.no_space),
        ("probe", Health.probe_failed),
        ("other", lambda health: health.count("other")),
    ],
)
def test_each_failure_counts_as_one_of_its_kind(
    health: Health, kind: str, fail: Callable[[Health], None]
) -> None:
    assert health.errors() == ()
    fail(health)
    assert health.errors() == ((kind, 1),)
    fail(health)
    assert health.errors() == ((kind, 2),)


def test_one_call_that_hangs_is_counted_once_and_the_next_one_again(health: Health) -> None:
    health.hang("a read does not return")
    health.hang("a read does not return for 9 s")
    assert health.errors() == (("hung", 1),)
    assert health.reason == "a read does not return for 9 s"
    health.returned()
    assert (health.is_here, health.reason, alerts(health)) == (True, "", [])
    health.hang("a sync does not return")
    assert health.errors() == (("hung", 2),)
    assert alerts(health) == ["VolumeHung"]


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (lambda health: health.write_failed("EIO"), "the disk could not be written (EIO)"),
        (lambda health: health.fail("the index is rotten"), "the index is rotten"),
    ],
)
def test_what_fails_is_read_and_not_written_until_it_is_opened_anew(
    health: Health, fail: Callable[[Health], None], reason: str
) -> None:
    fail(health)
    assert (health.state, health.reason) == (VolumeState.FAILING, reason)
    assert health.is_read_only
    assert alerts(health) == ["VolumeFailing"]
    health.check_readable()
    with pytest.raises(VolumeUnavailableError) as refusal:
        health.check_writable()
    assert str(refusal.value) == reason
    for _ in range(3):
        health.probe_worked()
    assert alerts(health) == ["VolumeFailing"]
    health.reopened()
    assert (health.state, health.reason, alerts(health)) == (VolumeState.HEALTHY, "", [])
    health.check_writable()


def test_a_bad_probe_takes_the_good_ones_before_it_back(health: Health) -> None:
    health.write_failed("EIO")
    for _ in range(2):
        health.probe_worked()
    health.probe_failed()
    health.probe_worked()
    assert not health.condition.is_proven


def test_a_volume_that_is_not_there_is_neither_read_nor_written(health: Health) -> None:
    assert health.is_here
    health.go("no such directory")
    assert not health.is_here
    for check in (health.check_readable, health.check_writable):
        with pytest.raises(VolumeUnavailableError, match="no such directory"):
            check()
    health.reopened()
    assert health.is_here
    health.check_writable()


def test_a_full_volume_is_written_all_the_same_for_something_may_be_deleted(
    health: Health,
) -> None:
    health.no_space()
    assert (health.state, health.reason) == (VolumeState.FULL, "its filesystem is full")
    assert not health.is_read_only
    health.check_writable()
    health.room()
    assert (health.state, health.reason) == (VolumeState.HEALTHY, "")


def test_a_volume_that_is_only_read_says_so_and_why(health: Health) -> None:
    assert not health.is_read_only
    health.read_only("EROFS")
    assert health.is_read_only
    assert health.state is VolumeState.READ_ONLY
    with pytest.raises(VolumeUnavailableError, match="its filesystem is read-only"):
        health.check_writable()
    health.room()
    assert health.is_read_only, "that there is room says nothing of it"


def test_a_second_failed_sync_counts_if_it_comes_within_a_day(
    health: Health, clock: Clock
) -> None:
    day_s = 24 * 60 * 60
    health.sync_failed("EIO")
    clock.go_on(day_s)
    health.sync_failed("EIO")
    assert not health.is_read_only
    clock.go_on(day_s - 1)
    health.sync_failed("EIO")
    assert health.state is VolumeState.FAILING
    assert set(alerts(health)) == {"VolumeSyncFailed", "VolumeFailing"}


def test_a_failed_sync_is_not_forgotten_when_the_clock_is_set(
    health: Health, clock: Clock
) -> None:
    """A machine without a clock of its own learns the time from the network."""
    health.sync_failed("EIO")
    clock.now_ms += 2 * SYNC_FAILURES_WITHIN_S * 1000
    health.sync_failed("EIO")
    assert health.state is VolumeState.FAILING


def test_an_alert_keeps_its_beginning_and_takes_new_words(health: Health, clock: Clock) -> None:
    began_ms = clock.now_ms
    health.raise_alert("Some", "first words")
    clock.go_on(1)
    health.raise_alert("Some", "other words", "some command")
    (alert,) = health.alerts()
    assert (alert.since_ms, alert.message, alert.command) == (
        began_ms,
        "other words",
        "some command",
    )
    health.clear_alert("Some")
    health.clear_alert("Some")
    assert health.alerts() == ()
    health.raise_alert("Some", "again")
    assert health.alerts()[0].since_ms == began_ms + 1000


@pytest.mark.parametrize("name", ["IndexRebuilt", "VolumeRefused", "VolumeSyncFailed"])
def test_what_is_over_is_told_for_a_day_after_the_last_time(
    health: Health, clock: Clock, name: str
) -> None:
    health.raise_alert(name, "once")
    health.raise_alert("VolumeExchanged", "for the owner to see to")
    began_ms = clock.now_ms
    clock.go_on(OVER_S - 1)
    health.raise_alert(name, "again")
    clock.go_on(OVER_S - 1)
    (told,) = [alert for alert in health.alerts() if alert.name == name]
    assert (told.message, told.since_ms) == ("again", began_ms)
    clock.go_on(1)
    assert alerts(health) == ["VolumeExchanged"]
    health.raise_alert(name, "anew")
    (told,) = [alert for alert in health.alerts() if alert.name == name]
    assert told.since_ms == clock.now_ms
    clock.go_on(OVER_S)
    health.raise_alert(name, "later")
    (told,) = [alert for alert in health.alerts() if alert.name == name]
    assert told.since_ms == clock.now_ms


@pytest.mark.parametrize("days", [2, -36_500])
def test_what_is_over_is_told_for_a_day_whatever_the_clock_is_set_to(
    health: Health, clock: Clock, days: int
) -> None:
    """Neither shorter by a step forward nor for years by one back."""
    health.raise_alert("IndexRebuilt", "at the start, by a clock that was wrong")
    clock.now_ms += days * 86_400_000
    clock.go_on(OVER_S - 1)
    assert alerts(health) == ["IndexRebuilt"]
    clock.go_on(1)
    assert alerts(health) == []


def test_an_alert_says_which_volume_it_is_about(health: Health) -> None:
    """Its words may change, and another volume may have one of the same name."""
    health.raise_alert("LogDamaged", "a segment")
    assert [alert.about for alert in health.alerts()] == ["attic"]


def test_a_slow_volume_is_told_of_only_while_it_is_slow(health: Health) -> None:
    health.slowed("a sync takes 2.0 s")
    assert (health.is_slow, alerts(health)) == (True, [])
    health.stays_slow("a sync takes 3.0 s")
    health.stays_slow("a sync takes 4.0 s")
    assert health.reason == "a sync takes 3.0 s", "this is told once"
    assert alerts(health) == ["VolumeSlow"]
    health.quickened()
    assert (health.is_slow, health.reason, alerts(health)) == (False, "", [])


def test_the_worst_reason_is_the_one_that_is_shown(health: Health) -> None:
    health.slowed("slow")
    health.no_space()
    assert (health.state, health.reason) == (VolumeState.FULL, "its filesystem is full")
    health.hang("hung")
    assert (health.state, health.reason) == (VolumeState.GONE, "hung")
    health.go("gone")
    assert health.reason == "gone"
    assert alerts(health) == ["VolumeGone"]


def test_an_observation_that_changes_nothing_gives_no_reason_and_no_alert(
    health: Health,
) -> None:
    """A failing volume that turns out to be read-only, too, stays a failing one."""
    health.write_failed("EIO")
    health.read_only("EROFS")
    health.no_space()
    assert (health.state, health.reason) == (
        VolumeState.FAILING,
        "the disk could not be written (EIO)",
    )
    assert alerts(health) == ["VolumeFailing"]
