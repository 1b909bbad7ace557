"""Cutting refused records off the log, now or, where the disk does not let us, later."""

from __future__ import annotations

from collections.abc import Iterable

from farmer.storage.doubts import Overhang
from farmer.storage.files import Access
from farmer.storage.ground import Ground
from farmer.storage.log import Tail
from farmer.storage.places import Key
from farmer.storage.quota import Changes


def cut(
    ground: Ground, tail: Tail, written_bytes: int, keys: Iterable[Key], *, is_synced: bool
) -> bool:
    """
    Cut what was written behind the tail off; say whether it is certain that no start will see it.

    If not, the segment must be sealed, and *keys* are in doubt until the next one, whose header
    says where this one ended, is durable.  *is_synced* is False after a failed sync of this
    file: another one would say nothing.
    """
    files = ground.files
    try:
        if files.size(tail.fd) <= tail.end:
            # Nothing was written: a disk that takes no writes at all leaves nothing in doubt.
            return True
        files.truncate(tail.fd, tail.end)
    except OSError:
        ground.health.count("truncate")
        path = ground.paths.segment(tail.number)
        ground.doubts.overhangs.append(Overhang(path, tail.end, written_bytes))
        ground.ledger.settle(ground.account, Changes(log_bytes=written_bytes))
    else:
        try:
            if is_synced:
                files.sync_data(tail.fd)
                return True
        except OSError:
            ground.health.count("truncate")
    ground.doubts.log_not_cut(keys)
    return False


def cut_overhangs(ground: Ground) -> None:
    """Try once more what failed; raises `OSError`."""
    files, overhangs = ground.files, ground.doubts.overhangs
    while overhangs:
        overhang = overhangs[0]
        if files.exists(overhang.path):
            fd = files.open(overhang.path, Access.WRITE)
            try:
                files.truncate(fd, overhang.end)
            finally:
                files.close(fd)
        del overhangs[0]
        ground.ledger.settle(ground.account, Changes(log_bytes=-overhang.taken_bytes))
