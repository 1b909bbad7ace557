"""A real farmer in a process of its own, and a renter at the command line, over loopback."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

READY_S = 30.0
STOP_S = 60.0
KILLED_S = 10.0


def environment(**extra: str) -> dict[str, str]:
    """Ours, without anything that could point at another home."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("FARMER_", "RENTER_", "NOTIFY_", "JOURNAL_"))
    }
    return {**kept, **extra}


def call(
    program: str, home: Path, *words: str, timeout_s: float = 60, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run `farmer` or `renter` once and return how it ended."""
    module = {"farmer": "farmer.cli.owner", "renter": "farmer.cli.renter"}[program]
    return subprocess.run(
        [sys.executable, "-m", module, "--home", str(home), *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env=environment(**extra),
    )


class Daemon:
    """`farmer run` on a home; started, killed and started again by the test."""

    def __init__(
        self, home: Path, volume: Path, quota: str = "1GB", *, with_init: bool = True
    ) -> None:
        self.home = home
        self.volume = volume
        self.process: subprocess.Popen[str] | None = None
        self.ready_line = ""
        self.said: list[str] = []
        """What the last start printed, with the ready line as its last."""
        self.logs = home.parent / f"{home.name}.log"
        if with_init:
            self._init(quota)

    def _init(self, quota: str) -> None:
        made = self.call(
            *("init", "--yes", "--volume", f"{self.volume}={quota}"),
            *("--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", "--name", "test"),
        )
        assert made.returncode == 0, made.stderr

    def call(
        self, *words: str, timeout_s: float = 60, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb of `farmer` on this home."""
        return call("farmer", self.home, *words, timeout_s=timeout_s, **extra)

    def start(self, *prefix: str) -> Self:
        """Start and wait for the line that begins with `ready`."""
        command = [sys.executable, "-m", "farmer.cli.owner", "--home", str(self.home), "run"]
        with self.logs.open("a") as logs:
            self.process = subprocess.Popen(
                [*prefix, *command],
                stdout=subprocess.PIPE,
                stderr=logs,
                stdin=subprocess.DEVNULL,
                text=True,
                env=environment(),
            )
        self.ready_line = self._wait_for_ready()
        return self

    def _wait_for_ready(self) -> str:
        assert self.process is not None and self.process.stdout is not None
        deadline = time.monotonic() + READY_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            printed = ""
            while selector.select(max(0.0, deadline - time.monotonic())):
                # Unbuffered: a line that was read ahead would not wake the selector.
                read = os.read(self.process.stdout.fileno(), 65536).decode()
                printed += read
                lines = printed.splitlines(keepends=True)
                ready = [line for line in lines if line.startswith("ready") and "\n" in line]
                if ready:
                    self.said = printed.splitlines()
                    return ready[0]
                if not read:
                    break
        raise AssertionError(f"no ready line; logs:\n{self.logs.read_text()[-3000:]}")

    def status(self) -> dict[str, Any]:
        """Return `farmer status --json`."""
        asked = self.call("status", "--json")
        assert asked.returncode in {0, 4, 5}, asked.stderr
        answer: dict[str, Any] = json.loads(asked.stdout)
        return answer

    def invite(self, space: str = "500MB", duration: str = "90d") -> str:
        """Return a fresh invite line."""
        asked = self.call("invite", "--space", space, "--for", duration, "--json")
        assert asked.returncode == 0, asked.stderr
        line: str = json.loads(asked.stdout)["invite"]
        return line

    def kill(self) -> None:
        """Kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop in order and return the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process = self.process
        if process is None:
            return 0
        process.send_signal(how)
        try:
            return process.wait(STOP_S)
        finally:
            # One that did not end in time would disturb all that comes after it.
            process.kill()
            process.wait(KILLED_S)
            assert process.stdout is not None
            process.stdout.close()
            self.process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._tidy()

    def _tidy(self) -> None:
        """Remove the control socket's folder, which a killed farmer could not."""
        run = self.home / "run.json"
        if run.exists():
            shutil.rmtree(Path(json.loads(run.read_text())["control"]).parent, ignore_errors=True)


class Renter:
    """A renter's home and its command line."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def call(self, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a verb of `renter`."""
        return call("renter", self.home, *words, timeout_s=240, **extra)

    def ask(self, *words: str) -> Any:
        """Run a verb with --json and return its answer, whatever the exit code."""
        outcome = self.call(*words, "--json")
        assert outcome.stdout, outcome.stderr
        return json.loads(outcome.stdout)

    def join(self, invite: str) -> None:
        """Redeem an invite; must succeed."""
        joined = self.call("join", invite)
        assert joined.returncode == 0, joined.stderr

    def store(self, *files: Path) -> list[dict[str, Any]]:
        """Store files; return a row for each."""
        rows: list[dict[str, Any]] = self.ask("store", *map(str, files))
        return rows


def allocated_bytes(directory: Path) -> int:
    """Return what everything under a directory takes on its disk."""
    paths = [directory, *directory.rglob("*")]
    return sum(path.lstat().st_blocks * 512 for path in paths if path.exists())
