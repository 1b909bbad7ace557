"""The one table from what storage says to what the wire says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from farmer.protocol.refusals import Refusal, Refused
from farmer.storage import errors

E = TypeVar("E", bound=errors.StorageError)
Numbers = tuple[int, int]

BUSY_RETRY_MS: Final = 1_000
"""Another session is storing the same shard: it takes a moment."""

CROWDED_RETRY_MS: Final = 5_000
"""All places for such a request are taken, and the wait for one was long."""

UNAVAILABLE_RETRY_MS: Final = 60_000
"""A volume that is gone comes back by a person's hand, or by a remount."""

DRAINING_RETRY_MS: Final = 30_000
"""A restart takes seconds; a machine that is switched off, longer."""

NUMBER_MAX: Final = (1 << 63) - 1


class TurnedDownError(Exception):
    """A request that the serving side itself turns down."""

    def __init__(self, refusal: Refusal, first: int = 0, second: int = 0) -> None:
        super().__init__(refusal.name)
        self.refused = Refused(refusal, first, second)


_Row = tuple[Refusal, Callable[[Any, int], Numbers]]


def _row(
    kind: type[E], refusal: Refusal, numbers: Callable[[E, int], Numbers] = lambda _e, _: (0, 0)
) -> tuple[type[errors.StorageError], _Row]:
    return kind, (refusal, numbers)


_ROWS: Final = (
    _row(errors.NoSpaceError, Refusal.NO_SPACE, lambda e, _: (e.wanted_bytes, e.available_bytes)),
    _row(
        errors.ContractFullError,
        Refusal.CONTRACT_FULL,
        lambda e, _: (e.wanted_bytes, e.available_bytes),
    ),
    _row(
        errors.ShardTooLargeError,
        Refusal.SHARD_TOO_LARGE,
        lambda e, _: (e.size_bytes, e.allowed_bytes),
    ),
    _row(errors.TooManyError, Refusal.TOO_MANY, lambda e, _: (e.have, e.allowed)),
    _row(errors.BusyError, Refusal.BUSY, lambda _e, _: (BUSY_RETRY_MS, 0)),
    _row(errors.WrongHashError, Refusal.WRONG_HASH),
    _row(
        errors.WrongSizeError,
        Refusal.WRONG_SIZE,
        lambda e, _: (e.declared_bytes, e.received_bytes),
    ),
    _row(errors.ShardNotFoundError, Refusal.NOT_FOUND),
    _row(errors.CorruptShardError, Refusal.CORRUPT, lambda e, _: (e.offset, e.length)),
    _row(errors.BadRangeError, Refusal.BAD_RANGE, lambda e, _: (e.end, e.size_bytes)),
    _row(
        errors.VolumeUnavailableError,
        Refusal.UNAVAILABLE,
        lambda _e, _: (UNAVAILABLE_RETRY_MS, 0),
    ),
    _row(errors.FormatTooNewError, Refusal.UNAVAILABLE, lambda _e, _: (UNAVAILABLE_RETRY_MS, 0)),
    _row(errors.InviteSpentError, Refusal.INVITE_SPENT),
    _row(
        errors.InviteExpiredError,
        Refusal.INVITE_EXPIRED,
        lambda e, now_ms: (e.expired_at_ms, now_ms),
    ),
    _row(errors.InviteUnknownError, Refusal.INVITE_INVALID),
    _row(errors.NoContractError, Refusal.NO_CONTRACT),
    _row(
        errors.ContractEndedError,
        Refusal.CONTRACT_ENDED,
        lambda e, _: (e.ended_at_ms, e.readable_until_ms),
    ),
    _row(errors.StorageError, Refusal.INTERNAL),
)

TABLE: Final[dict[type[errors.StorageError], _Row]] = dict(_ROWS)
"""Every kind of error, its refusal, and how its numbers are made from it and our clock."""

OUR_FAULT: Final = frozenset({Refusal.CORRUPT, Refusal.UNAVAILABLE, Refusal.INTERNAL})
"""Refusals that count as errors of the farmer, not as a well-founded no."""


def refused_for(error: errors.StorageError, now_ms: int) -> Refused:
    """Return what to tell the renter; a kind without a row of its own has its parent's."""
    kind = next(parent for parent in type(error).__mro__ if parent in TABLE)
    refusal, numbers = TABLE[kind]
    first, second = numbers(error, now_ms)
    return Refused(refusal, _fits(first), _fits(second))


def _fits(number: int) -> int:
    return min(max(number, 0), NUMBER_MAX)
