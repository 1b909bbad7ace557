"""What is left on a drive when the power goes: any part of what was not synced, in any order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

from tests.simulation.nodes import BLOCK, Drive, Folder, Node, Op, apply, enter_name

SECTOR = 512
"""What a disk writes wholly or not at all."""

Piece = tuple[int, Op]
"""What is left of a change: which of those that waited, and what of it is carried out."""


class PowerCut:
    """What one drive looks like after it."""

    def __init__(self, rng: Random, drive: Drive, befell: Callable[[str], None]) -> None:
        """*befell* hears of each write that was torn, and each file whose writes overtook."""
        self._rng = rng
        self._drive = drive
        self._befell = befell
        self._share = rng.choice((0.0, 0.3, 0.7, 1.0))
        """Of what was not synced, how much survives."""
        self._seen: set[int] = set()

    def happen(self) -> None:
        """Let it be so."""
        for changes in self._drive.journal:
            if self._survives():
                for one in changes:
                    enter_name(one)
        self._drive.journal.clear()
        self._drive.used_bytes = 0
        self._drive.armed.clear()
        self._drive.broken = 0
        self._folder(self._drive.top)

    def _survives(self) -> bool:
        return self._rng.random() < self._share

    def _folder(self, folder: Folder) -> None:
        # A name that two changes fought over may be left in two places: one of them counts.
        for name, entry in sorted(folder.durable.items(), key=lambda item: item[0]):
            if isinstance(entry, Folder):
                self._folder(entry)
            elif entry.number in self._seen:
                del folder.durable[name]
            else:
                self._seen.add(entry.number)
                self._file(entry)
        folder.names = dict(folder.durable)

    def _file(self, node: Node) -> None:
        early = {id(op) for op in node.written_early}
        kept: list[Piece] = []
        for number, op in enumerate(node.pending):
            _note_torn(node, op)
            kept += [(number, left) for left in self._left_of(node, op, is_early=id(op) in early)]
        if self._rng.random() < 0.5:
            self._rng.shuffle(kept)
        for _, op in kept:
            apply(node.platter, op)
        if _has_overtaken(node.pending, kept, early):
            self._befell("reordered writes")
        unsure = {block for op in node.pending if op[0] == "write" for block in _blocks(op)}
        node.pending.clear()
        if node.cached != node.platter:
            node.cached = bytearray(node.platter)
        node.opened, node.links, node.lock, node.is_freed = 0, 1, None, False
        node.lost_early, node.written_early = False, []
        node.blocks = _taken(node, unsure)
        self._drive.used_bytes += len(node.blocks) * BLOCK

    def _left_of(self, node: Node, op: Op, *, is_early: bool) -> list[Op]:
        """Return what of a change is carried out; one that is *early* is on the platter anyway."""
        if not self._survives():
            return self._undone(node, op)
        if op[0] != "write" or self._rng.random() >= 0.4:
            return [op]
        unit = self._rng.choice((SECTOR, BLOCK))
        pieces, kept = self._torn(op[1], op[2], unit)  # type: ignore[arg-type]
        if 0 < len(kept) < pieces and not is_early:
            self._befell(f"torn write at {unit}")
        return kept

    def _undone(self, node: Node, op: Op) -> list[Op]:
        """Return what is left of a change that did not survive; space given back is taken."""
        kind, at, what = op
        if kind == "write" and self._rng.random() < 0.2:
            return [("size", at + len(what), 0)]  # type: ignore[arg-type]
        if kind == "punch":
            node.blocks |= set(range(at // BLOCK, -(-(at + what) // BLOCK)))  # type: ignore[operator]
        if kind == "cut":
            node.blocks |= set(range(at // BLOCK, -(-len(node.platter) // BLOCK)))
        return []

    def _torn(self, offset: int, raw: bytes, unit: int) -> tuple[int, list[Op]]:
        """Return how many pieces there are, and those that are written."""
        end = offset + len(raw)
        edges = [offset, *range((offset // unit + 1) * unit, end, unit), end]
        pieces = list(pairwise(edges))
        if self._rng.random() < 0.5:
            kept = pieces[: int(self._rng.random() * (len(pieces) + 1))]
        else:
            kept = [one for one in pieces if self._rng.random() < 0.5]
        return len(pieces), [
            ("write", start, raw[start - offset : stop - offset]) for start, stop in kept
        ]


def _taken(node: Node, unsure: set[int]) -> set[int]:
    """
    Return the blocks that are taken: not those, of the *unsure*, to which the only write was lost.

    But whatever holds something is taken, also where the punching of it went with a failed sync.
    """
    platter = node.platter
    end = -(-len(platter) // BLOCK)
    sure = node.blocks if node.is_laid_out else node.blocks - unsure
    taken = {block for block in sure if block < end}
    zeros = bytes(BLOCK)
    for block in range(end):
        held = platter[block * BLOCK : (block + 1) * BLOCK]
        if held != zeros[: len(held)]:
            taken.add(block)
    return taken


def _has_overtaken(pending: list[Op], kept: list[Piece], early: set[int]) -> bool:
    """Say whether a write is there without one issued before it, or lies below such a one."""
    landed = {number for number, op in enumerate(pending) if id(op) in early}
    landed |= {number for number, (kind, _, _) in kept if kind == "write"}
    last = max(landed, default=-1)
    if any(op[0] == "write" and at not in landed for at, op in enumerate(pending[: last + 1])):
        return True
    above: dict[int, int] = {}
    for number, (_, at, what) in kept:
        if isinstance(what, bytes):
            for sector in range(at // SECTOR, -(-(at + len(what)) // SECTOR)):
                if above.get(sector, -1) > number:
                    return True
                above[sector] = number
    return False


def _note_torn(node: Node, op: Op) -> None:
    if op[0] in {"write", "punch"}:
        node.torn |= _blocks(op)


def _blocks(op: Op) -> set[int]:
    """Return the blocks that a write or a punching touches."""
    _, at, what = op
    length = len(what) if isinstance(what, bytes) else what
    return set(range(at // BLOCK, -(-(at + length) // BLOCK)))
