"""How long to wait for the farmer: for one answer, and for a transfer to get on."""

from __future__ import annotations

from farmer.protocol.limits import ANSWER_S, RATE_BYTES_PER_S_MIN, RATE_GRACE_S


class Patience:
    """
    For one answer: so many seconds of waiting.

    Only the time in which we wait for the farmer counts; a slow disk of ours does not.
    """

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._waited_s = 0.0

    @property
    def left_s(self) -> float:
        """How much longer to wait."""
        return self._answer_s - self._waited_s

    def waited(self, seconds: float) -> None:
        """Count time in which nothing came."""
        self._waited_s += seconds


class Pace(Patience):
    """
    For a transfer: a minimum average rate, after a grace, and no silence longer than an answer's.

    An idle timeout alone is beaten by one byte a second; here every byte buys time, but
    never more than it would take at the minimum rate.  What was bought can be hours: who is
    silent for as long as an answer may take is not waited for, whatever came before.
    """

    def __init__(self) -> None:
        super().__init__()
        self._moved_bytes = 0
        self._still_s = 0.0
        """Of the waiting, that since the last byte."""

    @property
    def left_s(self) -> float:
        """How much longer to wait for the next bytes."""
        earned_s = RATE_GRACE_S + self._moved_bytes / RATE_BYTES_PER_S_MIN
        return min(self._answer_s - self._still_s, earned_s - self._waited_s)

    def waited(self, seconds: float) -> None:
        """Count time in which nothing came."""
        super().waited(seconds)
        self._still_s += seconds

    def moved(self, size_bytes: int) -> None:
        """Count bytes of the transfer."""
        self._moved_bytes += size_bytes
        if size_bytes:
            self._still_s = 0.0
