"""`farmer scrub status`: what it says of volumes that are open, and of others."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from farmer.cli import owner_scrub
from farmer.model.status import ScrubStatus
from farmer.monitor.status import status_document
from farmer.running.home import Home
from tests.monitor.sample import ATTIC, NOW_S, STATUS, USB


@pytest.fixture(autouse=True)
def _running(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = (ATTIC, USB, replace(ATTIC, name="new", path="/mnt/new", scrub=ScrubStatus()))
    document = status_document(replace(STATUS, volumes=volumes))
    monkeypatch.setattr(owner_scrub, "ask_running", lambda _home, _verb: document)
    monkeypatch.setattr(owner_scrub, "time", SimpleNamespace(time=lambda: NOW_S))


def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool) -> str:
    options = argparse.Namespace(volume=[], json=as_json)
    assert owner_scrub.scrub_status(Home.at(tmp_path), options) == 0
    return capsys.readouterr().out


def test_a_volume_that_is_not_open_was_not_never_scrubbed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _head, attic, usb, new = told(tmp_path, capsys, as_json=False).splitlines()
    assert " 1 d ago " in attic
    assert "not known" in usb
    assert "never" not in usb
    assert " never " in new


def test_programs_are_told_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attic, usb, new = json.loads(told(tmp_path, capsys, as_json=True))["volumes"]
    assert usb == {"name": "usb", "path": USB.path, "state": "unknown"}
    assert [one["state"] for one in (attic, new)] == ["idle", "idle"]
    assert attic["ended_at_ms"] > new["ended_at_ms"] == 0
