"""The layers of docs/architecture.md, enforced."""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
from pathlib import Path

import pytest

import farmer

ROOT = Path(farmer.__file__).parent
TWISTED = {"twisted", "zope"}
SERVING = {
    *("farmer.model", "farmer.protocol", "farmer.storage", "farmer.identity"),
    *("farmer.node", "farmer.monitor", "farmer.settings"),
}
MAY_IMPORT = {
    "version": set(),
    "units": set(),
    "crew": set(),
    "model": set(),
    "protocol": {"farmer.model"},
    "audit": {"farmer.model"},
    "storage": {"farmer.model", "farmer.audit"},
    "identity": {"farmer.model", "farmer.protocol", "cryptography", "OpenSSL", *TWISTED},
    "node": {
        *("farmer.model", "farmer.protocol", "farmer.audit", "farmer.storage"),
        *("farmer.identity", "farmer.version", "farmer.crew", *TWISTED),
    },
    "client": {
        *("farmer.model", "farmer.protocol", "farmer.audit", "farmer.identity"),
        *("farmer.units", "farmer.version", "farmer.crew", *TWISTED),
    },
    "monitor": {
        *("farmer.model", "farmer.node", "farmer.units", "farmer.version"),
        *("prometheus_client", *TWISTED),
    },
    "settings": {"farmer.model", "farmer.units", "yaml"},
    "benching": {
        *("farmer.model", "farmer.audit", "farmer.identity", "farmer.client"),
        *("OpenSSL", *TWISTED),
    },
    "running": {*SERVING, "farmer.units", "farmer.version", *TWISTED},
    "app": {*SERVING, "farmer.running", "farmer.version", *TWISTED},
    "__init__": set(),
}
MAY_IMPORT_EVERYTHING = {"cli"}
NAME_THE_REACTOR = {"app.py", "cli/owner_bench.py", "client/blocking.py"}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
    return found


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_layers_point_down(path: Path) -> None:
    """A module imports the standard library, its own layer and the layers below."""
    layer = layer_of(path)
    if layer not in MAY_IMPORT:
        return
    allowed = MAY_IMPORT[layer] | {f"farmer.{layer}"}
    for name in imports_of(path):
        top, *rest = name.split(".")
        if top == "farmer" and not rest:
            continue
        package = f"farmer.{rest[0]}" if top == "farmer" else top
        assert top in sys.stdlib_module_names or package in allowed, f"{layer} imports {name}"


def test_every_room_has_a_rule() -> None:
    """No new top-level module or package escapes the layers, and no rule outlives its room."""
    assert {layer_of(path) for path in modules()} == set(MAY_IMPORT) | MAY_IMPORT_EVERYTHING


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_outermost_modules_name_the_reactor(path: Path) -> None:
    """Everything below is handed its reactor, so that a test can hand it another."""
    names_it = "twisted.internet.reactor" in imports_of(path)
    assert names_it == (str(path.relative_to(ROOT)) in NAME_THE_REACTOR)


def test_packages_open_empty() -> None:
    """An `__init__` runs no code: importing one room never drags in another."""
    assert not [path for path in modules() if path.name == "__init__.py" and path.read_text()]


def test_each_module_of_the_storage_has_a_place_on_the_page() -> None:
    """There are many, and the page's table is how one finds the right one."""
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_*]+)`", page))
    stems = {path.stem for path in (ROOT / "storage").glob("*.py")} - {"__init__"}
    assert {
        stem for stem in stems if not any(fnmatch.fnmatch(stem, name) for name in named)
    } == set()
