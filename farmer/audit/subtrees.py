"""
The sub-trees beside some leaves: which ones a proof names, and how they fold into the root.

A sub-tree of the whole tree is a run of leaves [first, end).  It is complete when its length
is a power of two that divides *first*; only the one that ends at the right edge may be ragged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from farmer.audit.tree import hash_node


@dataclass(frozen=True, slots=True)
class Subtree:
    """The node over the leaves from *first* up to, not with, *end*."""

    first: int
    end: int


def covering(first: int, end: int, leaves: int) -> Iterator[Subtree]:
    """
    Return the fewest sub-trees over exactly the leaves [first, end), from left to right.

    *leaves* is how many the whole tree has.
    """
    while first < end:
        complete = first & -first or leaves
        if end == leaves and leaves - first <= complete:
            width = leaves - first
        else:
            width = min(complete, 1 << (end - first).bit_length() - 1)
        yield Subtree(first, first + width)
        first += width


def beside(wanted: Iterable[int], leaves: int) -> Iterator[Subtree]:
    """
    Return the sub-trees that lead from the *wanted* leaves (ascending) to the root.

    They stand from left to right, the wanted leaves themselves among them as sub-trees of
    one leaf: what a proof walks over.
    """
    done = 0
    for leaf in wanted:
        yield from covering(done, leaf, leaves)
        yield Subtree(leaf, leaf + 1)
        done = leaf + 1
    yield from covering(done, leaves, leaves)


class Climb:
    """
    Folds neighbouring sub-trees, pushed from left to right, into the root.

    Keeps one hash per level.  Invariant: the widths on the stack are falling powers of two,
    those of the binary form of the number of leaves so far; only the last may be ragged.
    """

    def __init__(self) -> None:
        self._stack: list[tuple[int, bytes]] = []

    def push(self, width: int, node: bytes) -> None:
        """Take the node over the next *width* leaves."""
        stack = self._stack
        while stack and stack[-1][0] == width:
            node = hash_node(stack.pop()[1], node)
            width *= 2
        stack.append((width, node))

    def root(self) -> bytes:
        """Return the node over all that was pushed, which is at least one sub-tree."""
        _, node = self._stack[-1]
        for _, left in reversed(self._stack[:-1]):
            node = hash_node(left, node)
        return node
