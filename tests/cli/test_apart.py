"""A command's work in a child: the same words and codes, and an end whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from farmer.cli.apart import in_a_child

HEAD = """
import os, signal, sys, time
from farmer.cli.apart import in_a_child

def last():
    for _ in range(600):
        time.sleep(0.1)

"""
"""To `last` a minute, in naps: a signal that comes just before a sleep does not end that one."""


def script(body: str) -> list[str]:
    return [sys.executable, "-c", HEAD + textwrap.dedent(body)]


def test_its_exit_code_is_passed_on() -> None:
    assert in_a_child(lambda: 4) == 4
    assert in_a_child(lambda: os.kill(os.getpid(), signal.SIGKILL) or 0) == 137


def test_what_it_prints_is_printed_and_its_pipes_are_closed() -> None:
    done = subprocess.run(
        script(
            """
            def work():
                print("words")
                print("more", file=sys.stderr)
                return 3
            sys.exit(in_a_child(work))
            """
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "words\n", "more\n")


def test_a_bug_in_it_is_shown_and_is_a_failure() -> None:
    body = "sys.exit(in_a_child(lambda: 1 // 0))"
    done = subprocess.run(script(body), check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr


def test_an_answer_that_cannot_be_written_is_no_success() -> None:
    body = "sys.exit(in_a_child(lambda: print('words') or 0))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            script(body),
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    assert done.returncode == 1
    assert "farmer: the answer could not be written: No space left" in done.stderr


def test_with_standard_output_closed_its_exit_code_is_passed_on_too() -> None:
    body = "os.close(1); sys.stdout = None; sys.exit(in_a_child(lambda: 4))"
    done = subprocess.run(script(body), check=False, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (4, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("late", ["", "signal.signal = late"])
def test_who_ends_the_command_ends_its_work(number: signal.Signals, late: str) -> None:
    """However early: also before the command is ready to pass it on."""
    # Who began the tests (nohup) may not want to hear it.
    body = f"""
        signal.signal({number:d}, signal.SIG_DFL)
        really = signal.signal
        def late(*words):
            time.sleep(0.3)
            return really(*words)
        {late}
        def work():
            print(os.getpid(), flush=True)
            last()
        sys.exit(in_a_child(work))
        """
    with subprocess.Popen(script(body), stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        command.stdout.readline()
        command.send_signal(number)
        began = time.monotonic()
        assert command.wait(30) == -number
        # The child held the other end of it.
        assert command.stdout.read() == ""
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("is_for_all", [False, True], ids=["alone", "with its group"])
@pytest.mark.parametrize("late", ["", "signal.signal = late"])
def test_who_interrupts_the_command_interrupts_its_work_once(is_for_all: bool, late: str) -> None:
    """A terminal, and `timeout`, interrupt both; `kill` does so to the command alone."""
    body = f"""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        really = signal.signal
        def late(*words):
            time.sleep(0.3)
            return really(*words)
        {late}
        def work():
            try:
                print("begun", flush=True)
                last()
            except KeyboardInterrupt:
                time.sleep(0.5)
                print("ended in order", flush=True)
            return 3
        sys.exit(in_a_child(work))
        """
    with subprocess.Popen(
        script(body), stdout=subprocess.PIPE, text=True, process_group=0
    ) as command:
        assert command.stdout is not None
        command.stdout.readline()
        if is_for_all:
            os.killpg(command.pid, signal.SIGINT)
        else:
            command.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert command.wait(30) == 130
        assert command.stdout.read() == "ended in order\n"
        assert time.monotonic() - began < 30


def test_what_the_command_is_not_to_hear_it_does_not_hear() -> None:
    """As `nohup` has it: the terminal is closed, and the work goes on."""
    body = """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        def work():
            os.kill(os.getppid(), signal.SIGHUP)
            time.sleep(0.3)
            return 3
        sys.exit(in_a_child(work))
        """
    done = subprocess.run(script(body), check=False, timeout=60)
    assert done.returncode == 3
