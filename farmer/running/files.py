"""Small files that are there whole or not at all, for nobody else's eyes."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Final

from farmer.storage.errors import NO_SPACE
from farmer.storage.rights import our_name

SMALL_BYTES_MAX: Final = 64 * 1024
"""Our own small files are far smaller; anything larger is not ours."""

_DRAFT: Final = re.compile(r"\.(?P<of>[a-z-]+\.(?:json|yaml))\.(?P<pid>[0-9]{1,9})")
"""Of one of our small files; what an owner hides in a home is named otherwise."""


def write_whole(path: Path, content: bytes) -> None:
    """
    Replace *path*, durably; a crash leaves the old content or the new one.

    Who may read it stays as it was; a new file is 0600, and if root makes it, its directory's
    owner's.  Raises `OSError`, which names *path* where the system names none.
    """
    draft = _draft(path)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _as_before(descriptor, path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    sync_directory(path.parent)


def link_whole(path: Path, target: Path) -> None:
    """Replace *path*, durably, by a link to *target*, which need not be there."""
    draft = _draft(path)
    draft.symlink_to(target)
    draft.replace(path)
    sync_directory(path.parent)


def _draft(path: Path) -> Path:
    """Return where the new content of a file is made ready; nothing is there now."""
    # Not tempfile: its imports cost the fast commands more than all else they do.
    # `draft_of` and `remove_drafts` know it by this name.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    return draft


def draft_of(name: str) -> str:
    """Return the name of the small file that a file of this name is a draft of, if any."""
    found = _DRAFT.fullmatch(name)
    return found["of"] if found else ""


def remove_drafts(directory: Path) -> None:
    """Remove what `write_whole` left in a directory of ours when its process was killed."""
    for path in directory.iterdir():
        found = _DRAFT.fullmatch(path.name)
        if found and not _is_writing(int(found["pid"])):
            path.unlink(missing_ok=True)


def _is_writing(process: int) -> bool:
    """Say whether a process may be at work; we are not, but one before us had our number."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _as_before(descriptor: int, path: Path) -> None:
    """Give a draft the mode of the file that it will replace, and as far as we may its owner."""
    try:
        before = path.lstat()
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        before = None
    like = before or path.parent.stat()
    if os.geteuid() == 0:
        # Root without its powers, in a container, writes as itself.
        with suppress(PermissionError):
            os.fchown(descriptor, like.st_uid, like.st_gid)
    elif before is not None:
        with suppress(PermissionError):
            os.fchown(descriptor, -1, before.st_gid)
    if before is not None:
        # The permissions alone: nothing of ours is ever set-user-id.
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & 0o777)


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


def has_room(write: Callable[[], None]) -> bool:
    """Write something; say whether there was room for it.  Raises `OSError` for all else."""
    try:
        write()
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return False
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in *path*; None if there is none, or nothing readable."""
    try:
        return json_in(path)
    except OSError:
        return None


def json_in(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in *path*, None if it holds none; raises `OSError`."""
    with path.open("rb") as file:
        raw = file.read(SMALL_BYTES_MAX)
    try:
        document = json.loads(raw)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def may_not_write(path: Path) -> str:
    """
    Return what to tell the owner of a directory that this user may not make or write.

    How to make it his is said only of what is his, not there, or empty, as a disk just mounted:
    to take a directory that others use (/srv) is wrong.
    """
    user = our_name()
    if _is_anothers(path):
        return f"{user} may not write there. Use a directory of {user}'s own"
    return (
        f"{user} may not write there. Make it {user}'s with: "
        f"sudo install -d -o {quote(user)} {quote(str(path))}"
    )


def _is_anothers(path: Path) -> bool:
    """Say whether somebody else may have something in a directory."""
    try:
        is_ours = path.stat().st_uid == os.geteuid()
        return not is_ours and not {one.name for one in path.iterdir()} <= {"lost+found"}
    except FileNotFoundError:
        return False
    except OSError:
        return True
