"""
Keeps a busy farmer's threads on one core, which the kernel chooses anew each second.

Python runs one of them at a time.  On several cores each call that lets go of Python's lock wakes
another thread on another core, which then waits for the lock; on one core whoever has it simply
goes on.  Small requests are little but such calls.  docs/decisions/speed.md has the figures.

Large transfers are not kept together: hashing, sealing and copying do use a second core, and
nobody answers many of them in a second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

TURN_S: Final = 1.0
"""Between two looks at how much is asked of us, and at where the kernel would have us."""

FREE_S: Final = 0.02
"""How long the kernel may then place us: some of its ticks, and little of a turn."""

MANY: Final = 40
"""Requests in a turn from which what is asked is small: large ones take longer than that."""

TASKS: Final = Path("/proc/self/task")

_CORE: Final = 36
"""Field of a task's `stat` that names its core, counted from behind the name (proc(5))."""


class Cores(Protocol):
    """What is asked of the system; every call raises `OSError` where that cannot be."""

    def gather(self) -> None:
        """Put all threads where this one is."""

    def spread(self) -> None:
        """Let them be anywhere again."""


class OneCore:
    """Gathers and spreads by what is asked of the farmer; on the reactor."""

    log = Logger()

    def __init__(self, clock: IReactorTime, served: Callable[[], int], cores: Cores) -> None:
        """*served* counts the requests that were answered, from the start on."""
        self.is_wanted = True
        """Whether the owner wants it."""
        self._clock = clock
        self._served = served
        self._cores = cores
        self._served_then = 0
        self._is_gathered = self._is_refused = False
        self._next: IDelayedCall | None = None

    async def turn(self) -> None:
        """Look whether many requests came since the last turn; call it every `TURN_S`."""
        served = self._served()
        is_many, self._served_then = served - self._served_then >= MANY, served
        if self._is_gathered:
            self._is_gathered = False
            self._try(self._cores.spread)
        if is_many and self.is_wanted and not self._is_refused:
            self._next = self._clock.callLater(FREE_S, self._gather)

    def stop(self) -> None:
        """Begin nothing more."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _gather(self) -> None:
        self._is_gathered = True
        self._try(self._cores.gather)

    def _try(self, move: Callable[[], None]) -> None:
        try:
            move()
        except OSError as error:
            if not self._is_refused:
                self._is_refused = True
                self.log.info(
                    "the system does not let a busy farmer keep its threads on one core"
                    " ({why}); it answers fewer small requests in a second",
                    why=error.strerror or error,
                )


class OwnThreads:
    """This process's, on Linux; a thread that is begun meanwhile is where its maker is."""

    def __init__(self) -> None:
        self._before: set[int] = set()
        """Where they might be before they were gathered."""
        self._core = -1

    def gather(self) -> None:
        """See `Cores.gather`."""
        # First: where there is no such file, there is none of the calls below either.
        self._core = core_of(threading.get_native_id())
        self._before = os.sched_getaffinity(0)
        if len(self._before) > 1:
            _keep_all_to({self._core})

    def spread(self) -> None:
        """See `Cores.spread`; whoever moved us meanwhile (`taskset`) has the last word."""
        if len(self._before) > 1 and os.sched_getaffinity(0) == {self._core}:
            _keep_all_to(self._before)


def core_of(thread: int) -> int:
    """Return the core that a thread of ours is on; raises `OSError` where there is no /proc."""
    fields = (TASKS / str(thread) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[_CORE])


def _keep_all_to(cores: set[int]) -> None:
    for task in TASKS.iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            # It has ended since.
            continue
