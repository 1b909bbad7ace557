"""The examples of docs/client.md run, and its tables tell the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from farmer.cli.renter import parser
from farmer.client.refusals import ERROR_OF
from tests.e2e.test_client_tls import Served

pytestmark = pytest.mark.apart

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def test_the_examples_run_one_after_the_other(tmp_path, monkeypatch):
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(bytes(range(256)) * 1000)
    with Served(tmp_path / "home") as served:
        served.fake.renter_is_whoever_calls = True
        names = {"invite": served.link}
        for example in examples:
            exec(compile(example, str(PAGE), "exec"), names)


def test_the_table_of_refusals_is_complete():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    expected = [
        (
            refusal.name,
            kind.__name__,
            ", ".join(f"`{name}`" for name in vars(kind) if name.islower() and name[0] != "_")
            or "-",
        )
        for refusal, kind in ERROR_OF.items()
    ]
    assert rows == expected


def test_every_command_is_described():
    verbs = next(action.choices for action in parser()._actions if action.choices)
    told = set(re.findall(r"`renter (\w+)", PAGE.read_text()))
    assert set(verbs) <= told
