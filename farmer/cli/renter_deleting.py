"""`renter delete` and `undelete`: of several shards each for itself, whatever others end with."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from farmer.cli.exits import FAILED, INTERRUPTED, OK
from farmer.cli.renter_asking import ask, check_size, shard_row, shard_text
from farmer.cli.renter_trash import ENDED
from farmer.cli.tables import visible
from farmer.cli.terminal import print_document, print_json, say, warn
from farmer.client.dial import FarmerAddress
from farmer.client.errors import ClientError, ConnectionFailedError, FarmerTooSlowError
from farmer.client.farmer import Farmer
from farmer.client.home import Home
from farmer.client.ledger_rows import Standing
from farmer.client.refusals import NoSpaceError, NotFoundError, RefusedError
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import DeletionOutcome
from farmer.protocol.questions import Deleted
from farmer.units import format_moment

_OUTCOMES: Final = {
    DeletionOutcome.TRASHED: "trashed",
    DeletionOutcome.ERASED: "erased",
    DeletionOutcome.ERASED_AT_COMPACTION: "erased at the next compaction",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What was done with a shard: for programs, and for people."""

    row: dict[str, object]
    text: str


Doing = Callable[[Farmer, ShardId], Coroutine[Any, Any, Done]]
"""Has one shard deleted or undeleted, and notes it; raises `ClientError`."""


@dataclass(slots=True)
class Row:
    """What became of one shard that was typed."""

    shard: ShardId
    farmer: FarmerAddress
    done: Done | None = None
    error: ClientError | None = None
    """Why not; if there is neither, it was interrupted."""

    def as_json(self) -> dict[str, object]:
        """Return the row that other programs read, of several."""
        if self.done is not None:
            return self.done.row | {"error": None, "refusal": None}
        refusal = self.error.as_json() if isinstance(self.error, RefusedError) else None
        named: dict[str, object] = {"farmer": str(self.farmer.farmer), "shard": str(self.shard)}
        return named | {"error": self.why_not, "refusal": refusal}

    @property
    def why_not(self) -> str:
        """Why it was not done, as far as we know."""
        return "interrupted: it may be done, or not" if self.error is None else str(self.error)


def delete(home: Home, options: argparse.Namespace) -> int:
    """Give shards up, and no longer expect them in audits; as `_each`."""
    doing = partial(_delete, home, erase=options.erase)
    return _each(_rows(home, options, Standing.HELD), home, options, doing)


def undelete(home: Home, options: argparse.Namespace) -> int:
    """Take shards out of the trash, and expect them in audits again; as `_each`."""
    doing = partial(_undelete, home)
    return _each(_rows(home, options, Standing.TRASHED), home, options, doing)


def _rows(home: Home, options: argparse.Namespace, standing: Standing) -> list[Row]:
    """Return a row for each; a slip in any ends the command before anything is done."""
    shards = dict.fromkeys(home.shard(text) for text in options.shards)
    return [Row(one, home.holder(one, options.farmer, standing)) for one in shards]


def _each(rows: list[Row], home: Home, options: argparse.Namespace, doing: Doing) -> int:
    """
    Do it and tell; of several, return 1 if any was not done, 130 if that was an interruption.

    What ends a single one is raised.
    """
    is_one, undone = len(options.shards) == 1, FAILED
    try:
        _do_all(rows, home, doing)
    except KeyboardInterrupt:
        if is_one:
            raise
        undone = INTERRUPTED
    if is_one:
        _tell_one(rows[0], as_json=options.json)
    else:
        _tell_several(rows, as_json=options.json)
    return OK if all(row.done for row in rows) else undone


def _do_all(rows: list[Row], home: Home, doing: Doing) -> None:
    """Ask one farmer after the other for what is its."""
    for farmer in dict.fromkeys(row.farmer for row in rows):
        its = [row for row in rows if row.farmer == farmer]
        ask(home, farmer, partial(_at_one_farmer, its, doing))


async def _at_one_farmer(rows: list[Row], doing: Doing, farmer: Farmer) -> None:
    for done, row in enumerate(rows):
        try:
            row.done = await doing(farmer, row.shard)
        except (ConnectionFailedError, FarmerTooSlowError) as error:
            # The others would wait for the same silence, one after the other.
            for one in rows[done:]:
                one.error = error
            return
        except ClientError as error:
            row.error = error


async def _delete(home: Home, farmer: Farmer, shard: ShardId, *, erase: bool) -> Done:
    run = farmer.door.run
    try:
        with _full_disk_told("is deleted"):
            deleted = await farmer.delete(shard, erase=erase)
    except NotFoundError:
        if not erase or await run(home.entry, shard, str(farmer.node_id)) is None:
            raise
        # Erased before, and the answer was lost: the farmer keeps no memory of it.
        deleted = Deleted(DeletionOutcome.ERASED, 0)
    trashed = deleted.outcome is DeletionOutcome.TRASHED
    standing = Standing.TRASHED if trashed else Standing.ERASED
    await run(home.ledger.mark, farmer.node_id, shard, standing)
    outcome = _OUTCOMES[deleted.outcome]
    row = {"shard": str(shard), "outcome": outcome, "gone_at_ms": deleted.gone_at_ms}
    how = await run(_in_the_trash, home, farmer.node_id, deleted) if trashed else outcome
    return Done({"farmer": str(farmer.node_id), **row}, f"{shard} is {how}")


def _in_the_trash(home: Home, farmer: NodeId, deleted: Deleted) -> str:
    until, agreed = format_moment(deleted.gone_at_ms), home.ledger.contract(farmer)
    has_ended = agreed is not None and agreed.until_ms <= time.time() * 1000
    way_back = ENDED if has_ended else "undelete brings it back"
    return f"in the trash until {until}; {way_back}"


async def _undelete(home: Home, farmer: Farmer, shard: ShardId) -> Done:
    with _full_disk_told("comes back"):
        stated = await farmer.undelete(shard)
    # Whatever else it says: it was asked to have it again, and audits tell whether it has.
    await farmer.door.run(home.ledger.mark, farmer.node_id, shard, Standing.HELD)
    entry = await farmer.door.run(home.entry, shard, str(farmer.node_id))
    await farmer.door.run(check_size, stated, entry, home.ledger)
    row = {"farmer": str(farmer.node_id), **shard_row(stated, entry)}
    return Done(row, shard_text(stated, None))


@contextmanager
def _full_disk_told(what: str) -> Iterator[None]:
    """Have the refusal of a full disk say that there is no room to note *what* happens."""
    try:
        yield
    except NoSpaceError as error:
        raise error.said_as(
            "the disk where the shard lies is full: it has no room even for the note that it "
            f"{what}, and the shard stays as it is. Ask the farmer's owner to free space there, "
            "and try again"
        ) from error


def _tell_one(row: Row, *, as_json: bool) -> None:
    """Tell what was done with a single one; raises what ended it."""
    if row.error is not None:
        raise row.error
    assert row.done is not None
    if as_json:
        print_document(row.done.row)
    else:
        say(row.done.text)


def _tell_several(rows: list[Row], *, as_json: bool) -> None:
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    for row in rows:
        if row.done is not None:
            say(row.done.text)
        else:
            warn(visible(f"renter: {row.shard}: {row.why_not}"))
