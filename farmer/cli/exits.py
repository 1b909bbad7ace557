"""How a program of ours ends: exit codes, and the errors that lead to them."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
DEGRADED: Final = 4
CRITICAL: Final = 5
BAD_SETTINGS: Final = 78
"""EX_CONFIG of sysexits.h; systemd is told not to restart after it."""

UNANSWERED: Final = 4
"""`renter audit`: nothing failed, but not all was answered; the other programs' "degraded"."""

INTERRUPTED: Final = 130


class CommandError(Exception):
    """The command failed: what happened, what it means, what to do."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
