"""
Log lines for people, for journald or for programs: one event, one line that nobody can forge.

What a peer sent can stand in a message or in an exception's text.  So control characters are
escaped, and every further line of a message or traceback is indented: only we begin a line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TextIO

from twisted.logger import (
    ILogObserver,
    LogBeginner,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import implementer

LINE_CHARACTERS_MAX: Final = 16 * 1024
"""A message is cut there: no peer fills a disk with one line."""

OURS: Final = "farmer"
"""Loggers of other packages are heard from `warn` on, unless everything is shown."""

LEVELS: Final = ("debug", "info", "warn", "error", "critical")

_RANK: Final = {LogLevel.lookupByName(name): rank for rank, name in enumerate(LEVELS)}
_JOURNAL: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
_FROM_STDLIB: Final = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)


class LogStyle(Enum):
    """For whom the lines are."""

    TEXT = "text"
    JOURNALD = "journald"
    JSON = "json"


@implementer(ILogObserver)
class LogWriter:
    """
    Writes events of at least `level` as lines, and counts all of them by level.

    Args:
        write: takes one whole text, line ends included.
        style: how a line looks.
        count: told the level of every event, also of those that are not shown.

    """

    def __init__(
        self,
        write: Callable[[str], object],
        style: LogStyle,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._write = write
        self._render = _RENDERERS[style]
        self.count = count
        self._least = _RANK[LogLevel.info]

    @property
    def level(self) -> str:
        """The least level that is shown; may be changed at any time."""
        return LEVELS[self._least]

    @level.setter
    def level(self, name: str) -> None:
        if name not in LEVELS:
            raise ValueError(f"{name!r} is not a log level: one of {', '.join(LEVELS)}")
        self._least = LEVELS.index(name)

    def __call__(self, event: LogEvent) -> None:
        """See `ILogObserver`."""
        rank = _RANK.get(event.get("log_level", LogLevel.info), _RANK[LogLevel.info])
        self.count(LEVELS[rank])
        if rank >= max(self._least, self._floor(event)):
            self._write(self._render(event, LEVELS[rank]))

    def line(self, level: str, text: str) -> str:
        """Return what would be written of a message, for one who may not log: a signal handler."""
        event = {"log_format": "{text}", "text": text, "log_time": time.time()}
        return self._render(event | {"log_namespace": OURS}, level)

    def _floor(self, event: LogEvent) -> int:
        source = str(event.get("log_namespace", ""))
        ours = source.partition(".")[0] == OURS or self._least == 0
        return 0 if ours else _RANK[LogLevel.warn]


class _StdlibHandler(logging.Handler):
    """Passes records of the standard library's logging on to twisted's."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        level = next((ours for rank, ours in _FROM_STDLIB if record.levelno >= rank), None)
        failure = None
        if record.exc_info and record.exc_info[1] is not None:
            kind, value, trace = record.exc_info
            failure = Failure(value, kind, trace)  # type: ignore[no-untyped-call]  # untyped there
        Logger(namespace=record.name).emit(
            level or LogLevel.debug,
            "{text}",
            text=record.getMessage(),
            **({"log_failure": failure} if failure else {}),
        )


def begin_logging(
    writer: LogWriter, beginner: LogBeginner = globalLogBeginner, *, stdlib: bool = True
) -> None:
    """
    Send all that is logged to *writer*: twisted's events, warnings, the standard library's.

    Standard output and error stay as they are: the first carries the ready line.
    """
    beginner.beginLoggingTo([writer], redirectStandardIO=False)
    if stdlib:
        logging.basicConfig(handlers=[_StdlibHandler()], level=logging.INFO, force=True)


def style_for(stream: TextIO, *, journal: bool) -> LogStyle:
    """Return what suits *stream*: people at a terminal, else the journal, else programs."""
    if stream.isatty():
        return LogStyle.TEXT
    return LogStyle.JOURNALD if journal else LogStyle.JSON


def stderr_writer(text: str) -> None:
    """Write to standard error, at once; a closed terminal does not stop the farmer."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def escaped(text: str) -> str:
    """Return one line of *text* with everything that is not printable written as an escape."""
    cut = text if len(text) <= LINE_CHARACTERS_MAX else text[:LINE_CHARACTERS_MAX] + "..."
    if cut.isprintable():
        return cut
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in cut
    )


def _text(event: LogEvent, level: str) -> str:
    when = _when(event).astimezone().isoformat(timespec="seconds")
    first, *more = _lines(event)
    lines = [f"{when} {level:<5} {first}", *(f"    {line}" for line in more)]
    return "\n".join(lines) + "\n"


def _journald(event: LogEvent, level: str) -> str:
    prefix = f"<{_JOURNAL[level]}>"
    first, *more = _lines(event)
    lines = [f"{prefix}{first}", *(f"{prefix}    {line}" for line in more)]
    return "\n".join(lines) + "\n"


def _json(event: LogEvent, level: str) -> str:
    record: dict[str, Any] = {
        "time": _when(event).isoformat(timespec="milliseconds"),
        "level": level,
        "source": str(event.get("log_namespace", "")),
        "message": "\n".join(_message(event)),
    }
    if "log_failure" in event:
        record["traceback"] = _traceback(event)
    return json.dumps(record) + "\n"


_RENDERERS: Final = {
    LogStyle.TEXT: _text,
    LogStyle.JOURNALD: _journald,
    LogStyle.JSON: _json,
}


def _when(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def _lines(event: LogEvent) -> list[str]:
    trace = _traceback(event) if "log_failure" in event else []
    return [*_message(event), *trace]


def _message(event: LogEvent) -> list[str]:
    text = formatEvent(event)
    if not text and "log_failure" in event:
        text = f"failed: {event['log_failure'].value!r}"
    return [escaped(line) for line in text.splitlines()] or [""]


def _traceback(event: LogEvent) -> list[str]:
    return [escaped(line) for line in event["log_failure"].getTraceback().splitlines()]
