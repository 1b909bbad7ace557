"""
Whether the wall clock can be believed, and how long the farmer has been seen to run.

A home server's clock may be wrong at boot (no battery, restored machine), jump (a network
time service, a person), and come back.  What removes things waits while it is doubted:

    running     wall and monotonic time differ by more than an hour since the last look
    at start    earlier than when the farmer was last seen to run, by more than 5 minutes,
                or more than 60 days later

A machine without a battery-backed clock starts where it stopped and is set right by the
network a little later: one such step forward, within a day of the start, is held against
the 60 days.  Doubt ends when the clock is back in line, or the owner confirms it; a restart
alone does not end it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from farmer.storage.book import Book

JUMP_MS: Final = 3_600_000
"""More than summer time or a slewing time service would do between two looks."""

BEHIND_AT_START_MS: Final = 5 * 60_000
"""Clocks do not run backwards while a machine is off; this much may be correction."""

AHEAD_AT_START_MS: Final = 60 * 86_400_000
"""How long a farmer may plausibly have been off."""

SETTLING_MS: Final = 86_400_000
"""After the start, how long the network's time may take to arrive."""

CREDIT_MAX_MS: Final = 10 * 60_000
"""What one look can add to the observed time: a sleeping machine was not running."""

SAVE_EVERY_MS: Final = 10 * 60_000
"""
A crash forgets at most this much observed time, and a quiet disk may sleep as long; unless an
order is told by it.
"""

START_COUNTS_MS: Final = 60_000
"""
Added to the observed time by each start, and kept by its first look: what was said of an order may
be that far ahead of what is kept (`farmer.storage.stamps`), and what comes later must be later.
"""

FOREVER_MS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class ClockState:
    """What is kept over restarts."""

    observed_ms: int
    """Time that the farmer was seen to run, since its first start."""
    believed_ms: int
    """The last wall time that was believed, carried on by running time while in doubt."""
    doubted_ms: int = 0
    """The wall time that is doubted; 0 when there is no doubt."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the wall clock may be off before it is doubted."""

    behind_ms: int
    ahead_ms: int

    def allows(self, off_ms: int) -> bool:
        """Tell whether so much ahead (negative: behind) is plausible."""
        return -self.behind_ms <= off_ms <= self.ahead_ms


RUNNING: Final = Tolerance(JUMP_MS, JUMP_MS)
AT_START: Final = Tolerance(BEHIND_AT_START_MS, AHEAD_AT_START_MS)
SETTLING: Final = Tolerance(JUMP_MS, AHEAD_AT_START_MS)
FIRST_RUN: Final = Tolerance(JUMP_MS, FOREVER_MS)
"""On the very first day there is nothing yet that a clock set right could remove."""


def judged(state: ClockState, wall_ms: int, tolerance: Tolerance) -> ClockState:
    """Return the state after a look at the wall clock: believed, or in doubt."""
    if tolerance.allows(wall_ms - state.believed_ms):
        return replace(state, believed_ms=wall_ms, doubted_ms=0)
    return replace(state, doubted_ms=wall_ms)


class DurableClock:
    """
    Looks at the wall clock each minute and keeps what it saw in the contract database.

    Blocking; one thread at a time, except for the properties.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        with book.reading() as rows:
            query = "SELECT observed_ms, believed_ms, doubted_ms FROM clock"
            row = rows.execute(query).fetchone()
        self._state = ClockState(*row) if row else ClockState(0, 0)
        self.first_run: Final = row is None
        """Whether no run before this one was ever seen."""
        self._saved = self._state
        self._tolerance = AT_START
        self._ran_ms = 0
        self._last_look_s: float | None = None

    @property
    def observed_ms(self) -> int:
        """
        How long the farmer was seen to run, over all its runs, in ms.

        The start counts from the opening on: renters may be served before the first look.
        """
        has_begun = self._last_look_s is not None or self.first_run
        return self._state.observed_ms + (0 if has_begun else START_COUNTS_MS)

    @property
    def doubt(self) -> str:
        """Why nothing is removed now, for a person; empty when the clock is believed."""
        state = self._state
        if not state.doubted_ms:
            return ""
        direction = "behind" if state.doubted_ms < state.believed_ms else "ahead of"
        return (
            f"the clock says {_day(state.doubted_ms)}, which is {direction} the expected "
            f"{_day(state.believed_ms)}; nothing expires until it is right, or confirmed"
        )

    @property
    def trusted(self) -> bool:
        """Whether the clock was looked at in this run and may be acted on."""
        return self._last_look_s is not None and not self._state.doubted_ms

    def tick(self, wall_ms: int, monotonic_s: float, *, tells_order: bool = False) -> None:
        """
        Look at the clock; to be called at the start and about every minute.

        *monotonic_s* should go on while the machine sleeps (CLOCK_BOOTTIME), else waking up
        looks like a jump.  *tells_order*: what is on several volumes is compared by what is seen,
        so that no crash may forget of it: it is kept at once.

        Raises:
            VolumeUnavailableError: what was seen could not be kept.

        """
        before_s, self._last_look_s = self._last_look_s, monotonic_s
        if before_s is None:
            self._start(wall_ms)
        else:
            self._go_on(wall_ms, round((monotonic_s - before_s) * 1000))
        unsaved_ms = self._state.observed_ms - self._saved.observed_ms
        news = bool(self._state.doubted_ms) != bool(self._saved.doubted_ms)
        # Only what is written shows whether a file that has failed is well again.
        news = news or before_s is None or bool(self._book.failure)
        if news or tells_order or unsaved_ms >= SAVE_EVERY_MS:
            self._save()

    def confirm(self, wall_ms: int) -> None:
        """Believe the clock, durably: the owner says that it is right."""
        self._state = replace(self._state, believed_ms=wall_ms, doubted_ms=0)
        self._tolerance = RUNNING if self._last_look_s is not None else AT_START
        self._save()

    def catch_up(self, observed_ms: int) -> None:
        """Let the observed time be at least this, durably: an older database knew of it."""
        if observed_ms > self._state.observed_ms:
            self._state = replace(self._state, observed_ms=observed_ms)
            self._save()

    def save(self) -> None:
        """Keep what was seen until now: the last thing that an orderly stop does."""
        if self._state != self._saved:
            self._save()

    def _start(self, wall_ms: int) -> None:
        state = self._state
        if self.first_run:
            self._state, self._tolerance = replace(state, believed_ms=wall_ms), FIRST_RUN
            return
        state = replace(state, observed_ms=state.observed_ms + START_COUNTS_MS)
        self._tolerance = _at_start(state)
        self._state = judged(state, wall_ms, self._tolerance)
        if not self._state.doubted_ms:
            self._tolerance = SETTLING

    def _go_on(self, wall_ms: int, elapsed_ms: int) -> None:
        state, elapsed_ms = self._state, max(0, elapsed_ms)
        self._ran_ms += elapsed_ms
        expected = replace(
            state,
            observed_ms=state.observed_ms + min(elapsed_ms, CREDIT_MAX_MS),
            believed_ms=state.believed_ms + elapsed_ms,
        )
        self._state = judged(expected, wall_ms, self._tolerance)
        # While in doubt the measure stays the one that the clock failed.
        stepped = wall_ms - expected.believed_ms > JUMP_MS
        if not self._state.doubted_ms and (stepped or self._ran_ms >= SETTLING_MS):
            self._tolerance = RUNNING

    def _save(self) -> None:
        state = self._state
        with self._book.writing() as rows:
            rows.execute(
                "INSERT OR REPLACE INTO clock (one, observed_ms, believed_ms, doubted_ms)"
                " VALUES (1, ?, ?, ?)",
                (state.observed_ms, state.believed_ms, state.doubted_ms),
            )
        self._saved = state


def _at_start(state: ClockState) -> Tolerance:
    """Return how far ahead a clock may be after we were off, for a time that nobody knows."""
    if state.doubted_ms <= state.believed_ms:
        return AT_START
    # The machine may have been off as long as the clock was ahead: that proves nothing, only
    # a clock that went back does.
    doubted_ahead_ms = state.doubted_ms - state.believed_ms
    return Tolerance(BEHIND_AT_START_MS, min(AHEAD_AT_START_MS, doubted_ahead_ms - JUMP_MS))


def _day(unix_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(unix_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return f"{unix_ms} ms"
