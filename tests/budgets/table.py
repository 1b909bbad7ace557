"""The budgets as docs/decisions/speed.md has them; `python -m tests.budgets.table` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tests.budgets.budgets import CALLS, COSTS, Calls, Cost

PAGE = Path(__file__).parents[2] / "docs" / "decisions" / "speed.md"
BEGIN, END = "<!-- budgets: begin -->\n", "<!-- budgets: end -->\n"


def tables() -> str:
    """Return both: what is counted in memory, and what the kernel is asked."""
    return f"{_table('what', COSTS)}\n{_table('system calls', CALLS)}"


def _table(title: str, rows: Mapping[str, Cost] | Mapping[str, Calls]) -> str:
    names = [name.replace("_", " ") for name in asdict(next(iter(rows.values())))]
    lines = [f"| {title} | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for what, budget in rows.items():
        figures = [f"{value:,}".replace(",", " ") for value in asdict(budget).values()]
        lines.append(f"| {what} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def with_tables(page: str) -> str:
    """Return the page with the budgets of now; raises `ValueError` if it has no room for them."""
    head, begins, rest = page.partition(BEGIN)
    _, ends, tail = rest.partition(END)
    if not (begins and ends):
        raise ValueError(f"no place for the tables: {BEGIN!r}, {END!r}")
    return f"{head}{BEGIN}{tables()}{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
