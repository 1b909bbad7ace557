"""`renter store`: many files over a few connections, one row for each, whatever happens."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from typing import Any, Final, cast

from twisted.internet.defer import DeferredList, DeferredSemaphore
from twisted.python.failure import Failure

from farmer.cli.exits import FAILED, INTERRUPTED, OK, USAGE, CommandError
from farmer.cli.renter_damage import no_room_beside
from farmer.cli.renter_sources import STANDARD_INPUT, Sources
from farmer.cli.renter_waiting import told_in
from farmer.cli.tables import visible
from farmer.cli.terminal import ProgressLine, print_json, say, warn
from farmer.client import blocking
from farmer.client.dial import FarmerAddress
from farmer.client.errors import (
    ClientError,
    ConnectionFailedError,
    ConnectionLostError,
    FarmerTooSlowError,
)
from farmer.client.farmer import Farmer, connect
from farmer.client.home import Home
from farmer.client.limits import SESSIONS_MAX
from farmer.client.refusals import NoSpaceError, RefusedError, ShardTooLargeError
from farmer.model.contract import Contract, Receipt
from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.units import format_size, two_sizes

_AS_THEY_ARE: Final = (
    "renter: files are stored as they are, and the farmer can read them: encrypt what is "
    "private first (this is said once)"
)

_SPLIT_UNITS: Final = (("M", 1024 * 1024), ("K", 1024))
"""As `split` counts."""


@dataclass(slots=True)
class Row:
    """What became of one file."""

    file: str
    shard: ShardId | None = None
    size_bytes: int | None = None
    error: str | None = "interrupted before it was stored"
    refusal: RefusedError | None = None
    may_go_on: bool = False
    """Whether it was the connection that failed: the farmer may have a part of it."""

    def as_json(self) -> dict[str, object]:
        """Return the row that other programs read."""
        return {
            "file": self.file,
            "shard": None if self.shard is None else str(self.shard),
            "size_bytes": self.size_bytes,
            "stored": self.error is None,
            "error": self.error,
            "refusal": self.refusal and self.refusal.as_json(),
        }

    def refused(self, error: RefusedError) -> None:
        """Tell what the farmer said, and what can be done about it."""
        if isinstance(error, ShardTooLargeError):
            error = error.said_as(_too_large(self.file, error))
        self.error, self.refusal = str(error), error


def store(home: Home, options: argparse.Namespace) -> int:
    """Store the files; return 1 if any was not stored, 130 if that was an interruption."""
    if options.files.count(STANDARD_INPUT) > 1:
        raise CommandError("standard input can be read only once: name - once", USAGE)
    address = home.farmer(options.farmer)
    rows = [Row(file) for file in options.files]
    line = ProgressLine("storing")
    unstored = FAILED
    try:
        blocking.run(lambda reactor: _store_all(home, address, rows, line, reactor))
    except KeyboardInterrupt:
        warn("renter: interrupted; type the same again to store what is missing")
        unstored = INTERRUPTED
    finally:
        line.clear()
    if options.json:
        print_json([row.as_json() for row in rows])
    else:
        for row in rows:
            _show(row)
        if any(row.may_go_on for row in rows):
            warn("renter: type the same again later; what the farmer has is not sent again")
    return OK if all(row.error is None for row in rows) else unstored


async def _store_all(
    home: Home,
    address: FarmerAddress,
    rows: list[Row],
    line: ProgressLine,
    reactor: Any,  # noqa: ANN401 - a reactor is many interfaces at once
) -> None:
    gate = DeferredSemaphore(SESSIONS_MAX)
    async with connect(address, home.identity, reactor, told_in(line)) as farmer:
        storing = _Storing(home, farmer, line)
        # All to their ends, also when one is interrupted: they need the connection until then.
        stores = DeferredList([gate.run(storing.one, row) for row in rows], consumeErrors=True)
        for is_done, failure in await stores:
            if not is_done:
                cast(Failure, failure).raiseException()


class _Storing:
    """The stores of one call."""

    def __init__(self, home: Home, farmer: Farmer, line: ProgressLine) -> None:
        self._home = home
        self._farmer = farmer
        self._line = line
        self._sources = Sources()
        self._unreachable = 0

    async def one(self, row: Row) -> None:
        """Store one file; all that can go wrong stands in its row."""
        try:
            await self._store(row)
            self._unreachable = 0
        except (ConnectionFailedError, FarmerTooSlowError) as error:
            self._unreachable += 1
            row.error, row.may_go_on = str(error), True
        except ConnectionLostError as error:
            row.error, row.may_go_on = str(error), True
        except RefusedError as error:
            row.refused(await self._explained(row, error))
        except ClientError as error:
            row.error = str(error)
        except OSError as error:
            row.error = error.strerror or str(error)

    async def _store(self, row: Row) -> None:
        door = self._farmer.door
        file, path = await door.run(self._sources.open, row.file)
        try:
            source = await self._farmer.hash(file)
            row.shard, row.size_bytes = source.shard, source.size_bytes
            if self._unreachable >= SESSIONS_MAX:
                # The others would wait for the same silence, one after the other.
                raise ConnectionFailedError(
                    "the farmer could not be reached, or was silent, for other files"
                )
            await door.run(self._warn_once)
            progress = self._line.of(id(row), source.size_bytes)
            before = await door.run(self._home.ledger.contract, self._farmer.node_id)
            receipt = await self._farmer.store_hashed(source, progress)
            await door.run(self._keep, row, receipt, path, before)
        finally:
            await door.run(file.close)

    async def _explained(self, row: Row, error: RefusedError) -> RefusedError:
        """Return a refusal in better words, if the farmer knows more of the shard."""
        farmer, shard = self._farmer, row.shard
        if not isinstance(error, NoSpaceError) or shard is None:
            return error
        if await farmer.door.run(self._home.entry, shard, str(farmer.node_id)) is None:
            # Never stored there: it is not damaged, either.
            return error
        try:
            stated = await farmer.stat(shard)
        except ClientError:
            return error
        is_damaged = stated.state is ShardState.QUARANTINED
        return no_room_beside(shard, error) if is_damaged else error

    def _keep(self, row: Row, receipt: Receipt, path: str, before: Contract | None) -> None:
        """
        Keep a receipt: from then on the file is stored, also if nobody waits any more.

        *before*: see `Home.keep`.
        """
        self._home.keep(self._farmer.node_id, receipt, path, before)
        row.error = None

    def _warn_once(self) -> None:
        if self._home.ledger.tell_once("stored as they are"):
            warn(_AS_THEY_ARE)


def _too_large(file: str, error: ShardTooLargeError) -> str:
    """Return what happened and the command that helps, with parts that the farmer takes."""
    name = file if file == STANDARD_INPUT else shlex.quote(file)
    largest = error.allowed_bytes
    part = next(
        (f"{largest // unit}{letter}" for letter, unit in _SPLIT_UNITS if largest >= unit),
        str(largest),
    )
    has, takes = two_sizes(error.declared_bytes, largest)
    return (
        f"it has {has}, this farmer takes {takes} at most: split it (split -b {part} {name} "
        "part-), or the owner raises shards.size_max"
    )


def _show(row: Row) -> None:
    if row.error is None:
        say(f"{row.shard}  {format_size(row.size_bytes or 0)}  {visible(row.file)}")
    else:
        warn(visible(f"renter: {row.file} was not stored: {row.error}"))
