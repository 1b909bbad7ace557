"""What is stored: files where they lie, and what can be read only once, put aside first."""

from __future__ import annotations

import errno
import os
import select
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from farmer.cli.renter_room import room_aside
from farmer.client.descriptors import descriptor_of, is_inherited
from farmer.model.shard import SHARD_BYTES_MAX
from farmer.protocol.limits import DATA_BYTES_SENT
from farmer.units import format_size

STANDARD_INPUT: Final = "-"

_NO_PLACES: Final = (Path("/dev"), Path("/proc"))
"""A name in there is another file's tomorrow, or nobody's."""


class Sources:
    """
    The files of one command.

    A pipe, a terminal or a socket is read by whoever named it first: a second reader would take
    a part of the bytes from the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: set[tuple[int, int]] = set()

    def open(self, name: str) -> tuple[BinaryIO, str]:
        """
        Return a file to read twice, and the path at which it can be found again, or nothing.

        Blocking; the caller closes the file.  Raises `OSError`.
        """
        file = _opened(name)
        if file.seekable():
            return file, _lasting(name)
        with file:
            self._claim(file)
            return _put_aside(file), ""

    def _claim(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        stream = (status.st_dev, status.st_ino)
        with self._lock:
            if stream in self._streams:
                raise OSError(errno.EBUSY, "it can be read only once, and was named before")
            self._streams.add(stream)


def _opened(name: str) -> BinaryIO:
    number = 0 if name == STANDARD_INPUT else descriptor_of(name)
    if number is not None and not is_inherited(number):
        # Something that we opened ourselves has its number.
        raise OSError(errno.EBADF, "standard input is closed" if number == 0 else "it is closed")
    if name != STANDARD_INPUT:
        return cast(BinaryIO, Path(name).open("rb"))
    # Not sys.stdin.buffer, which Python closes at its end, and waits for whoever reads it.
    return cast(BinaryIO, os.fdopen(0, "rb", closefd=False))


def _lasting(name: str) -> str:
    """Return the absolute path, or nothing for what has that name only now."""
    path = Path(name).absolute()
    if name == STANDARD_INPUT or descriptor_of(name) is not None:
        return ""
    return "" if any(path.is_relative_to(one) for one in _NO_PLACES) else str(path)


def _put_aside(stream: BinaryIO) -> BinaryIO:
    """Return a file without a name, for our eyes only, that holds what the stream brings."""
    aside = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        with room_aside():
            _copy(stream, aside)
            aside.seek(0)
    except OSError:
        # What could not be written is tried again by the close.
        with suppress(OSError):
            aside.close()
        raise
    return aside


def _copy(stream: BinaryIO, aside: BinaryIO) -> None:
    size_bytes = 0
    while (part := stream.read(DATA_BYTES_SENT)) != b"":
        if part is None:
            # Whoever has the other end made it one that does not wait: nothing came yet.
            _wait_for(stream)
            continue
        size_bytes += len(part)
        if size_bytes > SHARD_BYTES_MAX:
            raise OSError(
                errno.EFBIG,
                f"it has more than {format_size(SHARD_BYTES_MAX)}, as much as a shard can: "
                "split it (... | split -b 64M - part-)",
            )
        aside.write(part)


def _wait_for(stream: BinaryIO) -> None:
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    poll.poll()
