"""A farmer's list as it grows: each page may be honest, and the whole a lie without an end."""

from __future__ import annotations

from farmer.client import limits
from farmer.client.errors import FarmerBrokeProtocolError, FarmerTooSlowError
from farmer.protocol.limits import ANSWER_S
from farmer.protocol.questions import Listed


class Listing:
    """What has come of one list so far, in pages of at most *page* shards."""

    def __init__(self, page: int) -> None:
        self._page = page
        self._listed = self._small_pages = 0
        self._took_s = 0.0

    def took(self, listed: Listed, seconds: float) -> None:
        """
        Count a page, and how long we waited for it.

        Raises:
            FarmerBrokeProtocolError: the list has too many shards, or too few on its pages.
            FarmerTooSlowError: the whole takes too long.

        """
        self._listed += len(listed.entries)
        self._took_s += seconds
        if self._listed > limits.LISTED_MAX:
            raise FarmerBrokeProtocolError("the farmer's list does not end")
        if listed.more:
            self._check_page(len(listed.entries))
            self._check_pace()

    def _check_page(self, shards: int) -> None:
        self._small_pages += 2 * shards < self._page
        if self._small_pages > limits.SMALL_PAGES_MAX:
            word = "shard" if shards == 1 else "shards"
            raise FarmerBrokeProtocolError(
                f"the farmer's list does not end: after {self._listed} shards it comes in pages "
                f"of {shards} {word}, where {self._page} were asked for"
            )

    def _check_pace(self) -> None:
        if self._took_s > ANSWER_S + self._listed / limits.LISTED_PER_S_MIN:
            raise FarmerTooSlowError(
                f"the farmer sent {self._listed} shards of its list in {self._took_s:.0f} s, and "
                "more would follow: too slow to wait for"
            )
