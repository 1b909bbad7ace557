"""Medians and ratios out of the cells of a run."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers import figures
from benchmarks.peers.figures import Spread, Work

WORK = Work("store", 65536, 16)


def cell(peer: str, number: int, count: int, **more: Any) -> dict[str, Any]:
    return {
        "peer": peer,
        "round": number,
        "what": "store",
        "size_bytes": 65536,
        "at_once": 16,
        "count": count,
        "seconds": 2.0,
        "server_s": 0.5,
        "client_s": 1.0,
        "pss_bytes": 50_000_000,
        "median_ms": 1.0,
        "p99_ms": 2.0,
    } | more


def test_a_spread_has_median_least_and_most() -> None:
    """Of an even number of rounds, the middle between two."""
    assert Spread.of([4, 1, 2, 8]) == Spread(3, 1, 8)


def test_figures_of_a_cell() -> None:
    """Rates are by the clock, costs by the processor."""
    one = cell("nginx", 0, 1000)
    assert figures.per_s(one) == 500
    assert figures.mb_per_s(one) == pytest.approx(32.768)
    assert figures.server_us(one) == pytest.approx(500)
    assert figures.server_s_per_gb(one) == pytest.approx(7.63, abs=0.01)
    assert figures.client_busy(one) == 0.5
    assert figures.pss_mb(one) == 50


def test_ratios_are_taken_round_by_round() -> None:
    """A slow minute slows both: the ratio of the medians would say 1.0, the rounds say 2."""
    cells = [
        *(cell("farmer", 0, 200), cell("nginx", 0, 100)),
        *(cell("farmer", 1, 20), cell("nginx", 1, 10)),
        *(cell("farmer", 2, 100), cell("nginx", 2, 200)),
    ]
    assert figures.ratio(cells, "nginx", WORK, figures.per_s) == Spread(2, 0.5, 2)


def test_a_round_that_one_did_not_finish_says_nothing() -> None:
    """Only pairs are compared."""
    cells = [cell("farmer", 0, 200), cell("farmer", 1, 100), cell("nginx", 1, 100)]
    assert figures.ratio(cells, "nginx", WORK, figures.per_s) == Spread(1, 1, 1)
    assert figures.ratio(cells, "rclone", WORK, figures.per_s) is None


def test_no_processor_time_is_no_divisor() -> None:
    """A short cell may take less than a tick."""
    cells = [cell("farmer", 0, 100), cell("nginx", 0, 100, server_s=0.0)]
    assert figures.ratio(cells, "nginx", WORK, figures.server_us) is None


def test_other_work_is_another_row() -> None:
    """Sizes, numbers at once, stores and retrieves are not mixed."""
    cells = [cell("farmer", 0, 100), cell("farmer", 0, 999, at_once=1)]
    assert figures.spread(cells, "farmer", WORK, figures.per_s) == Spread(50, 50, 50)
    assert figures.spread(cells, "nginx", WORK, figures.per_s) is None


def test_stores_come_first_and_small_ones_first() -> None:
    """The order of the rows."""
    cells = [
        cell("farmer", 0, 1, what="retrieve"),
        cell("farmer", 0, 1, size_bytes=1 << 26, at_once=1),
        cell("farmer", 0, 1),
    ]
    assert figures.works(cells) == [WORK, Work("store", 1 << 26, 1), Work("retrieve", 65536, 16)]
