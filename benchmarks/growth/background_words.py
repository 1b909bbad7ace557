"""The part of docs/growth.md on what goes on in the background."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

ALLOWED: Final = 2.0
"""How many times its p99 alone a renter may have."""

_KINDS: Final = ("ping", "store", "retrieve", "audit")


def section(works: Mapping[str, Any]) -> list[str]:
    """Return the section, or nothing if nothing was measured."""
    if not works:
        return []
    head = (
        "## In the background\n\n"
        "One renter asks 40 times a second, in turn to ping, to store 32 KiB, to retrieve and to "
        "audit, each request counted from when it was due; first alone, then while something "
        f"goes on. Its p99 over all is allowed to be at most {ALLOWED:.0f} times as long then "
        "(*kept*). The reactor's delay is a sample a second; what is shown is a bound of its "
        "histogram."
    )
    rows = [
        "| what | shards | lasted, s | kind | p99 alone, ms | p99 meanwhile, ms | times | kept |",
        "|---|---:|---:|---|---:|---:|---:|---|",
    ]
    for name, work in works.items():
        rows += _rows(name, work)
    abouts = [f"- *{name}*: {work['about']}" for name, work in works.items()]
    return [head, "\n".join(rows), _loads(works), "\n".join(abouts)]


def _rows(name: str, work: Mapping[str, Any]) -> list[str]:
    alone, meanwhile = work["alone"], work["meanwhile"]
    lasted = f"{meanwhile['seconds']:.0f}" + ("" if work["finished"] else ", not finished")
    kept_so_far = "yes" if work["finished"] else "so far"
    pairs = [("all", alone["all_ms"], meanwhile["all_ms"])]
    pairs += [(kind, alone["took_ms"][kind], meanwhile["took_ms"][kind]) for kind in _KINDS]
    rows = []
    for kind, before, during in pairs:
        times = during["p99"] / before["p99"]
        kept = "" if kind != "all" else kept_so_far if times <= ALLOWED else "**no**"
        first = f"{name} | {work['shards']:,} | {lasted}" if kind == "all" else " | | "
        rows.append(
            f"| {first} | {kind} | {before['p99']:.1f} | {during['p99']:.1f} | {times:.1f} |"
            f" {kept} |"
        )
    return rows


def _loads(works: Mapping[str, Any]) -> str:
    rows = [
        "| what | reactor's delay alone, p99, ms | meanwhile, ms | farmer's processor, cores "
        "| its memory at most, MiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, work in works.items():
        alone, meanwhile = work["alone"], work["meanwhile"]
        rows.append(
            f"| {name} | {_at_most(alone['lag_p99_s'])} | {_at_most(meanwhile['lag_p99_s'])} |"
            f" {meanwhile['cpu_share']:.2f} | {meanwhile['peak_mib']:.0f} |"
        )
    return "\n".join(rows)


def _at_most(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"≤ {seconds * 1000:.3g}"
