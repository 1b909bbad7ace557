"""What the owner is told when a command cannot be done."""

from __future__ import annotations


class OwnerError(Exception):
    """Not possible; the text is shown to the owner: what happened, what to do."""
