"""No budget is raised, or lowered, without the page that says why it is what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.budgets import budgets, table


def test_the_page_has_the_budgets_of_now() -> None:
    page = table.PAGE.read_text()
    assert page == table.with_tables(page), "say why there, then run python -m tests.budgets.table"


def test_every_budget_is_in_a_table() -> None:
    """One that is added, and forgotten in the collections, would be guarded by nothing."""
    kept = [value for value in vars(budgets).values() if isinstance(value, budgets.Cost)]
    assert len(kept) == len(budgets.COSTS)
    assert all(value in budgets.COSTS.values() for value in kept)


@pytest.mark.parametrize("name", budgets.COSTS)
def test_a_budget_that_is_raised_changes_the_page(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = table.tables()
    raised = replace(budgets.COSTS[name], sends=99)
    monkeypatch.setitem(budgets.COSTS, name, raised)
    assert table.tables() != was


def test_a_page_without_room_is_no_page() -> None:
    with pytest.raises(ValueError, match="no place"):
        table.with_tables("# Speed\n")
