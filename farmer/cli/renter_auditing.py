"""`renter audit`: what the receipts say is stored has to be proved, not what the farmer lists."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from farmer.cli.exits import FAILED, OK, UNANSWERED, CommandError
from farmer.cli.renter_asking import ask
from farmer.cli.renter_damage import mendable
from farmer.cli.renter_trash import looked_up
from farmer.cli.renter_waiting import told_in
from farmer.cli.terminal import ProgressLine, print_document, say, warn
from farmer.client.auditing import NOT_YET, Audited, Verdict
from farmer.client.errors import ClientError, SourceChangedError, WrongBytesError
from farmer.client.farmer import Farmer
from farmer.client.home import Home
from farmer.client.ledger_rows import Damaged, Entry, Standing
from farmer.client.refusals import BadRangeError, CorruptError, InternalError, NotFoundError
from farmer.client.retries import BusyWait
from farmer.client.retrieving import Retrieval, Wanted
from farmer.model.ids import NodeId, ShardId

_OF_THE_SHARD: Final = (*NOT_YET, NotFoundError, CorruptError, BadRangeError)
"""What a farmer says of one shard in place of its bytes; anything else does not accuse it."""

_TRASH_LOOKED_IN_MAX: Final = 100
"""Shards of one audit for which we ask if they are in the trash: a farmer may have lost all."""


class Nowhere(io.RawIOBase):
    """A file that keeps nothing: a retrieve to it only checks."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer, as the base says
        """Forget."""
        return len(data)


def audit(home: Home, options: argparse.Namespace) -> int:
    """Audit; return 0 only if all was proved, 4 if nothing failed but not all was answered."""
    verdicts: list[tuple[NodeId, Audited]] = []
    errors: list[tuple[NodeId, str]] = []
    for farmer, entries in _wanted(home, options).items():
        auditing = Auditing(entries, home.ledger.is_sound, home.ledger.standing)
        try:
            _audit_one(home, options, farmer, auditing)
        except ClientError as error:
            auditing.errors.append(str(error))
        _tell_at_once(farmer, auditing, as_json=options.json)
        verdicts += [(farmer, one) for one in auditing.found]
        errors += [(farmer, text) for text in auditing.errors]
    unknown = _unknown(home, options)
    if options.farmer and not (verdicts or errors or unknown):
        # Perhaps there is no such farmer: that is raised.
        home.farmer(options.farmer)
    return _tell(verdicts, errors, unknown, as_json=options.json)


def _unknown(home: Home, options: argparse.Namespace) -> list[Damaged]:
    """Return the receipts that could not be read: what they stand for was not proved."""
    return [
        one
        for one in home.ledger.damaged
        if one.is_expected and str(one.farmer or "").startswith(options.farmer.lower())
    ]


def _wanted(home: Home, options: argparse.Namespace) -> dict[NodeId, list[Entry]]:
    if options.all or not options.shards:
        return home.held(options.farmer)
    held: dict[NodeId, list[Entry]] = {}
    for text in options.shards:
        shard = home.shard(text)
        entry = home.entry(shard, options.farmer)
        if entry is None:
            raise CommandError(f"there is no receipt for {shard}, so nothing to hold a proof to")
        if entry not in held.setdefault(entry.farmer, []):
            held[entry.farmer].append(entry)
    return held


def _audit_one(
    home: Home, options: argparse.Namespace, farmer_id: NodeId, auditing: Auditing
) -> None:
    """Audit what one farmer holds; raises `ClientError`."""
    line = ProgressLine("auditing")

    async def audited(farmer: Farmer) -> None:
        if options.full:
            await auditing.full(farmer, line)
        else:
            await auditing.sampled(farmer, options.samples)

    try:
        ask(home, home.farmer(str(farmer_id)), audited, told_in(line))
    finally:
        line.clear()


class Auditing:
    """
    The audit of what one farmer holds.

    Both ways raise `ClientError`; what was known before stays here.  What *is_sound* does not
    hold for, a receipt that our disk has changed, is no failure of the farmer's: it is left out.
    So is what another program of ours has erased since, as *standing* says.
    """

    def __init__(
        self,
        entries: list[Entry],
        is_sound: Callable[[Entry], bool],
        standing: Callable[[Entry], Standing] = lambda entry: entry.standing,
    ) -> None:
        self.found: list[Audited] = []
        self.errors: list[str] = []
        """Why a shard could not be audited, though the others could."""
        self._entries = entries
        self._is_sound = is_sound
        self._standing = standing
        self._looks_left = _TRASH_LOOKED_IN_MAX
        self._busy = BusyWait()

    async def sampled(self, farmer: Farmer, samples: int | None = None) -> None:
        """Have some leaves of each shard proved."""
        entries = iter(self._entries)
        receipts = [one.receipt for one in self._entries]
        async for one in farmer.verdicts(receipts, samples):
            entry = next(entries)
            if one.verdict is not Verdict.FAILED or self._is_sound(entry):
                await self._note(farmer, entry, one)

    async def full(self, farmer: Farmer, line: ProgressLine) -> None:
        """Have every byte of each shard proved."""
        for entry in filter(self._is_sound, self._entries):
            if self._busy.is_over:
                self.found.append(_put_off(entry, "the farmer was busy too long with others"))
                continue
            try:
                one = await self._audit_full(farmer, entry, line)
            except InternalError as error:
                # It may be over this shard alone, and would keep us from the others every time.
                self.errors.append(f"shard {entry.receipt.shard}: {error}")
                continue
            await self._note(farmer, entry, one)

    async def _audit_full(self, farmer: Farmer, entry: Entry, line: ProgressLine) -> Audited:
        """Compare with our own file if it can be read and is the same, else fetch the shard."""
        receipt = entry.receipt
        try:
            file = await farmer.door.run(_open, entry.file)
        except OSError:
            return await self._fetched(farmer, entry, line)
        try:
            return await farmer.audit_full(receipt, file, self._busy)
        except (SourceChangedError, OSError):
            return await self._fetched(farmer, entry, line)
        except _OF_THE_SHARD as error:
            return Audited.refused(receipt.shard, error)
        finally:
            await farmer.door.run(file.close)

    async def _fetched(self, farmer: Farmer, entry: Entry, line: ProgressLine) -> Audited:
        receipt = entry.receipt
        wanted = Wanted(receipt.shard, size_bytes=receipt.size_bytes)
        try:
            retrieval = Retrieval(wanted, cast(BinaryIO, Nowhere()))
            progress = line.of(receipt.shard, receipt.size_bytes)
            await farmer.carry_out(retrieval, progress, self._busy)
        except _OF_THE_SHARD as error:
            return Audited.refused(receipt.shard, error)
        except WrongBytesError as error:
            return Audited(receipt.shard, Verdict.FAILED, str(error))
        return Audited(receipt.shard, Verdict.PASSED)

    async def _note(self, farmer: Farmer, entry: Entry, one: Audited) -> None:
        """Add a verdict, unless the shard is not there because we erased it meanwhile."""
        if isinstance(one.refusal, NotFoundError):
            now = await farmer.door.run(self._standing, entry)
            if now is Standing.ERASED and entry.standing is not now:
                return
            entry = replace(entry, standing=now)
        self.found.append(await self._explained(farmer, entry, one))

    async def _explained(self, farmer: Farmer, entry: Entry, one: Audited) -> Audited:
        """Say more of a verdict where more is known, or can be asked."""
        if isinstance(one.refusal, CorruptError):
            size_bytes = entry.receipt.size_bytes
            error = mendable(one.refusal, one.shard, size_bytes, farmer.node_id)
            return replace(one, reason=str(error))
        if isinstance(one.refusal, NotFoundError):
            return await self._trash_looked_in(farmer, entry, one, one.refusal)
        return one

    async def _trash_looked_in(
        self, farmer: Farmer, entry: Entry, one: Audited, refusal: NotFoundError
    ) -> Audited:
        """Tell if it is in the trash; a failure unless it was us who put it there."""
        error = await self._looked_up(farmer, one.shard, refusal)
        is_ours = entry.standing is Standing.TRASHED
        if error is None:
            return _put_off(entry, "we trashed it, and did not look there") if is_ours else one
        is_there = error is not refusal
        verdict = Verdict.POSTPONED if is_there and is_ours else one.verdict
        return replace(one, verdict=verdict, reason=str(error))

    async def _looked_up(
        self, farmer: Farmer, shard: ShardId, error: NotFoundError
    ) -> NotFoundError | None:
        """Return what `looked_up` does, or None if the farmer was, or is, not asked."""
        if not self._looks_left:
            return None
        self._looks_left -= 1
        try:
            return await looked_up(farmer, shard, error)
        except ClientError:
            # It would be silent for each, for minutes.
            self._looks_left = 0
            return None


def _put_off(entry: Entry, why: str) -> Audited:
    return Audited(entry.receipt.shard, Verdict.POSTPONED, why)


def _open(name: str) -> BinaryIO:
    path = Path(name)
    if not name or not path.is_file():
        raise FileNotFoundError(name)
    return cast(BinaryIO, path.open("rb"))


def _tell_at_once(farmer: NodeId, auditing: Auditing, *, as_json: bool) -> None:
    """Tell what is not well at one farmer: the next may take long."""
    if not as_json:
        for one in auditing.found:
            if one.verdict is not Verdict.PASSED:
                how = "FAILED" if one.verdict is Verdict.FAILED else "not audited"
                say(f"{one.shard}  {how}: {one.reason}")
    how_far = " to the end" if auditing.found else ""
    for text in auditing.errors:
        warn(f"renter: farmer {farmer.short} could not be audited{how_far}: {text}")


def _tell(
    verdicts: list[tuple[NodeId, Audited]],
    errors: list[tuple[NodeId, str]],
    unknown: list[Damaged],
    *,
    as_json: bool,
) -> int:
    of = {kind: [one for one in verdicts if one[1].verdict is kind] for kind in Verdict}
    passed, failed, postponed = (of[kind] for kind in Verdict)
    if as_json:
        print_document(
            {
                "audited": len(passed) + len(failed),
                "passed": len(passed),
                "failed": len(failed),
                "failures": [_row(*one) for one in failed],
                "postponed": [_row(*one) for one in postponed],
                "errors": [
                    *({"farmer": str(who), "error": text} for who, text in errors),
                    *({"farmer": str(one.farmer or ""), "error": str(one)} for one in unknown),
                ],
            }
        )
    else:
        open_yet = f", {len(postponed)} not answered yet" if postponed else ""
        say(
            f"{len(passed) + len(failed)} audited, {len(passed)} passed, {len(failed)} failed"
            + open_yet
        )
    if not verdicts and not errors and not unknown:
        warn("renter: there is nothing to audit: no receipts; that is not a pass")
    if failed or errors or unknown or not verdicts:
        return FAILED
    return UNANSWERED if postponed else OK


def _row(farmer: NodeId, one: Audited) -> dict[str, object]:
    return {
        "farmer": str(farmer),
        "shard": str(one.shard),
        "error": one.reason,
        "refusal": one.refusal and one.refusal.as_json(),
    }
