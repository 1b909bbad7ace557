"""How a run of pytest in a fork ends, told apart: else a broken one would catch planted bugs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forks import BROKEN, FOREIGN

ROOT = Path(__file__).parent.parent
STRANGER = """
import sys, types
def test_it():
    sys.modules["farmer.stranger"] = types.SimpleNamespace(__file__="/elsewhere/stranger.py")
"""
ENDS = {
    "passes": ("def test_it(): pass", 0),
    "fails": ("def test_it(): assert False", 1),
    "dies": ("import os\ndef test_it(): os.abort()", -6),
    "takes too long": ("import time\ndef test_it(): time.sleep(60)", None),
    "another tree": (STRANGER, FOREIGN),
    "nameless": ("import sys\ndef test_it(): sys.modules['tests.odd'] = object()", 0),
    "no output": ("def test_it(): pass", BROKEN),
}


@pytest.mark.parametrize("what", ENDS)
def test_each_end_is_told_by_its_own_code(what: str, tmp_path: Path) -> None:
    text, code = ENDS[what]
    file = tmp_path / "test_one.py"
    file.write_text(text)
    output = tmp_path / ("missing/output" if what == "no output" else "output")
    words = ["-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path), str(file)]
    asked = json.dumps([words, str(output), 2.0 if code is None else 30.0])
    ended = subprocess.run(
        [sys.executable, "-m", "tests.forks"],
        input=f"{asked}\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ended.stdout) == code
