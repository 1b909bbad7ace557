"""A real farmer of its own: a process, a home and a volume that are gone afterwards."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READY_S: Final = 60.0
STOP_S: Final = 30.0
CALL_S: Final = 60.0


class BenchError(Exception):
    """The farmer that was to be measured did not do what it should."""


class OwnFarmer:
    """
    `farmer run` on loopback, from `with` to its end.

    Raises:
        BenchError: it cannot be made or started; the message has its last words.

    """

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self._home = folder / "home"
        self._log = folder / "log"
        self._volume = f"{folder / 'volume'}={quota_bytes}B"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._call(
            *("init", "--yes", "--volume", self._volume, "--name", "bench"),
            *("--listen", "127.0.0.1:0", "--page", "127.0.0.1:0"),
        )
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end()

    def invite(self, space_bytes: int) -> str:
        """Return an invite of so much space; raises `BenchError`."""
        told = self._call("invite", "--space", f"{space_bytes}B", "--for", "1d", "--json")
        line: str = json.loads(told)["invite"]
        return line

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def processor_s(self) -> float:
        """Return how much processor time it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own words
                self._command("run"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        until, printed = time.monotonic() + READY_S, b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, until - time.monotonic())):
                more = os.read(process.stdout.fileno(), 65536)
                printed += more
                if b"\nready" in b"\n" + printed:
                    return
                if not more:
                    break
        raise BenchError(f"the farmer did not start: {self._last_words()}")

    def _call(self, *words: str) -> str:
        try:
            told = subprocess.run(  # noqa: S603  # our own words
                self._command(*words),
                check=False,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=CALL_S,
                env=_environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"farmer {words[0]} took longer than {CALL_S:.0f} s") from error
        if told.returncode:
            raise BenchError(f"farmer {words[0]} failed: {told.stderr.strip()}")
        return told.stdout

    def _command(self, *words: str) -> list[str]:
        # Not from the folder we stand in, which may hold another farmer: the one that measures.
        return [sys.executable, "-P", "-m", "farmer.cli.owner", "--home", str(self._home), *words]

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-1000:].strip() or "it said nothing"

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _environment() -> dict[str, str]:
    """Return ours, without anything that could point at another home."""
    prefixes = ("FARMER_", "RENTER_", "NOTIFY_", "LISTEN_", "JOURNAL_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
