"""
What a renter may believe after a crash: for each shard the states that are still possible.

A worker says what it begins and what was acknowledged, one line each.  What was
acknowledged is the only state possible; what was begun makes one more possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from farmer.model.ids import NodeId, ShardId
from tests.storage.bench import noise, shard_of


class Held(Enum):
    """What the farmer has of a shard."""

    ABSENT = "absent"
    LIVE = "live"
    TRASH = "trash"


AFTER = {
    "store": Held.LIVE,
    "delete": Held.TRASH,
    "undelete": Held.LIVE,
    "erase": Held.ABSENT,
}
"""Each operation, and what it leaves.  Others (begun, half, redeem ...) change no shard."""


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One shard of the workload; its bytes follow from its number."""

    renter: int
    number: int
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.renter}:{self.number}:{self.size_bytes}"

    @classmethod
    def of(cls, text: str) -> Item:
        return cls(*map(int, text.split(":")))

    @property
    def renter_id(self) -> NodeId:
        return NodeId(self.renter.to_bytes(32, "big"))

    @property
    def data(self) -> bytes:
        return _data(self.size_bytes, self.number)

    @property
    def shard(self) -> ShardId:
        return _shard(self.size_bytes, self.number)


@lru_cache(maxsize=2048)
def _data(size_bytes: int, number: int) -> bytes:
    return noise(size_bytes, number)


@lru_cache(maxsize=65536)
def _shard(size_bytes: int, number: int) -> ShardId:
    return shard_of(_data(size_bytes, number))


@dataclass
class Belief:
    """What may be there.  `hear` lines in the order in which they were said."""

    possible: dict[Item, set[Held]] = field(default_factory=dict)
    begun: dict[Item, str] = field(default_factory=dict)
    """Operations that nothing was heard of since."""
    redeemed: dict[bytes, NodeId] = field(default_factory=dict)
    """Spent invites, by serial, and whose contract they became."""
    maybe_redeemed: dict[bytes, NodeId] = field(default_factory=dict)
    acknowledged: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    """What was done without being asked for: compactions, shards moved."""
    said: list[str] = field(default_factory=list)
    """Whatever else was said: phases and complaints."""
    phase: str = "start"

    def hear_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.hear(line)

    def hear(self, line: str) -> None:
        """Take a line: `begin|done OPERATION ITEM`, `did WHAT COUNT`, `phase NAME`, `odd WHY`."""
        verb, _, rest = line.strip().partition(" ")
        if verb == "phase":
            self.phase = rest
        elif verb == "did":
            what, _, count = rest.partition(" ")
            self.inside[what] += int(count)
        elif verb in {"begin", "done"}:
            operation, _, name = rest.partition(" ")
            if operation == "redeem":
                self._hear_redeem(verb, name)
            else:
                self._hear_shard(verb, operation, Item.of(name))
        else:
            self.said.append(line.strip())

    def _hear_redeem(self, verb: str, name: str) -> None:
        serial, renter = (bytes.fromhex(part) for part in name.split(":"))
        self.maybe_redeemed[serial] = NodeId(renter)
        if verb == "done":
            self.redeemed[serial] = NodeId(renter)
            self.acknowledged["redeem"] += 1

    def _hear_shard(self, verb: str, operation: str, item: Item) -> None:
        possible = self.possible.setdefault(item, {Held.ABSENT})
        if verb == "begin":
            self.begun[item] = operation
            if operation in AFTER:
                possible.add(AFTER[operation])
        else:
            self.begun.pop(item, None)
            self.acknowledged[operation] += 1
            if operation in AFTER:
                self.possible[item] = {AFTER[operation]}

    @property
    def kinds(self) -> Counter[str]:
        """How much of each kind of work was done, asked for or not."""
        return self.acknowledged + self.inside

    def settle(self, seen: dict[Item, Held]) -> None:
        """From now on what was seen after the crash is what must stay."""
        self.possible = {item: {held} for item, held in seen.items() if held is not Held.ABSENT}
        self.begun.clear()
        self.phase = "start"
