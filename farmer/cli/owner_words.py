"""What the owner's commands say when something is wrong, or may soon be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

RELOAD: Final = (
    "a reload applies it: systemctl reload farmer, or kill -HUP with the process id that farmer "
    "status shows"
)
"""How settings that were edited come into force."""


def warn(text: str) -> None:
    """Print what the owner had better know, beside the answer."""
    print(f"farmer: warning: {text}", file=sys.stderr)


def said(error: Exception) -> str:
    """Return an error for a person; a lack of rights with what mends it."""
    from farmer.running.errors import system_words
    from farmer.running.files import may_not_write

    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: {may_not_write(Path(error.filename).parent)}"
    if isinstance(error, OSError):
        return system_words(error)
    return str(error) or type(error).__name__
