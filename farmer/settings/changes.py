"""What a reload would change: what can be applied at once, and what needs a restart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from farmer.settings.printed import flat
from farmer.settings.schema import Settings, keys_of

_INDEX: Final = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of settings, as in `farmer config show`."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def changes(before: Settings, after: Settings) -> Changes:
    """Return the names that differ."""
    old, new = dict(flat(before)), dict(flat(after))
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    # Another volume in the same row of the list is a restart, whatever else is the same.
    moved = {name.removesuffix("path") for name in differing if name.endswith(".path")}
    live = [
        name
        for name in differing
        if _is_live(Settings, _INDEX.sub("", name).split("."))
        and not any(name.startswith(prefix) for prefix in moved)
    ]
    return Changes(tuple(live), tuple(name for name in differing if name not in live))


def _is_live(kind: type[Any], path: list[str]) -> bool:
    key = keys_of(kind)[path[0]]
    return key.live if key.section is None else _is_live(key.section, path[1:])
