"""
The crossing of some shards from one volume to another, in an order that no crash can break.

    1  both journals name them, synced
    2  the target enters its copies in the states that the shards have now, synced, and reads
       them back
    3  the source marks them as gone, synced, and forgets them

Between 1 and 3 nobody deletes them.  Whatever ends it early, a kill or a failing disk, leaves
each of them on the source, on the target or on both; `settle` makes that one again, from the
journals, before anybody may delete them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Final

from farmer.model.shard import StoredShard
from farmer.storage.arriving import AnyCopy, nobody_told
from farmer.storage.crossing import Crossing
from farmer.storage.errors import CorruptShardError, StorageError, VolumeUnavailableError
from farmer.storage.handover import Ask, AskTheDisk, GiveUp
from farmer.storage.journal import Crossers
from farmer.storage.places import Key, Row
from farmer.storage.quota import SMALL_BYTES_MAX, Changes
from farmer.storage.second_look import quarantine_if_spotted
from farmer.storage.twins import Keep, which_counts
from farmer.storage.volume import Volume

_MORE_TRIES: Final = 3
"""A shard is stored again in the moment between two syncs: hardly once, let alone each time."""

Refused = Callable[[StorageError | OSError], None]
"""Told why the target does not take some of what crosses."""

Spoiled = Callable[[Sequence[Row]], object]
"""Told, once, what of all that crossed the target did not keep; that stays at the source."""


class MeetingAwaitedError(VolumeUnavailableError):
    """A shard cannot cross before all volumes have met; see `farmer.storage.reunion`."""

    def __init__(self) -> None:
        super().__init__(
            "what becomes of a shard is known when all volumes are there, see farmer volume list"
        )


def cross(
    source: Volume,
    target: Volume,
    copies: Sequence[AnyCopy],
    crossing: Crossing,
    refused: Refused = nobody_told,
    spoiled: Spoiled = nobody_told,
) -> list[Row]:
    """
    Let the copies take the place of the shards; return the rows that the source gave up.

    One that was given up, or found damaged, since it was copied stays what it is; so does one
    that the target does not take, and *refused* is told, or does not keep, and *spoiled* is.

    Raises:
        StorageError, OSError: a volume failed; what was begun is settled later.

    """
    keys = frozenset(copy.key for copy in copies)
    with crossing.crossing(keys):
        now = source.writer.submit(Ask(keys)).result()
        there = target.writer.submit(Ask(keys)).result()
        sound = [one for one in copies if one.key in now and not now[one.key].is_damaged]
        going = [
            one for one in sound if not waits_for_all(now[one.key], there.get(one.key), target)
        ]
        if len(going) < len(sound):
            refused(MeetingAwaitedError())
        if not going:
            return []
        volumes = (source.ground.volume, target.ground.volume)
        crossers = Crossers(*volumes, frozenset(one.key for one in going))
        _announce(source, target, crossers)
        failure = _send(target, [(one, now[one.key]) for one in going if one.key not in there])
        gone = settle(source, target, crossers.keys, crossing, spoiled)
        source.journal.settle()
        target.journal.settle()
    if failure is not None:
        refused(failure)
    return gone


def settle(
    source: Volume,
    target: Volume,
    keys: frozenset[Key],
    crossing: Crossing,
    spoiled: Spoiled = nobody_told,
) -> list[Row]:
    """
    Bring shards that may be on both to one volume each; return those that the source gave up.

    The caller keeps them from being deleted meanwhile, but one may be stored again: that
    record is not among those that were decided on, and there is another decision then.
    Raises as `cross`.
    """
    gone: list[Row] = []
    damaged: list[Row] = []
    left = keys
    try:
        for _ in range(1 + _MORE_TRIES):
            more, left = _settle(source, target, left, crossing, damaged)
            gone += more
            if not left:
                return gone
    finally:
        if damaged:
            spoiled(damaged)
    raise VolumeUnavailableError("shards that are being moved are stored again and again")


def _settle(
    source: Volume, target: Volume, keys: frozenset[Key], crossing: Crossing, spoiled: list[Row]
) -> tuple[list[Row], frozenset[Key]]:
    """
    Return what the source gave up, and what was replaced on either before it was given up.

    What the target did not keep is added to *spoiled*.
    """
    leaving = source.writer.submit(Ask(keys)).result()
    files, handles = target.ground.files, target.handles
    arrived = target.writer.submit(AskTheDisk(keys, files, handles)).result()
    twins = sorted(key for key in keys if key in leaving and key in arrived)
    damaged = _read_back(target, [arrived[key] for key in twins])
    spoiled += damaged
    arrived = target.writer.submit(Ask(frozenset(twins))).result()
    if any(arrived.get((row.renter, row.shard)) == row for row in damaged):
        raise VolumeUnavailableError("a copy is damaged, and could not be marked so")
    crossing.leaves()
    for key in keys.difference(twins):
        # Whoever has removed the other copy meanwhile did not know that it counted once with this.
        _count_both(target, key)
    given_up: list[tuple[Volume, Row, Future[bool]]] = []
    for key in twins:
        match which_counts(leaving[key], arrived.get(key)):
            case Keep.TARGET:
                given_up.append((source, leaving[key], _give_up(source, leaving[key])))
            case Keep.SOURCE if key in arrived:
                given_up.append((target, arrived[key], _give_up(target, arrived[key])))
            case _:
                _count_both(target, key)
    gone, left = [], set()
    for volume, row, future in given_up:
        if not future.result():
            left.add((row.renter, row.shard))
        elif volume is source:
            gone.append(row)
    return gone, frozenset(left)


def waits_for_all(row: Row, there: Row | None, target: Volume) -> bool:
    """
    Say whether only all volumes together know what becomes of a shard, so that it cannot cross.

    *there* is what the target has of it.  It may also know that the shard was given up later.
    """
    if _is_outlived(row, target):
        return True
    return there is not None and which_counts(row, there) is Keep.BOTH


def _is_outlived(row: Row, target: Volume) -> bool:
    stone = target.tombstone(row.renter, row.shard)
    return stone is not None and stone.observed_ms > row.alone_ms


def _announce(source: Volume, target: Volume, crossers: Crossers) -> None:
    source.journal.write(crossers)
    try:
        target.journal.write(crossers)
    except OSError:
        source.journal.settle()
        raise


def _send(target: Volume, copies: Iterable[tuple[AnyCopy, Row]]) -> StorageError | OSError | None:
    """Enter what the target takes; what it refuses stays at the source.  Return why, of one."""
    sent: list[tuple[AnyCopy, Future[StoredShard]]] = []
    refused: list[AnyCopy] = []
    why: StorageError | OSError | None = None
    for copy, row in copies:
        try:
            sent.append((copy, copy.send(target, row, copy.reserve(target))))
        except (StorageError, OSError) as error:
            refused.append(copy)
            why = error
    for copy, future in sent:
        failure = future.exception()
        if failure is not None:
            refused.append(copy)
            why = failure if isinstance(failure, StorageError | OSError) else why
    for copy in refused:
        copy.discard(target)
    return why


def _read_back(target: Volume, rows: Iterable[Row]) -> list[Row]:
    """
    Read copies where the index says that they are; have damaged ones marked; return those.

    Memory has nothing of them but what it has read from the disk, see `AskTheDisk`.
    """
    return [row for row in rows if not row.is_damaged and not _is_read(target, row)]


def _is_read(target: Volume, row: Row) -> bool:
    """Say whether a copy can be read; one on a bad spot is damaged, but not if the disk fails."""
    try:
        reader, _row = target.open_as_is(row)
        if reader is not None:
            with closing(reader):
                # Of a large one all else was read back before; its last header, just now.
                if row.size_bytes <= SMALL_BYTES_MAX:
                    reader.read(0, row.size_bytes)
    except CorruptShardError:
        return False
    except VolumeUnavailableError as error:
        if not quarantine_if_spotted(target, row, error):
            target.quarantine(row)
        return False
    return True


def _give_up(volume: Volume, row: Row) -> Future[bool]:
    ground = volume.ground
    leaving = ground.ledger.leaving(ground.account, row.renter, row.shard)
    return volume.writer.submit(GiveUp(row, ground.facts.clock_ms(), leaving))


def _count_both(volume: Volume, key: Key) -> None:
    """Let a renter's usage count a shard on each of two volumes, as it does all copies."""
    ground = volume.ground
    ground.ledger.settle(ground.account, Changes(), [ground.ledger.leaving(ground.account, *key)])
