"""The process as the system sees it: descriptors, standard output, its journal."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import sys
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

STDOUT: Final = 1
STDERR: Final = 2

DESCRIPTORS: Final = 8192
"""Sessions, one file each that they read, segments: some two thousand at worst."""


OTHER_DESCRIPTORS: Final = 192
"""Of these none is a renter's: the page's connections, volumes, databases, logs, libraries."""


def allow_many_sessions(sessions: int) -> int:
    """
    Take more file descriptors than the usual 1024, as far as the system lets us.

    Return how many of so many *sessions* there are descriptors for: a socket and a file each;
    of thousands, most are quiet, and some four thousand that read at once are enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(DESCRIPTORS, 2 * sessions)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY:
        return sessions
    spare = now - OTHER_DESCRIPTORS
    return max(1, min(sessions, max(spare // 2, spare - DESCRIPTORS // 2)))


def goes_to_journal(environ: Mapping[str, str], descriptor: int) -> bool:
    """Tell whether systemd reads this descriptor; the variable alone may be inherited."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def tell_at_once(line: str, descriptor: int = STDERR) -> None:
    """
    Write a line to standard error now, or not at all if that takes nothing just now.

    For signal handlers: what they interrupt may be a write to the stream itself, or hold a lock.
    """
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, line.encode(errors="backslashreplace"))


def end_at_once(exit_code: int, let_go: Callable[[], None]) -> NoReturn:
    """
    End the process without closing what lies on disks; all that must be kept has been synced.

    A thread that waits for a dead disk may outlive that, without ever running again, and keeps
    every descriptor open with it: so *let_go* has to close what the next farmer needs.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    let_go()
    # Whoever reads our output waits for its end.
    os.closerange(0, 3)
    os._exit(exit_code)


def say(line: str) -> None:
    """Print for whoever started us; nobody may be listening any more."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)
