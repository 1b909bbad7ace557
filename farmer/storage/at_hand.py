"""Whether a shard that the index lists is at hand, too: its record is looked at for that."""

from __future__ import annotations

import errno
from typing import Final

from farmer.storage.errors import CorruptShardError, VolumeUnavailableError
from farmer.storage.places import Row
from farmer.storage.rights import NOT_LET
from farmer.storage.volume import Volume

_ITS_OWN: Final = NOT_LET | {errno.EIO}
"""What a file may be refused with while the volume is well: it need not pass by itself."""

_LOOKS: Final = 8
"""A record may move while it is looked at; compaction moves it once, not eight times."""


def row_at_hand(volume: Volume, row: Row, as_of: int | None) -> Row | None:
    """
    Return a shard's row, as it is now, if its record can be opened and stands as it was written.

    None if its bytes are wanted again: it went, it is damaged, which is noted for good, or its
    file cannot be read and others of the volume can.  One header is read.

    Raises:
        VolumeUnavailableError: whether it is there cannot be said now.

    """
    now: Row | None = row
    for _ in range(_LOOKS):
        if now is None or now.is_damaged:
            return None
        row = now
        try:
            reader, now = volume.open_as_is(row, as_of=as_of)
        except CorruptShardError:
            return None
        except VolumeUnavailableError as error:
            if _is_its_own(error):
                return None
            raise
        if reader is not None:
            reader.close()
            return row if reader.is_header_sound else None
        as_of = None
    return None


def _is_its_own(error: VolumeUnavailableError) -> bool:
    """Say whether it is this one file that cannot be read."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _ITS_OWN
