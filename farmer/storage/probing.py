"""Trying whether a directory can be written: only a write that was synced can tell."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from farmer.storage.files import Access, Files

PROBE_BYTES: Final = 4096


def probe(files: Files, path: Path) -> bool:
    """Say whether a small file can be written there, synced and read back."""
    written = secrets.token_bytes(PROBE_BYTES)
    try:
        fd = files.open(path, Access.ENSURE)
        try:
            files.pwritev(fd, [written], 0)
            files.sync_data(fd)
            found = files.pread(fd, PROBE_BYTES, 0)
        finally:
            files.close(fd)
        files.unlink(path)
    except OSError:
        return False
    return found == written
