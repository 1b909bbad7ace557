"""`farmer volume move`: what it makes before it asks the farmer, and when it makes nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from farmer.cli import owner_moving
from farmer.cli.exits import FAILED, OK
from farmer.cli.owner import main
from farmer.model.status import VolumeState
from farmer.running.home import Home

ROWS = [
    {"path": "/v/old", "state": "healthy", "reason": "", "quota_bytes": 10**9},
    {"path": "/v/other", "state": "healthy", "reason": "", "quota_bytes": 10**9},
    {"path": "/v/away", "state": "gone", "reason": "its disk is not there", "quota_bytes": 10**9},
    {"path": "/v/left", "state": "retired", "reason": "moved to /v/old", "quota_bytes": 0},
]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made and asked for, of a farmer with four volumes."""
    done: list[str] = []

    def ask(_home: Home, verb: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        if verb == "status":
            return {"volumes": ROWS}
        assert words is not None
        done.append(f"{words['verb']} {words['path']} to {words['to_path']}")
        return {"path": words["path"], "shards": 0, "bytes": 0}

    def add(_home: Home, options: argparse.Namespace) -> int:
        done.append(f"add {options.volume}")
        return OK

    monkeypatch.setattr(owner_moving, "ask_running", ask)
    monkeypatch.setattr(owner_moving, "volume_add", add)
    return done


def move(tmp_path: Path, *words: str) -> int:
    return main(["--home", str(tmp_path), "volume", "move", *words])


@pytest.mark.parametrize(
    ("target", "path", "added"),
    [
        ("/v/new", "/v/new", ["add /v/new=1000000000B"]),
        ("/v/new=5GB", "/v/new", ["add /v/new=5GB"]),
        ("/v/new=80%", "/v/new", ["add /v/new=80%"]),
        ("/v/new=1B", "/v/new", ["add /v/new=1B"]),
        ("/v/a=b", "/v/a=b", ["add /v/a=b=1000000000B"]),
        ("/v/a=b=5GB", "/v/a=b", ["add /v/a=b=5GB"]),
        ("/v/other", "/v/other", []),
        ("/v/left=5GB", "/v/left", ["add /v/left=5GB"]),
    ],
)
def test_a_target_is_made_where_no_volume_is(
    tmp_path: Path, done: list[str], target: str, path: str, added: list[str]
) -> None:
    """One that was retired there is listed for a while, and is none; a path may have a `=`."""
    assert move(tmp_path, "/v/old", target) == OK
    assert done == [*added, f"move /v/old to {path}"]


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("/v/away", "/v/new", "/v/away is gone (its disk is not there)"),
        ("/v/left", "/v/new", "/v/left is not a volume of this farmer"),
        ("/v/nowhere", "/v/new", "/v/nowhere is not a volume of this farmer"),
        ("/v/old", "/v/other=5GB", "/v/other is a volume of this farmer already: leave out =5GB"),
    ],
)
def test_what_cannot_be_moved_makes_nothing(
    tmp_path: Path, done: list[str], capsys: Any, source: str, target: str, told: str
) -> None:
    assert move(tmp_path, source, target) == FAILED
    assert done == []
    assert told in capsys.readouterr().err


def test_the_states_have_their_names() -> None:
    names = (owner_moving.GONE, owner_moving.RETIRED)
    assert names == (VolumeState.GONE.value, VolumeState.RETIRED.value)
