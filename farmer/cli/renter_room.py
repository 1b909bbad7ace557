"""A full disk of the renter's own, told with its place and what can be done."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def room_for(what: str, otherwise: str) -> Iterator[None]:
    """Have the error of a full disk say for *what* there is no room, and what to do; no other."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, f"no room {what} ({error.strerror}): {otherwise}") from error


def room_aside() -> AbstractContextManager[None]:
    """As `room_for`, for what is put into a file without a name."""
    return room_for(
        f"in {tempfile.gettempdir()} to put it aside", "name a directory on another disk in TMPDIR"
    )
