"""What growth is measured with: rounds, populations, histograms, names on the command line."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest

from benchmarks.growth.__main__ import arguments
from benchmarks.growth.axes import AXES
from benchmarks.growth.background import WORKS
from benchmarks.growth.lag import buckets, quantile_s
from benchmarks.growth.points import Point, Round, Series
from benchmarks.growth.scales import LARGE, QUICK, USUAL, Scale
from benchmarks.rig.population import MIXED, Population


def test_a_round_has_median_p99_and_cost_of_one() -> None:
    """Times in ms, processor in us."""
    made = Round.of([0.001] * 98 + [0.005] * 2, cpu_s=0.2)
    assert made == Round(100, 1.0, 5.0, pytest.approx(2000))


def test_a_series_passes_through_json() -> None:
    """As it was."""
    point = Point(10, {"store": (Round(1, 2.0, 3.0, 4.0),)}, {"start_s": 0.5})
    series = Series("shards", "shards", "About.", "quick", (point,), per_x=True)
    assert Series.from_fields(json.loads(json.dumps(series.to_fields()))) == series


def test_shards_of_a_population_differ_and_can_be_had_again() -> None:
    """The same number gives the same bytes in every process."""
    some = Population(100, renters=3, size_bytes=1024, first=50)
    assert len({some.data(number) for number in some.numbers}) == 100
    assert some.data(60) == Population(1).data(60)
    assert {some.owner(number) for number in some.numbers} == {0, 1, 2}
    assert Population.from_fields(json.loads(json.dumps(some.to_fields()))) == some


def test_mixed_sizes_are_all_between_1_and_64_kib() -> None:
    """And each of them is there."""
    mixed = Population(64, size_bytes=MIXED)
    sizes = sorted(len(mixed.data(number)) for number in mixed.numbers)
    assert sizes == [1024 * kib for kib in range(1, 65)]


METRICS = """\
# TYPE farmer_reactor_lag_seconds histogram
farmer_reactor_lag_seconds_bucket{le="0.001"} 5.0
farmer_reactor_lag_seconds_bucket{le="0.01"} 100.0
farmer_reactor_lag_seconds_bucket{le="+Inf"} 110.0
farmer_reactor_lag_seconds_count 110.0
"""


def test_the_lag_is_that_of_the_time_between_two_readings() -> None:
    """As the bound of the bucket in which the quantile lies."""
    after = buckets(METRICS)
    assert after == {0.001: 5, 0.01: 100, math.inf: 110}
    assert quantile_s({}, after, 0.5) == 0.01
    assert quantile_s({}, after, 0.99) == math.inf
    assert quantile_s({0.001: 5, 0.01: 5, math.inf: 15}, after, 0.99) == 0.01
    assert math.isnan(quantile_s(after, after, 0.99))


@pytest.mark.parametrize("scale", [QUICK, USUAL, LARGE], ids=lambda scale: scale.name)
def test_every_axis_has_enough_points_to_be_judged(scale: Scale) -> None:
    """At least four, ascending."""
    found = [getattr(scale, one.name) for one in fields(Scale)]
    axes = [some for some in found if isinstance(some, tuple)]
    assert len(axes) == len(AXES)
    for some in axes:
        assert len(some) >= 4
        assert list(some) == sorted(set(some))


def test_names_can_be_chosen_alone_or_by_kind() -> None:
    """What there is not is refused."""
    assert arguments(["--only", "age,scrub"]).only == ["age", "scrub"]
    assert arguments(["--only", "background"]).only == list(WORKS)
    assert arguments([]).only == [*AXES, *WORKS]
    with pytest.raises(SystemExit):
        arguments(["--only", "nothing"])


def test_every_work_has_the_shards_that_the_page_says() -> None:
    """They are stored before the farmer starts, by renters who have contracts."""
    assert all(work.fill[0] == "store" and work.renters > 0 for work in WORKS.values())
