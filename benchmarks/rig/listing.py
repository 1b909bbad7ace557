"""A renter's whole list of shards, as the farmer tells it over TLS, in a few bytes."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from benchmarks.rig.answers import expect
from benchmarks.rig.errors import MeasuringError
from farmer.model.ids import ShardId
from farmer.protocol.limits import LIST_ENTRIES_MAX
from farmer.protocol.questions import List, Listed
from tests.load.lines import EVENT, Crowd, Line, greeting, identity_of

LIST_S: Final = 1800.0
"""For a whole list; one that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list says: two of them are equal if and only if the same shards are on them."""

    shards: int
    digest: str
    """SHA-256 of all ids, in the order they come in."""


def listing(address: tuple[str, int], renter: int) -> Listing:
    """Ask for all pages; raises `MeasuringError`."""
    crowd = Crowd(address)
    line = crowd.call(identity_of(renter))
    found: list[Listing] = []
    line.script = _listed(line, found)
    until = time.monotonic() + LIST_S
    while not found:
        crowd.run(0.1)
        if crowd.losses or time.monotonic() > until:
            raise MeasuringError(f"a list did not come to its end: {crowd.losses or 'too slow'}")
    line.close()
    return found[0]


def _listed(line: Line, found: list[Listing]) -> Generator[float, Any, None]:
    yield from greeting(line)
    after, more, shards, digest = ShardId(bytes(32)), True, 0, sha256()
    while more:
        line.say(List(after, LIST_ENTRIES_MAX))
        page = yield EVENT
        expect(page, Listed)
        digest.update(b"".join(entry.shard.raw for entry in page.entries))
        shards, more = shards + len(page.entries), page.more
        after = page.entries[-1].shard if page.entries else after
    found.append(Listing(shards, digest.hexdigest()))
