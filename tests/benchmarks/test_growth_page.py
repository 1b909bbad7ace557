"""docs/growth.md, out of what was measured."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.growth.page import page, panels
from benchmarks.growth.points import Point, Round, Series

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "memory_bytes": 24 * 2**30,
    "kernel": "6.18.1-host-7",
    "python": "3.11.7",
}


def series(axis: str, cost_us: Any, *, per_x: bool = False) -> Series:
    points = [
        Point(
            x,
            {"store": [Round(100, 2.0, 9.0, factor * cost_us(x)) for factor in (0.99, 1.0, 1.01)]},
            {"start_s": 0.5, "idle_ms_per_s": 3.0},
        )
        for x in (10, 100, 1000, 10_000)
    ]
    return Series(axis, f"{axis} of them", "About it.", "quick", tuple(points), per_x)


def document(*every: Series, background: dict[str, Any] | None = None) -> dict[str, Any]:
    kept = {one.axis: one.to_fields() | {"machine": MACHINE} for one in every}
    return json.loads(json.dumps({"series": kept, "background": background or {}}))


def work(p99: float, *, finished: bool) -> dict[str, Any]:
    def watched(p99: float) -> dict[str, Any]:
        one = {"count": 10, "median": 1.0, "p99": p99}
        kinds = ("ping", "store", "retrieve", "audit")
        return {
            "seconds": 40.0,
            "cpu_share": 0.5,
            "peak_mib": 70.4,
            "lag_p99_s": 0.025,
            "took_ms": dict.fromkeys(kinds, one),
            "all_ms": one,
        }

    return {
        "about": "Something goes on.",
        "shards": 200_000,
        "finished": finished,
        "machine": MACHINE,
        "alone": watched(10.0),
        "meanwhile": watched(p99),
    }


def test_each_axis_has_its_plot_its_costs_and_its_verdicts() -> None:
    """In the order of the axes, not of the measuring."""
    text = page(document(series("volumes", lambda x: 50 + x), series("shards", lambda _x: 70)))
    assert text.index("## Shards") < text.index("## Volumes")
    assert "![shards of them](growth/shards.svg)" in text
    assert "| 10k | 2 [2..2]; 9; 70 [69.3..70.7] |" in text
    assert "| store | processor | 1.00 | does not grow |" in text
    assert "| 10 | 0.5 | 3 |" in text


def test_what_grows_too_much_stands_out() -> None:
    """In the table of all axes, too."""
    text = page(document(series("volumes", lambda x: 50 + x)))
    assert text.count("| **yes** |") == 2
    assert "| volumes | 10 | 10k | store | " in text


def test_a_cost_of_a_byte_is_divided_by_the_bytes() -> None:
    """So that larger shards may take longer."""
    [_, processor] = panels(series("size", lambda x: 3 * x, per_x=True))
    assert processor.y_label == "ns per byte"
    assert {round(y, 1) for _, some in processor.lines[0].values for y in some} <= {
        2970.0,
        3000.0,
        3030.0,
    }


def test_the_background_may_cost_twice_the_p99() -> None:
    """More is said, and so is what was not finished: nobody knows of the rest of it."""
    found = {"expire": work(20.0, finished=True), "scrub": work(20.1, finished=False)}
    found["delete"] = work(20.0, finished=False)
    text = page(document(background=found))
    assert "| expire | 200,000 | 40 | all | 10.0 | 20.0 | 2.0 | yes |" in text
    assert "| scrub | 200,000 | 40, not finished | all | 10.0 | 20.1 | 2.0 | **no** |" in text
    assert "| delete | 200,000 | 40, not finished | all | 10.0 | 20.0 | 2.0 | so far |" in text
    assert "| expire | ≤ 25 | ≤ 25 | 0.50 | 70 |" in text


def test_without_background_nothing_is_said_of_it() -> None:
    """Nor is a table left empty."""
    assert "background" not in page(document(series("shards", lambda _x: 70)))


def test_the_machine_is_described_without_its_name() -> None:
    """A kernel's name may have the host's in it."""
    text = page(document(series("shards", lambda _x: 70)))
    assert "Measured on A processor, 2 cores, 24 GiB, Linux 6.18.1, Python 3.11.7: shards." in text


def test_what_was_measured_elsewhere_says_where() -> None:
    """A part that is measured again does not move the others to its machine."""
    elsewhere = work(20.0, finished=True)
    elsewhere["machine"] = MACHINE | {"cpu": "Another"}
    every = [series(axis, lambda _x: 70) for axis in ("shards", "size")]
    text = page(document(*every, background={"scrub": elsewhere}))
    assert "on A processor, 2 cores, 24 GiB, Linux 6.18.1, Python 3.11.7: shards, size." in text
    assert "on Another, 2 cores, 24 GiB, Linux 6.18.1, Python 3.11.7: scrub." in text
