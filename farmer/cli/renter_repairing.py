"""`renter repair`: what a farmer's disk has lost of a shard, sent again from our own copy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from farmer.cli.exits import OK, CommandError
from farmer.cli.terminal import ProgressLine, counted, print_json, say
from farmer.client import blocking
from farmer.client.dial import FarmerAddress
from farmer.client.farmer import connect
from farmer.client.home import Home
from farmer.client.repairing import Repaired
from farmer.model.ids import ShardId
from farmer.units import format_size


def repair(home: Home, options: argparse.Namespace) -> int:
    """Send the damaged blocks again; the shard is whole and durable when this returns 0."""
    shard = home.shard(options.shard)
    address = home.holder(shard, options.farmer)
    path = _copy(home, address, shard, options.copy)
    size_bytes = _size_bytes(path)
    line = ProgressLine("repairing")
    try:
        repaired = blocking.run(
            lambda reactor: _repair(home, address, shard, path, size_bytes, line, reactor)
        )
    finally:
        line.clear()
    home.ledger.keep(address.farmer, repaired.receipt, str(path.absolute()))
    sent = repaired.bad
    if options.json:
        row = {"shard": str(shard), "blocks": list(sent.blocks), "sent_bytes": sent.wanted_bytes}
        print_json({"schema": 1, "farmer": str(address.farmer), **row})
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
    path: Path,
    size_bytes: int,
    line: ProgressLine,
    reactor: Any,  # noqa: ANN401 - a reactor is many interfaces at once
) -> Repaired:
    async with connect(address, home.identity, reactor) as farmer:
        file = await farmer.door.run(path.open, "rb")
        try:
            return await farmer.repair(shard, file, line.of(0, size_bytes))
        finally:
            await farmer.door.run(file.close)


def _copy(home: Home, address: FarmerAddress, shard: ShardId, named: str) -> Path:
    """Return where our own copy is: as named, or where it was stored from."""
    if named:
        return Path(named)
    entry = home.entry(shard, str(address.farmer))
    if entry is None or not entry.file:
        raise CommandError(f"where is your copy of {shard}? Name it with --from FILE")
    if not Path(entry.file).exists():
        raise CommandError(
            f"{entry.file}, from which {shard} was stored, is not there any more: name a copy"
            " with --from FILE"
        )
    return Path(entry.file)


def _size_bytes(path: Path) -> int:
    """Return the size of our copy; ends the command if it cannot be read."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise CommandError(
            f"your copy {path} cannot be read: {error.strerror}; name another with --from FILE"
        ) from error
