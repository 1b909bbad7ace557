"""
Which calls into one volume have not returned yet, and since when.

A call into a dying disk or a dead network share may never return, and nothing can be done
about the thread that made it.  So every call is noted here when it begins: who waits can be
told that it was in vain, who comes later is turned away without taking a thread, and whoever
lends threads can see which of them are lost for the time being.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, get_ident
from types import TracebackType
from typing import Any, Final, TypeVar

from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.pace import Meter, Meters

R = TypeVar("R")

HUNG_S: Final = 6.0
"""
A call that takes longer makes the volume gone until it returns.

Disks that sleep take up to about this long to wake; at most 10 s may pass until it is noticed.
"""

STALLED_S: Final = 1.0
"""Beyond this the others go around the volume where they can."""

WAITING_MAX: Final = 32
"""Who must ask a stalled volume takes a thread while waiting: no more than so many at once."""

_Ends = tuple[Callable[[], None], Callable[[], None]]


class Watch:
    """One volume's calls; safe from any thread, and cheap enough for each of them."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self.monotonic_s = monotonic_s
        self.calls: dict[int, Noted] = {}
        """Those under way."""
        self.meters = Meters()
        self.visiting: dict[int, Visit] = {}
        """By thread, those that are inside."""
        self.waiting: set[int] = set()
        """The threads that wait for one of them."""
        self._changed = Condition()
        self._later: deque[Callable[[], object]] = deque()
        self.hung_reason = ""
        """Why the volume counts as hung; empty if it does not."""

    def call(self, what: str, *, holds_up: bool = False, meter: Meter | None = None) -> Noted:
        """
        Return a context in which one call is made.

        *holds_up*: others would wait behind it; *meter* learns how long it took.
        """
        return Noted(self, what, holds_up, meter)

    def visit(self, what: str) -> Visit:
        """
        Return such a context for whoever comes from outside; waits while the volume stalls.

        As long as the calls that are made inside return, it hangs no more than they do.

        Raises:
            VolumeUnavailableError: it hangs, or too many wait already.

        """
        if self.calls or self.hung_reason:
            self._enter()
        return Visit(self, what, True, None)

    def returned(self) -> None:
        """Wake those who wait for a call that has returned."""
        with self._changed:
            self._changed.notify_all()

    def waits_s(self) -> tuple[tuple[str, float], ...]:
        """Return how long calls that wait for the disk take, on the average of late."""
        now_s = self.monotonic_s()
        meters = self.meters.by_name().items()
        return tuple((name, meter.average_s(now_s)) for name, meter in meters)

    def longest(self) -> tuple[float, str]:
        """Return for how long the oldest call has been under way, and what it is."""
        calls = list(self.calls.values())
        if not calls:
            return 0.0, ""
        oldest = min(calls, key=lambda call: call.since_s)
        return self.monotonic_s() - oldest.since_s, oldest.what

    @property
    def is_stalled(self) -> bool:
        """Whether a call that holds others up has not returned for a moment."""
        if not self.calls:
            return False
        before_s = self.monotonic_s() - STALLED_S
        return any(call.holds_up and call.since_s < before_s for call in list(self.calls.values()))

    def stalled_threads(self) -> dict[int, bool]:
        """Return the threads that wait for this volume, and whether that is in vain."""
        before_s = self.monotonic_s() - STALLED_S
        calls = list(self.calls.values())
        stalled = {call.thread for call in calls if call.since_s < before_s}
        return dict.fromkeys(stalled | set(self.waiting), bool(self.hung_reason))

    def declare(self, hung_reason: str) -> None:
        """Say that the volume hangs, or with an empty reason that it does not any more."""
        with self._changed:
            self.hung_reason = hung_reason
            self._changed.notify_all()

    def when_it_answers(self, work: Callable[[], object]) -> None:
        """Have something done that must wait until the volume answers again."""
        self._later.append(work)

    def catch_up(self) -> None:
        """Do what had to wait; in a thread that may wait for the disk."""
        while self._later:
            self._later.popleft()()

    def _enter(self) -> None:
        if not (self.hung_reason or self.is_stalled):
            return
        with self._changed:
            if len(self.waiting) >= WAITING_MAX and not self.hung_reason:
                raise VolumeUnavailableError("the disk does not answer at the moment")
            me = get_ident()
            self.waiting.add(me)
            try:
                self._changed.wait_for(lambda: self.hung_reason or not self.is_stalled, HUNG_S)
            finally:
                self.waiting.discard(me)
            if self.hung_reason or self.is_stalled:
                raise VolumeUnavailableError(self.hung_reason or "the disk does not answer")


class Noted:
    """One call, from `with` to its end."""

    __slots__ = ("_meter", "_watch", "holds_up", "since_s", "thread", "what")

    def __init__(self, watch: Watch, what: str, holds_up: bool, meter: Meter | None) -> None:
        self._watch = watch
        self._meter = meter
        self.what = what
        self.holds_up = holds_up

    def __enter__(self) -> None:
        watch = self._watch
        self.thread = get_ident()
        self.since_s = watch.monotonic_s()
        watch.calls[id(self)] = self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        watch = self._watch
        del watch.calls[id(self)]
        if self._meter is not None or watch.visiting:
            now_s = watch.monotonic_s()
            if self._meter is not None:
                self._meter.note(self.since_s, now_s)
            around = watch.visiting.get(self.thread)
            if around is not None:
                around.since_s = now_s
        if watch.waiting:
            watch.returned()
        if error is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """Raise something else, if need be, than what the call has raised."""


class Visit(Noted):
    """A call from outside, and what it calls itself, one after the other."""

    __slots__ = ("_around",)

    def __enter__(self) -> None:
        super().__enter__()
        visiting = self._watch.visiting
        self._around = visiting.get(self.thread)
        visiting[self.thread] = self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._around is None:
            del self._watch.visiting[self.thread]
        else:
            self._watch.visiting[self.thread] = self._around
        super().__exit__(kind, error, traceback)


class Promises:
    """
    What a volume's writer has promised, kept or broken; safe from any thread.

    A broken promise says "unavailable", not "undone": what was asked for may still happen
    when the disk answers, and whatever it held is settled then, by the writer.
    """

    def __init__(self) -> None:
        self._open: dict[Future[Any], _Ends] = {}
        """Those that are neither, and what is called at the end of each."""

    def of(
        self,
        truth: Future[R],
        ending: Callable[[], None] = lambda: None,
        broken: Callable[[], None] = lambda: None,
    ) -> Future[R]:
        """
        Return a future of the same outcome, which can be broken before.

        *ending* is called, once, before anybody can know of its outcome; before that *broken*,
        if it is.
        """
        if truth.done():
            ending()
            return truth
        promise: Future[R] = Future()
        promise.set_running_or_notify_cancel()
        self._open[promise] = (ending, broken)
        truth.add_done_callback(lambda done: self._keep(promise, done))
        return promise

    def break_all(self, reason: str) -> None:
        """Let nobody wait any longer."""
        for promise in list(self._open):
            self.break_one(promise, reason)

    def break_one(self, promise: Future[Any], reason: str) -> None:
        """Let nobody wait any longer for this one, unless it was kept or broken before."""
        # Whoever takes it out settles it: nobody else can.
        ends = self._open.pop(promise, None)
        if ends is not None:
            ending, broken = ends
            broken()
            ending()
            promise.set_exception(VolumeUnavailableError(reason))

    def _keep(self, promise: Future[Any], done: Future[Any]) -> None:
        ends = self._open.pop(promise, None)
        if ends is None:
            return
        ending, _ = ends
        ending()
        error = done.exception()
        if error is None:
            promise.set_result(done.result())
        else:
            promise.set_exception(error)
