"""
What a farmer prints at its start: where its things are, and an invite, if it was told nothing.

The one invite gets its owner going.  It is not for a journal, where others read it too.  One whose
settings name its volumes says where things are once, at its first start, and how to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from farmer.model.contract import Offer
from farmer.model.status import VolumeState, VolumeStatus
from farmer.running.addresses import NoAddressError
from farmer.running.desk import OwnerDesk
from farmer.running.home import Home
from farmer.running.overview import usable_bytes
from farmer.settings.schema import Settings
from farmer.units import exact_size, format_duration, format_size

MB: Final = 1_000_000
DURATION_MS: Final = 90 * 86_400_000
OPEN_MS: Final = 30 * 86_400_000
LISTING: Final = "farmer invite list"
SUGGESTED_MB: Final = (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1)
"""Of these sizes the largest that fits is suggested for an invite."""
SHARE: Final = 2
"""Half of the volume: the owner can still make an invite of his own."""


def places(
    home: Home, settings: Settings, volumes: Sequence[VolumeStatus], *, is_first: bool = False
) -> list[str]:
    """Return lines that say where everything is; with volumes in the settings, once."""
    if settings.volumes and not is_first:
        return []
    there = home.settings.exists()
    return [
        f"home      {home.state}",
        *(f"volume    {one.path} ({_size(one)})" for one in volumes),
        f"settings  {home.settings}" + ("" if there else " (none yet; they would go there)"),
    ]


def _size(volume: VolumeStatus) -> str:
    """Return its quota, and what its disk has room for if that is less."""
    quota = format_size(volume.quota_bytes)
    room_bytes = usable_bytes([volume]) + volume.allowance_bytes
    if room_bytes >= volume.quota_bytes or volume.state is VolumeState.GONE:
        return quota
    return f"{quota}, but its disk has room for {format_size(usable_bytes([volume]))} of it now"


def greeting(
    settings: Settings,
    desk: OwnerDesk,
    now_ms: int,
    *,
    is_first: bool = False,
    to_journal: bool = False,
    naming: Callable[[str], str] = str,
) -> list[str]:
    """
    Return lines with an open invite, for a farmer without volumes in its settings.

    The open one is shown again; a new one is made only while nobody has a contract.  With volumes
    in the settings they say, once, how to make one.  *naming* completes commands as this farmer's.
    """
    if settings.volumes and not is_first:
        return []
    try:
        if settings.volumes:
            return _how_to_invite(desk.terms.addresses(), naming(_making(desk)))
        rows = desk.open_invites()
        if not rows and not desk.has_contracts():
            rows = [desk.make_invite(_first_offer(desk, now_ms))]
    except NoAddressError as error:
        return [f"no invite is shown: {error}; then make one with: {naming(_making(desk))}"]
    if not rows:
        return [f"no invite is open; make one with: {naming(_making(desk))}"]
    row = rows[-1]
    space, duration = format_size(row["space_bytes"]), format_duration(row["duration_ms"])
    if to_journal:
        return [
            f"an invite for {space} for {duration} is open; it is printed by: {naming(LISTING)}"
        ]
    return [
        f"Whoever has the next line can rent {space} for {duration}, once (renter join ...):",
        row["invite"],
    ]


def _how_to_invite(addresses: Sequence[str], making: str) -> list[str]:
    return [
        f"address   {', '.join(addresses)} (as invites name it)",
        f"invite a renter with: {making}",
    ]


def _making(desk: OwnerDesk) -> str:
    """Return the command that makes an invite, for a size that fits if there is any."""
    spare_bytes = desk.spare_bytes()
    fit = (size_mb * MB for size_mb in SUGGESTED_MB if size_mb * MB <= spare_bytes)
    size_bytes = next(fit, None)
    return f"farmer invite --space {exact_size(size_bytes) if size_bytes else 'SIZE'} --for 90d"


def _first_offer(desk: OwnerDesk, now_ms: int) -> Offer:
    return Offer(
        space_bytes=desk.terms.capacity_bytes() // SHARE,
        duration_ms=DURATION_MS,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + OPEN_MS,
        price=desk.terms.price,
    )
