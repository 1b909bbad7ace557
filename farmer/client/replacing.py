"""A file that is written beside another and gets its name: what it is called, who may read it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 100
"""Of the other's name: with a tag it fits where names have the fewest bytes (eCryptfs: 143)."""

_OURS: Final = 0o600
"""What we need to write a draft, and to go on with it later."""

_ACL: Final = "system.posix_acl_access"
"""Where Linux keeps who else may read a file, by name."""

_NO_ACL: Final = (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS)
"""A file has none, or its file system knows none."""

_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""A file system knows no file with two names: FAT, some networks."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Whose a file is, and who may do what with it."""

    uid: int
    gid: int
    mode: int
    """The permissions alone: other bytes are no longer what was made set-user-id."""
    acl: bytes | None
    """As the system has it; `mode` has its mask in place of the group's bits then."""

    @classmethod
    def of(cls, target: Path) -> Rights | None:
        """Return those of a file, or None where there is none; of its links the last."""
        try:
            status = target.stat()
        except FileNotFoundError:
            return None
        known = cls(status.st_uid, status.st_gid, _permissions(status), None)
        try:
            return replace(known, acl=os.getxattr(target, _ACL))
        except OSError as error:
            return known if error.errno in _NO_ACL else known.without_group()

    def without_group(self) -> Rights:
        """Return those without the bits that can be a group's, or the mask of an ACL."""
        return replace(self, mode=self.mode & ~stat.S_IRWXG)

    def of_another_group(self) -> Rights:
        """Return those that give nobody more, now that the group's people are all others."""
        common = (self.mode >> 3) & self.mode & stat.S_IRWXO
        return replace(self, mode=self.mode & stat.S_IRWXU | common << 3 | common)


def followed(target: Path) -> Path:
    """
    Return the file that a name stands for, links and all.

    Raises:
        OSError: they lead round in a circle, or it cannot be looked at.

    """
    with suppress(FileNotFoundError):
        target.stat()
    return Path(os.path.realpath(target))


def beside(target: Path, tag: str) -> Path:
    """Return a name for the draft of a target: hidden, and short enough for any file system."""
    return target.with_name(f".{_beginning(target.name)}.{tag}.part")


def mode_of_new(target: Path) -> int:
    """Return the mode to make a draft with: nobody's but ours where it replaces something."""
    return _OURS if target.exists() else 0o666


def guard(descriptor: int, target: Path) -> None:
    """Let nobody but us read a draft that will replace something."""
    rights = Rights.of(target)
    if rights is not None:
        _set_mode(descriptor, _OURS, at_most=rights.mode | _OURS)


def give_name(descriptor: int, draft: Path, target: Path) -> None:
    """
    Give a draft the name, the mode, the owner, the group and the ACL of what it replaces.

    What it may not get of them takes rights from others, and never gives any.  Who replaces
    nothing keeps the mode that the umask gave.  Its bytes are durable before; the name is when
    the directory is.  If anything fails the draft is there as before, and ours alone.
    """
    os.fsync(descriptor)
    rights = Rights.of(target)
    if rights is None:
        draft.replace(target)
        return
    try:
        _hand_over(descriptor, rights)
        draft.replace(target)
    except BaseException:
        _take_back(descriptor)
        raise


def give_new_name(descriptor: int, draft: Path, target: Path) -> None:
    """
    Give a draft a name as `give_name` does, but never in place of anything.

    Raises:
        FileExistsError: something has the name; the draft is there as before.

    """
    os.fsync(descriptor)
    try:
        target.hardlink_to(draft)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The next best: two programs that look in the same moment both see nothing.
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        draft.replace(target)
        return
    draft.unlink()


def _hand_over(descriptor: int, rights: Rights) -> None:
    """The mode comes last: until then nobody opens the draft who is not named in the ACL."""
    _give(descriptor, rights.uid, rights.gid)
    if os.fstat(descriptor).st_gid != rights.gid:
        rights = rights.of_another_group()
    if not _set_acl(descriptor, rights.acl):
        rights = rights.without_group()
    _set_mode(descriptor, rights.mode, at_most=rights.mode)


def _take_back(descriptor: int) -> None:
    _give(descriptor, os.geteuid(), -1)
    with suppress(OSError):
        os.fchmod(descriptor, _OURS)


def _give(descriptor: int, uid: int, gid: int) -> None:
    """
    Change owner and group as far as we may.

    Only root gives files away.  A user namespace says EINVAL for who has no number in it, and
    what is mounted from elsewhere ENOSYS or EOPNOTSUPP for all.
    """
    status = os.fstat(descriptor)
    if gid not in (-1, status.st_gid):
        with suppress(OSError):
            os.fchown(descriptor, -1, gid)
    if uid != status.st_uid:
        with suppress(OSError):
            os.fchown(descriptor, uid, -1)


def _set_acl(descriptor: int, acl: bytes | None) -> bool:
    """Give a draft an ACL, or take from it what its directory gave; return whether it is so."""
    try:
        if acl is None:
            os.removexattr(descriptor, _ACL)
        else:
            os.setxattr(descriptor, _ACL, acl)
    except OSError as error:
        return acl is None and error.errno in _NO_ACL
    return True


def _set_mode(descriptor: int, mode: int, *, at_most: int) -> None:
    """
    Set the permissions.

    A file system without modes refuses any change: it may have its way where nobody has more
    than at most so much.
    """
    there = _permissions(os.fstat(descriptor))
    if there == mode:
        return
    try:
        os.fchmod(descriptor, mode)
    except OSError:
        if there & ~at_most:
            raise


def _beginning(name: str) -> str:
    """Cut a name to so many bytes, and no letter in two."""
    name = name[:_HEAD_BYTES]
    while len(os.fsencode(name)) > _HEAD_BYTES:
        name = name[:-1]
    return name


def _permissions(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode) & 0o777
