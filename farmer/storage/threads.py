"""
Beginning a thread without waiting for it for ever.

`threading.Thread.start` waits until the new thread says that it runs.  One that finds no memory
for its first call never says so: whoever began it, the reactor too, waited until the process
was killed.
"""

from __future__ import annotations

import _thread
import errno
import os
from collections.abc import Callable
from threading import Event, Lock
from typing import Final

BIRTH_S: Final = 1.0
"""A thread says that it runs within some 0.1 ms; this long only on a machine that stands still."""


def begin_thread(work: Callable[[], None]) -> None:
    """
    Do something in a thread of its own, which does not keep the process from ending.

    Raises:
        OSError: there is no memory for it; *work* is not done, neither now nor later.

    """
    runs, claim = Event(), Lock()

    def run() -> None:
        if claim.acquire(blocking=False):
            runs.set()
            work()

    try:
        _thread.start_new_thread(run, ())
    except (RuntimeError, MemoryError) as error:
        raise _no_memory() from error
    # Whoever has the claim decides: a thread that comes too late ends at once.
    if not runs.wait(BIRTH_S) and claim.acquire(blocking=False):
        raise _no_memory()


def _no_memory() -> OSError:
    return OSError(errno.ENOMEM, f"{os.strerror(errno.ENOMEM)}: no thread can be begun")
