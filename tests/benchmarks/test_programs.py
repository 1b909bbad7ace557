"""Programs that are run by a benchmark: how they end where it ends before them."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rig import programs
from benchmarks.rig.errors import MeasuringError

ENDS_US_AND_WAITS = textwrap.dedent(
    """
    import os, signal, sys
    def end(number, frame):
        with open(sys.argv[1], "w") as file:
            file.write("in order")
        sys.exit()
    signal.signal(signal.SIGTERM, end)
    os.kill(os.getppid(), signal.SIGUSR1)
    while True:
        signal.pause()
    """
)


@pytest.fixture
def ended_by_a_signal() -> Iterator[None]:
    """As SIGTERM ends a benchmark."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGUSR1, end)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("ended_by_a_signal")
def test_a_program_ends_in_order_where_we_are_ended(tmp_path: Path) -> None:
    """It has time to end what it has begun itself, and is waited for."""
    said = tmp_path / "said"
    with pytest.raises(SystemExit):
        programs.run([sys.executable, "-c", ENDS_US_AND_WAITS, str(said)], 60)
    assert said.read_text() == "in order"


def test_a_program_that_hangs_is_named() -> None:
    """And ended."""
    with pytest.raises(MeasuringError, match=r"not over in 0 s: .*pause"):
        programs.run([sys.executable, "-c", "import signal; signal.pause()"], 0.1)


def test_what_a_program_says_and_how_it_ends_is_told() -> None:
    told = programs.run([sys.executable, "-c", "print('so'); raise SystemExit('no')"], 60)
    assert (told.returncode, told.stdout, told.stderr) == (1, "so\n", "no\n")
