"""
What is taken, promised and reserved: the ledger against the quota, the leases and the disk.

Some of it holds at every step, some only while nobody is being served, some only once what a
crash left behind has been given back.
"""

from __future__ import annotations

from functools import partial
from inspect import getgeneratorlocals
from typing import TYPE_CHECKING, Any

from farmer.storage.arriving import LargeCopy
from tests.simulation.disk import INDEX
from tests.simulation.held import ViolationError
from tests.simulation.nodes import Drive, Folder, Node

if TYPE_CHECKING:
    from farmer.storage.moving import Mover
    from farmer.storage.quota import Reservation
    from farmer.storage.uploads import AnyUpload
    from farmer.storage.volume import Volume
    from tests.simulation.world import World


def check_step(world: World) -> None:
    """
    Check what holds after every step.

    No drive had more on it than the quota at any moment since, no more than that is promised,
    and what is reserved is at least what the leases have; while nobody is at work, exactly that,
    what large copies have that wait for the mover's next step, and what nobody waits for any more
    since its disk did not answer.
    """
    house = world.house
    assert house is not None
    for drive in world.disk.drives.values():
        if drive.excess_bytes:
            raise ViolationError(f"{drive.name} took {drive.excess_bytes} bytes over its quota")
    is_at_rest = not house.sessions.busy and house.door.is_idle
    for volume in house.engine._slots.opened():
        account = volume.ground.account
        reserved = account.reserved_bytes
        total = account.total
        promised = total.live_bytes + total.trash_bytes + reserved
        if promised > account.quota_bytes:
            raise ViolationError(f"{volume.settings.label} has promised {promised} bytes")
        known = _held(volume)
        if is_at_rest:
            known |= _copied(house.engine.mover, volume) | _unanswered(volume)
        held = _sum_bytes(known) if known else 0
        if not (held == reserved if is_at_rest else held <= reserved):
            raise ViolationError(
                f"{volume.settings.label}: {reserved} bytes are reserved, {held} are held"
            )


def _held(volume: Volume) -> set[Reservation]:
    """Return what is reserved for leases, and for files that could not be removed yet."""
    leases, leftovers = volume.leases._kept, volume.ground.doubts._leftovers
    held = {lease.reservation for lease in leases.values()} if leases else set()
    if leftovers:
        held |= {one.held for one in leftovers}
    return held


def _copied(mover: Mover, volume: Volume) -> set[Reservation]:
    """
    Return what is reserved here for large copies that go on with the mover's next step.

    Nobody lets a mover go on that calls itself idle, so with such a one there may be none.  A
    copy is known to the suspended generator of its volume's pass alone.
    """
    copies: set[Reservation] = set()
    for emptying in () if mover.is_idle else mover._emptying.values():
        part: Any = emptying._steps
        while part is not None:
            # A copy may be suspended in a step of a step: it is one all the same.
            copy = getgeneratorlocals(part).get("self")
            if isinstance(copy, LargeCopy) and copy._held.account is volume.ground.account:
                copies.add(copy._held)
            part = part.gi_yieldfrom
    return copies


def _unanswered(volume: Volume) -> set[Reservation]:
    """
    Return what is reserved here for stores that were told that their disk does not answer.

    Nobody waits for them.  What the writer was asked for may come true all the same; what was
    given up, and lies on the disk, is let go by the first look after the answer.
    """
    writer = volume.writer
    asked = {one.reservation for one in (*writer._at_hand, *writer._waiting)}
    put_off = {_upload_of(work)._reservation for work in volume.ground.watch._later}
    return {
        one
        for one in asked | put_off
        if one is not None and one.is_open and one.account is volume.ground.account
    }


def _upload_of(give_back: Any) -> AnyUpload:
    """Return the upload whose giving back was put off: that of a store, or of a repair."""
    is_repair = isinstance(give_back, partial)
    upload: AnyUpload = give_back.args[0] if is_repair else give_back.__self__
    return upload


def _sum_bytes(reservations: set[Reservation]) -> int:
    return sum(one.charge_bytes for one in reservations)


def check_space(world: World) -> None:
    """No volume takes more than its quota."""
    assert world.house is not None
    for settings, status in zip(world.volumes, world.house.engine.volumes(), strict=True):
        drive = world.disk.drives[settings.path.name]
        index = sum(
            path.stat().st_size
            for name in (INDEX, f"{INDEX}-wal")
            if (path := settings.path / name).exists()
        )
        if drive.used_bytes + index > settings.quota_bytes:
            raise ViolationError(
                f"{drive.name} takes {drive.used_bytes + index} bytes of {settings.quota_bytes}"
            )
        promised = status.used_bytes + status.reserved_bytes + status.trash_bytes
        if promised > settings.quota_bytes:
            raise ViolationError(f"{drive.name} has promised {promised} bytes")


def check_reservations(world: World) -> None:
    """While nobody is being served, nothing is reserved but leases, and copies under way."""
    house = world.house
    assert house is not None
    if house.sessions.busy or not house.door.is_idle:
        return
    for volume in house.engine._slots.opened():
        reserved = volume.ground.account.reserved_bytes
        leased = sum(lease.reservation.charge_bytes for lease in volume.leases.of())
        copied = _sum_bytes(_copied(house.engine.mover, volume))
        if reserved != leased + copied:
            raise ViolationError(
                f"{volume.settings.label}: {reserved} bytes are reserved, {leased} are leased,"
                f" {copied} belong to copies under way"
            )


def check_accounts(world: World, *, given_back: bool) -> None:
    """
    The ledger says what the disk says.

    Until all has been *given back* it may say more: of a hole that was punched just before a
    crash the index may not know.  Never less.
    """
    assert world.house is not None
    for volume in world.house.engine._slots.opened():
        drive = world.disk.drives[volume.settings.path.name]
        account = volume.ground.account
        leased = sum(lease.reservation.charge_bytes for lease in volume.leases.of())
        total = account.total
        said = total.live_bytes + total.trash_bytes + leased + account.log_bytes
        there, torn = _allocated(volume, drive)
        if not given_back:
            there -= _drafts_bytes(drive)
        more = said - there
        is_right = 0 <= more <= torn or (more > torn and not given_back)
        if not is_right and not any(one.pending for one in drive.nodes()):
            raise ViolationError(
                f"{drive.name}: {said} bytes are said to lie there, {there} do"
                f" ({_differences(volume, drive)})"
            )


def _drafts_bytes(drive: Drive) -> int:
    """Return what small notes take that are being written at this moment: the allowance has it."""
    staging = drive.top.names["staging"]
    assert isinstance(staging, Folder)
    drafts = [
        len(entry.blocks)
        for name, entry in staging.names.items()
        if isinstance(entry, Node) and name.endswith(".new")
    ]
    return 4096 * sum(drafts)


def _differences(volume: Volume, drive: Drive) -> str:
    """Say of which files the index and the disk think differently."""
    index = volume.ground.index
    said = {
        f"{one.number:08d}.seg": one.size_bytes - one.punched_bytes for one in index.segments()
    }
    log = drive.top.names["log"]
    assert isinstance(log, Folder)
    there = {name: len(node.blocks) * 4096 for name, node in log.names.items()}
    found = [
        f"{name}: {said.get(name)} said, {there.get(name)} there"
        for name in sorted(said.keys() | there.keys())
        if said.get(name) != there.get(name)
    ]
    return "; ".join(found) or "not in the log"


def _allocated(volume: Volume, drive: Drive) -> tuple[int, int]:
    """
    Return what records take, and how much of the files crashes have torn, both in bytes.

    Of a torn write that has sound records behind it the ledger reckons all, unless it could be
    given back.
    """
    ends = {f"{one.number:08d}.seg": one.size_bytes for one in volume.ground.index.segments()}
    total = torn = 0
    rest = [(name, drive.top.names[name]) for name in ("log", "shards", "staging")]
    while rest:
        name, entry = rest.pop()
        if isinstance(entry, Folder):
            rest += entry.names.items()
        else:
            end = ends.get(name, 1 << 60) // 4096
            total += 4096 * sum(block < end for block in entry.blocks)
            torn += 4096 * sum(block < end for block in entry.torn)
    return total, torn
