"""
The steps of work in the background.

A step is short, so that who is served waits for little of it, and a rest follows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from farmer.storage.ground import Ground
from farmer.storage.operations import Upkeep
from farmer.storage.transaction import Transaction
from farmer.storage.writer import Writer


class Steps:
    """One volume's, for one run at a time."""

    def __init__(self, ground: Ground, writer: Writer) -> None:
        self._ground = ground
        self._writer = writer
        self.is_hurried = False
        """Whether somebody waits for the run that is under way: then it takes no rests."""

    def one(self) -> AbstractContextManager[None]:
        """Do one step in the block, and rest."""
        return self._ground.rests.after(hurried=self.is_hurried)

    def enter(self, work: Callable[[Transaction], None]) -> None:
        """Let the writer enter something, as a step; raises as its operations do."""
        with self.one():
            self._writer.submit(Upkeep(work)).result()

    def forget_segment(self, number: int) -> None:
        """Let the index forget a segment of which nothing is left; raises as `enter`."""
        span = self._ground.index.span(number)
        self.enter(lambda transaction: transaction.drop_segment(number, span))
