"""Averages of waiting for a disk, call by call, and from when on they count as slow."""

from __future__ import annotations

import pytest

from farmer.model.status import VolumeState
from farmer.storage.health import Health
from farmer.storage.pace import Meter, Meters, Tempo, excess


def meter_of(*calls: tuple[float, float], least_s: float = 0.0) -> Meter:
    """Return a meter that has seen calls from ... to ..."""
    meter = Meter(least_s)
    for since_s, until_s in calls:
        meter.note(since_s, until_s)
    return meter


def row_of(took_s: float, number: int, since_s: float = 0.0) -> list[tuple[float, float]]:
    """Return calls without a pause between them."""
    return [(since_s + took_s * n, since_s + took_s * (n + 1)) for n in range(number)]


class Fixed(Meter):
    """Says the average that it is told."""

    def __init__(self, says_s: float = 0.0) -> None:
        super().__init__()
        self.says_s = says_s

    def average_s(self, now_s: float) -> float:
        return self.says_s


NOW_S = 1000.0


def slow(**averages_s: float) -> Meters:
    """Return the meters of a volume that say so now, by name."""
    meters = Meters()
    for name, average_s in averages_s.items():
        fixed = Fixed(average_s)
        fixed.note(NOW_S - 1, NOW_S)
        setattr(meters, f"{name}s", fixed)
    return meters


def test_one_call_alone_says_nothing_however_long_it_took() -> None:
    assert meter_of((0, 5)).average_s(5) == 0


def test_an_average_comes_nearer_to_what_calls_in_a_row_take() -> None:
    assert meter_of(*row_of(1, 2)).average_s(2) == pytest.approx(1 / 6)
    assert meter_of(*row_of(1, 3)).average_s(3) == pytest.approx(1 / 6 + 5 / 36)
    assert meter_of(*row_of(1, 100)).average_s(100) == pytest.approx(1, rel=1e-3)


def test_a_long_call_makes_a_third_of_the_average_at_most() -> None:
    assert meter_of(*row_of(12, 2)).average_s(24) == pytest.approx(12 / 3)


def test_of_two_calls_in_a_row_the_quicker_one_is_believed() -> None:
    assert meter_of((0, 3), (3, 6)).average_s(6) == pytest.approx(1 / 3 * 3)
    assert meter_of((0, 1), (1, 4)).average_s(4) == pytest.approx(1 / 3 * 1)
    assert meter_of((0, 3), (3, 4)).average_s(4) == pytest.approx(1 / 6 * 1)


def test_calls_side_by_side_are_one_call() -> None:
    """Only the next one, which began after they ended, says that they were no exception."""
    together = [(0.0, 3.0)] * 8
    assert meter_of(*together).average_s(3) == 0
    after_one = meter_of((0, 3), (3, 6)).average_s(6)
    assert meter_of(*together, (3, 6)).average_s(6) == pytest.approx(after_one)


def test_after_a_minute_of_rest_the_first_call_says_nothing_again() -> None:
    short = meter_of((0, 3), (63, 66)).average_s(66)
    assert short == pytest.approx(1)
    assert meter_of((0, 3), (63.5, 66.5)).average_s(66.5) == 0


def test_an_average_halves_in_thirty_seconds_without_calls() -> None:
    meter = meter_of(*row_of(1, 2))
    assert meter.average_s(32) == pytest.approx(1 / 12)
    assert meter.average_s(62) == pytest.approx(1 / 24)
    assert meter.average_s(0) == pytest.approx(1 / 6), "a look that was overtaken adds nothing"
    meter.note(32, 33)
    assert meter.average_s(33) == pytest.approx(1 / 12 + 1 / 3 * (1 - 1 / 12))


def test_what_memory_answers_is_no_wait_for_the_disk() -> None:
    meter = meter_of((10, 10.25), least_s=0.5)
    assert not meter.is_known(10.25)
    meter.note(20, 20.5)
    assert meter.is_known(20.5)


def test_a_volume_is_known_by_its_calls_for_a_minute() -> None:
    assert not Meter().is_known(0)
    meter = meter_of((0, 1))
    assert meter.is_known(60.5)
    assert not meter.is_known(61)


def test_what_waits_is_a_sync_a_read_and_a_write() -> None:
    meters = Meters()
    assert list(meters.by_name()) == ["sync", "read", "write"]
    for name, knows in (("sync", True), ("read", False), ("write", False)):
        meter = meters.by_name()[name]
        meter.note(0, 0.0005)
        assert meter.is_known(1) is knows
        meter.note(5, 5.5)
        assert meter.is_known(6)


def test_without_others_a_second_is_slow() -> None:
    factor, reason = excess(slow(sync=0.5), [], NOW_S)
    assert factor == pytest.approx(0.5, rel=1e-9)
    assert reason == "a sync takes 0.5 s"
    assert excess(Meters(), [], NOW_S) == (0.0, "")


def test_others_of_which_nothing_is_known_are_not_compared_with() -> None:
    factor, reason = excess(slow(read=0.5), [Meters(), slow(sync=0.1)], NOW_S)
    assert factor == pytest.approx(0.5, rel=1e-9)
    assert reason == "a read takes 0.5 s"


def test_four_times_as_long_as_the_others_is_slow() -> None:
    others = [slow(write=0.1), slow(write=0.1), slow(write=9.0)]
    factor, reason = excess(slow(write=0.8), others, NOW_S)
    assert factor == pytest.approx(2, rel=1e-9), "the one that is slow itself does not matter"
    assert reason == "a write takes 0.8 s, on the other volumes 0.1 s"


@pytest.mark.parametrize(
    ("others_s", "allowed_s"), [(0.001, 0.3), (0.05, 0.3), (0.2, 0.8), (0.3, 1.0), (5.0, 1.0)]
)
def test_what_is_allowed_lies_between_three_tenths_and_a_second(
    others_s: float, allowed_s: float
) -> None:
    factor, reason = excess(slow(sync=0.6), [slow(sync=others_s)], NOW_S)
    assert factor == pytest.approx(0.6 / allowed_s, rel=1e-9)
    assert ("other volumes" in reason) is (allowed_s < 1.0)


def test_the_worst_kind_of_call_is_the_one_that_is_told() -> None:
    factor, reason = excess(slow(sync=0.5, read=2.0, write=1.5), [], NOW_S)
    assert factor == pytest.approx(2, rel=1e-9)
    assert reason == "a read takes 2.0 s"


@pytest.mark.parametrize(("took_s", "shown"), [(0.05, "50.0 ms"), (0.2, "0.2 s")])
def test_short_times_are_told_in_milliseconds(took_s: float, shown: str) -> None:
    assert excess(slow(sync=took_s), [], NOW_S)[1] == f"a sync takes {shown}"


class Judged:
    """A volume whose average is what is said, in multiples of what is slow."""

    def __init__(self) -> None:
        self.health = Health("attic", lambda: 0, lambda: 0.0)
        meters = Meters()
        self._sync = Fixed()
        meters.syncs = self._sync
        self._tempo = Tempo(meters, self.health)

    def judge(self, factor: float, now_s: float) -> VolumeState:
        self._sync.says_s = factor
        self._tempo.judge([], now_s)
        return self.health.state


def test_slow_is_more_than_what_is_allowed() -> None:
    assert Judged().judge(1.0, 500) is VolumeState.HEALTHY
    assert Judged().judge(1.01, 500) is VolumeState.SLOW


def test_one_that_is_slow_is_quick_again_when_it_was_twice_as_quick_for_a_minute() -> None:
    one = Judged()
    assert one.judge(1.5, 100) is VolumeState.SLOW
    assert one.judge(0.51, 120) is VolumeState.SLOW
    assert one.judge(0.5, 179) is VolumeState.SLOW
    assert one.judge(0.5, 180) is VolumeState.HEALTHY
    assert one.judge(0.9, 181) is VolumeState.HEALTHY, "it has to become slow again for that"


def test_the_owner_hears_of_what_has_been_slow_for_half_a_minute_and_still_is() -> None:
    one = Judged()
    one.judge(1.5, 100)
    one.judge(1.5, 129)
    one.judge(0.9, 131)
    one.judge(1.0, 132)
    assert one.health.alerts() == ()
    one.judge(1.5, 133)
    assert [alert.name for alert in one.health.alerts()] == ["VolumeSlow"]
    exactly = Judged()
    exactly.judge(1.5, 100)
    exactly.judge(1.5, 130)
    assert [alert.name for alert in exactly.health.alerts()] == ["VolumeSlow"]
