"""When to try again after a failure: decided here, carried out by the farmer's face."""

from __future__ import annotations

from farmer.client.errors import (
    ClientError,
    ConnectionFailedError,
    ConnectionLostError,
    FarmerTooSlowError,
)
from farmer.client.limits import (
    BUSY_DELAYS_MS,
    BUSY_S,
    RETRY_DELAYS_S,
    RETRY_PROGRESS_BYTES,
    SILENCES_MAX,
)
from farmer.client.refusals import BusyError


class BusyWait:
    """How long a farmer that says `BUSY` is still waited for: by one operation, or by several."""

    def __init__(self, left_s: float = BUSY_S) -> None:
        self.left_s = left_s

    @property
    def is_over(self) -> bool:
        """Whether it was waited for long enough."""
        return self.left_s <= 0


class Retries:
    """
    One operation's attempts.

    A lost connection is worth another attempt; a farmer that never answered is not, but
    one that answered before is (*was_reached*, in this operation or an earlier one).  One
    that was silent for as long as we wait is asked once more: each time costs minutes.  A
    store that is `BUSY` is most often our own former connection, which the farmer still
    waits for; who is told to come back later than that can take is told so at once.
    """

    def __init__(self, busy: BusyWait | None = None) -> None:
        self._failed = 0
        self._silences = 0
        self._busy = busy or BusyWait()
        self._is_alone = busy is None
        self._busy_ms = 0
        self._asked_again_s: float | None = None
        self._done_bytes = 0

    def progressed(self, done_bytes: int) -> None:
        """A transfer stands at *done_bytes*: enough of it and the counting begins anew."""
        if done_bytes - self._done_bytes >= RETRY_PROGRESS_BYTES:
            self._done_bytes = done_bytes
            self._failed = self._silences = 0
            if self._is_alone:
                self._busy.left_s = BUSY_S
            self._busy_ms = 0
            self._asked_again_s = None

    def delay_s(self, error: ClientError, now_s: float, *, was_reached: bool) -> float | None:
        """Return how long to wait before the next attempt, or None to give up."""
        if isinstance(error, BusyError):
            return self._busy_s(error, now_s)
        lost = isinstance(error, ConnectionLostError)
        unreachable = isinstance(error, ConnectionFailedError) and was_reached
        self._silences += isinstance(error, FarmerTooSlowError)
        is_over = self._failed >= len(RETRY_DELAYS_S) or self._silences > SILENCES_MAX
        if not (lost or unreachable) or is_over:
            return None
        delay_s = RETRY_DELAYS_S[self._failed]
        self._failed += 1
        return delay_s

    def _busy_s(self, error: BusyError, now_s: float) -> float | None:
        if self._asked_again_s is not None:
            self._busy.left_s -= now_s - self._asked_again_s
        left_s = self._busy.left_s
        if left_s <= 0 or error.retry_after_ms / 1000 > left_s:
            return None
        least_ms, most_ms = BUSY_DELAYS_MS
        doubled_ms = min(max(least_ms, 2 * self._busy_ms), most_ms)
        self._busy_ms = max(doubled_ms, error.retry_after_ms)
        delay_s = self._busy_ms / 1000
        self._busy.left_s -= delay_s
        self._asked_again_s = now_s + delay_s
        return delay_s
