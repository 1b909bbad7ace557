"""Small files that are there whole or not at all, for nobody else's eyes."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from shlex import quote
from typing import Any, Final

SMALL_BYTES_MAX: Final = 64 * 1024
"""Our own small files are far smaller; anything larger is not ours."""


def write_whole(path: Path, content: bytes) -> None:
    """Replace *path*, durably; a crash leaves the old content or the new one, 0600."""
    # Not tempfile: its imports cost the fast commands more than all else they do.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replace *path* by a JSON document, as `write_whole`."""
    write_whole(path, json.dumps(document, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in *path*; None if there is none, or nothing readable."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(SMALL_BYTES_MAX))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def may_not_write(path: Path) -> str:
    """Return what to tell the owner of a directory that this user may not make or write."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return (
        f"{user} may not write there. Make it {user}'s with: "
        f"sudo install -d -o {quote(user)} {quote(str(path))}"
    )
