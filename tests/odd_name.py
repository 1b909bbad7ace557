"""This process by a name that is no text, as its system shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NAME: Final = Path("/proc/self/comm")


@contextmanager
def named_oddly() -> Iterator[None]:
    """Name it by bytes of no encoding, and a bracket; the kernel cuts longer names anywhere."""
    before = _NAME.read_bytes()
    _NAME.write_bytes(b"\xc3\xff) R 1")
    try:
        yield
    finally:
        _NAME.write_bytes(before)
