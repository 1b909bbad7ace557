"""What storage can say no with.  These know nothing of the wire."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says where a disk, or what somebody may have of it, has no room left."""


def internal(error: Exception) -> str:
    """Return what an owner can report of an error that nobody foresaw: what it is, and where."""
    where, said = error.__traceback__, f"internal error: {error!r}"
    if where is None:
        return said
    while where.tb_next is not None:
        where = where.tb_next
    return f"{said} at {Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"


class StorageError(Exception):
    """Any refusal or failure of the engine or of the contract book."""


class NoSpaceError(StorageError):
    """No volume has room for what was asked."""

    def __init__(self, wanted_bytes: int, available_bytes: int) -> None:
        super().__init__(f"{wanted_bytes} bytes wanted, {available_bytes} available")
        self.wanted_bytes = wanted_bytes
        self.available_bytes = available_bytes


class ContractFullError(StorageError):
    """The contract has no room for what was asked."""

    def __init__(self, wanted_bytes: int, available_bytes: int) -> None:
        super().__init__(f"{wanted_bytes} bytes wanted, {available_bytes} left in the contract")
        self.wanted_bytes = wanted_bytes
        self.available_bytes = available_bytes


class ShardTooLargeError(StorageError):
    """Larger than this farmer takes."""

    def __init__(self, size_bytes: int, allowed_bytes: int) -> None:
        super().__init__(f"a shard of {size_bytes} bytes, {allowed_bytes} allowed")
        self.size_bytes = size_bytes
        self.allowed_bytes = allowed_bytes


class TooManyError(StorageError):
    """Too many uploads under way, or too many shards in one contract."""

    def __init__(self, have: int, allowed: int) -> None:
        super().__init__(f"{have} of {allowed} allowed")
        self.have = have
        self.allowed = allowed


class BusyError(StorageError):
    """The same shard is being stored by another session of the same renter."""


class WrongHashError(StorageError):
    """The bytes are not those that the shard id names."""


class WrongSizeError(StorageError):
    """More or fewer bytes came than were declared."""

    def __init__(self, declared_bytes: int, received_bytes: int) -> None:
        super().__init__(f"{declared_bytes} bytes declared, {received_bytes} received")
        self.declared_bytes = declared_bytes
        self.received_bytes = received_bytes


class ShardNotFoundError(StorageError):
    """The renter has no such shard here; somebody else's looks just the same."""


class ShardWentError(ShardNotFoundError):
    """It was there, and was given up while it was read: something was read for it."""


class CorruptShardError(StorageError):
    """The bytes on the disk are not those that were stored; the shard is in quarantine now."""

    def __init__(self, offset: int = 0, length: int = 0) -> None:
        super().__init__(f"{length} bytes from offset {offset} are damaged")
        self.offset = offset
        self.length = length


class BadRangeError(StorageError):
    """A range beyond the shard's end."""

    def __init__(self, end: int, size_bytes: int) -> None:
        super().__init__(f"a range to {end} of a shard of {size_bytes} bytes")
        self.end = end
        self.size_bytes = size_bytes


class VolumeUnavailableError(StorageError):
    """The volume is gone, failing or shutting down; later it may be back."""


class VolumeClosedError(VolumeUnavailableError):
    """It was closed since it was found; it may have been opened anew."""


class FormatTooNewError(StorageError):
    """Written by a newer release: use that one; nothing was touched."""


class InviteSpentError(StorageError):
    """Another renter has redeemed this invite."""


class InviteExpiredError(StorageError):
    """Too late for this invite."""

    def __init__(self, expired_at_ms: int) -> None:
        super().__init__(f"expired at {expired_at_ms}")
        self.expired_at_ms = expired_at_ms


class InviteUnknownError(StorageError):
    """Not an invite of this farmer, or one that was withdrawn."""


class NoContractError(StorageError):
    """This renter has no contract here."""


class ContractEndedError(StorageError):
    """The contract has ended: its shards can still be read for a while, none stored."""

    def __init__(self, ended_at_ms: int, readable_until_ms: int) -> None:
        super().__init__(f"ended at {ended_at_ms}")
        self.ended_at_ms = ended_at_ms
        self.readable_until_ms = readable_until_ms
