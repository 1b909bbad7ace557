from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest
from twisted.logger import LogBeginner, Logger, LogPublisher

from farmer.monitor.log import (
    LINE_CHARACTERS_MAX,
    LogStyle,
    LogWriter,
    _StdlibHandler,
    begin_logging,
    escaped,
    stderr_writer,
    style_for,
)


class Book:
    """A logger that writes into a list."""

    def __init__(self, style: LogStyle = LogStyle.TEXT, source: str = "farmer.node") -> None:
        self.lines: list[str] = []
        self.counts: list[str] = []
        self.writer = LogWriter(self.lines.append, style, self.counts.append)
        self.log = Logger(namespace=source, observer=LogPublisher(self.writer))

    @property
    def text(self) -> str:
        return "".join(self.lines)


def throw(error: Exception) -> None:
    raise error


def fail(log: Logger, text: str) -> None:
    try:
        throw(ValueError(text))
    except ValueError:
        log.failure("the {thing} broke", thing="lamp")


@pytest.fixture
def east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two hours east of Greenwich."""
    monkeypatch.setenv("TZ", "<+02>-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("east")
def test_text_has_time_level_and_message() -> None:
    """The time of the place, with how far that is from UTC: RFC 3339."""
    book = Book()
    book.log.warn("{n} shards", n=3)
    when, level, rest = book.text.split(maxsplit=2)
    assert (level, rest) == ("warn", "3 shards\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+02:00", when)
    assert abs(datetime.fromisoformat(when).timestamp() - time.time()) < 60


@pytest.mark.parametrize(
    ("level", "prefix"), [("info", "<6>"), ("warn", "<4>"), ("error", "<3>"), ("critical", "<2>")]
)
def test_journald_lines_carry_their_priority(level: str, prefix: str) -> None:
    book = Book(LogStyle.JOURNALD)
    getattr(book.log, level)("two\nlines")
    assert book.text == f"{prefix}two\n{prefix}    lines\n"


def test_json_is_one_object_a_line() -> None:
    book = Book(LogStyle.JSON)
    fail(book.log, "a\nb")
    book.log.info("next")
    first, second = (json.loads(line) for line in book.text.splitlines())
    assert (first["level"], first["source"]) == ("critical", "farmer.node")
    assert first["message"] == "the lamp broke"
    assert any("ValueError" in line for line in first["traceback"])
    assert "traceback" not in second


@pytest.mark.parametrize("style", list(LogStyle))
def test_nobody_forges_a_line_or_moves_the_cursor(style: LogStyle) -> None:
    book = Book(style)
    evil = "x\n2026-01-01T00:00:00+00:00 info  all is well\r\x1b[2J\x00\u2028<3>pwn"
    book.log.info("{evil}", evil=evil)
    fail(book.log, evil)
    for line in book.text.split("\n"):
        assert line.isprintable()
        assert not line.startswith(("2026-01-01T00:00:00+00:00 info", "<3>pwn"))


def test_a_failure_without_words_names_its_error() -> None:
    book = Book()
    try:
        throw(KeyError("lost"))
    except KeyError:
        book.log.failure("")
    assert "failed: KeyError('lost')" in book.lines[0].splitlines()[0]


def test_the_level_changes_live_and_all_are_counted() -> None:
    book = Book()
    book.log.debug("hidden")
    book.writer.level = "debug"
    book.log.debug("shown")
    book.writer.level = "error"
    book.log.warn("hidden")
    assert [line.split()[-1] for line in book.lines] == ["shown"]
    assert book.counts == ["debug", "debug", "warn"]
    assert book.writer.level == "error"


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="one of debug, info"):
        Book().writer.level = "loud"


def test_other_packages_are_heard_from_warn_on() -> None:
    book = Book(source="twisted.web.server.Site")
    book.log.info("Starting factory")
    book.log.warn("odd")
    assert len(book.lines) == 1
    book.writer.level = "debug"
    book.log.info("Starting factory")
    assert len(book.lines) == 2


def test_long_lines_are_cut() -> None:
    assert len(escaped("x" * 1_000_000)) == LINE_CHARACTERS_MAX + 3


def test_an_event_without_a_level_is_information() -> None:
    book = Book()
    book.writer({"log_format": "bare", "log_namespace": "farmer", "log_time": 0.0})
    assert book.counts == ["info"]


def test_the_style_follows_the_stream() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert style_for(Terminal(), journal=True) is LogStyle.TEXT
    assert style_for(io.StringIO(), journal=True) is LogStyle.JOURNALD
    assert style_for(io.StringIO(), journal=False) is LogStyle.JSON


def test_records_of_the_standard_library_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(source="any")
    monkeypatch.setattr(Logger, "emit", _into(book))
    handler = _StdlibHandler()
    try:
        throw(OSError("gone"))
    except OSError:
        record = logging.getLogger("farmer.x").makeRecord(
            "farmer.x",
            logging.ERROR,
            __file__,
            1,
            "bad %s",
            ("disk",),
            __import__("sys").exc_info(),
        )
    handler.emit(record)
    assert "error bad disk" in book.lines[0]
    assert "OSError: gone" in book.lines[0]


def test_warnings_come_through_and_the_streams_stay() -> None:
    book, shown = Book(), warnings.showwarning
    stdout, stderr = sys.stdout, sys.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        beginner = LogBeginner(LogPublisher(), io.StringIO(), sys, warnings)
        begin_logging(book.writer, beginner, stdlib=False)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        warnings.showwarning = shown
    assert "old ways" in book.text
    assert (sys.stdout, sys.stderr) == (stdout, stderr)


def _into(book: Book):
    def emit(self: Logger, level, format=None, **kwargs) -> None:
        event = {"log_level": level, "log_format": format, "log_namespace": self.namespace}
        book.writer({**event, "log_time": 0.0, **kwargs})

    return emit


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    stderr_writer("a line\n")
    assert capsys.readouterr().err == "a line\n"


def test_a_closed_standard_error_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    stderr_writer("nobody reads this\n")
