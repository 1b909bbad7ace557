"""What is done about what a scrub finds: mended where it can be, set aside otherwise, and told."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import partial
from shlex import quote

from farmer.model.shard import ShardState
from farmer.storage.damage import Examination
from farmer.storage.errors import StorageError
from farmer.storage.marks import Mark
from farmer.storage.mending import begin_mending, house_contract, mend_alone
from farmer.storage.operations import Upkeep
from farmer.storage.places import Row, Segment
from farmer.storage.scrub_notes import Notes
from farmer.storage.transaction import Transaction
from farmer.storage.volume import Volume


@dataclass(frozen=True, slots=True)
class Reactions:
    """What is done about findings; see `farmer.storage.scrub_walk.Findings`."""

    volume: Volume
    notes: Notes

    def sound(self, row: Row) -> None:
        """Count it."""
        del row
        self.notes.checked += 1

    def damaged(self, row: Row, found: Examination) -> None:
        """Mend what can be mended without the renter; put the rest into quarantine."""
        self.notes.checked += 1
        if not row.is_damaged and self.volume.examined.is_news(row.sequence):
            self.volume.ground.health.count("corrupt")
        self.volume.examined.keep(row.sequence, found)
        if not found.bad_blocks and self._mend(row):
            self.notes.mended += 1
        else:
            self.notes.damaged += 1
            if not row.is_damaged:
                self.volume.quarantine(row)
        self._tell()

    def disagree(self, what: str, row: Row | None, marks: list[Mark]) -> None:
        """Enter what the log holds: the log is the truth."""
        self.notes.disagreements += 1
        if row is not None:
            self.volume.writer.submit(Upkeep(partial(_enter, row, marks))).result()
        how = "It was entered again." if row is not None else "It is damaged, too."
        self._alert(
            "IndexDisagrees",
            f"On {self._where} {what}. {how} An index that forgets may have forgotten more: have"
            " it made again from the log when it suits you.",
            f"farmer volume rebuild {quote(self._where)}",
        )

    def marks_damaged(self, what: str) -> None:
        """Tell; what they said is in the index as long as there is one."""
        self.notes.disagreements += 1
        self._alert(
            "LogDamaged",
            f"On {self._where} {what} cannot be read. What they said is in the index; a new index"
            " would not know which of their shards were deleted. The disk may be failing.",
            "dmesg | tail",
        )

    def segment_damaged(self, segment: Segment) -> None:
        """Write what is alive in it again, elsewhere."""
        self.notes.disagreements += 1
        try:
            is_empty = self.volume.reclaimer.rewrite(segment.number)
        except (StorageError, OSError, sqlite3.Error):
            is_empty = False
        how = "what it held was written again elsewhere" if is_empty else "its shards are readable"
        self._alert(
            "LogDamaged",
            f"On {self._where} the header of segment {segment.number} is damaged; {how}. The disk"
            " may be failing.",
            "dmesg | tail",
        )

    def index_damaged(self, what: str) -> None:
        """Tell, and have it made again at the next start."""
        self.notes.disagreements += 1
        self.volume.ground.index.condemn()
        self._alert(
            "IndexDamaged",
            f"The index of {self._where} is damaged ({what}). It is made again from the log when"
            " the farmer is started next, so restart the farmer; no shard is lost.",
        )

    def _mend(self, row: Row) -> bool:
        if row.state is ShardState.TRASH:
            return False  # it comes out of there as quarantined, and is mended then
        if (row.renter, row.shard) in self.volume.journal.open.keys:
            return False  # it is crossing to another volume; what arrives there is looked at
        try:
            mending = begin_mending(self.volume, row, house_contract(row), is_asked_for=False)
        except StorageError:
            return False
        if mending is None:
            return True
        if mending.found.bad_blocks:
            mending.abandon()
            return False
        return mend_alone(mending)

    def _tell(self) -> None:
        found = self.notes
        self._alert(
            "ScrubFoundDamage",
            f"The disk under {self._where} changed what was written: of {found.checked} shards"
            f" read in this pass {found.damaged} have damaged blocks, {found.mended} were mended."
            " The others are served as before; the disk may be failing.",
            "farmer scrub status",
        )

    def _alert(self, name: str, message: str, command: str = "") -> None:
        self.volume.ground.health.raise_alert(name, message, command)

    @property
    def _where(self) -> str:
        return str(self.volume.settings.path)


def _enter(row: Row, marks: list[Mark], transaction: Transaction) -> None:
    there = transaction.find(row.renter, row.shard)
    if there is None or there.sequence <= row.sequence:
        transaction.correct(row)
        for mark in marks:
            transaction.apply(mark)
