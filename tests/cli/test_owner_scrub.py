"""`farmer scrub status`: what it says of volumes that are open, and of others."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farmer.cli import owner_scrub
from farmer.cli.exits import CommandError
from farmer.model.status import ScrubStatus
from farmer.monitor.status import status_document, volume_document
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


def test_a_farmer_that_knows_of_no_scrubs_yet_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an earlier release, which runs on while this command is put in its place."""
    volume = {key: value for key, value in volume_document(ATTIC).items() if key != "scrub"}
    monkeypatch.setattr(owner_scrub, "ask_running", lambda _home, _verb: {"volumes": [volume]})
    assert "not known" in told(tmp_path, capsys, as_json=False)
    assert '"unknown"' in told(tmp_path, capsys, as_json=True)


@pytest.mark.parametrize(
    ("wanted", "paths"),
    [
        (["attic"], [ATTIC.path]),
        ([ATTIC.path], [ATTIC.path]),
        ([f"{USB.path}/", "new"], [USB.path, "/mnt/new"]),
    ],
)
def test_a_volume_is_named_by_its_name_or_as_the_list_prints_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wanted: list[str], paths: list[str]
) -> None:
    options = argparse.Namespace(volume=wanted, json=True)
    assert owner_scrub.scrub_status(Home.at(tmp_path), options) == 0
    rows = json.loads(capsys.readouterr().out)["volumes"]
    assert [row["path"] for row in rows] == paths


@pytest.mark.parametrize("do", [owner_scrub.scrub_status, owner_scrub.scrub_now])
def test_a_slip_is_an_error_that_names_what_there_is(tmp_path: Path, do: Any) -> None:
    options = argparse.Namespace(volume=["atic"], json=False)
    there = rf"are: attic \({ATTIC.path}\), "
    with pytest.raises(CommandError, match=f"atic is not a volume .* {there}"):
        do(Home.at(tmp_path), options)


def test_the_farmer_is_told_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was typed."""
    asked: list[Any] = []

    def ask(_home: Home, verb: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        if words is None:
            return status_document(replace(STATUS, volumes=(ATTIC, USB)))
        asked.append((verb, words))
        return {"volumes": words["volumes"]}

    monkeypatch.setattr(owner_scrub, "ask_running", ask)
    for volume in ([ATTIC.path], []):
        options = argparse.Namespace(volume=volume, json=False)
        assert owner_scrub.scrub_now(Home.at(tmp_path), options) == 0
    assert asked == [("scrub-now", {"volumes": ["attic"]}), ("scrub-now", {"volumes": []})]


def test_between_passes_nothing_is_said_to_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came since the last one was not read; a retired volume has none."""
    ended, away, never = told(tmp_path, capsys, as_json=False).splitlines()[1:]
    assert [one.split()[1:4] for one in (ended, never)] == [["idle", "-", "-"]] * 2
    retired = {"path": "/r", "state": "retired", "scrub": None}
    assert owner_scrub._row(retired, 0)[:3] == ("/r", "retired", "-")
    assert "not known" in away


@pytest.mark.parametrize(
    ("scrub", "when"),
    [
        (ScrubStatus(ended_at_ms=1, checked=1), "1 h ago"),
        (ScrubStatus(ended_at_ms=1), "-"),
        (ScrubStatus(state="running", ended_at_ms=1, total_bytes=10, done_bytes=5), "1 h ago"),
        (ScrubStatus(), "never"),
    ],
    ids=["all read", "nothing was there", "nothing yet in the next", "never"],
)
def test_a_pass_over_an_empty_volume_has_read_nothing(scrub: ScrubStatus, when: str) -> None:
    """What a renter stored since then was not read again either."""
    volume = volume_document(replace(ATTIC, scrub=scrub))
    row = dict(zip(owner_scrub._HEAD, owner_scrub._row(volume, 3_600_001), strict=True))
    assert row["LAST READ THROUGH"] == when
    assert (row["OF"] == "-") is (scrub.state == "idle")


def test_programs_are_told_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attic, usb, new = json.loads(told(tmp_path, capsys, as_json=True))["volumes"]
    assert usb == {"name": "usb", "path": USB.path, "state": "unknown"}
    assert [one["state"] for one in (attic, new)] == ["idle", "idle"]
    assert attic["ended_at_ms"] > new["ended_at_ms"] == 0
