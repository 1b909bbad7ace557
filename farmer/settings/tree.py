"""YAML and environment as one tree of texts that know where they stand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import yaml

FILE_BYTES_MAX: Final = 1024 * 1024
"""No settings file is that large; something else was named by mistake."""

DEPTH_MAX: Final = 16
NODES_MAX: Final = 10_000
"""Values in a file, each alias counted as what it stands for: 256 volumes have some thousand."""

PREFIX: Final = "FARMER_"
SLIP: Final = 0.75
"""How like a key a variable must be (`difflib`) to be taken for a mistyped one."""

RESERVED: Final = frozenset({"FARMER_HOME"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake in the settings, for a person: where, and what."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as it was written."""

    text: str
    place: str
    quoted: bool = True
    tag: str = "str"
    """What YAML would make of it: str, int, float, bool, null."""


@dataclass(slots=True)
class Branch:
    """A mapping, or a list whose keys are its indices."""

    place: str
    listing: bool
    entries: dict[str, Scalar | Branch] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """Where each key stands."""


Tree = Scalar | Branch


def read_yaml(text: str, name: str, faults: list[Fault]) -> Branch:
    """Return the tree of a YAML text; what is wrong with it goes to *faults*."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        faults.append(Fault(_place(name, mark), f"this is not YAML: {what}"))
        return Branch(name, listing=False)
    except (yaml.YAMLError, RecursionError) as error:
        faults.append(Fault(f"{name}:1:1", f"this is not YAML: {_one_line(error)}"))
        return Branch(name, listing=False)
    if root is None:
        return Branch(f"{name}:1:1", listing=False)
    try:
        tree = _YamlReader(name, faults).tree(root, 0)
    except _TooManyError as error:
        faults[:] = [error.fault]
        return Branch(name, listing=False)
    if isinstance(tree, Scalar) or tree.listing:
        faults.append(Fault(tree.place, "settings are `key: value` lines"))
        return Branch(name, listing=False)
    return tree


class _TooManyError(Exception):
    """There is more in the file than any settings have."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _YamlReader:
    """Turns composed nodes, which know their lines, into our tree."""

    def __init__(self, name: str, faults: list[Fault]) -> None:
        self._name = name
        self._faults = faults
        self._nodes = 0

    def tree(self, node: yaml.Node, depth: int) -> Tree:
        place = _place(self._name, node.start_mark)
        self._nodes += 1
        if self._nodes > NODES_MAX:
            many = f"more than {NODES_MAX} values, aliases unfolded: these are no settings"
            raise _TooManyError(Fault(place, many))
        if depth > DEPTH_MAX:
            self._faults.append(Fault(place, "nested too deeply (or an alias to itself)"))
            return Branch(place, listing=False)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, place, depth)
            case yaml.SequenceNode():
                branch = Branch(place, listing=True)
                for index, child in enumerate(node.value):
                    branch.entries[str(index)] = self.tree(child, depth + 1)
                return branch
            case yaml.ScalarNode():
                tag = node.tag.rpartition(":")[2]
                return Scalar(node.value, place, quoted=node.style is not None, tag=tag)
            case _:
                raise AssertionError(f"YAML has no other nodes than these: {node!r}")

    def _mapping(self, node: yaml.MappingNode, place: str, depth: int) -> Branch:
        branch = Branch(place, listing=False)
        for key, value in node.value:
            where = _place(self._name, key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self._faults.append(Fault(where, "a key is one word"))
            elif key.value in branch.entries:
                first = branch.places[key.value]
                message = f'duplicate key "{key.value}", first given at {first}'
                self._faults.append(Fault(where, message))
            else:
                branch.places[key.value] = where
                branch.entries[key.value] = self.tree(value, depth + 1)
        return branch


def overlay(tree: Branch, environ: Mapping[str, str], known: Sequence[str]) -> list[Fault]:
    """
    Put the settings of the environment over those of the file; return what does not fit.

    `FARMER_LISTEN__PAGE` is listen.page, `FARMER_VOLUMES__0__QUOTA` the first volume's
    quota.  *known* are all keys with their parts joined in this way.  Of variables without a
    double underscore only those that name a top-level key are ours: service managers set
    FARMER_PORT and the like.  One that is nearly a key is a slip, and told.  An empty
    variable counts as not set.
    """
    faults = []
    groups = {name.partition("__")[0] for name in known}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in RESERVED or not environ[variable]:
            continue
        path = variable.removeprefix(PREFIX).lower().split("__")
        place = f"environment {variable}"
        if len(path) == 1 and path[0] not in groups:
            faults += _slip(place, path[0], known)
            continue
        if "" in path or len(path) > DEPTH_MAX:
            faults.append(Fault(place, "this does not name a setting"))
        else:
            _put(tree, path, Scalar(environ[variable], place))
    return faults


def _slip(place: str, name: str, known: Sequence[str]) -> list[Fault]:
    # The first key of a group stands for the group, should its name alone be nearly right.
    meant = {one.partition("__")[0]: one for one in reversed(known)} | {one: one for one in known}
    near = difflib.get_close_matches(name, meant, n=1, cutoff=SLIP)
    return [
        Fault(place, f"no setting; did you mean {PREFIX}{meant[one].upper()}?") for one in near
    ]


def _put(branch: Branch, path: list[str], scalar: Scalar) -> None:
    *parents, last = path
    for part, following in zip(parents, path[1:], strict=True):
        below = branch.entries.get(part)
        if below is None or isinstance(below, Scalar):
            below = Branch(scalar.place, listing=following.isdigit())
            branch.entries[part] = below
            branch.places[part] = scalar.place
        branch = below
    branch.entries[last] = scalar
    branch.places[last] = scalar.place


def _place(name: str, mark: yaml.Mark | None) -> str:
    return f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else f"{name}:1:1"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
