"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path


def absolute(typed: str | Path) -> Path:
    """
    Return a path that means the same everywhere; `~` and `~user` at its beginning are homes.

    Raises:
        ValueError: this machine knows no such user, or no home of who we are.

    """
    try:
        return Path(typed).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"{str(typed)!r}: this machine does not know where {Path(typed).parts[0]} is; write "
            "the whole path, like /srv/farmer"
        ) from error
