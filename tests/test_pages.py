"""The pages for people: what they link to is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_link_leads_somewhere() -> None:
    """A heading that is worded anew takes its anchor with it."""
    assert [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in links_of(page)
        if not leads(page, target)
    ] == []


def links_of(page: Path) -> Iterator[str]:
    """Yield where a page links to within the repository."""
    for target in re.findall(r"\[[^]]*\]\(([^)\s]+)\)", prose_of(page)):
        if not target.startswith(("http:", "https:")):
            yield target


def leads(page: Path, target: str) -> bool:
    """Tell whether the file is there, and the heading in it."""
    name, _, anchor = target.partition("#")
    file = page.parent / name if name else page
    return file.exists() and (not anchor or anchor in anchors_of(file))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def prose_of(page: Path) -> str:
    """Return a page without its blocks of code, where neither links nor headings are."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
