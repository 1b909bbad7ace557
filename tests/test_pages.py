"""The pages for people: what they link to is there, what they say to type can be typed."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from farmer.cli import owner_grammar, renter

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAST = {ROOT / "docs" / "changelog.md"}
"""What was typed once need not be known any more."""
NOT_TYPED = {"farmer segment"}
"""It goes into a hash."""


def test_every_link_leads_somewhere() -> None:
    """A heading that is worded anew takes its anchor with it."""
    assert [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in links_of(page)
        if not leads(page, target)
    ] == []


def test_every_command_on_a_page_can_be_typed() -> None:
    """With its options; what stands for a path or a size is not looked at."""
    programs = {"farmer": owner_grammar.parser(), "renter": renter.parser()}
    assert [
        f"{page.relative_to(ROOT)}: {line}"
        for page in PAGES
        if page not in PAST
        for line in typed_on(page)
        if line not in NOT_TYPED and not knows(programs[line.split()[0]], line.split()[1:])
    ] == []


def test_the_versions_of_python_that_were_tried_are_those_the_package_names() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: 3\.(\d+)", "\n".join(package["classifiers"]))
    tried = re.search(r"tried: 3\.(\d+) to 3\.(\d+)", (ROOT / "README.md").read_text())
    assert tried is not None
    least, most = map(int, tried.groups())
    assert [int(minor) for minor in named] == [*range(least, most + 1)]
    assert package["requires-python"] == f">=3.{least}"


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


def typed_on(page: Path) -> list[str]:
    """Return the command lines of our programs on a page, in the text and in blocks."""
    text = page.read_text()
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    command = r"(?:farmer|renter) [a-z-][^`\n#]*"
    return [
        line.strip()
        for line in (
            *re.findall(f"`({command})`", prose_of(page)),
            *re.findall(f"^({command})", blocks, re.MULTILINE),
        )
    ]


def knows(program: argparse.ArgumentParser, words: list[str]) -> bool:
    """Tell whether a program has this command, or group, and its options where they stand."""
    verb = program
    for word in words:
        named = word.partition("=")[0]
        if named.startswith("-") and named not in {"-", *verb._option_string_actions}:
            return False
        verb = _below(verb).get(word, verb)
    is_whole = verb.get_default("action") is not None or verb.prog.split()[-1] == words[-1]
    return is_whole or all(word.startswith("-") or word.isupper() for word in words)


def _below(verb: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in verb._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
