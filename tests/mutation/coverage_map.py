"""Which tests come by which line, from one run of all that are quick."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from coverage import CoverageData

from tests.mutation.trial import ROOT

TESTS = (
    *("tests/storage", "tests/storage_contracts", "tests/nthcall", "tests/running"),
    *("tests/scrubbing", "tests/simulation", "tests/node"),
)

Lines = dict[str, dict[int, set[str]]]


class CoverageMap:
    """The tests of every line of `farmer/storage`."""

    def __init__(self, folder: Path) -> None:
        """Run them; raises `RuntimeError` if one fails."""
        data, times = folder / "coverage", folder / "times.xml"
        ran = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-m",
                    "not slow",
                    "-p",
                    "no:cacheprovider",
                ),
                *("--hypothesis-profile=planted", "--cov=farmer/storage", "--cov-context=test"),
                *("--cov-report=", "-o", "junit_family=xunit1", f"--junitxml={times}", *TESTS),
            ],
            cwd=ROOT,
            check=False,
            env={**os.environ, "COVERAGE_FILE": str(data)},
        )
        if ran.returncode:
            raise RuntimeError("the tests fail without any mistake")
        self._seconds = _seconds(times)
        self._lines = _lines(data)

    def tests(self, module: str, line: int) -> list[str]:
        """
        Return the tests that come by, the quickest first.

        What is done once, when the module is loaded, is there for all that come by the module.
        """
        lines = self._lines.get(module, {})
        found = lines.get(line)
        if found is not None and not found:
            found = set().union(*lines.values())
        return sorted(found or (), key=lambda test: (self._seconds.get(test, 1.0), test))


def _lines(path: Path) -> Lines:
    data = CoverageData(str(path))
    data.read()
    lines: Lines = {}
    for file in data.measured_files():
        by_line: dict[int, set[str]] = defaultdict(set)
        for line, contexts in data.contexts_by_lineno(file).items():
            by_line[line] = {context.split("|")[0] for context in contexts if context}
        lines[str(Path(file).relative_to(ROOT))] = by_line
    return lines


def _seconds(path: Path) -> dict[str, float]:
    seconds = {}
    for case in ElementTree.parse(path).iter("testcase"):
        file, of = case.get("file", ""), case.get("classname", "").split(".")
        name = case.get("name", "")
        inside = of[-1] if of[-1] != Path(file).stem else ""
        test = "::".join(part for part in (file, inside, name) if part)
        seconds[test] = float(case.get("time", "1"))
    return seconds
