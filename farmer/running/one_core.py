"""
Keeps a busy farmer's threads on one core, which the kernel chooses anew each second.

Python runs one of them at a time.  On several cores each call that lets go of Python's lock wakes
another thread on another core, which then waits for the lock; on one core whoever has it simply
goes on.  Small requests are little but such calls.  docs/decisions/speed.md has the figures.

Where requests come one by one, or much is moved for each, the threads are left alone: a renter on
this machine may need the core, and hashing, sealing and copying do use a second one.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from farmer.node.farm import Served

TURN_S: Final = 1.0
"""Between two looks at how much is asked of us, and at where the kernel would have us."""

FREE_S: Final = 0.02
"""How long the kernel may then place us: some of its ticks, and little of a turn."""

MANY: Final = 40
"""Requests in a turn; fewer are no work to speak of."""

AT_ONCE: Final = 2.0
"""And so many of them under way, on average."""

SMALL_BYTES: Final = 256 * 1024
"""What they move on average, at most: one step."""

TASKS: Final = Path("/proc/self/task")

_CORE: Final = 36
"""Field of a task's `stat` that names its core, counted from behind the name (proc(5))."""

_CORES_MAX: Final = 1024
"""As many as the kernel's interface has bits for by default; it passes over those not there."""

_FOR_GOOD: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOENT})
"""What says that it cannot be had here; anything else may pass."""


class Cores(Protocol):
    """What is asked of the system; every call raises `OSError` where that cannot be."""

    def gather(self) -> None:
        """Put all threads where this one is."""

    def spread(self) -> None:
        """Let them be anywhere again."""


class OneCore:
    """Gathers and spreads by what is asked of the farmer; on the reactor."""

    log = Logger()

    def __init__(self, clock: IReactorTime, served: Served, cores: Cores) -> None:
        self.is_wanted = True
        """Whether the owner wants it."""
        self._clock = clock
        self._served = served
        self._cores = cores
        self._then = replace(served)
        """At the last turn."""
        self._owes_spread = self._is_refused = False
        self._next: IDelayedCall | None = None

    async def turn(self) -> None:
        """Look what was asked for since the last turn; call it every `TURN_S`."""
        wants = self._is_much_and_small() and self.is_wanted
        if self._spread() and wants and not self._is_refused:
            self._next = self._clock.callLater(FREE_S, self._gather)

    def stop(self) -> None:
        """Begin nothing more, and let the threads be anywhere."""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._spread()

    def _is_much_and_small(self) -> bool:
        now, then = self._served, self._then
        self._then = replace(now)
        requests = now.requests - then.requests
        return (
            requests >= MANY
            and now.took_s - then.took_s >= AT_ONCE * TURN_S
            and now.moved_bytes - then.moved_bytes <= requests * SMALL_BYTES
        )

    def _gather(self) -> None:
        # Also if it fails: some may have been moved.
        self._owes_spread = True
        self._try(self._cores.gather)

    def _spread(self) -> bool:
        """Say whether all may be anywhere; if not now, the next turn tries again."""
        if self._owes_spread:
            self._owes_spread = not self._try(self._cores.spread)
        return not self._owes_spread

    def _try(self, move: Callable[[], None]) -> bool:
        try:
            move()
        except MemoryError:
            return False
        except OSError as error:
            if error.errno not in _FOR_GOOD:
                return False
            if not self._is_refused:
                self._is_refused = True
                self.log.info(
                    "the system does not let a busy farmer keep its threads on one core"
                    " ({why}); it answers fewer small requests in a second",
                    why=error.strerror or error,
                )
        return True


class OwnThreads:
    """This process's, on Linux."""

    def __init__(self) -> None:
        self._before: set[int] = set()
        """Where they might be before they were gathered; empty if they were not."""
        self._core = -1

    def gather(self) -> None:
        """See `Cores.gather`."""
        # First: where there is no such file, there is none of the calls below either.
        core = core_of(threading.get_native_id())
        before = os.sched_getaffinity(0)
        if len(before) > 1:
            self._core, self._before = core, before
            _move_all(lambda _task: {core})

    def spread(self) -> None:
        """See `Cores.spread`; whoever moved some meanwhile (`taskset`) has the last word."""
        if not self._before:
            return
        ours = {self._core}
        here = os.sched_getaffinity(0)
        # All of them is no wish of anybody's: then those that are added later count as well.
        everywhere = len(self._before) == os.cpu_count()
        before = set(range(_CORES_MAX)) if everywhere else self._before
        where = before if here == ours else here
        _move_all(lambda task: where if os.sched_getaffinity(task) == ours else None)
        self._before = set()


def core_of(thread: int) -> int:
    """Return the core that a thread of ours is on; raises `OSError` where there is no /proc."""
    fields = (TASKS / str(thread) / "stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[_CORE])


def _move_all(where: Callable[[int], set[int] | None]) -> None:
    """Put each thread where it should be, also those begun meanwhile; None leaves it alone."""
    seen: set[int] = set()
    while more := {int(task.name) for task in TASKS.iterdir()} - seen:
        seen |= more
        for task in more:
            try:
                if cores := where(task):
                    os.sched_setaffinity(task, cores)
            except ProcessLookupError:
                # It has ended since.
                continue
