"""The progress line: only where somebody looks, only when it takes long."""

import io
import sys

from farmer.cli.renter_waiting import told_in
from farmer.cli.terminal import SHOWN_AFTER_S, ProgressLine, warn
from farmer.client.errors import ConnectionLostError


class Screen(io.StringIO):
    def __init__(self, is_terminal=True):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


class Times:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def test_a_short_transfer_shows_nothing():
    screen, times = Screen(), Times()
    line = ProgressLine("storing", screen, times)
    line.of("a")(10, 100)
    line.clear()
    assert screen.getvalue() == ""


def test_a_long_transfer_shows_one_line_and_takes_it_away():
    screen, times = Screen(), Times()
    line = ProgressLine("storing", screen, times)
    progress = line.of("a")
    times.now_s += SHOWN_AFTER_S + 0.5
    progress(50_000_000, 100_000_000)
    assert "50 %  50 MB of 100 MB, 25 MB/s, 0:02 left" in screen.getvalue()
    progress(60_000_000, 100_000_000)
    assert "60 %" not in screen.getvalue(), "drawn at most ten times a second"
    line.clear()
    assert screen.getvalue().endswith("\r\x1b[K")
    assert "\n" not in screen.getvalue()


def test_nothing_is_drawn_into_a_pipe():
    screen, times = Screen(is_terminal=False), Times()
    progress = ProgressLine("storing", screen, times).of("a")
    times.now_s += 60
    progress(50, 100)
    assert screen.getvalue() == ""


def test_where_standard_error_is_closed_nothing_is_shown_and_nothing_breaks(monkeypatch, capsys):
    """Least of all in front of the JSON of the answer."""
    monkeypatch.setattr(sys, "stderr", None)
    times = Times()
    line = ProgressLine("storing", seconds=times)
    times.now_s += 60
    line.of("a")(50, 100)
    line.clear()
    warn("for the person")
    assert capsys.readouterr().out == ""


def test_many_files_are_counted_together():
    line = ProgressLine("storing", Screen(), Times())
    line.of("a")(100, 100)
    line.of("b", 300)
    text = line.text(1.0)
    assert text.startswith("storing 1/2 [######....")
    assert "25 %" in text
    assert "0:03 left" in text


def test_before_the_first_byte_there_is_no_division_by_zero():
    line = ProgressLine("storing", Screen(), Times())
    line.of("a")
    assert "0 %" in line.text(0.0)


def test_a_transfer_that_waits_says_why_until_it_moves_again():
    screen, times = Screen(), Times()
    line = ProgressLine("storing", screen, times)
    progress = line.of("a")
    progress(50, 100)
    times.now_s += SHOWN_AFTER_S
    told_in(line)(ConnectionLostError("the farmer hung up"))
    assert screen.getvalue().endswith("\x1b[Kstoring: 50 %, the connection broke, trying again")
    times.now_s += 1
    progress(60, 100)
    assert "60 %  60 B of 100 B" in screen.getvalue()


def test_a_wait_in_the_first_moment_is_not_worth_a_word():
    screen = Screen()
    told_in(ProgressLine("storing", screen, Times()))(ConnectionLostError("it hung up"))
    assert screen.getvalue() == ""
