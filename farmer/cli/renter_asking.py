"""The renter's small verbs: one question, one answer, and what the ledger learns from it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from farmer.cli.exits import OK, CommandError
from farmer.cli.tables import table, visible
from farmer.cli.terminal import print_document, say
from farmer.client import blocking, limits
from farmer.client.dial import FarmerAddress
from farmer.client.errors import FarmerBrokeProtocolError
from farmer.client.farmer import Farmer, OnRetry, connect, nobody_told
from farmer.client.home import Home
from farmer.client.ledger import Ledger
from farmer.client.ledger_rows import Entry, Standing
from farmer.client.refusals import RefusedError
from farmer.model.ids import ShardId
from farmer.model.shard import BadBlocks, ShardState
from farmer.protocol.questions import Stated
from farmer.units import format_moment, format_size

R = TypeVar("R")

BLOCKS_SHOWN = 8
"""More of them say no more to a person."""


def ask(
    home: Home,
    address: FarmerAddress,
    question: Callable[[Farmer], Coroutine[Any, Any, R]],
    on_retry: OnRetry = nobody_told,
) -> R:
    """Connect, ask one thing, hang up."""

    async def conversation(reactor: Any) -> R:  # noqa: ANN401 - a reactor is many interfaces
        async with connect(address, home.identity, reactor, on_retry) as farmer:
            return await question(farmer)

    return blocking.run(conversation)


def ping(home: Home, options: argparse.Namespace) -> int:
    """Show how the farmer is."""
    address = home.farmer(options.farmer)
    pong = ask(home, address, Farmer.ping)
    if options.json:
        row = {"time_ms": pong.time_ms, "free_bytes": pong.free_bytes, "software": pong.software}
        print_document({"farmer": str(address.farmer), **row})
    else:
        free = format_size(pong.free_bytes)
        say(f"farmer {address.farmer.short} is there: {free} free, {pong.software}")
    return OK


def list_shards(home: Home, options: argparse.Namespace) -> int:
    """Show what the farmer says it has, and which receipts it does not mention."""
    address = home.farmer(options.farmer)
    known = {
        entry.receipt.shard: entry
        for entry in home.ledger.entries()
        if entry.farmer == address.farmer
    }
    entries = ask(home, address, lambda farmer: _listed(farmer, known, home.ledger))
    files = {shard: entry.file for shard, entry in known.items()}
    there = {entry.shard for entry in entries}
    missing = [str(shard) for shard in _held_all_along(home, address, known) if shard not in there]
    rows = [shard_row(entry, known.get(entry.shard)) for entry in entries]
    if options.json:
        print_document({"farmer": str(address.farmer), "shards": rows, "missing": missing})
        return OK
    cells = [
        [
            str(entry.shard),
            format_size(entry.size_bytes),
            format_moment(entry.stored_at_ms),
            entry.state.name.lower(),
            visible(files.get(entry.shard, "")),
        ]
        for entry in entries
    ]
    say("\n".join(table(["SHARD", "SIZE", "STORED", "STATE", "FILE"], cells)))
    for shard in missing:
        say(f"{shard}  MISSING: there is a receipt, and the farmer does not list it")
    return OK


def _held_all_along(
    home: Home, address: FarmerAddress, before: Mapping[ShardId, Entry]
) -> list[ShardId]:
    """Return what was held before as now: other programs may store and erase meanwhile."""
    held = (one.receipt.shard for one in home.held(str(address.farmer)).get(address.farmer, []))
    return [shard for shard in held if shard in before and before[shard].standing is Standing.HELD]


async def _listed(farmer: Farmer, known: Mapping[ShardId, Entry], ledger: Ledger) -> list[Stated]:
    """Return all that the farmer lists; refuse lies, and what memory should not be given for."""
    entries: list[Stated] = []
    unknown = 0
    async for entry in farmer.list():
        check_size(entry, known.get(entry.shard), ledger)
        entries.append(entry)
        unknown += entry.shard not in known
        if unknown > limits.UNKNOWN_SHOWN_MAX:
            raise CommandError(
                f"the farmer lists more than {limits.UNKNOWN_SHOWN_MAX} shards that you have no"
                " receipts for, which is more than can be shown; a program can go over them one"
                " by one: list() in farmer.client.blocking"
            )
    return entries


def stat(home: Home, options: argparse.Namespace) -> int:
    """Show one shard."""
    shard = home.shard(options.shard)
    address = home.holder(shard, options.farmer)
    entry = home.entry(shard, str(address.farmer))
    stated, bad = ask(home, address, lambda farmer: _stat(farmer, shard, entry, home.ledger))
    if options.json:
        damage = {} if bad is None else {"bad_blocks": list(bad.blocks)}
        print_document({"farmer": str(address.farmer), **shard_row(stated, entry), **damage})
    else:
        say(shard_text(stated, bad))
    return OK


async def _stat(
    farmer: Farmer, shard: ShardId, entry: Entry | None, ledger: Ledger
) -> tuple[Stated, BadBlocks | None]:
    """Ask for a shard, and for its damage if it has some and the farmer tells."""
    stated = await farmer.stat(shard)
    check_size(stated, entry, ledger)
    if stated.state is not ShardState.QUARANTINED:
        return stated, None
    try:
        return stated, await farmer.examine(shard, stated.size_bytes)
    except RefusedError:
        return stated, None


def check_size(stated: Stated, entry: Entry | None, ledger: Ledger) -> None:
    """Refuse a size that the farmer's own receipt, if we have a sound one, contradicts."""
    if entry is None or stated.size_bytes == entry.receipt.size_bytes:
        return
    if ledger.is_sound(entry):
        raise FarmerBrokeProtocolError(
            f"the farmer says that {stated.shard} has {stated.size_bytes} bytes; the receipt that"
            f" it signed says {entry.receipt.size_bytes}"
        )


def shard_text(stated: Stated, bad: BadBlocks | None) -> str:
    """Return a shard as people read it, with its damage as far as that is known."""
    gone = f", gone on {format_moment(stated.gone_at_ms)}" if stated.gone_at_ms else ""
    size, stored = format_size(stated.size_bytes), format_moment(stated.stored_at_ms)
    text = f"{stated.shard}  {size}  stored {stored}  {stated.state.name.lower()}{gone}"
    if stated.state is not ShardState.QUARANTINED:
        return text
    return f"{text}\n{_damage_text(bad)}"


def _damage_text(bad: BadBlocks | None) -> str:
    """Return what the farmer's disk has lost, and what to do about it."""
    if bad is None or not bad.blocks:
        return "The farmer's disk damaged it: renter repair sends what is missing again."
    some = ", ".join(map(str, bad.blocks[:BLOCKS_SHOWN])) + (
        ", ..." if len(bad.blocks) > BLOCKS_SHOWN else ""
    )
    return (
        f"The farmer's disk damaged {format_size(bad.wanted_bytes)} of it (64 KiB blocks {some}):"
        " renter repair sends those again."
    )


def shard_row(stated: Stated, entry: Entry | None) -> dict[str, object]:
    """Return a shard as other programs read it, with what we know of it."""
    return {
        "shard": str(stated.shard),
        "size_bytes": stated.size_bytes,
        "stored_at_ms": stated.stored_at_ms,
        "state": stated.state.name.lower(),
        "gone_at_ms": stated.gone_at_ms,
        "file": "" if entry is None else entry.file,
    }
