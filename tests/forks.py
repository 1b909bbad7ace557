"""
Runs of pytest, each a fork of one process that has imported it: `python -m tests.forks`.

A line of JSON asks for a run: its words, the file that takes what it prints, how long it may
take.  The line that answers says how it ended: its exit code, the signal that ended it as a
number below zero, or null where it took too long.  What is tested is imported by each run anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path

import hypothesis  # noqa: F401 - so much is here when a run begins
import pytest
import pytest_cov.plugin  # noqa: F401
import xdist.scheduler  # noqa: F401

FOREIGN = 70
"""A run ends with that where a module came from elsewhere than the folder it was begun in."""

BROKEN = 71
"""And with that where something failed that is no test: pytest has other codes."""


def main() -> int:
    """Run what stdin asks for, until it ends; in a fork: return pytest's exit code."""
    assert not any(name.partition(".")[0] == "farmer" for name in sys.modules)
    for line in sys.stdin:
        words, output, within_s = json.loads(line)
        child = os.fork()
        if not child:
            return _ran(words, Path(output))
        print(json.dumps(_end_of(child, within_s)), flush=True)
    return 0


def _ran(words: list[str], output: Path) -> int:
    house = Path.cwd()
    try:
        _write_to(output)
        code = int(pytest.main(words))
        return FOREIGN if _strangers(house) else code
    except BaseException:
        traceback.print_exc()
        return BROKEN


def _write_to(output: Path) -> None:
    """Leave the lines to the parent, and lead a group, which can be ended as one."""
    os.setsid()
    with Path(os.devnull).open() as nothing, output.open("w") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _end_of(child: int, within_s: float) -> int | None:
    ended = os.pidfd_open(child)
    in_time, _, _ = select.select([ended], [], [], within_s)
    os.close(ended)
    # It may have left processes of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if in_time else None


def _strangers(house: Path) -> list[str]:
    """Name and tell the modules of ours that another folder has lent."""
    ours = {
        name: file
        for name, module in sys.modules.items()
        if name.partition(".")[0] in {"farmer", "tests"}
        and (file := getattr(module, "__file__", None))
    }
    strangers = [name for name, file in ours.items() if not Path(file).is_relative_to(house)]
    if strangers:
        print(f"not of {house}: {strangers}")
    return strangers


if __name__ == "__main__":
    sys.exit(main())
