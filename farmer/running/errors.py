"""What the owner is told when a command cannot be done."""

from __future__ import annotations

from farmer.storage.errors import NO_SPACE


class OwnerError(Exception):
    """Not possible; the text is shown to the owner: what happened, what to do."""


def system_words(error: OSError) -> str:
    """Return what the system says, of which file if it names one, and what mends a full disk."""
    named = f": {error.filename}" if error.filename else ""
    where = "that disk" if named else "the disk"
    mended = f"; free space on {where}" if error.errno in NO_SPACE else ""
    return f"{error.strerror or error}{named}{mended}"
