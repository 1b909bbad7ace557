"""`farmer volume`: the directories that hold shards."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from farmer.cli.exits import OK, CommandError
from farmer.cli.owner_ask import ask_running
from farmer.cli.owner_settings import load_settings
from farmer.cli.owner_status import volume_table
from farmer.running.caller import NotRunningError, call
from farmer.running.home import Home
from farmer.running.locks import HomeLock, HomeLockedError
from farmer.settings.loader import load_text
from farmer.settings.written import HEAD, VolumeLine, with_volume
from farmer.units import Space, format_size


def volume_list(home: Home, options: argparse.Namespace) -> int:
    """Print the volumes of the running farmer."""
    volumes = ask_running(home, "status")["volumes"]
    if options.json:
        print(json.dumps({"schema": 1, "volumes": volumes}, indent=2))
    else:
        print("\n".join(volume_table(volumes)))
    return OK


def volume_add(home: Home, options: argparse.Namespace) -> int:
    """Write another volume into the settings and make it; a restart begins to use it."""
    from farmer.identity.keys import Identity
    from farmer.running.birth import now_ms, write_settings
    from farmer.running.stores import make_volumes
    from farmer.running.volumes import plan_volumes

    added = VolumeLine.parse(options.volume)
    home.make()
    with HomeLockIfStopped(home):
        before = home.settings.read_text() if home.settings.exists() else HEAD
        for line in _unwritten(home):
            before = with_volume(before, line)
        try:
            text = with_volume(before, added)
        except ValueError as error:
            raise CommandError(f"{home.settings}: {error}; add the volume by hand") from error
        settings = load_text(text, str(home.settings), os.environ).settings
        plans = [plan for plan in plan_volumes(home, settings) if str(plan.path) == added.path]
        make_volumes(home, Identity.load_or_create(home.identity), plans, now_ms())
        write_settings(home, text)
    quota_bytes = plans[0].quota_bytes
    if options.json:
        answer = {"schema": 1, "path": added.path, "quota_bytes": quota_bytes}
        print(json.dumps(answer, indent=2))
    else:
        print(f"volume {added.path} ({format_size(quota_bytes)}) is made and in {home.settings}")
        print("Restart the farmer to use it.")
    return OK


def volume_rebuild(home: Home, options: argparse.Namespace) -> int:
    """Make a volume's index anew from its shards; the farmer must not run."""
    from farmer.running.stores import rebuild
    from farmer.running.volumes import plan_volumes

    path = Path(options.path).expanduser().absolute()
    settings = load_settings(home).settings
    home.check()
    plan = next((plan for plan in plan_volumes(home, settings) if plan.path == path), None)
    if plan is None or not home.exists:
        raise CommandError(f"{path} is not a volume of this farmer; see: farmer config show")
    try:
        with HomeLock(home.lock):
            records = rebuild(home, plan, lambda line: print(line, file=sys.stderr))
    except HomeLockedError as error:
        raise CommandError(f"{error}: stop the farmer first, then rebuild") from error
    print(f"{path}: a new index, from {records} records")
    return OK


def _unwritten(home: Home) -> list[VolumeLine]:
    """Return the volume that a farmer without settings has: now it must be named."""
    from farmer.running.volumes import plan_volumes

    settings = load_settings(home).settings
    if settings.volumes or not home.volume.exists():
        return []
    plan = plan_volumes(home, settings)[0]
    return [VolumeLine(str(plan.path), Space(size_bytes=plan.quota_bytes))]


class HomeLockIfStopped(HomeLock):
    """The home's lock; not taken while a farmer runs, whose settings may be edited all along."""

    def __init__(self, home: Home) -> None:
        super().__init__(home.lock)
        self._home = home

    def take(self, wait_s: float = 0.0) -> None:
        """Take the lock unless a farmer answers."""
        try:
            call(self._home, "status")
        except NotRunningError:
            super().take(wait_s)
