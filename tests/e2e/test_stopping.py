"""A start, a reload and a stop that something gets in the way of."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from farmer.protocol.transfers import Accept, Store
from farmer.running.signals import ONE_REQUEST_S, STOPPED_AT_ONCE
from farmer.storage.directory import MARKER_NAME
from tests.e2e import daemon as daemons
from tests.e2e.daemon import READY_S, Daemon, Renter
from tests.e2e.sick_disks import SharedDisk, end_of, let_go_of
from tests.fakes import shard_of
from tests.hostile import base
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

TEST, ATTIC = 'name: "test"', 'name: "attic"'
"""Of the settings."""


def wait_until_read(fifo: Path) -> int:
    """Wait until the farmer reads this pipe, which it then waits for; return its other end."""
    found: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):
            found.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    wait_until(is_read, READY_S)
    return found[0]


def test_a_farmer_that_does_not_stop_is_not_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tests themselves: it fails the one that began it, and disturbs no other."""
    monkeypatch.setattr(daemons, "STOP_S", 0.5)
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        process = daemon.start().process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.stop()
        assert process.poll() == -signal.SIGKILL
        daemon.start()
        assert daemon.status()["state"] == "running"


def test_a_contract_database_that_takes_nothing_does_not_break_the_stop_off(
    tmp_path: Path,
) -> None:
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        for _ in range(2):
            assert daemon.stop() == 0
            daemon.start().status()
        book = daemon.home / "contracts.sqlite"
        book.rename(daemon.home / "away")
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.logs.read_text()
        assert not (daemon.home / "run.json").exists()
        (daemon.home / "away").rename(book)
        daemon.start()
        assert daemon.status()["clean_start"]
        assert daemon.stop() == 0


def test_a_home_whose_disk_hangs_does_not_break_the_stop_off(tmp_path: Path) -> None:
    disk = SharedDisk(tmp_path)
    try:
        with Daemon(disk.mount / "home", tmp_path / "volume") as daemon:
            daemon.logs = tmp_path / "logs"
            assert daemon.start().stop() == 0
            daemon.start()
            assert daemon.process is not None
            disk.hang()
            daemon.process.send_signal(signal.SIGTERM)
            # The kernel may keep the process itself until the disk answers.
            stopped_s = wait_until(lambda: daemon.logs.read_text().count('"stopped; ') == 2, 45)
            print(f"stopped in {stopped_s:.1f} s")
            disk.answer()
            assert end_of(let_go_of(daemon)) == 1
            logs = daemon.logs.read_text()
            assert f"the disk of {daemon.home} does not answer" in logs
            assert "Traceback" not in logs
            daemon.start()
            assert daemon.stop() == 0
    finally:
        disk.end()


def test_a_volume_that_is_being_looked_over_does_not_hold_the_stop_up(tmp_path: Path) -> None:
    """To read a large one takes hours; whoever asked is told."""
    silent = tmp_path / "silent"
    silent.mkdir()
    os.mkfifo(silent / MARKER_NAME)
    question = {"verb": "volume-check", "words": {"path": str(silent)}}
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        control = json.loads((daemon.home / "run.json").read_text())["control"]
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(control)
            asking.sendall(json.dumps(question).encode() + b"\n")
            daemon.status()  # the question before it has come, too
            began_s = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - began_s < 8
            asking.settimeout(5)
            assert b"the farmer is being stopped" in asking.recv(4096)
        assert "does not answer" not in daemon.logs.read_text()


def test_an_end_at_once_says_what_it_cuts_off(tmp_path: Path) -> None:
    """Asked for a second time, while a renter is sending."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        home, content = tmp_path / "renter", bytes(1 << 20)
        Renter(home).join(daemon.start().invite())
        with base.Renter(home, daemon.status()["listen"][0]) as renter:
            renter.ask(Store(shard_of(content), len(content)), Accept)
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGINT)
            wait_until(lambda: '"stopping; ' in daemon.logs.read_text(), READY_S)
            time.sleep(ONE_REQUEST_S)
            assert daemon.stop() == STOPPED_AT_ONCE
        last = json.loads(daemon.logs.read_text().splitlines()[-1])
        assert last["level"] == "warn"
        assert "at once, as asked: 1 transfer and the closing of the volumes" in last["message"]
        assert daemon.start().stop() == 0
        assert "its last writes were read again" in daemon.logs.read_text()


def test_a_reload_that_is_asked_for_during_a_start_is_done_after_it(tmp_path: Path) -> None:
    """A start may take hours: with what the settings say by then the farmer goes on."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        assert daemon.start().stop() == 0
        register = daemon.home / "volumes.json"
        known = register.read_bytes()
        register.unlink()
        os.mkfifo(register)
        starting = Thread(target=daemon.start)
        starting.start()
        with os.fdopen(wait_until_read(register), "wb") as pipe:
            register.unlink()
            register.write_bytes(known)
            settings = daemon.home / "farmer.yaml"
            settings.write_text(settings.read_text().replace(TEST, ATTIC))
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            pipe.write(known)
        starting.join(READY_S)
        wait_until(lambda: daemon.status()["name"] == "attic", 10)
        assert daemon.stop() == 0


def test_settings_that_do_not_come_do_not_stop_the_serving(tmp_path: Path) -> None:
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start()
        assert daemon.process is not None
        settings = daemon.home / "farmer.yaml"
        text = settings.read_text()
        settings.unlink()
        os.mkfifo(settings)
        daemon.process.send_signal(signal.SIGHUP)
        with os.fdopen(wait_until_read(settings), "w") as pipe:
            asked = daemon.call("status", "--json")
            assert json.loads(asked.stdout)["name"] == "test", asked.stderr
            pipe.write(text.replace(TEST, ATTIC))
        settings.unlink()
        settings.write_text(text)
        wait_until(lambda: daemon.status()["name"] == "attic", 10)
        assert daemon.stop() == 0


def test_a_renter_who_waits_for_a_home_that_hangs_does_not_hold_the_stop_up(
    tmp_path: Path,
) -> None:
    """Nobody watches the disk of the contracts: what uses it waits as long as it hangs."""
    disk = SharedDisk(tmp_path)
    try:
        with Daemon(disk.mount / "home", tmp_path / "volume") as daemon:
            daemon.logs = tmp_path / "logs"
            settings = daemon.home / "farmer.yaml"
            settings.write_text(settings.read_text() + "\ndrain: {grace: 1s}\n")
            invite = daemon.start().invite()
            farmer = daemon.process
            assert farmer is not None
            renter = Renter(tmp_path / "renter")
            asking = Thread(target=renter.call, args=("join", invite), daemon=True)
            disk.hang()
            try:
                asking.start()
                wait_until(lambda: _waits_for_a_disk(farmer.pid), READY_S)
                farmer.send_signal(signal.SIGTERM)
                stopped_s = wait_until(lambda: '"stopped; ' in daemon.logs.read_text(), 55)
                print(f"stopped in {stopped_s:.1f} s")
                assert "work for renters is left" in daemon.logs.read_text()
            finally:
                # Also whoever tidies up after a failure looks at the home.
                disk.answer()
            assert end_of(let_go_of(daemon)) == 1
            asking.join(READY_S)
            assert "Traceback" not in daemon.logs.read_text()
            assert daemon.start().stop() == 0
    finally:
        disk.end()


def _waits_for_a_disk(pid: int) -> bool:
    """Tell whether a thread of a process sleeps in a call to a FUSE server."""
    waits = (task / "wchan" for task in Path(f"/proc/{pid}/task").iterdir())
    return any("fuse" in wait.read_text() or "request_wait" in wait.read_text() for wait in waits)
