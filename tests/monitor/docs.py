"""The table of docs/metrics.md; `python -m tests.monitor.docs` writes it anew."""

from __future__ import annotations

from pathlib import Path

from tests.monitor.sample import metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def table() -> str:
    """Return every family of the registry as a row."""
    rows = []
    for family in metrics().registry.collect():
        if not family.name.startswith("farmer_"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({key for sample in family.samples for key in sample.labels} - {"le"})
        rows.append(f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |")
    head = "| name | type | labels | what it says |\n|---|---|---|---|\n"
    return head + "\n".join(sorted(rows)) + "\n"


def with_table(page: str) -> str:
    """Return the page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
