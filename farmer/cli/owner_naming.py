"""Which volume is meant: its path names it, and the short name that alerts and metrics have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from farmer.cli.exits import CommandError
from farmer.settings.paths import absolute


def volume_meant(typed: str, names: Callable[[], Mapping[str, str]]) -> str:
    """
    Return the path of the volume that was typed as its path or as its short name.

    *names* tells the short name of each by its path; not asked for what can be no path.

    Raises:
        CommandError: it is no volume, or may be more than one.
        ValueError: as `absolute`.

    """
    here = str(absolute(typed))
    known = names()
    meant = [path for path, name in known.items() if path == here or name == typed]
    if not meant:
        there = ", ".join(_shown(path, name) for path, name in known.items())
        raise CommandError(f"{typed} is not a volume of this farmer. Its volumes are: {there}")
    if len(meant) > 1:
        either = " or ".join(meant)
        raise CommandError(f"{typed} may be {either}: type the whole path of the one you mean")
    return meant[0]


def _shown(path: str, name: str) -> str:
    return path if name == path else f"{name} ({path})"
