"""One mutant against the tests that come by its line, in a copy of the house."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path

from tests.mutation.mutants import Mutant

ROOT = Path(__file__).parent.parent.parent
COPIED = ("farmer", "tests", "conf", "docs", "pyproject.toml")
QUICKLY = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=planted", "--no-header")
BATCH = 60
"""Tests of one call: most mutants fall to the first few, and words of a command are limited."""

PATIENCE_S = 120.0
"""For one batch: a mutant that makes a test wait for ever is noticed by that."""

PASSED, FAILED, INTERRUPTED, INTERNAL, USAGE = 0, 1, 2, 3, 4
"""The last is said of tests that are not there, and where what all tests need does not load."""


class Fate(Enum):
    """What became of a mutant."""

    KILLED = "killed"
    HANGS = "hangs"
    SURVIVED = "survived"
    UNSEEN = "no test comes by"


@dataclass(frozen=True, slots=True)
class Judged:
    """A mutant of a module, and its fate."""

    module: str
    line: int
    what: str
    fate: Fate

    @property
    def is_dead(self) -> bool:
        """Whether the tests noticed."""
        return self.fate in {Fate.KILLED, Fate.HANGS}

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.what}: {self.fate.value}"


class House:
    """A copy in which mistakes are made, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._times = count(2_000_000_000)
        folder.mkdir()
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)

    def judge(self, module: str, mutant: Mutant, tests: list[str]) -> Judged:
        """Say what the tests, the quickest first, make of it."""
        if not tests:
            return Judged(module, mutant.line, mutant.what, Fate.UNSEEN)
        place = self._root / module
        good = place.read_text()
        self._write(place, mutant.source)
        try:
            fate = self._fate(tests)
        finally:
            self._write(place, good)
        if fate is None:
            # It has spoilt even the collecting of the tests, unless that was no good before.
            assert self._run([*tests, "--collect-only"]) == PASSED, tests[0]
            fate = Fate.KILLED
        return Judged(module, mutant.line, mutant.what, fate)

    def _fate(self, tests: list[str]) -> Fate | None:
        """Return the fate; None if not even the names of the tests were found."""
        for at in range(0, len(tests), BATCH):
            try:
                code = self._run(tests[at : at + BATCH])
            except subprocess.TimeoutExpired:
                return Fate.HANGS
            if code in {FAILED, INTERRUPTED, INTERNAL} or code < 0:
                return Fate.KILLED
            if code == USAGE:
                return None
            assert code == PASSED, f"pytest ended with {code}: {tests[at]} ..."
        return Fate.SURVIVED

    def _run(self, tests: list[str]) -> int:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *QUICKLY, *tests],
            cwd=self._root,
            check=False,
            env={**os.environ, "PYTHONPATH": str(self._root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
        ).returncode

    def _write(self, place: Path, source: str) -> None:
        place.write_text(source)
        # No two contents may share size and time, or Python would take the other's byte code.
        time_s = next(self._times)
        os.utime(place, (time_s, time_s))
