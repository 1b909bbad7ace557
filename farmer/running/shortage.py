"""More promised than there is: told, and not at each breath of a disk that others use, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from farmer.model.status import Alert, VolumeState, VolumeStatus
from farmer.running.overview import usable_bytes
from farmer.units import format_size

HOLD_S: Final = 30.0
"""Free space comes and goes by itself: so long it has to stay so until it is told, or is over."""

_ILL: Final = (VolumeState.GONE, VolumeState.READ_ONLY, VolumeState.FAILING)
"""These are told themselves, and hold as much as before when they are well again."""


class Shortage:
    """
    Compares, at each look, what is promised with what the volumes can hold.

    What an owner or a renter does (an invite, a quota, a volume that leaves) counts at once.
    """

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self.overcommit = 1.0
        """The owner may have allowed that so many times the space is promised."""
        self._monotonic_s = monotonic_s
        self._deeds: tuple[float, ...] | None = None
        self._stands = False
        self._other_since_s: float | None = None

    def alerts(self, promised_bytes: int, volumes: Sequence[VolumeStatus]) -> list[Alert]:
        """Return the alert that stands while too much is promised."""
        kept = [volume for volume in volumes if not volume.draining]
        quotas = tuple(volume.quota_bytes for volume in kept)
        is_short = promised_bytes > self.overcommit * _room_bytes(kept)
        self._see(is_short, (promised_bytes, self.overcommit, *quotas))
        return [_alert(promised_bytes, usable_bytes(kept))] if self._stands else []

    def _see(self, is_short: bool, deeds: tuple[float, ...]) -> None:
        now_s, was = self._monotonic_s(), self._deeds
        self._deeds = deeds
        if is_short is self._stands:
            self._other_since_s = None
            return
        if self._other_since_s is None:
            self._other_since_s = now_s
        # At the first look after a start nobody knows what was before.
        is_deed = was is not None and was != deeds
        if is_deed or now_s - self._other_since_s >= HOLD_S:
            self._stands, self._other_since_s = is_short, None


def _room_bytes(volumes: Iterable[VolumeStatus]) -> int:
    """Return how much may be promised: the quotas, as far as their disks have room for them."""
    return sum(
        volume.quota_bytes
        if volume.state in _ILL
        else min(volume.quota_bytes, usable_bytes([volume]) + volume.allowance_bytes)
        for volume in volumes
    )


def _alert(promised_bytes: int, usable: int) -> Alert:
    return Alert(
        name="PromisedTooMuch",
        since_ms=0,
        message=f"{format_size(promised_bytes)} are promised by contracts and open invites, but "
        f"the volumes can hold {format_size(usable)} of shards now: the last renters to store "
        "will be refused with NO_SPACE. Free space on the disks, add a volume, give one more "
        "quota, or withdraw an invite. See how full they are.",
        command="farmer volume list",
    )
