"""What a renter knows of one of its shards, and what may have befallen it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from farmer.model.ids import ShardId
from farmer.model.shard import BLOCK_BYTES
from tests.simulation.harm import Betrayal, Stretch
from tests.simulation.network import Line
from tests.simulation.shards import Content


class ViolationError(Exception):
    """A promise was broken."""


class Is(Enum):
    """Where a shard may be."""

    ABSENT = "absent"
    LIVE = "live"
    TRASH = "trash"


@dataclass(frozen=True, eq=False)
class Harm:
    """
    What a media fault did to a record.

    Without a block: beside the shard's bytes, in header, tree or checksums.  *whole*: the record
    may not be on the disk at all, or its marks; anything but wrong bytes is excused.
    """

    block: int | None = None
    whole: bool = False
    lies: Stretch | None = None
    """Where the record is whose header it spoiled: nothing there says whose it is any more."""


@dataclass
class Held:
    """One shard of one renter, as the renter knows it."""

    content: Content
    may: set[Is]
    trashed_s: float = 0.0
    """Running time of the farmer before which it was not in the trash."""
    user: Line | None = None
    """On which line something is asked of it, or the farmer is still at it."""
    harms: list[Harm] = field(default_factory=list)
    may_have_twins: bool = False
    """
    Whether a mark of it was lost at any time: an older copy may come back beside a newer, or
    after it.  No storing ends that: the record without a mark is still where it was.
    """

    is_torn: bool = False
    """
    Whether it may be there, and be damaged: the power went while it was being stored, an older
    copy may have come back, or what a store went on with was harmed before.
    """

    was_begun_wrongly: bool = False
    """
    Whether wrong bytes of it were ever sent: a store may go on with what is left of them, and
    hear only at its end that the whole is wrong.
    """

    may_be_mended: bool = False
    """Whether all was sent to repair it: without an answer nobody knows if that was done."""

    @property
    def shard(self) -> ShardId:
        return self.content.shard

    @property
    def size_bytes(self) -> int:
        return len(self.content.data)

    @property
    def is_hurt(self) -> bool:
        """Whether its record, or a mark of it, may be gone."""
        return any(harm.whole for harm in self.harms)

    @property
    def may_be_damaged(self) -> bool:
        """Whether anything at all excuses it."""
        return bool(self.harms) or self.is_torn

    @property
    def bad(self) -> set[int]:
        """Return the blocks of which a bit has flipped."""
        return {harm.block for harm in self.harms if harm.block is not None}

    def is_touched_by(self, betrayal: Betrayal) -> bool:
        """Say whether a record of it with a spoiled header lies where a write was put."""
        return any(betrayal.falls_on(harm.lies) for harm in self.harms)

    def is_bad_between(self, start: int, end: int) -> bool:
        """Say whether a range may be refused as damaged."""
        if self.is_hurt or self.is_torn:
            return True
        return any(
            block * BLOCK_BYTES < end and start < (block + 1) * BLOCK_BYTES for block in self.bad
        )

    def is_told(self, bad: set[int]) -> bool:
        """Say whether these may be called its damaged blocks: no other, and none too few."""
        if self.is_hurt or self.is_torn:
            return True
        return bad <= self.bad if self.may_be_mended else bad == self.bad

    def was_written_anew(self, old: list[Harm], *, partly: bool = False) -> None:
        """Note that what was harmed before it was asked for is given up; *partly*: some of it."""
        self.may_be_mended = False
        self.harms = [harm for harm in self.harms if harm not in old]
        self.is_torn = partly and bool(old)

    def may_be_lost_with_the_index(self) -> None:
        """
        Note a crash, or a loss: what is damaged where an index is made anew is not found.

        And what was given up by a mark that the disk has lost is found again, though the shard
        was stored, and given up, since: that was said of the newer copy alone.  While that one
        is live, it is the one that is shown.
        """
        if self.harms:
            self.harms.append(Harm(whole=True))
        if self.is_torn:
            self.may.add(Is.ABSENT)
        if self.may_have_twins and self.may != {Is.LIVE}:
            self.is_torn |= Is.ABSENT in self.may
            self.may |= {Is.LIVE, Is.TRASH}

    def lost_power(self) -> None:
        """Note a power cut: what is being stored may have been torn, and is not known as such."""
        self.may_be_lost_with_the_index()
        self.is_torn |= {Is.ABSENT, Is.LIVE} <= self.may

    def __str__(self) -> str:
        states = "/".join(sorted(one.value for one in self.may))
        return f"{self.shard.short} ({self.size_bytes} bytes, {states})"
