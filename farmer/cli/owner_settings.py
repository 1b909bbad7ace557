"""`farmer config` and `farmer init`: the settings, looked at and first written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from farmer.cli.exits import BAD_SETTINGS, OK, CommandError
from farmer.cli.owner_words import said, warn
from farmer.cli.terminal import print_document, print_json
from farmer.running.caller import FarmerRefusedError, NotRunningError, call
from farmer.running.files import json_in
from farmer.running.home import Home, HomeError
from farmer.settings.kinds import ADDRESS, NAME, PUBLIC_ADDRESS, QUOTA
from farmer.settings.loader import Loaded, SettingsError, load, load_text
from farmer.settings.paths import absolute
from farmer.settings.printed import example, flat, json_schema, plain
from farmer.settings.schema import DEFAULTS, Settings
from farmer.settings.tree import Fault
from farmer.settings.written import VolumeLine, settings_text
from farmer.units import Space, exact_size, format_size

R = TypeVar("R")

if TYPE_CHECKING:
    from farmer.running.register import KnownVolume


def load_settings(home: Home) -> Loaded:
    """Return the settings of a home: its file, if there is one, and the environment."""
    return load(home.settings_to_read, os.environ)


def check(home: Home, options: argparse.Namespace) -> int:
    """Read a settings file and say whether it is good, on the disks that answer now."""
    path = Path(options.file) if options.file else home.settings_to_read
    if path is None and _runs_with_settings(home):
        raise CommandError(
            f"{home.settings} does not exist, but the running farmer was started with it and goes "
            "on with what it said. Bring it back; or, if the defaults are to hold from now on, "
            f"stop the farmer and start it again with: {home.command('run')}",
            BAD_SETTINGS,
        )
    if faults := list(_small_shares(home, load(path, os.environ))):
        raise SettingsError(faults)
    print(f"{path}: good" if path else f"{home.settings} does not exist, the defaults hold: good")
    return OK


def _runs_with_settings(home: Home) -> bool:
    """Tell whether a farmer runs that was started with the settings file of this home."""
    try:
        call(home, "status")
        run = json_in(home.run)
    except (NotRunningError, FarmerRefusedError, OSError):
        return False
    return run is not None and run.get("settings") == str(home.settings)


def _small_shares(home: Home, loaded: Loaded) -> Iterator[Fault]:
    """Yield a fault for each share of a disk that is too small for a volume."""
    from farmer.running.volumes import plan_volumes, too_small

    for index, plan in enumerate(plan_volumes(home, loaded.settings)):
        name = f"volumes.{index}.quota"
        if (why := too_small(plan.path, plan.quota_bytes)) is not None:
            yield Fault(loaded.origins[name], f'"{name}": {why}')


def show(home: Home, options: argparse.Namespace) -> int:
    """Print the settings in force."""
    from farmer.running.volumes import in_force

    loaded = load_settings(home)
    settings = in_force(home, loaded.settings)
    if options.json:
        document = {"settings": plain(settings)}
        if options.origin:
            document["origins"] = loaded.origins
        print_document(document)
        return OK
    rows = list(flat(settings))
    width = max(len(name) for name, _ in rows)
    value_width = max(len(text) for _, text in rows)
    for name, text in rows:
        origin = loaded.origins.get(name) or loaded.origins.get(name.rpartition(".")[0], "default")
        value = f"{text:{value_width}}  # {origin}" if options.origin else text
        print(f"{name:{width}}  {value}")
    return OK


def schema(_home: Home, _options: argparse.Namespace) -> int:
    """Print the JSON Schema of the settings file."""
    print_json(json_schema())
    return OK


def print_example(_home: Home, _options: argparse.Namespace) -> int:
    """Print the commented example."""
    sys.stdout.write(example())
    return OK


def init(home: Home, options: argparse.Namespace) -> int:
    """Make a home with settings, identity and volumes; never over existing ones."""
    from farmer.running.birth import make_farmer
    from farmer.storage.directory import VolumeSetupError

    if home.has_settings:
        raise CommandError(
            f"{home.settings} exists already and is never overwritten. Change it with an editor, "
            "or add a disk with: farmer volume add PATH=SIZE"
        )
    is_asking = not options.yes and sys.stdin.isatty()
    if is_asking:
        _ask(home, options, input)
    wanted = [VolumeLine.parse(text) for text in options.volume]
    kept = _kept(home, wanted)
    text = settings_text(
        name=options.name,
        shards=options.listen,
        page=options.page,
        announce=options.announce,
        volumes=[*wanted, *(VolumeLine(str(one.path), Space(one.quota_bytes)) for one in kept)],
    )
    settings = load_text(text, "the settings to be written", {}).settings
    try:
        doubted = _doubted(home, settings, options)
        for doubt in doubted:
            warn(doubt)
        if is_asking and doubted:
            _answer(input, "Go on all the same (yes or no)", "yes", _yes)
        made = make_farmer(home, settings, text)
    except (VolumeSetupError, HomeError, OSError) as error:
        message = f"{said(error)}\nNo settings were written; mend this and init again: it goes on."
        raise CommandError(message) from error
    for one in kept:
        what = f"This farmer already has a volume {one.shown}: {one.path}."
        print(f"{what} It is kept in the settings.")
    print(f"home       {home.state}")
    print(f"settings   {home.settings}")
    print(f"node id    {made.node_id}")
    for path, quota_bytes in made.volumes:
        print(f"volume     {path} ({format_size(quota_bytes)})")
    print(f"Start it with: {home.command('run')}")
    return OK


def _doubted(home: Home, settings: Settings, options: argparse.Namespace) -> list[str]:
    """Return what had better be known before anything is made."""
    from farmer.running.bindable import doubt_about
    from farmer.running.volumes import answers, doubts, plan_volumes, volume_paths

    for path in volume_paths(home, settings):
        # Its disk may sleep.
        answers(path)
    found = doubts(plan_volumes(home, settings))
    listened = (*options.listen, *filter(None, [options.page]))
    return found + [doubt for doubt in map(doubt_about, listened) if doubt]


def _yes(text: str) -> None:
    """Take a yes; raises `CommandError` for a no."""
    if text == "no":
        raise CommandError("nothing was made. Init again, with other answers")
    if text != "yes":
        raise ValueError(f"{text!r} is neither yes nor no")


def _kept(home: Home, wanted: Sequence[VolumeLine]) -> list[KnownVolume]:
    """Return the volumes with shards of an earlier run that have to be named from now on."""
    from farmer.running.register import not_among

    kept = not_among(home, [Path(volume.path) for volume in wanted])
    if not wanted and [one.path for one in kept] == [home.volume]:
        return []
    return kept


def _ask(home: Home, options: argparse.Namespace, ask: Callable[[str], str]) -> None:
    """Ask what was not given; an empty answer takes the default."""
    from farmer.running.volumes import offered_quota_bytes

    if not options.volume:
        path = _answer(ask, "Directory to rent out", str(home.volume), absolute)
        usual = exact_size(offered_quota_bytes(path))
        size = _answer(ask, "How much of it", usual, QUOTA.parse)
        options.volume = [f"{path}={size}"]
    if not options.name:
        options.name = _answer(ask, "Name of this farmer", os.uname().nodename, NAME.parse)
    if not options.listen:
        usual = DEFAULTS.listen.shards[0]
        options.listen = [_answer(ask, "Address for renters", usual, ADDRESS.parse)]
    if not options.announce:
        question = "Address that renters outside can reach, host:port (empty: this machine's own)"
        found = _answer(ask, question, "", lambda text: text and PUBLIC_ADDRESS.parse(text))
        options.announce = [found] if found else []


def _answer(ask: Callable[[str], str], question: str, usual: str, parse: Callable[[str], R]) -> R:
    while True:
        try:
            return parse(ask(f"{question} [{usual}]: ").strip() or usual)
        except ValueError as error:
            print(f"  {error}")
        except EOFError as error:
            print()
            raise CommandError(
                "the input ended before the last answer, and nothing was made. Init again; "
                "with --yes it asks nothing"
            ) from error
