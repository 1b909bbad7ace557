"""
The contract database and the volumes that remember it: noting, comparing, making again.

The database's changes are counted, and every volume keeps the count; so a database that was
lost or put back from a backup is found out.  What the shards themselves say of their
contracts - who, which, until when - is enough to go on serving them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from farmer.model.contract import GRACE_MS, Contract
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import ShardState
from farmer.model.status import Alert, VolumeState
from farmer.storage.contracts import DURATION_MS_MAX, SPACE_BYTES_MAX, ContractDatabase
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError, VolumeUnavailableError
from farmer.storage.generation import Generation
from farmer.storage.history import COMMAND
from farmer.storage.places import Row
from farmer.storage.volume import Volume
from farmer.units import counted

RECOVERED_REVISION: Final = 1 << 20
"""Above every revision that the lost contract can have had."""

_PAGE: Final = 256
_ASKED: Final = 16
"""Shards of a contract whose headers are read: the newest know its latest end."""


def note(engine: Engine, generation: Generation) -> None:
    """
    Let every volume that can be written remember a generation, durably.

    Raises:
        VolumeUnavailableError: none of them could; if there is none, there is nothing to lose.

    """
    noted, failures = 0, []
    for volume in engine.opened():
        try:
            _note_on(volume, generation)
        except (OSError, StorageError) as error:
            failures.append(f"{volume.settings.label}: {error}")
        else:
            noted += 1
    if not noted:
        reason = "; ".join(failures) or "no volume is open"
        raise VolumeUnavailableError(f"no volume can remember a contract now: {reason}")


def consult(book: ContractDatabase, engine: Engine) -> None:
    """
    Compare, before the database is changed.

    What an older one spent while no volume was there would stand when they are back.

    Raises:
        VolumeUnavailableError: no volume could remember the change.

    """
    compare(book, engine)
    for volume in engine.opened():
        with suppress(StorageError):
            volume.ground.health.check_writable()
            return
    raise VolumeUnavailableError("no volume can remember a contract now: none can be written")


def compare(book: ContractDatabase, engine: Engine) -> bool:
    """
    Hold the database against what the volumes remember; say whether that was news.

    Volumes that are behind, because they were away or full, are told how far it is.
    """
    seen = [one for volume in engine.opened() for one in volume.witness.seen]
    is_news = book.history.meet(seen)
    for volume in engine.opened():
        with suppress(OSError, StorageError):
            _note_on(volume, book.history.generation)
    return is_news


def _note_on(volume: Volume, generation: Generation) -> None:
    if generation in volume.witness.seen:
        return
    health = volume.ground.health
    health.check_writable()
    try:
        volume.witness.note(generation)
    except OSError:
        health.count("book")
        raise


def complaints(book: ContractDatabase, engine: Engine) -> list[Alert]:
    """Return the alerts that stand: an older database, shards without a contract."""
    alerts = []
    if book.history.doubt:
        alerts.append(
            Alert(
                name="ContractsRolledBack",
                since_ms=book.history.doubted_ms,
                message=book.history.doubt,
                command=COMMAND,
            )
        )
    if strangers := book.history.strangers(engine.renters()):
        alerts.append(
            Alert(
                name="ContractsMissing",
                since_ms=0,
                message=f"there are shards of {counted(len(strangers), 'renter')} who have no "
                "contract here: they are kept, but not served until their contracts are made "
                "again from what the shards say",
                command=COMMAND,
            )
        )
    return alerts


@dataclass(slots=True)
class _Held:
    """What one renter's shards of one contract say of it."""

    contract: ContractId
    from_ms: int
    newest: list[tuple[Volume, Row]]


def recover(book: ContractDatabase, engine: Engine, now_ms: int) -> list[Contract]:
    """
    Make contracts again for all who have shards and no contract; return them.

    Such a contract has the space that is used, no price, and lasts at least through another
    grace: its renter can retrieve everything, and redeem a new invite to store more.

    Raises:
        VolumeUnavailableError: a volume is away; its shards may know of more.

    """
    if any(volume.state is VolumeState.GONE for volume in engine.volumes()):
        raise VolumeUnavailableError(
            "a volume is away whose shards may know of more: bring it back, or give it up with"
            " farmer volume forget"
        )
    made = []
    for renter in book.history.strangers(engine.renters()):
        held = _held(engine, renter)
        if held is not None:
            made.append(_made(engine, renter, held, now_ms, book.farmer_key))
    adopted = book.adopt(made)
    # Else the trash would wait until a new count of the running time has come as far again.
    book.clock.catch_up(_observed_ms(engine))
    if book.history.doubt:
        book.history.settle()
    return adopted


def _made(engine: Engine, renter: NodeId, held: _Held, now_ms: int, key: bytes) -> Contract:
    until_ms = max((_hint(volume, row) for volume, row in held.newest), default=0)
    until_ms = min(max(until_ms, now_ms + GRACE_MS), now_ms + DURATION_MS_MAX)
    return Contract(
        contract=held.contract,
        farmer_key=key,
        renter=renter,
        revision=RECOVERED_REVISION,
        space_bytes=min(max(1, engine.usage(renter).total_bytes), SPACE_BYTES_MAX),
        from_ms=min(held.from_ms, now_ms),
        until_ms=until_ms,
        issued_at_ms=now_ms,
    )


def _held(engine: Engine, renter: NodeId) -> _Held | None:
    """Return the latest contract that a renter's shards know of; None without a shard."""
    contracts: dict[ContractId, _Held] = {}
    for volume in engine.opened():
        for row in _rows(volume, renter):
            held = contracts.setdefault(row.contract, _Held(row.contract, row.stored_at_ms, []))
            held.from_ms = min(held.from_ms, row.stored_at_ms)
            held.newest.append((volume, row))
            if len(held.newest) > 2 * _ASKED:
                held.newest = _latest(held.newest)
    for held in contracts.values():
        held.newest = _latest(held.newest)
    return max(contracts.values(), key=lambda one: one.newest[0][1].stored_at_ms, default=None)


def _observed_ms(engine: Engine) -> int:
    try:
        seen = [volume.ground.index.latest_observed_ms() for volume in engine.opened()]
    except sqlite3.Error as error:
        raise VolumeUnavailableError(f"an index cannot be read: {error}") from error
    return max(seen, default=0)


def _latest(found: list[tuple[Volume, Row]]) -> list[tuple[Volume, Row]]:
    return sorted(found, key=lambda one: one[1].stored_at_ms, reverse=True)[:_ASKED]


def _rows(volume: Volume, renter: NodeId) -> Iterable[Row]:
    after = ShardId(bytes(32))
    while page := volume.page(renter, after, _PAGE):
        yield from page
        after = page[-1].shard


def _hint(volume: Volume, row: Row) -> int:
    """Return the contract's end as a shard's header knows it; 0 if it cannot be read."""
    if row.state is not ShardState.LIVE:
        return 0
    try:
        reader = volume.open(row)
    except StorageError:
        return 0
    try:
        return reader.until_ms
    finally:
        reader.close()
