"""
Planted bugs: each patch in tests/planted is a mistake somebody could make; the suite must see it.

A patch begins with lines `caught-by: <pytest node>`; those tests pass on a copy of the code as
it stands, and at least one must fail on a copy with the patch applied.  Each process that runs
these tests has one copy, into which bugs are put and taken out again, one after the other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATCHES = sorted((ROOT / "tests" / "planted").glob("*.patch"))
PLANTED = 201
PARTS = 6  # of the run without bugs, so that several processes share it
QUICKLY = [
    *("-p", "no:cacheprovider", "--hypothesis-profile=planted"),
    # Plugins are there before a run begins: their own asserts stay plain.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
]
PASSED, FAILED = 0, 1  # pytest's exit codes; 4 and 5 would mean that none ran


def catchers(patch: Path) -> list[str]:
    lines = patch.read_text().splitlines()
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith("caught-by:")]


class House:
    """A copy of what the tests need, and a process that begins runs of pytest in it."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "house"
        self._output = folder / "output"
        self._root.mkdir()
        for name in ("farmer", "tests", "conf", "docs", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self._root / name)
        self._forks = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            cwd=self._root,
            env={**os.environ, "PYTHONPATH": str(self._root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._forks.communicate()

    def ran(self, *words: str, within_s: float) -> tuple[int, str]:
        """Return the exit code of a run, and what it printed."""
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        asked = [[*QUICKLY, *words], str(self._output), within_s]
        print(json.dumps(asked), file=self._forks.stdin, flush=True)
        line = self._forks.stdout.readline()
        assert line, f"there are no more forks: {self._forks.poll()}"
        code = json.loads(line)
        said = self._output.read_text(errors="replace")
        assert code is not None, f"not ended after {within_s} s:\n{said[-2000:]}"
        return code, said

    @contextmanager
    def planted(self, patch: Path) -> Iterator[None]:
        """
        Have a bug in while the body runs.

        What was there is put back, byte by byte: the reverse of a patch may find another place.
        """
        lines = patch.read_text().splitlines()
        files = [self._root / line[6:] for line in lines if line.startswith("+++ b/")]
        before = {file: file.read_bytes() for file in files}
        self._apply(patch)
        try:
            yield
        finally:
            for file, content in before.items():
                file.write_bytes(content)

    def _apply(self, patch: Path) -> None:
        applied = subprocess.run(
            ["git", "apply", "--recount", str(patch)],
            cwd=self._root,
            check=False,
            capture_output=True,
            text=True,
        )
        assert applied.returncode == 0, f"the patch no longer fits:\n{applied.stderr}"


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("planted"))
    yield house
    house.close()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_what_catches_the_bugs_passes_without_them(part: int, house: House) -> None:
    """What fails in such a copy anyway has caught nothing.  First: they take as long as many."""
    tests = sorted({test for patch in PATCHES for test in catchers(patch)})
    code, said = house.ran(*tests[part::PARTS], within_s=900)
    assert code == PASSED, said[-3000:]


@pytest.mark.slow
@pytest.mark.tool("git")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_planted_bug_is_caught(patch: Path, house: House) -> None:
    """The named tests fail once the bug is in."""
    assert catchers(patch), "the patch does not say which tests catch it"

    with house.planted(patch):
        code, said = house.ran("-x", *catchers(patch), within_s=120)

    # A bug may also take the process with it once its test has failed.
    has_failed = re.search(r"\n\d+ (failed|error)", said) is not None
    is_caught = has_failed and (code == FAILED or code < 0)
    assert is_caught, f"not caught:\n{said[-2000:]}"


def test_no_planted_bug_is_lost() -> None:
    """Deleting a patch that no longer fits is not the way to make it pass."""
    assert len(PATCHES) == PLANTED
