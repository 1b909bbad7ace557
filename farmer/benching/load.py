"""
What a farmer does under load: stores, retrieves and audits, at several sizes and so many at once.

The renters run in this process, beside the farmer on the same machine: they hash what they send,
verify what they get, and take their share of the processor.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, FirstError, gatherResults

from farmer.benching.process import BenchError, OwnFarmer
from farmer.client.farmer import Farmer, connect
from farmer.client.limits import SESSIONS_MAX
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from farmer.model.contract import Receipt

SAMPLES: Final = 1
AUDITS_MAX: Final = 8000
"""Of a cell: all of them together stay within a day's budget of the renters."""

UNIQUE_BYTES: Final = 16
"""Of each shard; the rest is what the last one had, so that making it costs next to nothing."""

_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of work, at one size, so many at once."""

    what: str
    size_bytes: int
    at_once: int
    per_s: float
    mb_per_s: float
    median_ms: float
    p99_ms: float
    processor_us: float
    """The farmer's, for each operation."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, within which bounds."""

    sizes: tuple[int, ...]
    at_once: tuple[int, ...]
    seconds: float
    """For each cell; the last operations may end later."""
    bytes_max: int
    """Stored for each size and number, and erased again."""
    quota_bytes: int
    """Of the volume."""

    @property
    def renters(self) -> int:
        """How many the largest number of requests at once needs."""
        return -(-max(self.at_once) // SESSIONS_MAX)

    @property
    def contract_bytes(self) -> int:
        """What each of them may store: together not quite what the volume has."""
        return 9 * self.quota_bytes // (10 * self.renters)


async def measure_load(
    owned: OwnFarmer,
    folder: Path,
    plan: Plan,
    reactor: Any,  # noqa: ANN401 - a reactor is many interfaces at once
    told: Callable[[str], None],
) -> list[Cell]:
    """
    Run all cells.

    Raises:
        BenchError: an audit was not answered, or failed.
        ClientError: another request failed.

    """
    cells: list[Cell] = []
    async with _renters(owned, folder, plan, reactor) as renters:
        for size_bytes in plan.sizes:
            for at_once in plan.at_once:
                if size_bytes * at_once > plan.bytes_max:
                    continue
                told(f"{at_once} at once, {size_bytes >> 10} KiB")
                cells += await _cells(owned, renters, plan, size_bytes, at_once)
    return cells


@asynccontextmanager
async def _renters(
    owned: OwnFarmer,
    folder: Path,
    plan: Plan,
    reactor: Any,  # noqa: ANN401
) -> AsyncIterator[list[Farmer]]:
    """Let the renters redeem, and hang up at the end."""
    async with AsyncExitStack() as stack:
        renters = []
        for number in range(plan.renters):
            identity = Identity.create(folder / f"renter{number}")
            link = parse_link(owned.invite(plan.contract_bytes))
            renter = await stack.enter_async_context(connect(link, identity, reactor))
            await renter.redeem(link.invite)
            renters.append(renter)
        yield renters


async def _cells(
    owned: OwnFarmer, renters: Sequence[Farmer], plan: Plan, size_bytes: int, at_once: int
) -> list[Cell]:
    held: list[tuple[Farmer, Receipt]] = []
    # One for each line of work, written over: to make room for bytes takes time of the renter's.
    buffers = [io.BytesIO(os.urandom(size_bytes)) for _ in range(at_once)]
    left, audits_left = plan.bytes_max // size_bytes, AUDITS_MAX

    async def store(renter: Farmer, number: int) -> bool:
        nonlocal left
        if not left:
            return False
        left -= 1
        source = buffers[number % at_once]
        source.seek(0)
        source.write(os.urandom(UNIQUE_BYTES))
        source.seek(0)
        held.append((renter, await renter.store(source)))
        return True

    async def retrieve(_renter: Farmer, number: int) -> bool:
        renter, receipt = held[number % len(held)]
        target = buffers[number % at_once]
        target.seek(0)
        await renter.retrieve(receipt.shard, target)
        return True

    async def audit(_renter: Farmer, number: int) -> bool:
        nonlocal audits_left
        if not audits_left:
            return False
        audits_left -= 1
        renter, receipt = held[number % len(held)]
        report = await renter.audit([receipt], SAMPLES)
        if not report.is_pass:
            # One that was put off takes no time, and would make the figure a lie.
            raise BenchError(f"an audit did not pass: {report}")
        return True

    cells = []
    for what, step in (("store", store), ("retrieve", retrieve), ("audit", audit)):
        cells.append(await _cell(owned, renters, plan, step, (what, size_bytes, at_once)))
    for renter, receipt in held:
        await renter.delete(receipt.shard, erase=True)
    return cells


async def _cell(
    owned: OwnFarmer,
    renters: Sequence[Farmer],
    plan: Plan,
    step: Callable[[Farmer, int], Awaitable[bool]],
    named: tuple[str, int, int],
) -> Cell:
    what, size_bytes, at_once = named
    took: list[float] = []
    began, used_s = time.perf_counter(), owned.processor_s()
    until = began + plan.seconds

    async def work(line: int) -> None:
        number = line
        while (now := time.perf_counter()) < until:
            if not await step(renters[number % len(renters)], number):
                return
            took.append(time.perf_counter() - now)
            number += at_once

    await _together([work(line) for line in range(at_once)])
    lasted, used_s = time.perf_counter() - began, owned.processor_s() - used_s
    per_s = len(took) / lasted
    moves = 0 if what == "audit" else size_bytes
    return Cell(
        what=what,
        size_bytes=size_bytes,
        at_once=at_once,
        per_s=per_s,
        mb_per_s=per_s * moves / _MB,
        median_ms=statistics.median(took) * 1000,
        p99_ms=sorted(took)[int(len(took) * 0.99)] * 1000,
        processor_us=used_s / len(took) * 1e6,
    )


async def _together(works: Sequence[Coroutine[Deferred[Any], Any, None]]) -> None:
    try:
        await gatherResults([Deferred.fromCoroutine(work) for work in works], consumeErrors=True)
    except FirstError as first:
        first.subFailure.raiseException()
