"""What the tests of sick disks share: a disk that can hang or tire, a farmer with two, renters."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farmer.client import blocking
from farmer.client.errors import ClientError
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from farmer.model.contract import Receipt
from farmer.running.caller import call
from farmer.running.home import Home
from tests.e2e.daemon import Daemon
from tests.needs import need
from tests.waiting import wait_until

HERE = Path(__file__).parent
SYSTEM_PYTHON = Path("/usr/bin/python3")
RENTERS = 4
NOTICED_S = 10.0
BACK_S = 30.0
P99_S = 2.0
"""Of stores and retrieves once the hang was noticed; two busy cores are to be had too."""


class SharedDisk:
    """A directory behind a FUSE server that can be stopped and continued."""

    def __init__(self, folder: Path) -> None:
        need(os.geteuid() == 0 and Path("/dev/fuse").exists(), "to be root, and /dev/fuse")
        has_fuse = (
            SYSTEM_PYTHON.exists()
            and not subprocess.run(
                [SYSTEM_PYTHON, "-c", "import fuse"], check=False, capture_output=True
            ).returncode
        )
        need(has_fuse, "python3-fuse")
        self.mount = folder / "mount"
        self.behind = folder / "behind"
        self._delay = folder / "behind.delay"
        self._dead = folder / "behind.dead"
        self._bad = folder / "behind.bad"
        self.mount.mkdir()
        self.behind.mkdir()
        command = [SYSTEM_PYTHON, HERE / "hanging_fs.py", self.mount, self.behind]
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(lambda: os.path.ismount(self.mount), 10)

    def hang(self) -> None:
        self._server.send_signal(signal.SIGSTOP)

    def answer(self) -> None:
        self._server.send_signal(signal.SIGCONT)

    def fall_silent(self) -> None:
        """Let it take every call, and answer none of them: the kernel cannot take them back."""
        self._dead.touch()

    def speak(self) -> None:
        self._dead.unlink(missing_ok=True)

    def die(self) -> None:
        """Let its server end: what waits for an answer gets an error."""
        self._server.kill()
        self._server.wait()

    def tire(self, delay_s: float) -> None:
        """Let every read and sync take so long from now on; 0 for none."""
        # In one step: it is read at any moment.
        draft = self._delay.with_suffix(".new")
        draft.write_text(str(delay_s))
        draft.rename(self._delay)

    def scratch(self, name: str, offset: int) -> None:
        """Let a block of a file be unreadable until it is written."""
        self._bad.mkdir(exist_ok=True)
        (self._bad / f"{name}@{offset}").touch()

    def end(self) -> None:
        self.answer()
        self.speak()
        self.tire(0)
        subprocess.run(["umount", "-l", self.mount], check=False)
        self.die()


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


class Worker:
    """A renter that stores, and reads what it stored, one after the other."""

    def __init__(self, number: int, folder: Path, invite: str) -> None:
        self.link = parse_link(invite)
        self.identity = Identity.load_or_create(folder)
        self.kept: list[tuple[Receipt, bytes]] = []
        self.took: list[tuple[float, float]] = []
        """When each success began, and how long it took."""
        self.refused = 0
        self.is_over = False
        self._rng = random.Random(number)
        with blocking.connect(self.link, self.identity) as farmer:
            farmer.redeem(self.link.invite)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.is_over:
            try:
                with blocking.connect(self.link, self.identity) as farmer:
                    while not self.is_over:
                        self._timed(self._store, farmer)
                        self._timed(self._read, farmer)
            except (ClientError, OSError):
                self.refused += 1
                time.sleep(0.05)

    def _timed(
        self, step: Callable[[blocking.BlockingFarmer], None], farmer: blocking.BlockingFarmer
    ) -> None:
        began = time.monotonic()
        step(farmer)
        self.took.append((began, time.monotonic() - began))

    def _store(self, farmer: blocking.BlockingFarmer) -> None:
        data = self._rng.randbytes(40_000)
        self.kept.append((farmer.store(io.BytesIO(data)), data))

    def _read(self, farmer: blocking.BlockingFarmer) -> None:
        receipt, data = self.kept[-1]
        into = io.BytesIO()
        farmer.retrieve(receipt.shard, into)
        assert into.getvalue() == data

    def end(self) -> None:
        self.is_over = True
        self.thread.join(30)

    def check_all(self, address: str) -> None:
        with blocking.connect(address, self.identity) as farmer:
            held = {stated.shard for stated in farmer.list()}
            assert {receipt.shard for receipt, _ in self.kept} <= held
            for receipt, data in self.kept[:: max(1, len(self.kept) // 20)]:
                into = io.BytesIO()
                farmer.retrieve(receipt.shard, into)
                assert into.getvalue() == data


def let_go_of(daemon: Daemon) -> subprocess.Popen[str]:
    """Return the farmer's process, which the test has to end."""
    process, daemon.process = daemon.process, None
    assert process is not None
    return process


def end_of(process: subprocess.Popen[str]) -> int:
    """Wait for it; return its exit code.  One that does not end is not left running."""
    try:
        return process.wait(BACK_S)
    finally:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()


def volumes_of(daemon: Daemon) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = daemon.status()["volumes"]
    return volumes


def volume_at(daemon: Daemon, path: Path) -> dict[str, Any]:
    [volume] = [one for one in volumes_of(daemon) if one["path"] == str(path)]
    return volume


def noticed_s(daemon: Daemon, path: Path, state: str) -> float:
    """
    Return after how many seconds, from now on, the farmer says this state of a volume.

    It is asked over its socket from here: the command line takes most of a second to begin.
    """
    home = Home.at(daemon.home)

    def is_said() -> bool:
        volumes = call(home, "status")["volumes"]
        return any((one["path"], one["state"]) == (str(path), state) for one in volumes)

    return wait_until(is_said, 3 * NOTICED_S)


def state_of(daemon: Daemon, path: Path) -> str:
    state: str = volume_at(daemon, path)["state"]
    return state


def alerts_of(daemon: Daemon) -> dict[str, str]:
    """Return what stands, and the command that helps."""
    return {one["name"]: one["command"] for one in daemon.status()["alerts"]}


@contextmanager
def two_disks(folder: Path, second: Path, *prefix: str) -> Iterator[tuple[Daemon, Path]]:
    with Daemon(folder / "home", folder / "plain") as daemon:
        added = daemon.call("volume", "add", f"{second}=500MB")
        assert added.returncode == 0, added.stderr
        yield daemon.start(*prefix), second


@contextmanager
def renters(daemon: Daemon, folder: Path, at_last: Callable[[], None]) -> Iterator[list[Worker]]:
    invites = [daemon.invite(space="300MB") for _ in range(RENTERS)]
    workers = [Worker(n, folder / f"renter{n}", invite) for n, invite in enumerate(invites)]
    try:
        yield workers
    finally:
        at_last()
        for worker in workers:
            worker.is_over = True
        for worker in workers:
            worker.end()


def figures(workers: list[Worker], since: float, until: float) -> list[float]:
    return [took for worker in workers for began, took in worker.took if since <= began < until]


def address_of(daemon: Daemon, worker: Worker) -> str:
    """Where it listens now: a restart chooses another port."""
    where = daemon.status()["listen"][0]
    return f"{daemon.status()['node_id']}@{where}"
