"""The one place that names the release, which build of it runs, and what programs may count on."""

from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

VERSION = "0.1.0"

SCHEMA: Final = 1
"""
Stands in all JSON documents that are printed or answered.

Raised when a field changes its meaning or goes; new fields may come at any time.
"""

_BUILD_BYTES: Final = 4


@cache
def build() -> str:
    """
    Return 8 hex digits of the program's own text as it lies on the disk, however it came there.

    The same text has the same digits, from a checkout, an archive or a wheel; any other differs.
    A farmer asks when it starts: later another build may lie there.  Takes some 20 ms.
    """
    return digest_of(Path(__file__).parent)


def release_words(version: str, build: str) -> str:
    """Return a release and its build for a person; without one whose text could not be read."""
    return f"{version} build {build}" if build else version


def digest_of(package: Path) -> str:
    """Return the digits of the Python files below a directory; empty if they cannot be read."""
    digest = blake2b(digest_size=_BUILD_BYTES)
    try:
        for path in sorted(package.rglob("*.py")):
            content = path.read_bytes()
            # With its length, so that no line can go from one file to the next unseen.
            digest.update(f"{path.relative_to(package)} {len(content)}\n".encode())
            digest.update(content)
    except OSError:
        return ""
    return digest.hexdigest()
