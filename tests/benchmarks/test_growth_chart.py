"""Charts of growth."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from benchmarks.growth.chart import Axis, Line, Panel, draw, short

LINE = Line("store", [(1, [2.0, 3.0]), (100, [4.0, 5.0])], thin=[(1, [9.0]), (100, [20.0])])
PANEL = Panel("Time & more", "shards <all>", "ms", [LINE])


def test_a_logarithmic_axis_gives_each_decade_the_same_room() -> None:
    """From 1 to 100, 10 is in the middle."""
    axis = Axis(1, 100, 20, 40)
    assert [axis.at(value) for value in (1, 10, 100)] == pytest.approx([20, 30, 40])


def test_ticks_lie_within_the_axis() -> None:
    """Powers of ten over many decades, 1-2-5 over few, not too many."""
    assert Axis(1, 1000, 0, 1).ticks() == [1, 10, 100, 1000]
    assert Axis(1.5, 60, 0, 1).ticks() == [2, 5, 10, 20, 50]
    assert len(Axis(1e-9, 1e9, 0, 1).ticks()) <= 10


def test_every_round_is_a_dot_and_the_medians_are_a_line() -> None:
    """Two x with two rounds each; the p99 is a second, dotted line."""
    text = draw([PANEL])
    assert text.count("<circle") == 4
    assert re.findall(r'<polyline class="(.*?)"', text) == ["c0 line thin", "c0 line"]


def test_a_chart_is_well_formed_and_its_words_are_escaped() -> None:
    """Titles and labels may have any sign."""
    root = ElementTree.fromstring(draw([PANEL, PANEL]))
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("Time & more") == 2
    assert "shards <all>" in words
    assert "ms" in words


def test_everything_is_drawn_within_its_panel() -> None:
    """No dot and no corner of a line is outside."""
    text = draw([PANEL])
    for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text):
        assert 0 < float(x) < 460
        assert 40 < float(y) < 290


def test_a_panel_without_values_is_left_out() -> None:
    """And a single point is drawn all the same."""
    empty = Panel("nothing", "x", "y", [Line("store", [])])
    assert "nothing" not in draw([empty, PANEL])
    assert draw([Panel("one", "x", "y", [Line("store", [(5, [1.0])])])]).count("<circle") == 1


def test_numbers_are_short() -> None:
    """As people write them on an axis."""
    assert [short(value) for value in (0.5, 1, 20_000, 1e6, 2.5e9)] == [
        *("0.5", "1", "20k", "1M", "2.5G")
    ]
