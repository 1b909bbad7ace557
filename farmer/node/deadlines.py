"""How long a renter may keep us waiting.  Pure: told what happens and when, says what is late."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from farmer.node.ports import CloseReason
from farmer.protocol.limits import (
    CLOSE_S,
    DISCARD_S,
    HANDSHAKE_S,
    HURRIED_BYTES_PER_S_MIN,
    HURRIED_S,
    IDLE_S,
    RATE_BYTES_PER_S_MIN,
    RATE_GRACE_S,
    STRANGER_S,
)
from farmer.protocol.refusals import Refusal, Refused


class WaitingFor(Enum):
    """What the renter has to do next."""

    REQUEST = auto()
    TRANSFER = auto()
    """Send the next bytes of a shard, or take those that we sent."""
    END = auto()
    """Finish a store that was refused in its middle."""


@dataclass(frozen=True, slots=True)
class Late:
    """The renter's time is over: why, and what to tell it, if anything."""

    reason: CloseReason
    refused: Refused | None = None


class Patience:
    """
    The deadlines of one session, on monotonic seconds.

    Only time in which we wait for the renter counts: a slow disk of ours is not its fault.
    A transfer may be slow for `RATE_GRACE_S` of such time, then its average counts.  Whoever
    holds what is wanted is hurried: after `HURRIED_S` a higher average counts, and nobody may
    keep us waiting for so long at once, or for longer than that average lets it take what we
    sent: who reads all the time does not go because our step was large.
    """

    def __init__(self, now_s: float) -> None:
        self._deadline_s: float | None = now_s + HANDSHAKE_S
        self._stranger_until_s = now_s + STRANGER_S
        self._late: CloseReason = CloseReason.HANDSHAKE
        self._known = False
        self._greeted = False
        self._closing = False
        self._since_s: float | None = None
        """Since when we wait for the renter."""
        self._rated = False
        """Whether that is for bytes of a transfer."""
        self._hurried_s = HURRIED_S
        """How long that may take at once if it is hurried."""
        self._waited_s = 0.0
        self._moved_bytes = 0
        self._still_s: float | None = None
        """Since when we do not even read."""

    def greeted(self, *, known: bool) -> None:
        """
        HELLO was answered, or an invite redeemed.

        A renter without a contract is given little time between requests, and little in all,
        whatever it does with it.
        """
        self._greeted, self._known = True, known
        if not self._closing:
            self._deadline_s = None

    def begin(self) -> None:
        """Begin to count a transfer anew."""
        self._waited_s = 0.0
        self._moved_bytes = 0

    def moved(self, size_bytes: int) -> None:
        """Count bytes of a transfer, in either direction."""
        self._moved_bytes += size_bytes

    def wait(self, waiting: WaitingFor, now_s: float, unsent_bytes: int = 0) -> None:
        """
        Begin to wait for the renter, say until it has taken so many bytes.

        Until it is greeted the handshake's deadline stays.
        """
        self._since_s, self._rated = now_s, waiting is WaitingFor.TRANSFER
        self._hurried_s = HURRIED_S + unsent_bytes / HURRIED_BYTES_PER_S_MIN
        if not self._greeted:
            return
        match waiting:
            case WaitingFor.REQUEST:
                allowed_s = IDLE_S if self._known else HANDSHAKE_S
                self._deadline_s, self._late = now_s + allowed_s, CloseReason.IDLE
            case WaitingFor.TRANSFER:
                self._deadline_s, self._late = now_s + IDLE_S, CloseReason.SLOW
            case WaitingFor.END:
                # Absolute: set once, however much is sent meanwhile.
                if self._deadline_s is None:
                    self._deadline_s, self._late = now_s + DISCARD_S, CloseReason.SLOW

    def go_on(self, waiting: WaitingFor, now_s: float) -> None:
        """End the wait: the renter did something."""
        if self._since_s is not None:
            self._waited_s += self._this_s(now_s)
            self._since_s = None
        if self._greeted and waiting is not WaitingFor.END:
            self._deadline_s = None

    def stand_still(self, now_s: float) -> None:
        """Stop reading what the renter sends: from now on it waits for us."""
        if self._still_s is None:
            self._still_s = now_s

    def run_on(self, now_s: float) -> None:
        """Read again."""
        if self._still_s is None:
            return
        if self._since_s is not None:
            self._since_s = now_s - self._this_s(now_s)
        if self._deadline_s is not None:
            self._deadline_s += now_s - self._still_s
        self._still_s = None

    def discarded(self) -> None:
        """Note that the END that was owed has come."""
        self._deadline_s = None

    def closing(self, now_s: float) -> None:
        """We have hung up: the renter has a moment to do the same."""
        self._since_s, self._closing = None, True
        self._deadline_s = now_s + CLOSE_S

    def late(self, now_s: float, *, hurried: bool = False) -> Late | None:
        """Return what the renter is late with, if it is; *hurried*: what it holds is wanted."""
        if not self._known and not self._closing and now_s > self._stranger_until_s:
            return Late(CloseReason.STRANGER)
        this_s = self._this_s(now_s)
        waited_s = self._waited_s + this_s
        is_over = self._deadline_s is not None and self._running_s(now_s) > self._deadline_s
        if not is_over and not self._is_slow(this_s, waited_s, hurried=hurried):
            return None
        if self._late is CloseReason.SLOW:
            return self._too_slow(waited_s)
        return Late(self._late)

    def _running_s(self, now_s: float) -> float:
        """Return the time as it counts for the renter."""
        return now_s if self._still_s is None else self._still_s

    def _this_s(self, now_s: float) -> float:
        """Return for how long we wait for the renter now."""
        return 0.0 if self._since_s is None else max(0.0, self._running_s(now_s) - self._since_s)

    def _is_slow(self, this_s: float, waited_s: float, *, hurried: bool) -> bool:
        """Judge a wait of *this_s*, which makes *waited_s* with all before it."""
        if self._since_s is None:
            return False
        if hurried and this_s > self._hurried_s:
            return True
        if not self._rated:
            return False
        if hurried and waited_s > HURRIED_S and self._is_below(HURRIED_BYTES_PER_S_MIN, waited_s):
            return True
        return waited_s > RATE_GRACE_S and self._is_below(RATE_BYTES_PER_S_MIN, waited_s)

    def _is_below(self, bytes_per_s: int, waited_s: float) -> bool:
        return self._moved_bytes < bytes_per_s * waited_s

    def _too_slow(self, waited_s: float) -> Late:
        refused = Refused(Refusal.TOO_SLOW, self._moved_bytes, int(waited_s))
        return Late(CloseReason.SLOW, refused)
