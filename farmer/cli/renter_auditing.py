"""`renter audit`: what the receipts say is stored has to be proved, not what the farmer lists."""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from farmer.cli.exits import FAILED, OK, UNANSWERED, CommandError
from farmer.cli.renter_asking import ask
from farmer.cli.renter_trash import not_found
from farmer.cli.terminal import ProgressLine, print_json, say, warn
from farmer.client.auditing import Audited, Verdict
from farmer.client.errors import ClientError, SourceChangedError, WrongBytesError
from farmer.client.farmer import Farmer
from farmer.client.home import Home
from farmer.client.ledger_rows import Damaged, Entry, Standing
from farmer.client.refusals import NotFoundError, RefusedError
from farmer.client.retrieving import Retrieval, Wanted
from farmer.model.ids import NodeId

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
        try:
            verdicts += [(farmer, one) for one in _audit_one(home, options, farmer, entries)]
        except ClientError as error:
            errors.append((farmer, str(error)))
    return _tell(verdicts, errors, _unknown(home, options), as_json=options.json)


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
    home: Home, options: argparse.Namespace, farmer_id: NodeId, entries: list[Entry]
) -> list[Audited]:
    """Audit what one farmer holds; raises `ClientError`."""
    line = ProgressLine("auditing")

    async def audited(farmer: Farmer) -> list[Audited]:
        if options.full:
            found = [await _audit_full(farmer, entry, line) for entry in entries]
        else:
            report = await farmer.audit([one.receipt for one in entries], options.samples)
            found = list(report.shards)
        return await _trash_looked_in(farmer, entries, found)

    try:
        return ask(home, home.farmer(str(farmer_id)), audited)
    finally:
        line.clear()


async def _trash_looked_in(
    farmer: Farmer, entries: list[Entry], found: list[Audited]
) -> list[Audited]:
    """Tell what is in the trash; a failure unless it was us who put it there."""
    looked_in = 0
    for at, (entry, one) in enumerate(zip(entries, found, strict=True)):
        if not isinstance(one.refusal, NotFoundError) or looked_in == _TRASH_LOOKED_IN_MAX:
            continue
        looked_in += 1
        error = await not_found(farmer, one.shard, one.refusal)
        ours = error is not one.refusal and entry.standing is Standing.TRASHED
        verdict = Verdict.POSTPONED if ours else one.verdict
        found[at] = replace(one, verdict=verdict, reason=str(error))
    return found


async def _audit_full(farmer: Farmer, entry: Entry, line: ProgressLine) -> Audited:
    """Compare with our own file if it can be read and is the same, else fetch the shard."""
    receipt = entry.receipt
    try:
        file = await farmer.door.run(_open, entry.file)
    except OSError:
        return await _fetched(farmer, entry, line)
    try:
        return await farmer.audit_full(receipt, file)
    except (SourceChangedError, OSError):
        return await _fetched(farmer, entry, line)
    except RefusedError as error:
        return Audited.refused(receipt.shard, error)
    finally:
        await farmer.door.run(file.close)


async def _fetched(farmer: Farmer, entry: Entry, line: ProgressLine) -> Audited:
    receipt = entry.receipt
    wanted = Wanted(receipt.shard, size_bytes=receipt.size_bytes)
    try:
        retrieval = Retrieval(wanted, cast(BinaryIO, Nowhere()))
        await farmer.carry_out(retrieval, line.of(receipt.shard, receipt.size_bytes))
    except RefusedError as error:
        return Audited.refused(receipt.shard, error)
    except WrongBytesError as error:
        return Audited(receipt.shard, Verdict.FAILED, str(error))
    return Audited(receipt.shard, Verdict.PASSED)


def _open(name: str) -> BinaryIO:
    path = Path(name)
    if not name or not path.is_file():
        raise FileNotFoundError(name)
    return cast(BinaryIO, path.open("rb"))


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
        print_json(
            {
                "schema": 1,
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
        for _, one in failed:
            say(f"{one.shard}  FAILED: {one.reason}")
        for _, one in postponed:
            say(f"{one.shard}  not audited: {one.reason}")
    for who, text in errors:
        warn(f"renter: farmer {who.short} could not be audited: {text}")
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
