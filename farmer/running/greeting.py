"""What a farmer that was told nothing prints: the one invite that gets its owner going."""

from __future__ import annotations

from typing import Final

from farmer.model.contract import Offer
from farmer.running.desk import OwnerDesk
from farmer.settings.schema import Settings
from farmer.units import format_duration, format_size

DURATION_MS: Final = 90 * 86_400_000
OPEN_MS: Final = 30 * 86_400_000
SHARE: Final = 2
"""Half of the volume: the owner can still make an invite of his own."""


def greeting(settings: Settings, desk: OwnerDesk, now_ms: int) -> list[str]:
    """
    Return lines with an open invite, for a farmer without volumes in its settings.

    The open one is shown again; a new one is made only while nobody has a contract.
    """
    if settings.volumes:
        return []
    rows = desk.open_invites()
    if not rows and not desk.has_contracts():
        rows = [desk.make_invite(_first_offer(desk, now_ms))]
    if not rows:
        return []
    row = rows[-1]
    space, duration = format_size(row["space_bytes"]), format_duration(row["duration_ms"])
    return [
        f"Whoever has the next line can rent {space} for {duration}, once (renter join ...):",
        row["invite"],
    ]


def _first_offer(desk: OwnerDesk, now_ms: int) -> Offer:
    return Offer(
        space_bytes=desk.terms.capacity_bytes() // SHARE,
        duration_ms=DURATION_MS,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + OPEN_MS,
        price=desk.terms.price,
    )
