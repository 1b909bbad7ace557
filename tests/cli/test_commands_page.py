"""docs/commands.md names every command, as it is."""

from __future__ import annotations

from tests.cli import commands_page


def test_the_page_is_what_the_programs_know() -> None:
    page = commands_page.PAGE.read_text()
    assert page == commands_page.with_tables(page), "run python -m tests.cli.commands_page"
    assert "`farmer volume drain`" in page and "`renter store`" in page
