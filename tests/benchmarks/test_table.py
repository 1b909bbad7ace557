"""The tables in docs/performance.md."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers.table import BEGIN, END, PAGE, between_marks, tables
from tests.benchmarks.test_figures import cell

CELLS = [
    *(cell("farmer", 0, 200), cell("nginx", 0, 400)),
    *(cell("farmer", 1, 100), cell("nginx", 1, 100)),
    *(cell("farmer", 2, 200), cell("nginx", 2, 1000)),
]


def document(cells: list[dict[str, Any]]) -> dict[str, Any]:
    def peer(name: str, left_out: str = "") -> dict[str, Any]:
        traits = {"name": name, "tls": True, "syncs": name == "farmer", "does": "things"}
        return traits | {"version": "1.0", "left_out": left_out}

    return {
        "machine": {
            "cpu": "A processor",
            "cores": 2,
            "memory_bytes": 24 * 2**30,
            "kernel": "6.18.1-host-7",
            "python": "3.11.7",
        },
        "date": "2026-11-28",
        "load": 0.5,
        "plan": {"rounds": 3, "seconds": 2.0},
        "peers": [peer("farmer"), peer("nginx"), peer("rclone", "no such\nprogram")],
        "cells": cells,
    }


def test_each_row_has_rates_ratios_costs_and_memory() -> None:
    """Median, least and most; the memory is the most that was seen."""
    shown = tables(document(CELLS))
    assert "| store 64 KiB x16 | 100 [50..100], 6.55 MB/s | 200 [50..500], 13.1 MB/s |" in shown
    assert "| store 64 KiB x16 | 0.5 [0.2..1] |" in shown
    assert "| store 64 KiB x16 | 50 MB, 50% | 50 MB, 50% |" in shown


def test_who_syncs_and_who_was_left_out_is_said() -> None:
    """A missing peer is named with the reason, in one line, and has no column."""
    shown = tables(document(CELLS))
    assert "| farmer 1.0 | 1.3 | yes | things |" in shown
    assert "| nginx 1.0 | 1.3 | no | things |" in shown
    assert "Left out: rclone: no such program" in shown
    assert "rclone |" not in shown


def test_where_we_lose_is_listed() -> None:
    """The medians of the ratios decide, not we."""
    assert "- behind nginx in: store 64 KiB x16 (0.5)" in tables(document(CELLS))
    won = [cell("farmer", 0, 200), cell("nginx", 0, 100)]
    assert "- behind nginx in: nothing" in tables(document(won))


@pytest.mark.parametrize(
    ("rounds", "load", "trial"), [(5, 0.5, False), (4, 0, True), (5, 2, True)]
)
def test_a_trial_says_that_it_is_one(rounds: int, load: float, trial: bool) -> None:
    """A short run, or one beside other work, cannot be taken for figures by its table."""
    run = document(CELLS) | {"load": load, "plan": {"rounds": rounds, "seconds": 2.0}}
    assert ("A trial" in tables(run)) is trial


def test_the_machine_is_described_but_not_named() -> None:
    """The kernel's version says enough; what a host adds to it is nobody's business."""
    assert "A processor, 2 cores, 24 GiB, Linux 6.18.1, Python 3.11.7." in tables(document(CELLS))


def test_a_run_without_others_has_no_ratios() -> None:
    """`--only farmer` still makes a table."""
    assert "round by round" not in tables(document([cell("farmer", 0, 100)]))


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    """Once and again."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = between_marks(page, "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert between_marks(once, "new") == once


def test_a_page_without_marks_is_left_alone() -> None:
    """Nothing is lost by a slip in the page."""
    with pytest.raises(ValueError, match="lacks"):
        between_marks("no marks", "new")


def test_the_page_has_its_marks() -> None:
    """`python -m benchmarks.peers table` can be run at any time."""
    assert between_marks(PAGE.read_text(), "x")
