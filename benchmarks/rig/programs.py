"""Programs that measure with a farmer of their own, and are ended in order where we are."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.rig.errors import MeasuringError

STOP_S: Final = 60.0
"""For its own tidying up."""


def run(words: Sequence[str], timeout_s: float, **how: Any) -> subprocess.CompletedProcess[str]:
    """
    Run a program, as `subprocess.run` does; raises `MeasuringError` if it hangs.

    That one kills the program if a signal ends us, and a farmer that this has begun would stay.
    """
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MeasuringError(f"not over in {timeout_s:.0f} s: {shlex.join(words)}") from error
        finally:
            _end(process)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
