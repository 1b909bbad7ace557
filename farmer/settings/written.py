"""Settings files that we write: a first one, and a volume added to one that is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import yaml

from farmer.settings.kinds import PATH, QUOTA
from farmer.settings.paths import absolute
from farmer.units import Space

HEAD = """\
# Settings of a farmer; every key stands in docs/settings.md, or type: farmer config example
version: 1
"""


@dataclass(frozen=True, slots=True)
class VolumeLine:
    """A volume as the command line names it."""

    path: str
    quota: Space

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PATH=SIZE`; raises `ValueError` with a hint."""
        path, equals, size = text.rpartition("=")
        if not equals or not path:
            raise ValueError(f"{text!r} is not a volume like /srv/farmer=500GB")
        return cls(PATH.parse(str(absolute(path))), QUOTA.parse(size))


def settings_text(
    *,
    name: str = "",
    shards: Sequence[str] = (),
    page: str = "",
    announce: Sequence[str] = (),
    volumes: Sequence[VolumeLine] = (),
) -> str:
    """Return a settings file with what is given; the rest is left to the defaults."""
    lines = []
    if name:
        lines.append(f"name: {_quoted(name)}")
    if shards or page:
        lines.append("listen:")
    if shards:
        lines += ["  shards:", *(f"    - {_quoted(address)}" for address in shards)]
    if page:
        lines.append(f"  page: {_quoted(page)}")
    if announce:
        lines += ["announce:", *(f"  - {_quoted(address)}" for address in announce)]
    if volumes:
        lines.append("volumes:")
    for volume in volumes:
        lines += _volume_lines(volume, "  ")
    return HEAD + "".join(f"{line}\n" for line in lines)


def with_volume(text: str, volume: VolumeLine) -> str:
    """
    Return the settings *text* with one more volume, and everything else as it was.

    Raises:
        ValueError: the file is written in a way that we had better not touch.

    """
    listed = _listed(text)
    end = "\r\n" if "\r\n" in text else "\n"
    if listed is None:
        separator = "" if text.endswith("\n") or not text else end
        added = ["volumes:", *_volume_lines(volume, "  ")]
        return f"{text}{separator}" + _joined(added, end)
    lines = text.splitlines(keepends=True)
    last = listed.value[-1].value[-1][1].end_mark.line + 1
    if not lines[last - 1].endswith("\n"):
        lines[last - 1] += end
    added = _volume_lines(volume, " " * listed.start_mark.column)
    return "".join(lines[:last]) + _joined(added, end) + "".join(lines[last:])


def without_volume(text: str, path: str) -> str:
    """
    Return the settings *text* without the volume at *path*, and everything else as it was.

    Raises:
        ValueError: it is not named there, or written in a way that we had better not touch.

    """
    listed = _listed(text)
    rows = listed.value if listed is not None else []
    found = next((row for row in rows if _path_of(row) == path), None)
    if found is None:
        raise ValueError(f"{path} is not in the list of volumes")
    if len(rows) == 1:
        raise ValueError(f"{path} is the only volume that is named there")
    lines = text.splitlines(keepends=True)
    first, last = found.start_mark.line, found.value[-1][1].end_mark.line + 1
    if not lines[first].lstrip().startswith("- "):
        raise ValueError("the list of volumes is not written as lines that begin with `- `")
    return "".join(lines[:first] + lines[last:])


def _listed(text: str) -> yaml.SequenceNode | None:
    """Return the list of volumes in a settings file, None if it has none."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None or not isinstance(root, yaml.MappingNode):
        raise ValueError("the settings are not `key: value` lines")
    listed = next((value for key, value in root.value if key.value == "volumes"), None)
    if listed is None:
        return None
    if not isinstance(listed, yaml.SequenceNode) or listed.flow_style or not listed.value:
        raise ValueError("the list of volumes is not written as lines that begin with `- `")
    return listed


def _path_of(row: yaml.Node) -> str:
    fields = row.value if isinstance(row, yaml.MappingNode) and not row.flow_style else []
    named = next((value.value for key, value in fields if key.value == "path"), "")
    return str(absolute(named)) if named else ""


def _volume_lines(volume: VolumeLine, indent: str) -> list[str]:
    return [f"{indent}- path: {_quoted(volume.path)}", f"{indent}  quota: {volume.quota}"]


def _joined(lines: list[str], end: str) -> str:
    return "".join(f"{line}{end}" for line in lines)


def _quoted(text: str) -> str:
    # Every JSON string is a YAML string.
    return json.dumps(text, ensure_ascii=False)
