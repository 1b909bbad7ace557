"""`renter repair`: what a farmer's disk has lost of a shard, sent again from our own copy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, BinaryIO

from farmer.cli.exits import OK, CommandError
from farmer.cli.renter_damage import no_room_beside
from farmer.cli.renter_sources import Sources
from farmer.cli.renter_waiting import told_in
from farmer.cli.terminal import ProgressLine, print_document, say
from farmer.client import blocking
from farmer.client.dial import FarmerAddress
from farmer.client.farmer import connect
from farmer.client.home import Home
from farmer.client.refusals import NoSpaceError
from farmer.client.repairing import Repaired
from farmer.model.ids import ShardId
from farmer.units import counted, format_size


def repair(home: Home, options: argparse.Namespace) -> int:
    """Send the damaged blocks again; the shard is whole and durable when this returns 0."""
    shard = home.shard(options.shard)
    address = home.holder(shard, options.farmer)
    entry = home.entry(shard, str(address.farmer))
    copy = options.copy or _stored_from(shard, "" if entry is None else entry.file)
    before = home.ledger.contract(address.farmer)
    line = ProgressLine("repairing")
    try:
        repaired, path = blocking.run(
            lambda reactor: _repair(home, address, shard, copy, line, reactor)
        )
    except NoSpaceError as error:
        raise no_room_beside(shard, error) from error
    finally:
        line.clear()
    home.keep(address.farmer, repaired.receipt, path, before)
    sent = repaired.bad
    if options.json:
        row = {"shard": str(shard), "blocks": list(sent.blocks), "sent_bytes": sent.wanted_bytes}
        print_document({"farmer": str(address.farmer), **row})
    elif sent.blocks:
        blocks, size = counted(len(sent.blocks), "block"), format_size(sent.wanted_bytes)
        say(f"{shard} is whole again: {blocks} sent, {size}")
    else:
        say(f"{shard} is whole; nothing had to be sent")
    return OK


async def _repair(
    home: Home,
    address: FarmerAddress,
    shard: ShardId,
    copy: str,
    line: ProgressLine,
    reactor: Any,  # noqa: ANN401 - a reactor is many interfaces at once
) -> tuple[Repaired, str]:
    """Repair from our copy; return also where it can be found again, or nothing."""
    async with connect(address, home.identity, reactor, told_in(line)) as farmer:
        file, path, size_bytes = await farmer.door.run(_opened, copy)
        try:
            return await farmer.repair(shard, file, line.of(0, size_bytes)), path
        finally:
            await farmer.door.run(file.close)


def _stored_from(shard: ShardId, file: str) -> str:
    """Return where our own copy is if nobody says: where it was stored from."""
    if not file:
        raise CommandError(f"where is your copy of {shard}? Name it with --from FILE")
    if not Path(file).exists():
        raise CommandError(
            f"{file}, from which {shard} was stored, is not there any more: name a copy"
            " with --from FILE"
        )
    return file


def _opened(copy: str) -> tuple[BinaryIO, str, int]:
    """Return our copy as `Sources.open` does, and its size; ends the command if it cannot."""
    try:
        file, path = Sources().open(copy)
        return file, path, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise CommandError(
            f"your copy {copy} cannot be read: {error.strerror or error}; name another with"
            " --from FILE"
        ) from error
