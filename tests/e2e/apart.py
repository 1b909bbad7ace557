"""
Modules of tests that need a process of their own: run by another pytest, told here.

Twisted's one reactor can be run once, by one thread.  `farmer.client.blocking` runs it in a
thread of its own; from then on no other test of the process can run it, as trial's do.  A
module that starts it says `pytestmark = pytest.mark.apart`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e import recording

MODULE_S = 300.0
"""For all tests of a module together, on a busy machine."""


class Elsewhere:
    """What became of one module's tests, which run when the first is asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tests: list[str] = []
        self._rows: dict[str, list[dict[str, str]]] | None = None
        self._ended = ""

    def add(self, test: str) -> None:
        """Have one more test run, by its node id."""
        self._tests.append(test)

    def rows(self, test: str) -> list[dict[str, str]]:
        """Return the rows of one test, more than one if it failed at its end as well."""
        if self._rows is None:
            self._rows = self._run()
        lost = {"outcome": "failed", "text": f"its process ended before it:\n{self._ended}"}
        return self._rows.get(test, [lost])

    def _run(self) -> dict[str, list[dict[str, str]]]:
        with TemporaryDirectory() as directory:
            record = Path(directory, "record")
            record.touch()
            quietly = ("--rootdir", str(self._root), "-p", "no:cacheprovider")
            recorded = ("-p", recording.__name__, recording.OPTION, str(record))
            command = [sys.executable, "-m", "pytest", *quietly, *recorded]
            try:
                ended = subprocess.run(
                    [*command, *self._tests],
                    cwd=self._root,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    timeout=MODULE_S,
                )
                self._ended = ended.stdout[-3000:]
            except subprocess.TimeoutExpired:
                self._ended = f"it took more than {MODULE_S:g} s"
            rows: dict[str, list[dict[str, str]]] = {}
            for line in record.read_text().splitlines():
                row = json.loads(line)
                rows.setdefault(row["test"], []).append(row)
            return rows


class FailedElsewhereError(Exception):
    """A test failed in the other process; the text is what pytest says about it there."""


class ApartTest(pytest.Item):
    """Stands in for a test of another process, under the same name."""

    elsewhere: Elsewhere

    def runtest(self) -> None:
        """Have the outcome that the test has there."""
        rows = self.elsewhere.rows(self.nodeid)
        failures = [row["text"] for row in rows if row["outcome"] == "failed"]
        if failures:
            raise FailedElsewhereError("\n".join(failures))
        for row in rows:
            if row["outcome"] == "skipped":
                pytest.skip(row["text"])

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:
        """Show what the other process said, not where we raise it."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Have its own name over a failure."""
        return self.path, None, self.name


def stand_ins(items: list[pytest.Item], root: Path) -> list[pytest.Item]:
    """Return the tests to run here: those of modules that are apart replaced."""
    modules: dict[Path, Elsewhere] = {}
    return [
        _stand_in(item, modules.setdefault(item.path, Elsewhere(root)))
        if item.get_closest_marker("apart")
        else item
        for item in items
    ]


def _stand_in(item: pytest.Item, elsewhere: Elsewhere) -> pytest.Item:
    assert item.parent is not None
    stand_in: ApartTest = ApartTest.from_parent(item.parent, name=item.name)
    stand_in.own_markers = item.own_markers
    stand_in.elsewhere = elsewhere
    elsewhere.add(item.nodeid)
    return stand_in
