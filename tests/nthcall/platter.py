"""
What a power cut would leave: bytes by the last sync of their file, names of their directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farmer.storage.index_file import INDEX_NAME


@dataclass
class Node:
    """One file: what a power cut would leave of it, and what was done since its last sync."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[str, int, bytes | int]] = field(default_factory=list)

    def sync(self) -> None:
        for what, offset, more in self.pending:
            if isinstance(more, bytes):
                self._reach(offset + len(more))
                self.durable[offset : offset + len(more)] = more
            elif what == "truncate":
                del self.durable[more:]
                self._reach(more)
            elif what == "preallocate":
                self._reach(more)
            else:
                self.durable[offset : offset + more] = bytes(more)
        self.pending.clear()

    def _reach(self, length: int) -> None:
        if len(self.durable) < length:
            self.durable += bytes(length - len(self.durable))


class Platter:
    """What a power cut would leave of some directories."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = list(roots)
        self._now: dict[Path, dict[str, Node]] = {}
        self._durable: dict[Path, dict[str, Node]] = {}
        for root in roots:
            for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
                names = {
                    path.name: Node(bytearray(path.read_bytes()))
                    for path in directory.iterdir()
                    if path.is_file() and not path.name.startswith(INDEX_NAME)
                }
                self._now[directory], self._durable[directory] = names, dict(names)

    def node(self, path: Path) -> Node:
        return self._now.setdefault(path.parent, {}).setdefault(path.name, Node())

    def make_directory(self, path: Path) -> None:
        self._now.setdefault(path, {})

    def sync_directory(self, path: Path) -> None:
        self._durable[path] = dict(self._now.get(path, {}))
        for directory in self._now:
            if directory.parent == path:
                self._durable.setdefault(directory, {})

    def rename(self, source: Path, target: Path) -> None:
        node = self._now[source.parent].pop(source.name)
        self._now.setdefault(target.parent, {})[target.name] = node

    def unlink(self, path: Path) -> None:
        self._now.get(path.parent, {}).pop(path.name, None)

    def write_to(self, targets: Sequence[Path]) -> None:
        for root, target in zip(self.roots, targets, strict=True):
            for directory, names in self._durable.items():
                if root not in (directory, *directory.parents):
                    continue
                copy = target / directory.relative_to(root)
                copy.mkdir(parents=True, exist_ok=True)
                for name, node in names.items():
                    _sparsely(copy / name, bytes(node.durable))
            if (root / INDEX_NAME).exists():
                # Nothing but a checkpoint syncs it; what is in its log may be lost.
                shutil.copy(root / INDEX_NAME, target / INDEX_NAME)


def _sparsely(path: Path, raw: bytes) -> None:
    """Write a file with holes where there are zeros, as punched records leave them."""
    with path.open("wb") as file:
        file.truncate(len(raw))
        for at in range(0, len(raw), 4096):
            block = raw[at : at + 4096]
            if any(block):
                file.seek(at)
                file.write(block)
    if path.suffix == ".part" and raw:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, len(raw))
