"""What the owner is told when a command cannot be done."""

from __future__ import annotations


class OwnerError(Exception):
    """Not possible; the text is shown to the owner: what happened, what to do."""


def system_words(error: OSError) -> str:
    """Return what the system says, and of which file if it names one."""
    named = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{named}"
