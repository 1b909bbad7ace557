"""The strict reader: a tree of texts becomes `Settings`, or every fault in it at once."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final

from farmer.settings.contradictions import contradictions
from farmer.settings.kinds import Kind
from farmer.settings.schema import Key, Settings, keys_of
from farmer.settings.tree import (
    FILE_BYTES_MAX,
    Branch,
    Fault,
    Scalar,
    Tree,
    overlay,
    read_yaml,
)

NEAR: Final = 0.6
"""How much alike two names have to be for one to be a slip of the other."""

LIST_MAX: Final = 256
DEFAULT_PLACE: Final = "default"
_TAGS_OF_WORDS: Final = frozenset({"str"})
_TAGS: Final = frozenset({"str", "int", "float", "timestamp"})


class SettingsError(Exception):
    """The settings cannot be used: every fault, each with its place."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and where each came from by its dotted name."""

    settings: Settings
    origins: dict[str, str]


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """
    Read a settings file, if any, with the environment over it.

    Raises:
        SettingsError: with all faults.

    """
    if path is None:
        return _build(Branch(DEFAULT_PLACE, listing=False), environ, [], versioned=False)
    return load_text(_text_of(path), str(path), environ)


def load_text(text: str, name: str, environ: Mapping[str, str]) -> Loaded:
    """Read settings from a text; *name* stands in the places of faults.  Raises as `load`."""
    faults: list[Fault] = []
    return _build(read_yaml(text, name, faults), environ, faults, versioned=True)


def _build(
    tree: Branch, environ: Mapping[str, str], faults: list[Fault], *, versioned: bool
) -> Loaded:
    # One syntax error hides what follows it; telling of missing keys then would only confuse.
    if faults and not tree.entries:
        raise SettingsError(faults)
    faults += overlay(tree, environ, list(_variables(Settings)))
    if not versioned:
        tree.entries.setdefault("version", Scalar("1", DEFAULT_PLACE))
    reader = _SettingsReader(faults)
    settings = reader.section(Settings, tree, "")
    if settings is not None:
        faults += contradictions(settings, reader.origins)
    if faults:
        raise SettingsError(faults)
    return Loaded(settings, reader.origins)


def _variables(kind: type[Any]) -> Iterator[str]:
    """Yield every key as the environment joins its parts."""
    for name, key in keys_of(kind).items():
        if key.section is None:
            yield name
        else:
            row = f"{name}__0" if key.many else name
            yield from (f"{row}__{below}" for below in _variables(key.section))


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError([Fault(str(path), _unreadable(path, error))]) from error
    if len(raw) > FILE_BYTES_MAX:
        raise SettingsError([Fault(str(path), "larger than 1 MiB: not a settings file")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SettingsError([Fault(f"{path}:{line}:1", "this is not UTF-8 text")]) from error


def _unreadable(path: Path, error: OSError) -> str:
    message = f"cannot be read: {error.strerror}"
    if not isinstance(error, PermissionError):
        return message
    return (
        f"{message} for the user that asks. There are no secrets in settings; everybody may read "
        f"them after: sudo chmod o+r {quote(str(path))} (if its directories can be entered)"
    )


class _SettingsReader:
    """Walks the classes and the tree side by side; never stops at the first fault."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self.origins: dict[str, str] = {}

    def section(self, kind: type[Any], tree: Branch, prefix: str) -> Any:  # noqa: ANN401  # an instance of *kind*
        """Return an instance of the settings class *kind*; None if something was wrong."""
        keys = keys_of(kind)
        for name in tree.entries:
            if name not in keys:
                self._unknown(name, keys, tree)
        found: dict[str, Any] = {}
        for name, key in keys.items():
            dotted = f"{prefix}{name}"
            if name in tree.entries:
                found[name] = self._value(key, tree.entries[name], dotted)
            elif key.required:
                self._fault(tree.place, f'"{dotted}" is missing, like {name}: {key.example}')
            else:
                self._default(key, dotted)
        broken = any(value is None for value in found.values())
        missing = any(key.required and name not in found for name, key in keys.items())
        return None if broken or missing else kind(**found)

    def _value(self, key: Key, tree: Tree, dotted: str) -> object:
        if key.many:
            return self._list(key, tree, dotted)
        if key.section is not None:
            if isinstance(tree, Scalar) or tree.listing:
                return self._refuse(tree.place, f'"{dotted}" is a group of settings, not a value')
            return self.section(key.section, tree, f"{dotted}.")
        assert key.kind is not None
        return self._scalar(key.kind, tree, dotted)

    def _list(self, key: Key, tree: Tree, dotted: str) -> object:
        if isinstance(tree, Scalar):
            if key.section is not None:
                return self._refuse(tree.place, f'"{dotted}" is a list of groups of settings')
            # In the environment a list is written with commas, in YAML one value may stand alone.
            words = tree.text.split(",") if tree.place.startswith("environment ") else [tree.text]
            rows = [
                (str(index), dataclasses.replace(tree, text=word.strip()))
                for index, word in enumerate(words)
            ]
            return self._rows(key, rows, dotted)
        if not tree.listing:
            return self._refuse(tree.place, f'"{dotted}" is a list: begin each entry with "- "')
        if len(tree.entries) > LIST_MAX:
            return self._refuse(tree.place, f'"{dotted}" has more than {LIST_MAX} entries')
        rows_found = sorted(tree.entries.items(), key=lambda row: (len(row[0]), row[0]))
        if [index for index, _ in rows_found] != [str(index) for index in range(len(rows_found))]:
            return self._refuse(tree.place, f'"{dotted}" is numbered 0, 1, 2 without gaps')
        if not rows_found:
            self.origins[dotted] = tree.place
        return self._rows(key, rows_found, dotted)

    def _rows(self, key: Key, rows: list[tuple[str, Any]], dotted: str) -> object:
        one = dataclasses.replace(key, many=False)
        values = tuple(self._value(one, row, f"{dotted}.{index}") for index, row in rows)
        return None if any(value is None for value in values) else values

    def _scalar(self, kind: Kind[Any], tree: Tree, dotted: str) -> object:
        if isinstance(tree, Branch):
            return self._refuse(tree.place, f'"{dotted}" takes one {kind.noun}, not several')
        if tree.tag == "null" or (tree.text == "" and not kind.words):
            return self._refuse(tree.place, f'"{dotted}" has no value: write one or drop the line')
        if not tree.quoted and tree.tag not in (_TAGS_OF_WORDS if kind.words else _TAGS):
            read = f"YAML reads {tree.text} as {tree.tag}"
            hint = f'write "{tree.text}" in quotes if you mean it'
            return self._refuse(tree.place, f'"{dotted}" takes one {kind.noun}: {read}; {hint}')
        try:
            value = kind.parse(tree.text)
        except ValueError as error:
            return self._refuse(tree.place, f'"{dotted}": {error}')
        self.origins[dotted] = tree.place
        return value

    def _default(self, key: Key, dotted: str) -> None:
        if key.section is None or key.many:
            self.origins[dotted] = DEFAULT_PLACE
            return
        for below in keys_of(key.section):
            self.origins[f"{dotted}.{below}"] = DEFAULT_PLACE

    def _unknown(self, name: str, keys: dict[str, Key], tree: Branch) -> None:
        near = difflib.get_close_matches(name, keys, n=1, cutoff=NEAR)
        hint = f', did you mean "{near[0]}"?' if near else f"; known are {', '.join(keys)}"
        if lines := _in_two_lines(name, keys, tree.entries[name]):
            hint = f": {lines}"
        self._fault(tree.places.get(name, tree.place), f'unknown key "{name}"{hint}')

    def _refuse(self, place: str, message: str) -> object:
        self._fault(place, message)
        return None

    def _fault(self, place: str, message: str) -> None:
        self._faults.append(Fault(place, message))


def _in_two_lines(name: str, keys: dict[str, Key], value: Tree) -> str:
    """Say how a key is written that was named as in docs and messages; empty if it is none."""
    group, _, below = name.partition(".")
    key = keys.get(group)
    if key is None or key.section is None or key.many or below not in keys_of(key.section):
        return ""
    text = value.text if isinstance(value, Scalar) else "..."
    return f'write "{group}:", and in the line below, two spaces further in, "{below}: {text}"'
