"""What must be true of the whole farmer, looked at from outside of it, at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farmer.model.ids import ShardId
from farmer.model.shard import (
    BLOCK_BYTES,
    RECORD_HEADER_BYTES,
    ShardState,
    StoredShard,
    charge_bytes,
)
from farmer.storage.errors import CorruptShardError, NoContractError, StorageError
from farmer.storage.opening import rebuild_index
from farmer.storage.places import Row
from farmer.storage.records import trailer_length
from tests.simulation import accounts
from tests.simulation.harm import Stretch
from tests.simulation.held import Harm, Held, Is, ViolationError
from tests.simulation.nodes import Drive, Node
from tests.simulation.renters import _STATES, Renter

if TYPE_CHECKING:
    from tests.simulation.world import World

READ_AFTER_A_CRASH = 0.25


def check_all(world: World, *, thorough: bool) -> None:
    """Check everything that can be checked now; *thorough* reads every shard."""
    was, world._crash_in = world._crash_in, -1
    try:
        for renter in world.renters:
            _check_shards(world, renter, thorough=thorough)
            _check_contract(world, renter)
        accounts.check_space(world)
        if not world.chaos.profile.media:
            accounts.check_accounts(world, given_back=False)
    finally:
        world._crash_in = was


def _check_shards(  # a list of what must be so
    world: World, renter: Renter, *, thorough: bool
) -> None:
    assert world.house is not None
    engine = world.house.engine
    try:
        shown = {one.shard: one for one in engine.page(renter.node, ShardId(bytes(32)), 100_000)}
    except StorageError as error:
        if not world.has_trouble:
            raise ViolationError(f"nothing can be listed: {error}") from error
        return
    for shard, stored in shown.items():
        if shard not in renter.held:
            raise ViolationError(f"renter {renter.number} never stored {shard.short}")
        held = renter.held[shard]
        if held.user is not None:
            continue
        _compare(renter, held, stored)
        if stored.state is ShardState.LIVE and (
            thorough or world.rng.random() < READ_AFTER_A_CRASH
        ):
            _read(world, renter, held)
    for shard, held in renter.held.items():
        if shard not in shown and held.user is None:
            renter.is_in(held, Is.ABSENT, "is lost")
    if not world.lines and not world.has_trouble:
        _check_usage(world, renter, list(shown.values()))


def _check_usage(world: World, renter: Renter, shown: list[StoredShard]) -> None:
    """The ledger has what is shown, and the twins that a disk which lost marks has made."""
    assert world.house is not None
    engine = world.house.engine
    twins = [
        row
        for held in renter.held.values()
        if held.may_have_twins
        for volume in engine._slots.opened()
        if (row := volume.find(renter.node, held.shard)) is not None
    ]
    hurt = {row.shard for row in twins}
    every = [(one.size_bytes, one.state) for one in shown if one.shard not in hurt]
    every += [(row.size_bytes, row.state) for row in twins]
    live = sum(charge_bytes(size) for size, state in every if state is not ShardState.TRASH)
    trash = sum(charge_bytes(size) for size, state in every if state is ShardState.TRASH)
    usage = engine.usage(renter.node)
    if (usage.live_bytes, usage.trash_bytes, usage.shards) != (live, trash, len(every)):
        raise ViolationError(
            f"renter {renter.number} is said to use {usage},"
            f" but has {len(every)} shards, {live} bytes and {trash} in the trash"
        )


def _compare(renter: Renter, held: Held, stored: StoredShard) -> None:
    if stored.size_bytes != held.size_bytes:
        raise ViolationError(f"{held} has another size")
    if stored.state is ShardState.QUARANTINED and not held.may_be_damaged:
        raise ViolationError(f"{held} is in quarantine without a cause")
    renter.is_in(held, _STATES[stored.state], f"is {stored.state.name}")


def _read(world: World, renter: Renter, held: Held) -> None:
    assert world.house is not None
    try:
        reader = world.house.engine.open(renter.node, held.shard)
        try:
            data = reader.read(0, held.size_bytes)
        finally:
            reader.close()
    except CorruptShardError as error:
        world.reported += 1
        if not held.is_bad_between(0, held.size_bytes):
            raise ViolationError(f"{held} is damaged without a cause") from error
        return
    except StorageError as error:
        if not world.has_trouble and not held.is_hurt:
            raise ViolationError(f"{held} cannot be read: {error!r}") from error
        return
    if data != held.content.data:
        raise ViolationError(f"wrong bytes of {held} were read")


def _check_contract(world: World, renter: Renter) -> None:
    assert world.house is not None
    if renter.contract is None or renter.may_be_gone or renter.ended_s is not None:
        return
    try:
        contract, _stage = world.house.book.find(renter.node)
    except NoContractError:
        raise ViolationError(f"the contract of renter {renter.number} is lost") from None
    known = renter.contract
    if contract != known and not (
        # A renewal whose answer was lost in the crash.
        renter.is_unsure
        and contract.contract == known.contract
        and contract.revision > known.revision
    ):
        raise ViolationError(f"the contract of renter {renter.number} is not what was agreed")
    renter.contract = contract


def check_rebuild(world: World) -> None:
    """Stop, make every index again, start: all is as before."""
    world.stop()
    if world.house is not None:
        return
    for renter in world.renters:
        for held in renter.held.values():
            held.may_be_lost_with_the_index()
    for settings in world.volumes:
        rebuild_index(settings, world.signer.node_id, world.disk, lambda _n, _last: None)
    world.boot()
    check_all(world, thorough=False)


def rot_a_shard(world: World) -> None:
    """Change one byte of one stored shard's record."""
    assert world.house is not None
    rows = []
    for volume in world.house.engine._slots.readable():
        for renter in world.renters:
            for held in renter.held.values():
                row = volume.find(renter.node, held.shard)
                if row is not None and held.user is None:
                    rows.append((volume, row, held))
    if not rows:
        return
    volume, row, held = rows[int(world.rng.random() * len(rows))]
    drive = world.disk.drives[volume.settings.path.name]
    node = _node_of(world, drive, volume, row)
    if node is not None:
        at = int(
            world.rng.random() * (row.charge_bytes if world.rng.random() < 0.1 else _used(row))
        )
        end = row.place.offset + row.charge_bytes
        _note_rot(held, at, Stretch(node, row.place.offset, end))
        world.disk.rot(node, row.place.offset + at)


def _used(row: Row) -> int:
    return RECORD_HEADER_BYTES + row.size_bytes + trailer_length(row.size_bytes)


def _note_rot(held: Held, at: int, record: Stretch) -> None:
    """Note where in its record a bit flips; behind its end it touches nothing."""
    at -= RECORD_HEADER_BYTES
    if at < 0:
        held.harms.append(Harm(lies=record))
    elif at < held.size_bytes:
        held.harms.append(Harm(at // BLOCK_BYTES))
    elif at < held.size_bytes + trailer_length(held.size_bytes):
        held.harms.append(Harm())


def _node_of(world: World, drive: Drive, volume, row) -> Node | None:  # type: ignore[no-untyped-def]
    path = str(volume.handles.path_of(row.place))
    entry = world.disk._find(drive, path[len(str(volume.settings.path)) + 1 :])
    return entry if isinstance(entry, Node) else None
