"""One process at a time may change a home; and for a moment, what the others change too."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from farmer.running.home import Home
from farmer.storage.errors import NO_SPACE

WAIT_S: Final = 3.0
"""A short command that holds the lock is done by then; a running farmer is not."""

LOOK: Final = "farmer status"

_RETRY_S: Final = 0.05
_PID_DIGITS_MAX: Final = 20


class HomeLockedError(Exception):
    """Another process holds the home."""

    def __init__(self, path: Path, pid: int | None, look: str = LOOK) -> None:
        who = f"process {pid}" if pid is not None else "another process"
        super().__init__(f"{path.parent} is in use by {who}, {_how(pid, look)}")
        self.pid = pid


class HomeLock:
    """An flock on a file that tells the holder's pid; the kernel lets it go with the process."""

    def __init__(self, path: Path, look: str = LOOK) -> None:
        """*look* is the command that shows who holds it."""
        self._path = path
        self._look = look
        self._descriptor = -1

    def take(self, wait_s: float = 0.0) -> None:
        """
        Take the lock, waiting up to *wait_s* (blocking) for short commands to end.

        Raises:
            HomeLockedError: somebody else has it.
            OSError: the file cannot be made.

        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            self._wait(descriptor, wait_s)
            _tell_pid(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _wait(self, descriptor: int, wait_s: float) -> None:
        if not _is_taken(descriptor, wait_s):
            raise HomeLockedError(self._path, _pid(descriptor), self._look)

    def give_back(self) -> None:
        """Let it go; safe twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        self.take(WAIT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give_back()


def lock_to_change(home: Home) -> HomeLock:
    """Return the home's lock; raises `HomeError` if what we make there would be of no use."""
    home.check_owner()
    return lock_of(home)


def lock_of(home: Home) -> HomeLock:
    """Return the home's lock, which names the command for this home when it is held."""
    return HomeLock(home.lock, home.command("status"))


@contextmanager
def for_a_moment(path: Path, wait_s: float = WAIT_S) -> Iterator[None]:
    """
    Hold an flock while a small file is read, changed and written, whoever holds the home.

    Nobody is asked meanwhile, neither a disk of shards nor another process: so it never takes
    long, and two that wait for each other cannot be.

    Raises:
        TimeoutError: somebody else held it all along.
        OSError: the file cannot be made.

    """
    # Nothing is written into it: a full disk is no reason.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        if not _is_taken(descriptor, wait_s):
            raise TimeoutError(f"another process holds {path} and does not let it go; try again")
        yield
    finally:
        os.close(descriptor)


def _is_taken(descriptor: int, wait_s: float) -> bool:
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_RETRY_S)
        else:
            return True


def _tell_pid(descriptor: int) -> None:
    """Write our number in place, always as long: what a full disk has given it keeps."""
    try:
        os.pwrite(descriptor, f"{os.getpid():<{_PID_DIGITS_MAX - 1}}\n".encode(), 0)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        # Better none than that of another process.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)


def _how(pid: int | None, look: str) -> str:
    """Say what it does there; one that was killed may have left a thread in a dead disk."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        stat = b""
    # Behind the name, which may have any bytes in it.
    if stat.rpartition(b")")[2].split()[:1] == [b"Z"]:
        return (
            "which has ended but is kept by the kernel until a disk answers that does not: mend"
            " that disk, unmount it by force (umount -f), or restart the machine"
        )
    return f"a farmer that runs or is being changed; look at it with: {look}"


def _pid(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, _PID_DIGITS_MAX, 0))
    except ValueError:
        return None
