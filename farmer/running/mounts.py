"""What is mounted, as the kernel lists it: asking no disk, for that might not answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")

_MOUNT_POINT: Final = 4
"""Which word of a line (proc_pid_mountinfo(5))."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def mount_point(path: Path, mounts: Path = MOUNTS) -> Path | None:
    """
    Return the mount point that a path without links lies below; None where nobody lists them.

    It says which filesystem was meant: below a directory whose disk is not mounted any more,
    it is another one.
    """
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    points = [Path(_unescaped(line.split(" ")[_MOUNT_POINT])) for line in lines]
    above = [point for point in points if path.is_relative_to(point)]
    return max(above, key=lambda point: len(point.parts), default=None)


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
