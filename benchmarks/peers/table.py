"""The tables of docs/performance.md, out of `peers.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import figures
from benchmarks.peers.figures import OURS, Cell, Spread, Work
from benchmarks.peers.run import RESULT

PAGE: Final = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN: Final = "<!-- peers: begin -->"
END: Final = "<!-- peers: end -->"

ROUNDS_MIN: Final = 5
LOAD_MAX: Final = 0.5
"""Beyond this the machine did other work."""

_TRIAL: Final = " **A trial: too few rounds, or too busy a machine, to be quoted.**"

Show = Callable[[Sequence[Cell], str, Work], str]


def write() -> None:
    """Put the tables between the two marks of the page."""
    page = PAGE.read_text()
    PAGE.write_text(between_marks(page, tables(json.loads(RESULT.read_text()))))


def between_marks(page: str, text: str) -> str:
    """Return the page with the text in the place of what stood between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def tables(document: Mapping[str, Any]) -> str:
    """Return all tables of a run, as markdown."""
    cells = document["cells"]
    peers = [one["name"] for one in document["peers"] if _was_measured(cells, one["name"])]
    others = [name for name in peers if name != OURS]
    parts = [_how(document), _who(document["peers"], cells)]
    for title, columns, show in (
        ("Operations per second", peers, _rates),
        (f"{OURS} / peer, operations per second, round by round", others, _rate_ratios),
        ("Processor time of the server for an operation, and for a gigabyte", peers, _costs),
        (f"{OURS} / peer, that processor time, round by round", others, _cost_ratios),
        ("Memory of the server (PSS), and how much of a core the client took", peers, _memory),
    ):
        if columns:
            parts.append(_grid(title, columns, cells, show))
    return "\n\n".join([*parts, *_behind(cells, others)])


def _how(document: Mapping[str, Any]) -> str:
    machine, plan, load = document["machine"], document["plan"], document["load"]
    is_trial = plan["rounds"] < ROUNDS_MIN or load > LOAD_MAX
    found = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB,"
        f" Linux {machine['kernel'].partition('-')[0]}, Python {machine['python']}."
        f" {document['date']}; rounds: {plan['rounds']}, {plan['seconds']:g} s for each kind of"
        f" work; load of the machine before the first: {load:.1f}."
    )
    return found + (_TRIAL if is_trial else "")


def _who(peers: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> str:
    rows = [
        [
            f"{one['name']} {one['version']}",
            "1.3" if one["tls"] else "no",
            "yes" if one["syncs"] else "no",
            one["does"],
        ]
        for one in peers
        if _was_measured(cells, one["name"])
    ]
    left_out = [
        f"Left out: {one['name']}: {' '.join(one['left_out'].split())}"
        for one in peers
        if one["left_out"]
    ]
    head = ["server", "TLS", "synced before it acknowledges", "what it does beside"]
    return "\n\n".join([_markdown(head, rows, len(head)), *left_out])


def _grid(title: str, columns: Sequence[str], cells: Sequence[Cell], show: Show) -> str:
    rows = [
        [_named(work), *(show(cells, name, work) for name in columns)]
        for work in figures.works(cells)
    ]
    return f"**{title}**\n\n" + _markdown([_WHAT, *columns], rows, 1)


_WHAT: Final = "work"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---"] * left + ["--:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _named(work: Work) -> str:
    kib = work.size_bytes / 1024
    size = f"{kib:g} KiB" if kib < 1024 else f"{kib / 1024:g} MiB"
    return f"{work.what} {size} x{work.at_once}"


def _rates(cells: Sequence[Cell], peer: str, work: Work) -> str:
    found = figures.spread(cells, peer, work, figures.per_s)
    rate = figures.spread(cells, peer, work, figures.mb_per_s)
    return f"{_shown(found)}, {_number(rate.median)} MB/s" if rate else "-"


def _rate_ratios(cells: Sequence[Cell], peer: str, work: Work) -> str:
    return _shown(figures.ratio(cells, peer, work, figures.per_s))


def _cost_ratios(cells: Sequence[Cell], peer: str, work: Work) -> str:
    return _shown(figures.ratio(cells, peer, work, figures.server_us))


def _costs(cells: Sequence[Cell], peer: str, work: Work) -> str:
    found = figures.spread(cells, peer, work, figures.server_us)
    each = figures.spread(cells, peer, work, figures.server_s_per_gb)
    return f"{_shown(found)} µs, {_number(each.median)} s/GB" if each else "-"


def _memory(cells: Sequence[Cell], peer: str, work: Work) -> str:
    found = figures.spread(cells, peer, work, figures.pss_mb)
    busy = figures.spread(cells, peer, work, figures.client_busy)
    return f"{_number(found.most)} MB, {busy.median:.0%}" if found and busy else "-"


def _behind(cells: Sequence[Cell], others: Sequence[str]) -> list[str]:
    """Return one line for each peer: where it did more than we in the same time."""
    lines = []
    for peer in others:
        found = [
            f"{_named(work)} ({_number(ratio.median)})"
            for work in figures.works(cells)
            if (ratio := figures.ratio(cells, peer, work, figures.per_s)) and ratio.median < 1
        ]
        lines.append(f"- behind {peer} in: {', '.join(found) or 'nothing'}")
    return ["\n".join([f"Where {OURS} is behind, by the median of the ratios:", "", *lines])]


def _was_measured(cells: Sequence[Cell], peer: str) -> bool:
    return any(cell["peer"] == peer for cell in cells)


def _shown(found: Spread | None) -> str:
    if found is None:
        return "-"
    return f"{_number(found.median)} [{_number(found.least)}..{_number(found.most)}]"


def _number(value: float) -> str:
    """Return three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
