"""The program `farmer`: the owner's words in, words and an exit code out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Final

from farmer.cli import exits
from farmer.cli.apart import in_a_child
from farmer.cli.exits import CommandError
from farmer.cli.owner_grammar import BEFORE_THE_COMMAND, SERVING, parser
from farmer.cli.owner_words import said
from farmer.cli.streams import open_streams
from farmer.cli.terminal import flushed, print_document
from farmer.running.home import Home, HomeError
from farmer.units import counted

NEEDS_NONE: Final = (
    *("owner_settings:init", "owner_settings:schema", "owner_settings:print_example"),
    "owner_status:version",
)
"""What can be done with a settings file that is named but not there (yet)."""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.umask(0o077)
    if words is None:
        open_streams()
    options = _understood(sys.argv[1:] if words is None else words)
    if words is None and options.action != SERVING:
        return in_a_child(partial(_do, options))
    return _do(options)


def _do(options: argparse.Namespace) -> int:
    try:
        home = Home.find(options.home, options.config, os.environ, os.getuid())
        _check_named_settings(home, options.action)
        return _run(options.action, home, options)
    except CommandError as error:
        return _fail(options, str(error), error.code)
    except HomeError as error:
        return _fail(options, str(error))
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not complain at the last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except Exception as error:
        return _translated(options, error)


def _understood(words: Sequence[str]) -> argparse.Namespace:
    """Return what was typed; what is wrong with it ends the program, with the verb's usage."""
    try:
        options, rest = parser().parse_known_args(_with_negatives(words))
        if rest:
            options.verb.error(
                f"unrecognized arguments: {' '.join(rest)}{_misplaced(rest, words)}"
            )
    except SystemExit as end:
        # Help and release are printed by then, and perhaps lost.
        raise SystemExit(flushed(int(end.code or 0), "farmer")) from None
    return options


def _misplaced(rest: Sequence[str], words: Sequence[str]) -> str:
    """Say where options belong that are known, but not there."""
    name = rest[0].partition("=")[0]
    if name not in BEFORE_THE_COMMAND:
        return ""
    command = " ".join(word for word in words if word not in rest)
    return f"; {name} stands before the command: farmer {' '.join(rest)} {command}"


def _with_negatives(words: Sequence[str]) -> list[str]:
    """Join `--space -5GB` to one word, or argparse takes the size for an option and says so."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].startswith("--") and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _check_named_settings(home: Home, action: str) -> None:
    if home.settings_named and not home.settings.exists() and action not in NEEDS_NONE:
        raise CommandError(f"{home.settings}: No such file", exits.BAD_SETTINGS)


def _run(action: str, home: Home, options: argparse.Namespace) -> int:
    module, _, name = action.partition(":")
    command: Callable[[Home, argparse.Namespace], int]
    command = getattr(import_module(f"farmer.cli.{module}"), name)
    return command(home, options)


def _translated(options: argparse.Namespace, error: Exception) -> int:
    """Turn the errors of the slow imports into words; what is left is our bug."""
    from farmer.identity.keys import IdentityError
    from farmer.running.caller import FarmerRefusedError
    from farmer.running.locks import HomeLockedError
    from farmer.settings.loader import SettingsError
    from farmer.storage.directory import VolumeSetupError
    from farmer.storage.errors import StorageError

    match error:
        case SettingsError():
            print(error, file=sys.stderr)
            mistakes = counted(len(error.faults), "mistake")
            faults = [str(fault) for fault in error.faults]
            return _fail(options, f"{mistakes} in the settings", exits.BAD_SETTINGS, faults=faults)
        case HomeLockedError() | FarmerRefusedError():
            return _fail(options, str(error))
        case IdentityError() | StorageError() | VolumeSetupError() | ValueError() | OSError():
            return _fail(options, said(error))
        case _:
            raise error


def _fail(
    options: argparse.Namespace, message: str, code: int = exits.FAILED, **more: object
) -> int:
    print(f"farmer: {message}", file=sys.stderr)
    if options.json:
        # If it is the output that fails, the last flush tells it.
        with suppress(OSError):
            print_document({"error": message} | more)
    return code


if __name__ == "__main__":
    sys.exit(main())
