"""Where it is measured: a temporary folder that goes whatever happens, also upon SIGTERM."""

from __future__ import annotations

import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.rig.errors import MeasuringError


@contextmanager
def place(parent: Path) -> Iterator[Path]:
    """
    Lend a folder on the disk to be measured; at the end nothing of it is left.

    Raises:
        MeasuringError: none can be made there.

    """
    try:
        lent = tempfile.TemporaryDirectory(prefix=".bench-", dir=parent.absolute())
    except OSError as error:
        raise MeasuringError(f"{parent}: {error.strerror}") from error
    with lent as folder:
        yield Path(folder)


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, through every `finally`."""

    def end(number: int, _frame: FrameType | None) -> None:
        # Once: a second one must not break off the tidying up.
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def allow_many_connections() -> None:
    """Let this process have as many descriptors as it may: one for each connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
