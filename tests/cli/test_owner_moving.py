"""`farmer volume move`: what it makes before it asks the farmer, and when it makes nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from farmer.cli import owner_moving
from farmer.cli.exits import FAILED, OK, CommandError
from farmer.cli.owner import main
from farmer.cli.owner_moving import check_fits
from farmer.model.status import VolumeState
from farmer.running.caller import FarmerRefusedError
from farmer.running.home import Home
from farmer.running.volumes import VolumePlan

WELL = {"state": "healthy", "reason": "", "quota_bytes": 10**9}
OLD = WELL | {"name": "first", "path": "/v/old"}
ROWS = [
    OLD | {"used_bytes": 600 * 10**6, "trash_bytes": 10**6},
    WELL | {"name": "other", "path": "/v/other"},
    WELL | {"name": "away", "path": "/v/away", "state": "gone", "reason": "its disk is not there"},
    WELL | {"name": "/v/left", "path": "/v/left", "state": "retired", "reason": "moved"},
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

    def add(_home: Home, options: argparse.Namespace, _check: Any) -> int:
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
        ("/v/old", "other", "other is the short name of /v/other, and nothing was made"),
        ("/v/old", "/v/other=5GB", "/v/other is a volume of this farmer already: leave out =5GB"),
    ],
)
def test_what_cannot_be_moved_makes_nothing(
    tmp_path: Path, done: list[str], capsys: Any, source: str, target: str, told: str
) -> None:
    assert move(tmp_path, source, target) == FAILED
    assert done == []
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("quota_bytes", "fits"), [(700 * 10**6, True), (620 * 10**6, False)])
def test_a_target_too_small_for_what_has_to_move_is_not_made(
    tmp_path: Path, quota_bytes: int, fits: bool
) -> None:
    """What every volume keeps for itself counts."""
    plan = VolumePlan(tmp_path / "new", "new", quota_bytes, 0, new=True)
    if fits:
        check_fits(ROWS[0], plan)
        return
    with pytest.raises(CommandError, match=r"holds 601 MB, .* could take .*: nothing was made"):
        check_fits(ROWS[0], plan)


def test_a_target_that_was_made_for_a_move_that_is_refused_is_told(
    tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """And how to be rid of it."""

    def ask(_home: Home, verb: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        if verb == "status":
            return {"volumes": ROWS}
        raise FarmerRefusedError("no room: nothing was begun")

    monkeypatch.setattr(owner_moving, "ask_running", ask)
    assert move(tmp_path, "/v/old", "/v/new") == FAILED
    assert done == ["add /v/new=1000000000B"]
    told = capsys.readouterr().err
    assert "no room: nothing was begun. But /v/new is a volume of this farmer now" in told
    assert "volume retire --remove /v/new" in told


BEGUN = """\
/v/old: 3 shards, 5 GB to move. {then}
See: farmer --home {home} volume list
"""
STAYS = "New shards go elsewhere; it stays a volume, empty."
LEAVES = "Once it is empty it is taken out of the settings."
REPLACED = "Once the old one is empty it leaves the settings."

DRAIN = {"path": "/v/old", "verb": "drain", "rate_bytes": 0, "partly": False}
AT_THE_END = {"rate_bytes": 0, "give_up_damaged": False, "remove": False}
RETIRE = {"path": "/v/old", "verb": "retire"} | AT_THE_END
MOVE = {"path": "/v/old", "verb": "move", "to_path": "/v/other"} | AT_THE_END


@pytest.mark.parametrize(
    ("words", "asked", "then"),
    [
        ("drain /v/old", DRAIN, STAYS),
        ("drain first", DRAIN, STAYS),
        ("drain /v/old --force", DRAIN | {"partly": True}, STAYS),
        ("drain /v/old --rate 20MB", DRAIN | {"rate_bytes": 20_000_000}, STAYS),
        ("retire /v/old", RETIRE, LEAVES),
        ("retire first", RETIRE, LEAVES),
        ("retire /v/old --give-up-damaged", RETIRE | {"give_up_damaged": True}, LEAVES),
        (
            "retire /v/old --remove --rate 1MB",
            RETIRE | {"rate_bytes": 10**6, "remove": True},
            LEAVES,
        ),
        ("move /v/old /v/other", MOVE, REPLACED),
        ("move first /v/other", MOVE, REPLACED),
        ("move /v/old /v/other --give-up-damaged", MOVE | {"give_up_damaged": True}, REPLACED),
    ],
)
def test_what_is_asked_of_the_farmer_and_told_to_its_owner(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    words: str,
    asked: dict[str, Any],
    then: str,
) -> None:
    heard: list[dict[str, Any]] = []

    def ask(_home: Home, verb: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        if words is None:
            return {"volumes": ROWS}
        heard.append({"asked": verb} | words)
        return {"path": words["path"], "shards": 3, "bytes": 5 * 10**9}

    monkeypatch.setattr(owner_moving, "ask_running", ask)
    assert main(["--home", str(tmp_path), "volume", *words.split()]) == OK
    assert heard == [{"asked": "volume-drain"} | asked]
    assert capsys.readouterr().out == BEGUN.format(then=then, home=tmp_path)


@pytest.mark.parametrize("named", ["/v/old", "first"])
def test_a_drain_that_is_broken_off_says_what_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, named: str
) -> None:
    def ask(_home: Home, verb: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
        if words is None:
            return {"volumes": ROWS}
        assert (verb, words) == ("volume-cancel", {"path": "/v/old"})
        return {"path": "/v/old", "shards": 1}

    monkeypatch.setattr(owner_moving, "ask_running", ask)
    assert main(["--home", str(tmp_path), "volume", "drain", named, "--cancel"]) == OK
    assert capsys.readouterr().out == "/v/old stays: 1 shard on it, new ones may come\n"


def test_the_states_have_their_names() -> None:
    names = (owner_moving.GONE, owner_moving.RETIRED)
    assert names == (VolumeState.GONE.value, VolumeState.RETIRED.value)
