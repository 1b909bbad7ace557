"""A second look at a shard that could not be read: whether it lies on a bad spot."""

from __future__ import annotations

import errno
from contextlib import closing

from farmer.storage.bad_spots import check_disk
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.places import Row
from farmer.storage.volume import Volume


def quarantine_if_spotted(volume: Volume, row: Row, error: VolumeUnavailableError) -> bool:
    """
    Have a shard quarantined that lies on a bad spot, so that the others go on.

    Returns False for one whose header cannot be read, and leaves it: the scrub may mend it.

    Raises:
        VolumeUnavailableError: *error*, where it is not the shard that cannot be read.

    """
    if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO):
        raise error
    _check_disk(volume, error)
    try:
        reader, _now = volume.open_as_is(row)
    except VolumeUnavailableError:
        _check_disk(volume, error)
        return False
    if reader is None:
        return True
    with closing(reader):
        found = reader.look()
        _check_disk(volume, error)
        if found.is_sound:
            raise error
        reader.note(found)
    return True


def _check_disk(volume: Volume, error: VolumeUnavailableError) -> None:
    try:
        check_disk(volume.ground.files, volume.ground.paths)
    except OSError:
        raise error from None
