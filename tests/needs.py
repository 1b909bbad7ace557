"""
What a test needs of the system it runs on: without it, it is skipped, and pytest says so (`-rs`).

In CI, which must have all of it, such a test fails: nobody would see there that it did not run.
Where the need is known beforehand, `pytest.mark.tool(name)` and `pytest.mark.needs(is_there,
what)` say it; `tests/conftest.py` looks at them before each test.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import pytest


def is_in_ci() -> bool:
    """Return whether this is CI, by the variable that every CI sets."""
    return os.environ.get("CI") == "true"


def need(is_there: object, what: str) -> None:
    """Let the test go on only if *what* it needs is there."""
    if not is_there:
        lack(what)


def lack(what: str) -> NoReturn:
    """End the test, for it needs *what* is not there."""
    if is_in_ci():
        pytest.fail(f"needs {what}, which CI must have", pytrace=False)
    pytest.skip(f"needs {what}")


as_root = pytest.mark.needs(os.geteuid() == 0, "to be root")

on_two_cores = pytest.mark.needs(
    hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1, "two cores"
)

on_linux = pytest.mark.needs(sys.platform.startswith("linux"), "Linux")
