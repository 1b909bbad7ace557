"""`farmer run`: serve, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys

from farmer.cli.exits import CommandError
from farmer.cli.owner_settings import load_settings
from farmer.running.home import Home
from farmer.running.locks import WAIT_S, HomeLock, HomeLockedError, lock_of


def run(home: Home, _options: argparse.Namespace) -> int:
    """Serve until a signal; return the exit code."""
    home.check()
    home = home.keeping_settings()
    loaded = load_settings(home)
    home.make()
    lock = _taken(home)
    try:
        home.tidy()
        # Late: the reactor and TLS take a quarter of a second to import.
        from farmer.app import CannotServeError, serve

        try:
            return serve(home, loaded.settings, os.environ, lock.give_back)
        except CannotServeError as error:
            raise CommandError(str(error)) from error
    finally:
        lock.give_back()


def _taken(home: Home) -> HomeLock:
    """Return the home's lock; who holds it may be ending just now, and is waited for."""
    lock = lock_of(home)
    try:
        lock.take()
    except HomeLockedError as error:
        who = f"process {error.pid}" if error.pid is not None else "another process"
        print(f"farmer: {home.state} is in use by {who}, is it about to end?", file=sys.stderr)
    else:
        return lock
    try:
        lock.take(WAIT_S)
    except HomeLockedError as error:
        raise CommandError(str(error)) from error
    return lock
