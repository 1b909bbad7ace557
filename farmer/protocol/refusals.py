"""Every way to say no, with the two numbers each one carries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Refusal(IntEnum):
    """
    Why a request was turned down.  Wire values: never renumber.

    The comment names the two numbers that travel with it (`-`: zero).
    """

    MALFORMED = 1  # message type, -
    UNSUPPORTED_VERSION = 2  # lowest, highest version spoken
    UNKNOWN_MESSAGE = 3  # message type, -
    OUT_OF_ORDER = 4  # message type, -
    FRAME_TOO_LARGE = 5  # declared, allowed bytes
    TOO_SLOW = 6  # bytes moved, seconds that the farmer waited
    NO_CONTRACT = 10  # -, -
    CONTRACT_ENDED = 11  # ended at (Unix ms), readable until (Unix ms)
    INVITE_INVALID = 12  # -, -
    INVITE_EXPIRED = 13  # expired at (Unix ms), farmer's clock (Unix ms)
    INVITE_SPENT = 14  # -, -
    NO_SPACE = 20  # wanted, available charged bytes on the volume with most room that may take it
    CONTRACT_FULL = 21  # wanted, available charged bytes in the contract
    SHARD_TOO_LARGE = 22  # declared, allowed bytes
    TOO_MANY = 23  # have, allowed (uploads under way, or shards of one contract)
    BUSY = 24  # retry after (ms), -
    WRONG_HASH = 25  # -, -
    WRONG_SIZE = 26  # declared, received bytes
    NOT_FOUND = 30  # -, -
    CORRUPT = 31  # offset, length of the first damaged block; if all of it: 0, shard size
    BAD_RANGE = 32  # offset + length asked for (to the end: offset), shard size
    AUDIT_BUDGET = 33  # retry after (ms), bytes left
    DRAINING = 40  # retry after (ms), -
    UNAVAILABLE = 41  # retry after (ms), -
    TOO_MANY_SESSIONS = 42  # have, allowed, of one renter or of all
    INTERNAL = 50  # -, -


@dataclass(frozen=True, slots=True)
class Refused:
    """One refusal with its numbers; what they mean stands at the `Refusal`."""

    refusal: Refusal
    first: int = 0
    second: int = 0

    def __str__(self) -> str:
        return f"{self.refusal.name} ({self.first}, {self.second})"


class ProtocolError(Exception):
    """A side broke the protocol; one of the two concrete kinds is raised."""


class LocalProtocolError(ProtocolError):
    """We asked our own connection for what its state forbids: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what it may not: tell it `refused`, then hang up."""

    def __init__(self, refused: Refused, detail: str = "") -> None:
        super().__init__(detail or str(refused))
        self.refused = refused
