"""What people see of a verb while it runs and when it is done; and JSON for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TextIO

from farmer.cli.exits import FAILED
from farmer.cli.tables import visible
from farmer.units import format_size
from farmer.version import SCHEMA

SHOWN_AFTER_S: Final = 1.5
"""A transfer that is done sooner needs no bar."""

_EVERY_S: Final = 0.1
_BAR_CELLS: Final = 24
_ERASE_LINE: Final = "\r\x1b[K"


def print_document(fields: dict[str, Any]) -> None:
    """Print a JSON document of ours, which begins with the number of its schema."""
    print_json({"schema": SCHEMA} | fields)


def print_json(answer: object) -> None:
    """Print one JSON document, as it is, on standard output."""
    # ASCII: a file name may hold bytes that no encoding of the terminal has.
    print(json.dumps(answer, indent=2))


def say(text: str) -> None:
    """Print a line of the verb's answer on standard output."""
    print(_lines(text))


def warn(text: str) -> None:
    """Print a line for the person, not for the pipe: on standard error, if that is open."""
    # It is None if it was closed (2>&-): `print` would take standard output then.
    if sys.stderr is not None:
        print(_lines(text), file=sys.stderr)


def flushed(code: int, program: str = "renter") -> int:
    """Let go of what was printed; return the exit code, which is none of success if it is lost."""
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read it has heard enough.
        drop_output()
    except (OSError, ValueError) as error:
        drop_output()
        with suppress(OSError, ValueError):
            why = getattr(error, "strerror", None) or error
            warn(f"{program}: the answer could not be written: {why}")
        return code or FAILED
    return code


def drop_output() -> None:
    """Have what cannot be written go nowhere: Python must not complain at the last flush."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ProgressLine:
    """
    One line for all transfers of a verb, on a terminal only and only when they take long.

    May be told from any thread.
    """

    def __init__(
        self,
        verb: str,
        stream: TextIO | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verb = verb
        # None if standard error was closed: nobody looks then.
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._seconds = seconds
        self._began_s = seconds()
        self._drawn_s = 0.0
        self._is_drawn = False
        self._transfers: dict[object, tuple[int, int]] = {}

    def of(self, transfer: object, total_bytes: int = 0) -> Callable[[int, int], None]:
        """Return the progress callback of one transfer, known by any hashable value."""
        self._transfers[transfer] = (0, total_bytes)

        def progress(done_bytes: int, total: int) -> None:
            self._transfers[transfer] = (done_bytes, total)
            self._draw()

        return progress

    def pause(self, why: str) -> None:
        """Say at once why nothing moves, until something does."""
        now_s = self._seconds()
        if now_s - self._began_s >= SHOWN_AFTER_S:
            self._show(f"{self._verb}: {self._percent()} %, {why}", now_s)

    def clear(self) -> None:
        """Take the line away."""
        if self._stream is not None and self._is_drawn:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()
            self._is_drawn = False

    def _draw(self) -> None:
        now_s = self._seconds()
        if now_s - self._began_s < SHOWN_AFTER_S or now_s - self._drawn_s < _EVERY_S:
            return
        self._show(self.text(now_s - self._began_s), now_s)

    def _show(self, text: str, now_s: float) -> None:
        if self._stream is None or not self._stream.isatty():
            return
        self._drawn_s, self._is_drawn = now_s, True
        self._stream.write(_ERASE_LINE + text)
        self._stream.flush()

    def _sums(self) -> tuple[int, int]:
        """Return how many bytes of how many are done, of which there is at least one."""
        done = sum(one for one, _ in self._transfers.values())
        return done, max(1, sum(one for _, one in self._transfers.values()))

    def _percent(self) -> int:
        done, total = self._sums()
        return 100 * done // total

    def text(self, elapsed_s: float) -> str:
        """Return the line as it stands after so many seconds."""
        done, total = self._sums()
        filled = _BAR_CELLS * done // total
        bar = "#" * filled + "." * (_BAR_CELLS - filled)
        rate = done / max(elapsed_s, 0.001)
        left_s = (total - done) / rate if rate else 0
        finished = sum(1 for one, whole in self._transfers.values() if one >= whole > 0)
        files = f" {finished}/{len(self._transfers)}" if len(self._transfers) > 1 else ""
        return (
            f"{self._verb}{files} [{bar}] {self._percent()} %  {format_size(done)} of "
            f"{format_size(total)}, {format_size(int(rate))}/s, {_clock(left_s)} left"
        )


def _lines(text: str) -> str:
    return "\n".join(visible(line) for line in text.split("\n"))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
