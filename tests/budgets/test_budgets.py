"""One operation costs no more than its budget, whatever the machine and its load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tests.budgets import budgets
from tests.budgets.budgets import KIB, MIB, Cost
from tests.budgets.counting import Counted
from tests.storage.bench import noise


@pytest.fixture(params=[1, 8], ids=lambda volumes: f"volumes-{volumes}")
def counted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Counted]:
    """A warm farmer: with eight volumes nothing costs more than with one."""
    farmer = Counted(tmp_path, request.param)
    # On whichever a shard is laid: the first on each makes its segment.
    for number in range(3 * request.param**2):
        farmer.store(noise(1000, number))
    farmer.farm.engine.learn()
    yield farmer
    farmer.close()


def over(cost: Cost, budget: Cost) -> dict[str, tuple[int, int]]:
    """Return what is over its budget: how much there was, how much there may be."""
    names = [field.name for field in fields(Cost)]
    found = {name: (getattr(cost, name), getattr(budget, name)) for name in names}
    return {name: (was, may) for name, (was, may) in found.items() if was > may}


def test_what_is_over_a_budget_is_named() -> None:
    assert over(Cost(syncs=2, reads=1), Cost(syncs=1, reads=1)) == {"syncs": (2, 1)}


@pytest.mark.parametrize(
    ("size_bytes", "budget"),
    [(64 * KIB, budgets.STORE_64_KIB), (2 * MIB, budgets.STORE_2_MIB)],
)
def test_a_store(counted: Counted, size_bytes: int, budget: Cost) -> None:
    with counted.cost() as found:
        counted.store(noise(size_bytes, "measured"))
    assert not over(found[0], budget), found


@pytest.mark.parametrize(
    ("size_bytes", "budget"),
    [(64 * KIB, budgets.RETRIEVE_64_KIB), (2 * MIB, budgets.RETRIEVE_2_MIB)],
)
def test_a_retrieve(counted: Counted, size_bytes: int, budget: Cost) -> None:
    data = noise(size_bytes, "measured")
    shard = counted.store(data)
    counted.retrieve(shard)
    with counted.cost() as found:
        assert counted.retrieve(shard) == data
    assert not over(found[0], budget), found


def test_a_sample_audit_of_one_leaf(counted: Counted) -> None:
    shard = counted.store(noise(2 * MIB, "measured"))
    counted.audit(shard, 2 * MIB)
    with counted.cost() as found:
        counted.audit(shard, 2 * MIB)
    assert not over(found[0], budgets.AUDIT), found
