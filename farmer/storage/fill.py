"""
Where a new shard goes: the volumes worth trying, in order.  Pure.

*Spread* weighs by free space, so that disks fill at the same rate and an empty new one does
not get every store.  The choice is drawn from the shard's id (weighted rendezvous hashing,
Thaler and Ravishankar 1998): a store that is tried again comes to the same volume, and nothing
here needs luck.  *First* fills the volumes in the order of the settings; the later disks may
sleep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from hashlib import blake2b
from typing import Final, NamedTuple

from farmer.model.ids import ShardId
from farmer.model.status import VolumeState


class Fill(Enum):
    """How new shards are laid on the volumes."""

    SPREAD = "spread"
    FIRST = "first"


_RANKS: Final = {VolumeState.HEALTHY: 0, VolumeState.SLOW: 1, VolumeState.FULL: 2}
"""Slow ones when no healthy one has room; full ones last, for they may have room again."""

_DRAW_BITS: Final = 64


class Choice(NamedTuple):
    """One open volume, as far as it matters here."""

    # Each store makes one for each volume: a frozen dataclass takes four times as long.

    volume: bytes
    """Its uuid."""
    state: VolumeState
    free_bytes: int
    draining: bool = False
    has_lease: bool = False
    """Whether an unfinished store of this very shard waits there."""
    is_stalled: bool = False
    """Whether a call into it has not returned for a moment: likely to make us wait."""


def order(choices: Sequence[Choice], shard: ShardId, fill: Fill) -> list[int]:
    """
    Return the numbers of those to try, the best first; others may not be written at all.

    A volume that is being drained finishes what was begun there and takes nothing new.
    """
    fit = [
        number
        for number, one in enumerate(choices)
        if one.state in _RANKS and (one.has_lease or not one.draining)
    ]
    if len(fit) < 2:
        return fit
    return sorted(fit, key=lambda number: _rank(choices[number], number, shard, fill))


def _rank(one: Choice, number: int, shard: ShardId, fill: Fill) -> tuple[float, ...]:
    place = number if fill is Fill.FIRST else _distance(one, shard)
    return (not one.has_lease, one.is_stalled, _RANKS[one.state], place)


def _distance(one: Choice, shard: ShardId) -> float:
    """Return a draw whose least is this volume's with the odds of its free space."""
    if not one.free_bytes:
        return math.inf
    draw = blake2b(one.volume + shard.raw, digest_size=_DRAW_BITS // 8).digest()
    chance = (int.from_bytes(draw) + 1) / ((1 << _DRAW_BITS) + 1)
    return -math.log(chance) / one.free_bytes
