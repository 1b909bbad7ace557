"""On which volume a new shard is laid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from farmer.storage.errors import NoSpaceError, VolumeUnavailableError
from farmer.storage.fill import Choice, Fill, order
from farmer.storage.places import Key
from farmer.storage.upload import Wanted
from farmer.storage.uploads import AnyUpload
from farmer.storage.volume import Volume
from farmer.storage.watch import Watch
from farmer.storage.whereabouts import Copy


def candidates(
    volumes: Sequence[Volume], key: Key, there: Copy | None, fill: Fill, *, is_bound: bool = False
) -> list[Volume]:
    """
    Return the volumes to try, in order; what is stored again goes where it lies.

    It does so without exception if it is damaged, or *bound*: the new record does not say that
    it is the later one, and two of a shard would count alike.
    """
    if there is not None:
        here = [volume for volume in volumes if volume is there.volume and volume.takes_stores]
        if here or there.row.is_damaged or is_bound:
            return here
    fit = [
        volume
        for volume in volumes
        if volume.takes_stores and (not volume.draining or key in volume.leases)
    ]
    if len(fit) < 2:
        # Most farmers have one: what a ranking weighs would be asked for nothing.
        return fit
    choices = [
        Choice(
            volume=volume.ground.volume,
            state=volume.ground.health.state,
            free_bytes=volume.ground.account.free_bytes,
            draining=volume.draining,
            has_lease=key in volume.leases,
            is_stalled=volume.ground.watch.is_stalled,
        )
        for volume in fit
    ]
    return [fit[number] for number in order(choices, key[1], fill)]


def begin_on(volumes: Iterable[Volume], wanted: Wanted) -> tuple[Watch, AnyUpload]:
    """
    Begin a store on the first that has room.

    Raises:
        NoSpaceError: none has; what the roomiest has is told.
        VolumeUnavailableError: none can be written, or one fails.
        ContractFullError, TooManyError: the contract allows no such shard.

    """
    best: NoSpaceError | None = None
    for volume in volumes:
        try:
            return volume.ground.watch, volume.uploads.begin(wanted)
        except NoSpaceError as error:
            if best is None or error.available_bytes > best.available_bytes:
                best = error
    if best is not None:
        raise best
    raise VolumeUnavailableError("no volume can be written")
