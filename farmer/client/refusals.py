"""Every refusal of a farmer as an exception with its numbers, and the table between the two."""

from __future__ import annotations

import datetime
from typing import ClassVar, Final, Self

from farmer.client.errors import ClientError
from farmer.protocol.refusals import Refusal, Refused
from farmer.units import DURATION_UNITS_MS, format_duration, two_sizes

_LAST_SHOWN_MS: Final = 253_402_300_799_000
"""The end of the year 9999: what a date can show; a farmer may send any number."""

_SHOWN_UNITS_MS: Final = tuple(DURATION_UNITS_MS[unit] for unit in ("d", "h", "m", "s"))
_UNITS_SHOWN: Final = 2
"""As `format_duration` shows a time: so many of these, and what is behind them not at all."""


class _Number:
    """The first or second number of a refusal, under the name that it has there."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __get__(self, error: RefusedError, _owner: type[RefusedError]) -> int:
        return (error.first, error.second)[self._index]


class RefusedError(ClientError):
    """
    The farmer said no.  `str()` begins with the refusal's name and goes on in plain words.

    Subclasses name the two numbers that travel with them.  Those are exact; the words show
    sizes as people read them.
    """

    REFUSAL: ClassVar[Refusal]
    TEXT: ClassVar[str]

    def __init__(self, first: int = 0, second: int = 0) -> None:
        self.refusal = self.REFUSAL
        self.first = first
        self.second = second
        first_size, second_size = two_sizes(first, second)
        words = self.TEXT.format(
            first=first,
            second=second,
            first_size=first_size,
            second_size=second_size,
            first_date=_date(first),
            second_date=_date(second),
            first_wait=_wait(first),
        )
        super().__init__(f"{self.refusal.name}: {words}")

    def said_as(self, words: str) -> Self:
        """Return the same refusal in the words of somebody who knows more."""
        other = type(self)(self.first, self.second)
        other.args = (f"{self.refusal.name}: {words}",)
        return other

    def as_json(self) -> dict[str, object]:
        """Return its name and its numbers under their names, for programs."""
        names = [name for name, kept in vars(type(self)).items() if isinstance(kept, _Number)]
        return {"name": self.refusal.name, **{name: getattr(self, name) for name in names}}


class MalformedError(RefusedError):
    """The farmer could not read a message of ours."""

    REFUSAL = Refusal.MALFORMED
    TEXT = "the farmer could not read a message of type {first}; are both up to date?"
    message_type = _Number(0)


class UnsupportedVersionError(RefusedError):
    """No protocol version that both speak."""

    REFUSAL = Refusal.UNSUPPORTED_VERSION
    TEXT = "the farmer speaks protocol versions {first} to {second}, not ours; update the older"
    lowest, highest = _Number(0), _Number(1)


class UnknownMessageError(RefusedError):
    """The farmer's release does not know this request."""

    REFUSAL = Refusal.UNKNOWN_MESSAGE
    TEXT = "the farmer does not know messages of type {first}; it runs an older release"
    message_type = _Number(0)


class OutOfOrderError(RefusedError):
    """A message at a time when it may not be sent."""

    REFUSAL = Refusal.OUT_OF_ORDER
    TEXT = "a message of type {first} came at the wrong time"
    message_type = _Number(0)


class FrameTooLargeError(RefusedError):
    """A frame above the farmer's limit."""

    REFUSAL = Refusal.FRAME_TOO_LARGE
    TEXT = "a frame of {first_size}, the farmer allows {second_size}"
    declared_bytes, allowed_bytes = _Number(0), _Number(1)


class TooSlowError(RefusedError):
    """We moved fewer bytes than the farmer waits for."""

    REFUSAL = Refusal.TOO_SLOW
    TEXT = "only {first_size} in {second} s, the farmer gave up waiting"
    moved_bytes, taken_s = _Number(0), _Number(1)


class NoContractError(RefusedError):
    """This renter has no contract with the farmer."""

    REFUSAL = Refusal.NO_CONTRACT
    TEXT = (
        "there is no contract with this farmer; join it with an invite first. Or had you one that"
        " has not ended? Then the farmer lost it: its owner types farmer contract recover"
    )


class ContractEndedError(RefusedError):
    """Too late for stores; shards can be read for a while."""

    REFUSAL = Refusal.CONTRACT_ENDED
    TEXT = (
        "the contract ended on {first_date}; shards can be retrieved until {second_date}, "
        "another invite renews it"
    )
    ended_at_ms, readable_until_ms = _Number(0), _Number(1)


class InviteInvalidError(RefusedError):
    """Not an invite of this farmer, or one that it withdrew."""

    REFUSAL = Refusal.INVITE_INVALID
    TEXT = "the farmer does not know this invite or has withdrawn it; ask for another"


class InviteExpiredError(RefusedError):
    """Redeemed too late."""

    REFUSAL = Refusal.INVITE_EXPIRED
    TEXT = "the invite expired on {first_date} (it is {second_date} there); ask for another"
    expired_at_ms, farmer_time_ms = _Number(0), _Number(1)


class InviteSpentError(RefusedError):
    """Another renter was faster."""

    REFUSAL = Refusal.INVITE_SPENT
    TEXT = "another renter has redeemed this invite; ask for another"


class NoSpaceError(RefusedError):
    """The farmer's volumes are full; for a damaged shard, the one on which it lies."""

    REFUSAL = Refusal.NO_SPACE
    TEXT = "{first_size} are wanted, the disk that they would go to has {second_size} left"
    wanted_bytes, available_bytes = _Number(0), _Number(1)


class ContractFullError(RefusedError):
    """The contract's space is used up."""

    REFUSAL = Refusal.CONTRACT_FULL
    TEXT = "{first_size} are wanted, the contract has {second_size} left; trash counts as well"
    wanted_bytes, available_bytes = _Number(0), _Number(1)


class ShardTooLargeError(RefusedError):
    """Larger than the farmer takes."""

    REFUSAL = Refusal.SHARD_TOO_LARGE
    TEXT = "the shard has {first_size}, this farmer takes {second_size} at most"
    declared_bytes, allowed_bytes = _Number(0), _Number(1)


class TooManyError(RefusedError):
    """Too many stores under way, or too many shards."""

    REFUSAL = Refusal.TOO_MANY
    TEXT = "there are {first} stores under way or shards, the farmer allows {second}"
    have, allowed = _Number(0), _Number(1)


class BusyError(RefusedError):
    """The same shard is being stored over another connection, or all places are taken."""

    REFUSAL = Refusal.BUSY
    TEXT = "the farmer is busy with this shard or with others; try again in {first_wait}"
    retry_after_ms = _Number(0)


class WrongHashError(RefusedError):
    """The farmer received other bytes than the shard id names."""

    REFUSAL = Refusal.WRONG_HASH
    TEXT = "the bytes that arrived are not those that were hashed; did the file change?"


class WrongSizeError(RefusedError):
    """The farmer received more or fewer bytes than declared."""

    REFUSAL = Refusal.WRONG_SIZE
    TEXT = "{first_size} were announced and {second_size} arrived; did the file change?"
    declared_bytes, received_bytes = _Number(0), _Number(1)


class NotFoundError(RefusedError):
    """The farmer holds no such shard for this renter."""

    REFUSAL = Refusal.NOT_FOUND
    TEXT = "the farmer holds no such shard of yours"


class CorruptError(RefusedError):
    """The farmer found its copy damaged."""

    REFUSAL = Refusal.CORRUPT
    TEXT = (
        "the farmer's copy is damaged at offset {first}, {second} bytes; renter repair sends what "
        "is missing, or store it again"
    )
    offset, length = _Number(0), _Number(1)


class BadRangeError(RefusedError):
    """A range beyond the end of the shard."""

    REFUSAL = Refusal.BAD_RANGE
    TEXT = "the range ends at {first}, the shard has {second} bytes"
    end, size_bytes = _Number(0), _Number(1)


class AuditBudgetError(RefusedError):
    """Audits have read as much as the farmer lets them in a day."""

    REFUSAL = Refusal.AUDIT_BUDGET
    TEXT = "today's audits have used up what the farmer reads for them; again in {first_wait}"
    retry_after_ms, left_bytes = _Number(0), _Number(1)


class DrainingError(RefusedError):
    """The farmer is shutting down."""

    REFUSAL = Refusal.DRAINING
    TEXT = "the farmer is shutting down; try again in {first_wait}"
    retry_after_ms = _Number(0)


class UnavailableError(RefusedError):
    """A disk of the farmer's does not answer now, or does not give or take this shard."""

    REFUSAL = Refusal.UNAVAILABLE
    TEXT = "the farmer cannot read or write this on its disks now; try again in {first_wait}"
    retry_after_ms = _Number(0)


class TooManySessionsError(RefusedError):
    """Too many connections."""

    REFUSAL = Refusal.TOO_MANY_SESSIONS
    TEXT = "there are {first} connections already, the farmer allows {second}"
    have, allowed = _Number(0), _Number(1)


class InternalError(RefusedError):
    """A fault of the farmer's."""

    REFUSAL = Refusal.INTERNAL
    TEXT = "something went wrong inside the farmer; its log says more"


ERROR_OF: Final[dict[Refusal, type[RefusedError]]] = {
    kind.REFUSAL: kind
    for kind in (
        *(MalformedError, UnsupportedVersionError, UnknownMessageError, OutOfOrderError),
        *(FrameTooLargeError, TooSlowError, NoContractError, ContractEndedError),
        *(InviteInvalidError, InviteExpiredError, InviteSpentError, NoSpaceError),
        *(ContractFullError, ShardTooLargeError, TooManyError, BusyError, WrongHashError),
        *(WrongSizeError, NotFoundError, CorruptError, BadRangeError, AuditBudgetError),
        *(DrainingError, UnavailableError, TooManySessionsError, InternalError),
    )
}


def error_of(refused: Refused) -> RefusedError:
    """Return the exception of a refusal that came over the wire."""
    return ERROR_OF[refused.refusal](refused.first, refused.second)


def _date(time_ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(min(time_ms, _LAST_SHOWN_MS) / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _wait(time_ms: int) -> str:
    """Return how long to wait, rounded up: who comes back a moment early is refused again."""
    whole_ms = -(-time_ms // 1000) * 1000
    rest_ms, shown = whole_ms, 0
    for unit_ms in _SHOWN_UNITS_MS:
        if rest_ms >= unit_ms:
            rest_ms, shown = rest_ms % unit_ms, shown + 1
            if shown == _UNITS_SHOWN:
                whole_ms += -rest_ms % unit_ms
                break
    return format_duration(whole_ms)
