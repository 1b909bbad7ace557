"""docs/growth.md and its plots, out of figures.json: nothing on that page is written by hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.growth import background_words
from benchmarks.growth.axes import AXES
from benchmarks.growth.chart import Line, Panel, draw, short
from benchmarks.growth.fitting import Growth, Values, Verdict, judge
from benchmarks.growth.keeping import RESULT, load
from benchmarks.growth.points import OPERATIONS, Round, Series

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "growth.md"
PLOTS: Final = RESULT.parent

_FIGURES: Final[tuple[tuple[str, str, Callable[[Round], float]], ...]] = (
    ("processor", "us", lambda one: one.cpu_us),
    ("median time", "ms", lambda one: one.median_ms),
    ("p99", "ms", lambda one: one.p99_ms),
)

_STANDING: Final = (
    ("start_s", "from start to ready, s"),
    ("memory_mib", "memory when ready, MiB"),
    ("memory_connected_mib", "memory when all are connected, MiB"),
    ("index_bytes", "index, bytes"),
    ("idle_ms_per_s", "processor of a second in which nobody asks, ms"),
    ("reference_ms", "a piece of work that is always the same, ms"),
)

_INTRODUCTION: Final = """\
# Growth

What an operation costs as one thing after the other grows: `.venv/bin/python -m benchmarks.growth`
measures it on a real farmer over TLS, one request at a time, each kind in several rounds, and
`.venv/bin/python -m benchmarks.growth --page` makes this page and its plots; nothing here is
written by hand.

*Per decade* is the factor by which a figure grows for ten times as much: the slope of the straight
line through the medians, both axes logarithmic. *Worse than logarithmic* is computed from all
rounds: "no" and "yes" say which explains them better, `a + b log x` or `a + b x^p`; "does not
grow" that not every round of the last x is a quarter above every one of the first; "falls" that
each is as much below. Processor time is the farmer's, of all its threads; where
the piece of work that is always the same took longer, so did everything. Dots are rounds,
lines go through medians."""


def write() -> None:
    """Write page and plots."""
    document = load()
    PLOTS.mkdir(exist_ok=True)
    for series in _all_series(document):
        (PLOTS / f"{series.axis}.svg").write_text(draw(panels(series)))
    PAGE.write_text(page(document))


def page(document: Mapping[str, Any]) -> str:
    """Return the page as markdown."""
    every = _all_series(document)
    parts = [_INTRODUCTION, _machines(document), _summary(every)]
    for series in every:
        parts += _section(series)
    parts += background_words.section(document["background"])
    return "\n\n".join(parts) + "\n"


def panels(series: Series) -> list[Panel]:
    """Return the two charts of an axis: time, and processor time."""
    # The cost of a byte is best told in nanoseconds.
    of_ms, of_us = (1e6, 1e3) if series.per_x else (1.0, 1.0)
    lines = [
        Line(
            name,
            series.values(name, lambda one: one.median_ms * of_ms),
            series.values(name, lambda one: one.p99_ms * of_ms),
        )
        for name in OPERATIONS
    ]
    cpu_lines = [
        Line(name, series.values(name, lambda one: one.cpu_us * of_us)) for name in OPERATIONS
    ]
    words = ("ns per byte", "ns per byte") if series.per_x else ("ms", "µs")
    return [
        Panel("Time of one operation", series.label, words[0], lines),
        Panel("Processor time of the farmer", series.label, words[1], cpu_lines),
    ]


def _all_series(document: Mapping[str, Any]) -> list[Series]:
    """Return what was measured, in the order of the axes."""
    kept = document["series"]
    return [
        Series.from_fields({key: value for key, value in kept[name].items() if key != "machine"})
        for name in AXES
        if name in kept
    ]


def _machines(document: Mapping[str, Any]) -> str:
    """Say on which machine which of it was measured."""
    measured: dict[str, list[str]] = {}
    for name, kept in (*document["series"].items(), *document["background"].items()):
        measured.setdefault(_machine(kept["machine"]), []).append(name)
    return "\n".join(
        f"- Measured on {machine}: {', '.join(names)}." for machine, names in measured.items()
    )


def _machine(machine: Mapping[str, Any]) -> str:
    kernel = str(machine["kernel"]).split("-")[0]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {kernel}, Python {machine['python']}"
    )


def _summary(every: Sequence[Series]) -> str:
    rows = ["| axis | from | to | operation | processor per decade | worse than logarithmic |"]
    rows.append("|---|---:|---:|---|---:|---|")
    for series in every:
        for name in OPERATIONS:
            values = series.values(name, _FIGURES[0][2])
            if values:
                verdict = judge(values)
                ends = f"{short(values[0][0])} | {short(values[-1][0])}"
                rows.append(f"| {series.axis} | {ends} | {name} | {_verdict_cells(verdict)} |")
    return "## All axes\n\n" + "\n".join(rows)


def _section(series: Series) -> Iterator[str]:
    yield f"## {series.axis.capitalize()}\n\n{series.about} Sizes: {series.scale}."
    yield f"![{series.label}](growth/{series.axis}.svg)"
    yield _costs(series)
    yield _verdicts(series)
    yield _standing(series)


def _costs(series: Series) -> str:
    """Return what each operation costs at each x: median [least..most] of the rounds."""
    names = [name for name in OPERATIONS if series.values(name, _FIGURES[0][2])]
    rows = [
        f"| {series.label} | " + " | ".join(f"{name}, ms; p99; µs" for name in names) + " |",
        "|---:|" + "---:|" * len(names),
    ]
    for point in series.points:
        cells = [_cost(point.rounds[name]) for name in names]
        rows.append(f"| {short(point.x)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cost(rounds: Sequence[Round]) -> str:
    times = [one.median_ms for one in rounds]
    p99 = statistics.median(one.p99_ms for one in rounds)
    cpu = [one.cpu_us for one in rounds]
    return f"{_spread(times)}; {p99:.3g}; {_spread(cpu)}"


def _spread(values: Sequence[float]) -> str:
    return f"{_round(statistics.median(values))} [{_round(min(values))}..{_round(max(values))}]"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _verdicts(series: Series) -> str:
    rows = ["| operation | figure | per decade | worse than logarithmic |", "|---|---|---:|---|"]
    for name in OPERATIONS:
        for figure, _unit, of in _FIGURES:
            if values := series.values(name, of):
                rows.append(f"| {name} | {figure} | {_verdict_cells(judge(values))} |")
    return "\n".join(rows)


def _standing(series: Series) -> str:
    known = [(name, words) for name, words in _STANDING if series.standing(name)]
    columns = [dict(series.standing(name)) for name, _ in known]
    rows = [
        f"| {series.label} | " + " | ".join(words for _, words in known) + " |",
        "|---:|" + "---:|" * len(known),
    ]
    for point in series.points:
        cells = [_round(column[point.x][0]) for column in columns]
        rows.append(f"| {short(point.x)} | " + " | ".join(cells) + " |")
    cells = [_last_row(series.standing(name)) for name, _ in known]
    rows.append("| per decade | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _last_row(values: Values) -> str:
    return f"{judge(values).per_decade:.2f}"


def _verdict_cells(verdict: Verdict) -> str:
    words = verdict.growth.value
    if verdict.growth is Growth.WORSE:
        words = f"**{words}**"
    return f"{verdict.per_decade:.2f} | {words}"
