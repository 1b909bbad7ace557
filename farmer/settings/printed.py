"""
The settings printed: the commented example, the reference page, the JSON Schema, a report.

Run as a program it writes `conf/farmer.yaml` and `docs/settings.md` below the directory it
is given; a test compares them.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from farmer.settings.schema import Key, Settings, default_of, keys_of
from farmer.settings.tree import PREFIX

WIDTH: Final = 92

EXAMPLE_HEAD: Final = """\
# Settings of a farmer.  What is commented out shows the default or an example: remove the
# first # of a line, and of the group it stands in, to set it.  Nothing has to be set.
# Check a change with:   farmer config check FILE
# Sizes: 500GB, 500GiB, 80%, max.  Durations: 30s, 12h, 90d.
"""

REFERENCE_HEAD: Final = """\
# Settings

A farmer needs no settings. To change some, write them into `farmer.yaml`; `conf/farmer.yaml`
is the commented example, `farmer config check FILE` tells all mistakes at once, and
`farmer config show --origin` tells each value and where it came from.

The file is searched in this order: `--config FILE`, `farmer.yaml` in the home given by `--home
DIR` or `FARMER_HOME`, else `/etc/farmer/farmer.yaml` for root and
`$XDG_CONFIG_HOME/farmer/farmer.yaml` (`~/.config/farmer/farmer.yaml`) for everybody else.

A key with a dot is written in two lines, the second one two spaces further in:

```yaml
shards:
  size_max: 1GiB
```

The environment goes over the file: a key's name in capitals, two underscores between its
parts, list entries by number from 0, or, where they are single values (`FARMER_ANNOUNCE`),
separated by commas.

Sizes are `500GB` (10^9 bytes each), `500GiB` (2^30), shares `80%` or `max`; durations `30s`,
`12h`, `90d`. A number without a unit is refused.

"Live" settings follow a reload (`systemctl reload farmer`, or SIGHUP to the process that
`farmer status` names); the others need a restart: until then `farmer config show` prints what
the file says, and `farmer status` names those that wait. A reload of a file with mistakes, or
of one that is gone, changes nothing.

| Key | Environment | Default | Live | What it is |
|---|---|---|---|---|
"""


def example() -> str:
    """Return the commented example settings."""
    lines = [EXAMPLE_HEAD, *_example_of(Settings, "")]
    return "\n".join(lines).rstrip() + "\n"


def reference() -> str:
    """Return the reference page."""
    rows = [
        f"| `{name}` | `{PREFIX}{name.upper().replace('.', '__')}` | {_default(default)} |"
        f" {'yes' if key.live else 'restart'} | {key.help} |"
        for name, key, default in _leaves(Settings, "")
    ]
    return REFERENCE_HEAD + "\n".join(rows) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the settings file, for editors."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "farmer.yaml"}
    return head | _schema_of(Settings)


def plain(settings: object) -> dict[str, Any]:
    """Return the settings as texts in nested dicts and lists, as the file would have them."""
    shown: dict[str, Any] = {}
    for name, key in keys_of(type(settings)).items():
        value = getattr(settings, name)
        shown[name] = [_plain(key, row) for row in value] if key.many else _plain(key, value)
    return shown


def _plain(key: Key, value: object) -> object:
    return plain(value) if key.kind is None else key.kind.show(value)


def flat(settings: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting's dotted name and text."""
    for name, key in keys_of(type(settings)).items():
        value = getattr(settings, name)
        rows = enumerate(value) if key.many else [("", value)]
        for index, row in rows:
            dotted = f"{prefix}{name}" + (f".{index}" if key.many else "")
            if key.kind is None:
                yield from flat(row, f"{dotted}.")
            else:
                yield dotted, key.kind.show(row)


def _example_of(kind: type[Any], indent: str) -> Iterator[str]:
    for name, key in keys_of(kind).items():
        yield from _comment(key.help, indent)
        if key.section is not None:
            yield f"#{indent}{name}:"
            yield from _section_example(key, indent)
        elif key.required and not indent:
            yield f"{name}: {key.example}"
        else:
            for line in _lines(name, key, default_of(kind, name)):
                yield f"#{indent}{line}"
        if not indent:
            yield ""


def _section_example(key: Key, indent: str) -> Iterator[str]:
    assert key.section is not None
    inner = indent + "  "
    if not key.many:
        yield from _example_of(key.section, inner)
        return
    bullet = f"#{inner}- "
    for line in _example_of(key.section, inner + "  "):
        if line.startswith(f"#{inner}  # "):
            yield line
        else:
            yield line.replace(f"#{inner}  ", bullet, 1)
            bullet = f"#{inner}  "


def _lines(name: str, key: Key, default: Any) -> Iterator[str]:  # noqa: ANN401  # a setting's value
    assert key.kind is not None
    if key.many:
        yield f"{name}:"
        rows = [key.example] if key.example else [key.kind.show(row) for row in default]
        yield from (f'  - "{row}"' for row in rows)
        return
    yield f"{name}: {key.example or key.kind.show(default)}"


def _comment(text: str, indent: str) -> Iterator[str]:
    lead = f"#{indent}# " if indent else "# "
    for line in textwrap.wrap(text, WIDTH - len(indent)):
        yield f"{lead}{line}"


def _leaves(kind: type[Any], prefix: str) -> Iterator[tuple[str, Key, str]]:
    for name, key in keys_of(kind).items():
        dotted = f"{prefix}{name}" + (".0" if key.many and key.section else "")
        if key.section is not None:
            yield from _leaves(key.section, f"{dotted}.")
        else:
            yield dotted, key, _shown_default(key, default_of(kind, name))


def _shown_default(key: Key, default: Any) -> str:  # noqa: ANN401  # a setting's value
    assert key.kind is not None
    if key.required:
        return ""
    return ", ".join(map(key.kind.show, default)) if key.many else key.kind.show(default)


def _default(text: str) -> str:
    return f"`{text}`" if text else "-"


def _schema_of(kind: type[Any]) -> dict[str, Any]:
    keys = keys_of(kind)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, key in keys.items() if key.required],
        "properties": {name: _schema_of_key(key) for name, key in keys.items()},
    }


def _schema_of_key(key: Key) -> dict[str, Any]:
    if key.section is not None:
        one = _schema_of(key.section)
        return {"description": key.help, "type": "array", "items": one} if key.many else one
    assert key.kind is not None
    one = key.kind.schema
    if key.many:
        one = {"anyOf": [one, {"type": "array", "items": one}]}
    return {"description": key.help, **one}


def main(root: Path) -> None:
    """Write the generated files below *root*."""
    (root / "conf" / "farmer.yaml").write_text(example())
    (root / "docs" / "settings.md").write_text(reference())
    (root / "conf" / "farmer.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
