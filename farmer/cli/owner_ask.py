"""Asking the running farmer, or doing it ourselves under the home's lock when none runs."""

from __future__ import annotations

from typing import Any

from farmer.cli.exits import NOT_RUNNING, CommandError
from farmer.running.caller import NotRunningError, call
from farmer.running.home import Home


def ask_running(home: Home, verb: str, words: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    Return the running farmer's answer.

    Raises:
        CommandError: none runs.
        FarmerRefusedError: it says no, or nothing.

    """
    try:
        return call(home, verb, words)
    except NotRunningError as error:
        message = f"{error}; start it with: {home.command('run')}"
        raise CommandError(message, NOT_RUNNING) from error


def must_be_there(home: Home) -> None:
    """
    Make sure that a farmer has lived in this home: a slip must not make another one.

    Raises:
        CommandError: none has.
        HomeError: it is somebody else's.

    """
    if not home.exists:
        home.check()
        raise CommandError(
            f"there is no farmer in {home.state} yet. Name the home of one with --home, or make "
            f"one with: {home.command('init')}, or {home.command('run')}"
        )


def ask(home: Home, verb: str, words: dict[str, Any]) -> dict[str, Any]:
    """
    Return the answer of the running farmer, else do *verb* here, under the home's lock.

    Raises:
        CommandError: it cannot be done here, or there is no farmer.
        FarmerRefusedError: the farmer says no, or nothing.

    """
    must_be_there(home)
    try:
        return call(home, verb, words)
    except NotRunningError:
        return _do_here(home, verb, words)


def _do_here(home: Home, verb: str, words: dict[str, Any]) -> dict[str, Any]:
    from farmer.cli.owner_settings import load_settings
    from farmer.running.errors import OwnerError
    from farmer.running.locks import lock_to_change
    from farmer.running.offline import do

    settings = load_settings(home).settings
    with lock_to_change(home):
        try:
            return do(home, settings, verb, words)
        except OwnerError as error:
            raise CommandError(str(error)) from error
