"""All that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.fuzz import crossers, disk, notes, proofs, rebuilding, signed, wire, words
from tests.fuzz.target import Target

_MAKERS: Final[tuple[Callable[[], Target], ...]] = (
    *wire.TARGETS,
    *signed.TARGETS,
    *proofs.TARGETS,
    *disk.TARGETS,
    *notes.TARGETS,
    *crossers.TARGETS,
    *words.TARGETS,
    *rebuilding.TARGETS,
)
_BY_NAME: Final = {maker().name: maker for maker in _MAKERS}
ALL: Final = tuple(_BY_NAME)


def target_of(name: str) -> Target:
    """Return a fresh target; raises KeyError."""
    return _BY_NAME[name]()
