"""Every error of the storage has its refusal."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import farmer.storage
from farmer.node.refusals import NUMBER_MAX, TABLE, refused_for
from farmer.protocol.refusals import Refusal, Refused
from farmer.storage import errors
from farmer.storage.errors import StorageError

NEVER_ON_THE_WIRE = {"OvercommitError", "BookDamagedError", "BookForeignError"}
"""What only the owner's own verbs and the start raise."""


def all_kinds() -> list[type[StorageError]]:
    for module in pkgutil.iter_modules(farmer.storage.__path__, "farmer.storage."):
        importlib.import_module(module.name)

    def below(kind: type[StorageError]) -> Iterator[type[StorageError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return sorted(set(below(StorageError)), key=lambda kind: kind.__name__)


def made(kind: type[StorageError], number: int) -> StorageError:
    wanted = inspect.signature(kind.__init__).parameters.values()
    named = [p for p in wanted if p.name != "self" and p.kind is p.POSITIONAL_OR_KEYWORD]
    return kind(*(number + n for n in range(len(named))))


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_every_kind_of_error_has_a_row(kind: type[StorageError]) -> None:
    """A new error without a row of its own, or of a parent below the root, is noticed here."""
    if kind.__name__ in NEVER_ON_THE_WIRE:
        return
    row = next(parent for parent in kind.__mro__ if parent in TABLE)

    assert row is not StorageError, f"give {kind.__name__} a row in farmer/node/refusals.py"


@pytest.mark.parametrize(
    "kind", [kind for kind in all_kinds() if kind.__module__ == errors.__name__]
)
def test_the_numbers_travel_in_order(kind: type[StorageError]) -> None:
    """The error's own numbers, first to last, as far as the refusal carries any."""
    refused = refused_for(made(kind, 7), 99)

    assert refused.first in (7, 0, 1_000, 60_000)
    assert refused.second in (8, 0, 99)


def test_numbers_that_do_not_fit_the_wire_are_cut() -> None:
    """A negative space is none, and nothing sets the top bit."""
    error = errors.NoSpaceError(1 << 70, -5)

    assert refused_for(error, 0) == Refused(Refusal.NO_SPACE, NUMBER_MAX, 0)


def test_an_error_of_no_kind_is_internal() -> None:
    """What nobody foresaw is our fault."""
    assert refused_for(StorageError("?"), 0) == Refused(Refusal.INTERNAL)
