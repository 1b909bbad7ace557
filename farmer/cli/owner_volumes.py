"""`farmer volume`: the directories that hold shards."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from farmer.cli.exits import BAD_SETTINGS, DEGRADED, OK, CommandError
from farmer.cli.owner_ask import must_be_there
from farmer.cli.owner_naming import volume_meant
from farmer.cli.owner_settings import load_settings
from farmer.cli.owner_status import volume_table
from farmer.cli.owner_words import RELOAD, warn
from farmer.cli.terminal import print_document
from farmer.model.status import VolumeState
from farmer.running.caller import FarmerRefusedError, NotRunningError, call
from farmer.running.home import Home
from farmer.running.locks import HomeLock, HomeLockedError, lock_to_change
from farmer.settings.contradictions import lies
from farmer.settings.loader import load_text
from farmer.settings.paths import absolute
from farmer.settings.tree import PREFIX
from farmer.settings.written import VolumeLine, with_volume
from farmer.units import Space, counted, format_size

if TYPE_CHECKING:
    from farmer.running.volumes import VolumePlan
    from farmer.settings.schema import Settings

CHECK_PATIENCE_S: Final = 24 * 3600.0
"""A check reads all headers: on a large and slow disk that takes hours."""

SILENT: Final = "its disk does not answer"

_UNUSABLE: Final = tuple(
    state.value for state in (VolumeState.READ_ONLY, VolumeState.FAILING, VolumeState.GONE)
)
"""States in which a new volume takes no shards, as the status names them."""


def volume_list(home: Home, options: argparse.Namespace) -> int:
    """Print the volumes of the running farmer, or what can be seen of a stopped one's."""
    try:
        volumes = call(home, "status")["volumes"]
    except NotRunningError as error:
        volumes = _at_rest(home)
        print(f"farmer: {error}; this is what can be seen from outside", file=sys.stderr)
    if options.json:
        print_document({"volumes": volumes})
    else:
        print("\n".join(volume_table(volumes)))
    return OK


def _at_rest(home: Home) -> list[dict[str, Any]]:
    from farmer.running.glance import volumes_at_rest

    must_be_there(home)
    return volumes_at_rest(home, load_settings(home).settings)


def volume_add(
    home: Home,
    options: argparse.Namespace,
    check: Callable[[VolumePlan], None] = lambda _plan: None,
) -> int:
    """
    Write another volume into the settings, make it, and have a running farmer use it.

    What *check* raises is raised before anything is made.
    """
    from farmer.running.clocks import wall_clock_ms
    from farmer.running.making import make_volumes
    from farmer.running.own_identity import own_identity
    from farmer.running.rewriting import change_settings, settings_now
    from farmer.running.volumes import answers, doubts, plan_volumes

    added = VolumeLine.parse(options.volume)
    if not options.volume.startswith(("/", "~")):
        print(f"farmer: this is taken for {added.path}", file=sys.stderr)
    must_be_there(home)
    home.make()
    with HomeLockIfStopped(home):
        change = partial(_with_added, home, added, _unwritten(home))
        text = change(settings_now(home))
        settings = load_text(text, str(home.settings), os.environ).settings
        if not answers(Path(added.path)):
            raise CommandError(f"{added.path}: {SILENT}; nothing was made or written")
        planned = plan_volumes(home, settings, away_volumes(home))
        plans = [plan for plan in planned if str(plan.path) == added.path]
        check(plans[0])
        make_volumes(home, own_identity(home), plans, wall_clock_ms())
        warnings = [doubt for doubt in doubts(planned) if added.path in doubt]
        # Seconds later: others may have changed them.
        change_settings(home, os.environ, change)
    in_use = _use_now(home, added.path)
    quota_bytes = plans[0].quota_bytes
    if options.json:
        answer = {"path": added.path, "quota_bytes": quota_bytes}
        print_document(answer | ({"warnings": warnings} if warnings else {}))
    else:
        print(f"volume {added.path} ({format_size(quota_bytes)}) is made and in {home.settings}")
        if in_use is not None:
            print(in_use)
    for warning in warnings:
        warn(warning)
    return OK


def _use_now(home: Home, path: str) -> str | None:
    """Have a running farmer open a new volume; say how that went, None if none runs."""
    try:
        call(home, "volume-open", {"path": path})
        rows = call(home, "status")["volumes"]
    except NotRunningError:
        return None
    except FarmerRefusedError as error:
        return _not_yet(str(error))
    for row in rows:
        if row["path"] == path and row["state"] in _UNUSABLE:
            return _not_yet(f"{row['state']}: {row['reason']}")
    return "The running farmer uses it now."


def _not_yet(why: str) -> str:
    return (
        f"The running farmer cannot use it yet ({why}). Does it run as a service? It may write "
        "only where its unit lets it: name the place in ReadWritePaths=. Then restart it."
    )


def _with_added(home: Home, added: VolumeLine, unwritten: list[VolumeLine], text: str) -> str:
    """Return the settings *text* with a new volume; a quota is changed there, not here."""
    before = _named_in(home, text)
    if added.path in before:
        raise CommandError(
            f"{added.path} is a volume of this farmer already. To change its quota, edit it in "
            f"{home.settings}; {RELOAD}"
        )
    _check_apart(added.path, [*before, *(line.path for line in unwritten)])
    try:
        for line in (added,) if before else (*unwritten, added):
            text = with_volume(text, line)
    except ValueError as error:
        raise CommandError(f"{home.settings}: {error}; add the volume by hand") from error
    if added.path not in _named_in(home, text):
        raise CommandError(
            f"the environment names the volumes of this farmer ({PREFIX}VOLUMES__0__PATH and so"
            f" on), over those of {home.settings}: add {added.path} there; nothing was made",
            BAD_SETTINGS,
        )
    return text


def _check_apart(path: str, others: list[str]) -> None:
    """Refuse a volume inside another: each counts, and may remove, all that is in it."""
    for other in others:
        how = lies(path, other)
        if how:
            raise CommandError(
                f"{path} {how} the volume {other}: name a directory beside it; nothing was made"
            )


def _named_in(home: Home, text: str) -> list[str]:
    """Return the volumes that the settings *text* names, with the environment over it."""
    volumes = load_text(text, str(home.settings), os.environ).settings.volumes
    return [str(Path(one.path).expanduser()) for one in volumes]


def volume_forget(home: Home, options: argparse.Namespace) -> int:
    """Give up a volume that the settings name no more; its files are left alone."""
    from farmer.running import register
    from farmer.running.answering import answer_of
    from farmer.running.volumes import volume_paths

    path = absolute(options.path)
    home.check()
    is_retired = path in [one.path for one in register.retired(home)]
    if not is_retired and str(path) not in register.quotas(home):
        raise CommandError(f"this farmer knows no volume {path}")
    if path in volume_paths(home, load_settings(home).settings):
        raise CommandError(f"{path} is in use; take it out of {home.settings} first")
    try:
        with lock_to_change(home):
            register.forget(home, path)
    except HomeLockedError as error:
        raise CommandError(f"stop the farmer first: {error}") from error
    lost = "its shards are elsewhere" if is_retired else "its shards count as lost"
    still = " Its files are still there." if answer_of(path.exists) else ""
    print(f"{path} is forgotten; {lost}.{still}")
    return OK


def volume_check(home: Home, options: argparse.Namespace) -> int:
    """Look volumes over without changing anything, whether or not the farmer runs."""
    from farmer.running.volumes import volume_paths

    home.check()
    settings = load_settings(home).settings
    chosen = volume_paths(home, settings)
    if options.path:
        chosen = [_in_settings(home, settings, options.path)]
    away = away_volumes(home)
    rows = []
    for path in chosen:
        row = _looked_over(home, path, away.get(path, ""))
        rows.append(row)
        if not options.json:
            seen = f"{counted(row['shards'], 'shard')} in {counted(row['segments'], 'segment')}"
            # A farmer of an earlier release does not say how many more.
            told, more = row["findings"], row.get("more", 0)
            wrong = f"{len(told) + more} wrong" if told else "in order"
            rest = [f"and {more} more"] if more else []
            print("\n  ".join((f"{path}: {seen} and files: {wrong}", *told, *rest)))
    if options.json:
        print_document({"volumes": rows})
    return DEGRADED if any(row["findings"] for row in rows) else OK


def _looked_over(home: Home, path: Path, why_away: str) -> dict[str, Any]:
    """
    Have the running farmer look, or do it here if none runs.

    Not one that is away, whose disk may hold for ever whoever asks it.
    """
    from farmer.identity.keys import Identity
    from farmer.running.checkup import look_over, unseen
    from farmer.running.volumes import answers

    try:
        if why_away or not answers(path):
            return unseen(path, why_away or SILENT)
    except OSError as error:
        return unseen(path, str(error))
    try:
        return call(home, "volume-check", {"path": str(path)}, CHECK_PATIENCE_S)
    except NotRunningError:
        return look_over(path, Identity.load(home.identity).node_id, home.annexes)


def away_volumes(home: Home) -> dict[Path, str]:
    """Return the volumes that a running farmer cannot reach, and why not."""
    try:
        volumes = call(home, "status")["volumes"]
    except (NotRunningError, FarmerRefusedError):
        return {}
    return {
        Path(one["path"]): one["reason"]
        for one in volumes
        if one["state"] == VolumeState.GONE.value
    }


def volume_rebuild(home: Home, options: argparse.Namespace) -> int:
    """Make a volume's index anew from its shards; the farmer must not run."""
    from farmer.running.volumes import answers, plan_volumes, volume_paths

    settings = load_settings(home).settings
    home.check()
    path = _in_settings(home, settings, options.path)
    must_be_there(home)
    try:
        with lock_to_change(home):
            if not answers(path):
                raise CommandError(f"{path}: {SILENT}")
            # The others' are not asked.
            others = set(volume_paths(home, settings)) - {path}
            [plan] = [one for one in plan_volumes(home, settings, others) if one.path == path]
            shards, size_bytes = _rebuild(home, plan, may_overwrite=options.overwrite_unreadable)
    except HomeLockedError as error:
        raise CommandError(f"stop the farmer first, then rebuild: {error}") from error
    print(f"{path}: a new index of {counted(shards, 'shard')}, {format_size(size_bytes)}")
    return OK


def _in_settings(home: Home, settings: Settings, typed: str) -> Path:
    """Return the volume of the settings that is meant; raises as `volume_meant`."""
    from farmer.running.volumes import volume_names, volume_paths

    def names() -> dict[str, str]:
        paths = map(str, volume_paths(home, settings))
        return dict(zip(paths, volume_names(home, settings), strict=True))

    return Path(volume_meant(typed, names))


def _rebuild(home: Home, plan: VolumePlan, *, may_overwrite: bool) -> tuple[int, int]:
    """Return live shards and their bytes; a bad sector ends it with what can be done."""
    from farmer.running.stores import rebuild

    try:
        return rebuild(
            home,
            plan,
            lambda line: print(line, file=sys.stderr),
            may_overwrite=may_overwrite,
        )
    except OSError as error:
        if error.errno != errno.EIO or may_overwrite:
            raise
        anyway = home.command("volume rebuild --overwrite-unreadable")
        raise CommandError(
            f"{plan.path} cannot be read everywhere ({error.strerror}): no index was made, and"
            " what there was of one is as it was. If all that is wrong are some bad sectors, copy"
            " the disk to a new one while it can be read (ddrescue), or give up what lies on them"
            f" for the rest: {anyway} {quote(str(plan.path))}"
        ) from error


def _unwritten(home: Home) -> list[VolumeLine]:
    """Return the volume that a farmer without settings has: now it must be named."""
    from farmer.running.volumes import plan_volumes

    settings = load_settings(home).settings
    if settings.volumes:
        return []
    plan = plan_volumes(home, settings)[0]
    if plan.is_guess:
        raise CommandError(f"{plan.path}, the volume so far: {SILENT}")
    if not plan.path.exists():
        return []
    return [VolumeLine(str(plan.path), Space(size_bytes=plan.quota_bytes))]


class HomeLockIfStopped(HomeLock):
    """The home's lock; not taken while a farmer runs, whose settings may be edited all along."""

    def __init__(self, home: Home) -> None:
        super().__init__(home.lock, home.command("status"))
        self._home = home

    def take(self, wait_s: float = 0.0) -> None:
        """Take the lock unless a farmer answers."""
        try:
            call(self._home, "status")
        except NotRunningError:
            super().take(wait_s)
