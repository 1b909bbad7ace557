"""The three standard streams, as a program counts on them."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_streams() -> None:
    """
    Open those that were closed when the program was begun, on nothing; let all be printed.

    Python has None in their place, of which no question can be asked; and their numbers would
    go to the next files that are opened, a volume's perhaps.
    """
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            # The lowest number that is free: this one's, for those before it are open.
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode))
    # A name that has no letters here is better escaped than not told, with all that follows.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
