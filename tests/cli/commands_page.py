"""The tables of docs/commands.md; `python -m tests.cli.commands_page` writes them anew."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from farmer.cli import owner_grammar, renter

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
PROGRAMS = {"farmer": owner_grammar.parser, "renter": renter.parser}


def with_tables(page: str) -> str:
    """Return the page with its tables as the parsers have it now."""
    for name, parser in PROGRAMS.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, _, rest = page.partition(begin)
        after = rest.partition(end)[2]
        page = f"{before}{begin}{table(parser())}{end}{after}"
    return page


def table(program: argparse.ArgumentParser) -> str:
    """Return a row for each command, with what it takes."""
    rows = ["| command | what it does | takes |", "|---|---|---|"]
    rows += [f"| `{verb.prog}` | {what} | {_taken(verb)} |" for what, verb in verbs(program)]
    return "\n".join(rows) + "\n"


def verbs(
    parser: argparse.ArgumentParser, about: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command that does something, after what it does."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                if verb.get_default("action") is not None:
                    yield f"{about}{verb.description}", verb
                yield from verbs(verb, f"{verb.description}: ")


def _taken(verb: argparse.ArgumentParser) -> str:
    """Return what is special about it; the others are everybody's."""
    taken = [
        action
        for action in verb._actions
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
        and not {"--json", "--farmer"} & set(action.option_strings)
    ]
    return "; ".join(f"`{_shown(action)}`{_help(action)}" for action in taken)


def _shown(action: argparse.Action) -> str:
    words = [", ".join(action.option_strings), str(action.metavar or "")]
    shown = " ".join(word for word in words if word)
    if action.nargs in {"*", "+"}:
        shown += " ..."
    is_free = not action.option_strings and action.nargs in {"?", "*"}
    return f"[{shown}]" if is_free else shown


def _help(action: argparse.Action) -> str:
    said = (action.help or "").replace("%%", "%").replace("|", r"\|")
    return f" {said}" if said else ""


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
