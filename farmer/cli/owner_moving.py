"""`farmer volume drain|retire|move`: a volume's shards go elsewhere while the farmer serves."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from farmer.cli.exits import OK, CommandError
from farmer.cli.owner_ask import ask_running
from farmer.cli.owner_naming import volume_meant
from farmer.cli.owner_status import RETIRED
from farmer.cli.owner_volumes import volume_add
from farmer.cli.owner_words import RELOAD
from farmer.cli.terminal import print_document
from farmer.model.status import VolumeState
from farmer.running.caller import FarmerRefusedError
from farmer.running.home import Home
from farmer.settings.paths import absolute
from farmer.units import Space, counted, format_size

if TYPE_CHECKING:
    from farmer.running.volumes import VolumePlan

GONE: Final = VolumeState.GONE.value
"""As the status names it."""


def volume_drain(home: Home, options: argparse.Namespace) -> int:
    """Begin to empty a volume, or break that off."""
    path = _meant(home, options.path)
    if options.cancel:
        answer = ask_running(home, "volume-cancel", {"path": path})
        left = counted(answer["shards"], "shard")
        return _say(options, answer, f"{path} stays: {left} on it, new ones may come")
    words = _words(options, path, "drain") | {"partly": options.force}
    return _begun(home, options, words, "New shards go elsewhere; it stays a volume, empty.")


def volume_retire(home: Home, options: argparse.Namespace) -> int:
    """Begin to empty a volume; then it is taken out of the settings."""
    words = _words(options, _meant(home, options.path), "retire") | _at_the_end(options)
    return _begun(home, options, words, "Once it is empty it is taken out of the settings.")


def volume_move(home: Home, options: argparse.Namespace) -> int:
    """Make a volume in another directory, and begin to move a volume's shards there."""
    named, size = _named(options.to)
    to_path = str(absolute(named))
    volumes = _volumes(home)
    path = volume_meant(options.path, partial(_names, volumes))
    source = volumes[path]
    if source["state"] == GONE:
        raise CommandError(
            f"{path} is gone ({source['reason']}): nothing can be moved from there, and nothing "
            "was made. Bring its disk back first"
        )
    is_new = to_path not in volumes
    if is_new:
        _check_no_name(named, path, volumes)
        _add(home, f"{to_path}={size or str(source['quota_bytes']) + 'B'}", options, source)
    elif size:
        raise CommandError(
            f"{to_path} is a volume of this farmer already: leave out ={size}. To change its "
            f"quota, edit it in {home.settings}; {RELOAD}"
        )
    words = _words(options, path, "move") | _at_the_end(options) | {"to_path": to_path}
    try:
        return _begun(home, options, words, "Once the old one is empty it leaves the settings.")
    except FarmerRefusedError as error:
        if not is_new:
            raise
        undo = f"{home.command('volume retire --remove')} {quote(to_path)}"
        raise CommandError(
            f"{error}. But {to_path} is a volume of this farmer now, an empty one, which takes "
            f"new shards. Mend what is named, and move again; or to be rid of it: {undo}"
        ) from error


def _meant(home: Home, typed: str) -> str:
    return volume_meant(typed, lambda: _names(_volumes(home)))


def _names(volumes: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {path: row["name"] for path, row in volumes.items()}


def _check_no_name(typed: str, source: str, volumes: dict[str, dict[str, Any]]) -> None:
    """Refuse to make a directory here with the name of a volume elsewhere, which may be meant."""
    for path, name in _names(volumes).items():
        if name == typed and path != source:
            raise CommandError(
                f"{typed} is the short name of {path}, and nothing was made: type that whole path"
                f" to move there, or ./{typed} for a new directory of this name"
            )


def _volumes(home: Home) -> dict[str, dict[str, Any]]:
    """Return the volumes of the running farmer by their paths; retired ones are none any more."""
    volumes = ask_running(home, "status")["volumes"]
    return {row["path"]: row for row in volumes if row["state"] != RETIRED}


def _add(home: Home, volume: str, options: argparse.Namespace, source: dict[str, Any]) -> None:
    with redirect_stdout(sys.stderr if options.json else sys.stdout):
        what = argparse.Namespace(volume=volume, json=False)
        volume_add(home, what, partial(check_fits, source))


def check_fits(source: dict[str, Any], plan: VolumePlan) -> None:
    """
    Make sure, before it is made, that a new volume could take what another holds.

    The running farmer, which counts more exactly, has the last word.

    Raises:
        CommandError: it could not.

    """
    from farmer.running.volumes import room_if_new_bytes

    room_bytes = room_if_new_bytes(plan) if plan.new else None
    wanted_bytes = source["used_bytes"] + source["trash_bytes"]
    if room_bytes is not None and room_bytes < wanted_bytes:
        raise CommandError(
            f"{source['path']} holds {format_size(wanted_bytes)}, but a volume of "
            f"{format_size(plan.quota_bytes)} in {plan.path} could take "
            f"{format_size(room_bytes)} now: nothing was made. Name a larger size "
            f"({plan.path}=SIZE), or a directory on a disk with more room"
        )


def _words(options: argparse.Namespace, path: str, verb: str) -> dict[str, Any]:
    return {"path": path, "verb": verb, "rate_bytes": options.rate or 0}


def _at_the_end(options: argparse.Namespace) -> dict[str, Any]:
    return {"give_up_damaged": options.give_up_damaged, "remove": options.remove}


def _begun(home: Home, options: argparse.Namespace, words: dict[str, Any], then: str) -> int:
    answer = ask_running(home, "volume-drain", words)
    what = f"{counted(answer['shards'], 'shard')}, {format_size(answer['bytes'])}"
    see = home.command("volume list")
    return _say(options, answer, f"{answer['path']}: {what} to move. {then}\nSee: {see}")


def _say(options: argparse.Namespace, answer: dict[str, Any], text: str) -> int:
    if options.json:
        print_document(answer)
    else:
        print(text)
    return OK


def _named(text: str) -> tuple[str, str]:
    """Return path and size of `PATH[=SIZE]`: a path may have a `=` of its own."""
    path, _equals, size = text.rpartition("=")
    try:
        Space.parse(size)
    except ValueError:
        return text, ""
    return (path, size) if path else (text, "")
