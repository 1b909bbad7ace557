"""`renter version`: apart from the other verbs, so that it imports nothing that is slow."""

from __future__ import annotations

import argparse

from farmer.cli.exits import OK
from farmer.cli.terminal import print_document, say
from farmer.version import VERSION, build, release_words


def version(_home: None, options: argparse.Namespace) -> int:
    """Show the release, and which build of it."""
    if options.json:
        print_document({"version": VERSION, "build": build()})
    else:
        say(f"renter {release_words(VERSION, build())}")
    return OK
