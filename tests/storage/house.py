"""An engine of several volumes, whose rows are made by hand and whose time a test moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from farmer.model.ids import ShardId
from farmer.storage.crossing import Crossing
from farmer.storage.directory import MARKER_NAME
from farmer.storage.engine import Engine
from farmer.storage.marks import Action
from farmer.storage.opening import Spawn, at_once
from farmer.storage.operations import Upkeep, mark_of
from farmer.storage.places import Key, Row
from farmer.storage.reunion import Reunion
from farmer.storage.slots import Slots
from farmer.storage.transaction import Transaction
from farmer.storage.volume import Volume
from farmer.storage.whereabouts import Whereabouts
from tests.storage.bench import LIMITS, NODE, Farm, row

FIRST = ShardId(bytes(32))
ROW = row(shard=ShardId(b"s" * 32), stored_at_ms=1000)
KEY = (ROW.renter, ROW.shard)


@dataclass
class Clock:
    """Monotonic time, moved by hand."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class House:
    """An engine of several volumes, whose rows are made by hand."""

    farm: Farm
    clock: Clock = field(default_factory=Clock)
    spawn: Spawn = at_once
    met: list[int] = field(default_factory=list)
    """The volumes of which it was noted that they have met all others."""

    def __post_init__(self) -> None:
        self.farm.engine.close()
        self.farm.engine = Engine(
            self.farm.settings,
            NODE,
            self.farm.files,
            clock_ms=lambda: self.farm.clocks.now_ms,
            observed_ms=lambda: self.farm.clocks.observed_ms,
            limits=LIMITS,
            monotonic_s=self.clock,
            spawn=self._spawn,
            annexes=self.farm.annexes,
        )

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        self.spawn(name, work)

    @property
    def engine(self) -> Engine:
        return self.farm.engine

    @property
    def volumes(self) -> list[Volume]:
        return self.engine.opened()

    @property
    def slots(self) -> Slots:
        return self.engine._slots

    @property
    def where(self) -> Whereabouts:
        return self.engine._where

    def put(self, number: int, *rows: Row) -> None:
        """Enter rows as one volume's."""

        def enter(transaction: Transaction) -> None:
            for one in rows:
                transaction.correct(one)

        self.volumes[number].writer.submit(Upkeep(enter)).result(20)

    def bury(self, number: int, row: Row, observed_ms: int) -> None:
        """Let one volume have a tombstone."""
        stone = mark_of(row, Action.TOMBSTONE, 0, observed_ms)
        work = Upkeep(lambda transaction: transaction.apply(stone))
        self.volumes[number].writer.submit(work).result(20)

    def rows(self, renter: Key = KEY) -> list[list[Row]]:
        return [volume.ground.index.page(renter[0], FIRST, 99) for volume in self.volumes]

    def go(self, number: int) -> Path:
        """Let one volume's disk be unmounted."""
        marker = self.farm.settings[number].path / MARKER_NAME
        marker.rename(marker.with_name("aside"))
        self.slots.look_after()
        return marker

    def reunion(
        self,
        *,
        volumes: Callable[[], Sequence[Volume]] | None = None,
        is_certain: Callable[[], bool] = lambda: True,
        crossing: Crossing | None = None,
    ) -> Reunion:
        return Reunion(volumes or self.engine.opened, is_certain, crossing or Crossing())


def stalled(house: House, *numbers: int) -> list[AbstractContextManager[object]]:
    """Return calls into volumes, which stall by them."""
    calls = [house.volumes[number].ground.watch.call("read", holds_up=True) for number in numbers]
    return list(calls)
