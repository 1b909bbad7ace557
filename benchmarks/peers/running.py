"""Processes of our own: started, waited for, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.peers.peer import PeerError
from benchmarks.rig.accounting import alive_in_group

READY_S: Final = 60.0
STOP_S: Final = 10.0
LOOK_S: Final = 0.05
SAID_BYTES_MAX: Final = 400


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens at, a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str | Path], folder: Path, port: int, more: Mapping[str, str] | None = None
) -> Iterator[int]:
    """
    Run a server from `with` to its end and give its process id, once it answers at its port.

    It leads a group of its own; the whole group is gone at the end.  *more* is added to the
    environment.

    Raises:
        PeerError: it ended, or does not answer in time; has its last words.

    """
    said = folder / "said"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            # Some end when their input does, so it stays open.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | (more or {}),
            start_new_session=True,
        )
    try:
        _wait_for_port(process.pid, port, said)
        yield process.pid
    finally:
        _end(process)


def _wait_for_port(pid: int, port: int, said: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if _has_ended(pid):
            raise PeerError(f"it ended at once: {_last_words(said)}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(LOOK_S)
    raise PeerError(f"it does not answer within {READY_S:.0f} s: {_last_words(said)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    # It is waited for last: until then its id, and its group's, cannot be anybody else's.
    os.kill(process.pid, signal.SIGTERM)
    _until(lambda: _has_ended(process.pid))
    os.killpg(process.pid, signal.SIGKILL)
    _until(lambda: not alive_in_group(process.pid))
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + STOP_S
    while not reached() and time.monotonic() < until:
        time.sleep(LOOK_S)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _last_words(said: Path) -> str:
    return said.read_text(errors="replace")[-SAID_BYTES_MAX:].strip() or "it said nothing"
