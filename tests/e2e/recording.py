"""The plugin of a pytest that runs tests for another one: a line of JSON for each test's end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

OPTION = "--record"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, type=Path, metavar="FILE", help="append what becomes of each test")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config.getoption(OPTION)))


class Recorder:
    """Writes as tests end, so that a crash of the process leaves what came before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        said = "".join(f"\n--- {title} ---\n{text}" for title, text in report.sections)
        row = {"test": report.nodeid, "outcome": report.outcome, "text": reason + said}
        if report.skipped:
            row["text"] = reason
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
