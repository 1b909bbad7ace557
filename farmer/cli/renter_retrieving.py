"""`renter retrieve`: a file appears under its name only when its bytes are known to be right."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from farmer.cli.exits import OK, USAGE, CommandError
from farmer.cli.renter_damage import mendable
from farmer.cli.renter_draft import Draft
from farmer.cli.renter_room import room_aside, room_for
from farmer.cli.renter_trash import not_found
from farmer.cli.renter_waiting import told_in
from farmer.cli.tables import visible
from farmer.cli.terminal import ProgressLine, print_document, say, warn
from farmer.client import blocking
from farmer.client.descriptors import descriptor_of, is_inherited
from farmer.client.errors import ConnectionFailedError, ConnectionLostError
from farmer.client.farmer import connect
from farmer.client.home import Home
from farmer.client.refusals import (
    BusyError,
    CorruptError,
    DrainingError,
    NotFoundError,
    TooManySessionsError,
    TooSlowError,
    UnavailableError,
)
from farmer.client.replacing import followed, give_new_name
from farmer.client.retrieving import Retrieval, Wanted
from farmer.units import format_size

_STANDARD_OUTPUT: Final = "-"

_DIRECTORY_ENDS: Final = ("/", "/.", "/..")
"""So ends what can only be meant for a directory; a `Path` forgets the first two."""

_PASSING: Final = (
    *(ConnectionLostError, ConnectionFailedError, BusyError, DrainingError),
    *(TooManySessionsError, TooSlowError, UnavailableError),
)
"""What says nothing against the bytes that came: one can go on later."""


@dataclass(frozen=True, slots=True)
class Target:
    """The file to appear, and whether somebody typed its name."""

    path: Path
    is_typed: bool

    def expect(self, size_bytes: int | None) -> None:
        """Refuse at once what would be refused at the end: a file of another size is there."""
        if self._is_precious and size_bytes not in (None, self.path.stat().st_size):
            raise self._refusal()

    def take(self, draft: Draft) -> int:
        """
        Publish a draft; return its size in bytes.

        Refuses one that would replace other bytes under a name that nobody typed, also where
        these came in the same moment.
        """
        if not self.is_typed:
            with suppress(FileExistsError):
                return draft.publish(give_new_name)
            if self._is_precious and not draft.holds_what_is_there():
                raise self._refusal()
        return draft.publish()

    @property
    def _is_precious(self) -> bool:
        return not self.is_typed and self.path.exists()

    def _refusal(self) -> CommandError:
        return CommandError(
            f"{self.path} is there already with other bytes, and is left as it is: say where to"
            " write with -o FILE"
        )


def retrieve(home: Home, options: argparse.Namespace) -> int:
    """Fetch a shard, or a part of it, to a file or to standard output."""
    shard = home.shard(options.shard)
    entry = home.entry(shard, options.farmer)
    size_bytes = None if entry is None else entry.receipt.size_bytes
    part = options.offset > 0 or options.length is not None
    wanted = Wanted(shard, options.offset, options.length, part, size_bytes)
    output = _output(options.output, as_json=options.json)
    target = _target(output, wanted, "" if entry is None else entry.file)
    fetch = _Fetch(home, options, wanted)
    written_bytes = fetch.to_stream(output) if target is None else fetch.to_file(target)
    if options.json:
        file = output if target is None else str(target.path)
        row = {"file": file, "size_bytes": written_bytes}
        print_document({"shard": str(shard), **row})
    elif target is not None:
        say(f"{format_size(written_bytes)} written to {visible(str(target.path))}")
    return OK


class _Fetch:
    """One retrieve at the command line."""

    def __init__(self, home: Home, options: argparse.Namespace, wanted: Wanted) -> None:
        self._home = home
        self._address = home.holder(wanted.shard, options.farmer)
        self._wanted = wanted

    def to_file(self, target: Target) -> int:
        """Write beside the target and rename when all is checked; return the size in bytes."""
        elsewhere = "free some there, or write to another disk with -o FILE"
        with room_for(f"for {target.path}", elsewhere):
            return self._to_file(target)

    def _to_file(self, target: Target) -> int:
        keep_bytes = (self._wanted.size_bytes or 0) if self._is_resumable else 0
        target.expect(_size_bytes(self._wanted))
        draft = Draft(target.path, self._wanted.shard, keep_bytes)
        try:
            self._run(draft.file)
        except (*_PASSING, KeyboardInterrupt):
            self._leave(draft)
            raise
        except BaseException:
            draft.discard()
            raise
        try:
            return target.take(draft)
        except BaseException:
            # What the disk did not take still looks whole in the cache, and the next to make it
            # durable would be told that it is.
            draft.discard()
            raise

    def _leave(self, draft: Draft) -> None:
        """Keep what came for the next time, if that can go on from there; say which."""
        has_come = draft.file.seek(0, os.SEEK_END) > 0
        if has_come and self._is_resumable:
            draft.file.close()
            warn("renter: what has arrived is kept; type the same again to go on")
            return
        draft.discard()
        if has_come:
            warn("renter: what has arrived is not kept: only of a whole shard that you stored")

    def to_stream(self, name: str) -> int:
        """Keep the bytes aside until all are checked, then pass them on; return how many."""
        with room_aside():
            spool = self._put_aside()
        with spool:
            written_bytes = spool.seek(0, os.SEEK_END)
            spool.seek(0)
            with _stream(name) as stream:
                shutil.copyfileobj(spool, stream)
        return written_bytes

    def _put_aside(self) -> BinaryIO:
        """Return a file without a name that holds the bytes, all of them checked."""
        spool = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
        try:
            self._run(spool)
        except BaseException:
            # What could not be written is tried again by the close.
            with suppress(OSError):
                spool.close()
            raise
        return spool

    @property
    def _is_resumable(self) -> bool:
        wanted = self._wanted
        return wanted.size_bytes is not None and (wanted.offset, wanted.length) == (0, None)

    def _run(self, file: BinaryIO) -> None:
        line = ProgressLine("retrieving")
        try:
            blocking.run(lambda reactor: self._retrieve(file, line, reactor))
        finally:
            line.clear()

    async def _retrieve(self, file: BinaryIO, line: ProgressLine, reactor: Any) -> None:  # noqa: ANN401 - a reactor is many interfaces at once
        retrieval = Retrieval(self._wanted, file)
        async with connect(self._address, self._home.identity, reactor, told_in(line)) as farmer:
            if self._is_resumable:
                await farmer.door.run(retrieval.adopt, file)
            try:
                await farmer.carry_out(retrieval, line.of("shard"))
            except NotFoundError as error:
                raise await not_found(farmer, self._wanted.shard, error) from None
            except CorruptError as error:
                wanted = self._wanted
                raise mendable(error, wanted.shard, wanted.size_bytes, farmer.node_id) from None
            await farmer.door.run(file.flush)


def _output(typed: str, *, as_json: bool) -> str:
    """Return what was typed, or the one name of standard output; refuse where bytes do harm."""
    number = 1 if typed in ("", _STANDARD_OUTPUT) else descriptor_of(typed)
    if number is not None and not is_inherited(number):
        raise CommandError(f"{'standard output' if number == 1 else typed} is closed")
    if number == 1 and as_json:
        raise CommandError(
            "with --json standard output is for the answer: say where the bytes go with -o FILE",
            USAGE,
        )
    if not typed and sys.stdout.isatty():
        raise CommandError(
            "standard output is a terminal, which the bytes of a shard can garble: say where they "
            "go with -o FILE, or that you want them here with -o -",
            USAGE,
        )
    return _STANDARD_OUTPUT if number == 1 else typed


def _target(output: str, wanted: Wanted, stored_from: str) -> Target | None:
    """Return the file to appear, or None for a stream: a pipe, a device, what is open already."""
    if output == _STANDARD_OUTPUT:
        return None
    path = Path(output)
    if path.is_dir():
        return Target(path / _implied_name(wanted, stored_from), is_typed=False)
    if output.endswith(_DIRECTORY_ENDS):
        raise CommandError(
            f"{output} is not a directory: make it first (mkdir -p), or type no slash at the end"
            " for a file of that name"
        )
    if descriptor_of(output) is not None:
        return None
    if path.exists() and not path.is_file():
        return None
    if not path.parent.is_dir():
        raise CommandError(f"there is no directory {path.parent}: make it first (mkdir -p)")
    return Target(followed(path), is_typed=True)


@contextmanager
def _stream(name: str) -> Iterator[BinaryIO]:
    """Open what is no file to appear; what is open already is written to from where it stands."""
    if name == _STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    number = descriptor_of(name)
    with open(name if number is None else os.dup(number), "wb") as stream:  # noqa: PTH123 - or a number
        yield stream


def _implied_name(wanted: Wanted, stored_from: str) -> str:
    """Return the name that a shard was stored from, else its id; of a part, with its range."""
    name = Path(stored_from).name or str(wanted.shard)
    if (wanted.offset, wanted.length) == (0, None):
        return name
    size_bytes = _size_bytes(wanted)
    end = "end" if size_bytes is None else wanted.offset + size_bytes
    return f"{name}.{wanted.offset}-{end}"


def _size_bytes(wanted: Wanted) -> int | None:
    """Return how many bytes have to come, if that is known before."""
    if wanted.length is not None or wanted.size_bytes is None:
        return wanted.length
    return max(0, wanted.size_bytes - wanted.offset)
