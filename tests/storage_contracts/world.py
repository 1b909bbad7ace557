"""A contract database in a folder, with clocks that a test turns."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

from farmer.model.contract import Contract, Offer, Price
from farmer.model.ids import InviteSerial, NodeId
from farmer.storage.contracts import ContractDatabase

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START_MS = 1_750_000_000_000
KEY = b"k" * 32
ANNA, BERTA = NodeId(b"a" * 32), NodeId(b"b" * 32)


def digest(contract: Contract) -> bytes:
    return sha256(repr(contract).encode()).digest()


class World:
    """Times are what the test says; `sleep` passes time as a running machine sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "contracts.sqlite"
        self.wall_ms = START_MS
        self.up_ms = 0
        self.drawn = 0
        self.opened: list[ContractDatabase] = []
        """Each that was ever opened, also by copies."""
        self.book = self.open()

    def open(self, *, ticked: bool = True) -> ContractDatabase:
        self.book = ContractDatabase(
            self.path,
            farmer_key=KEY,
            now_ms=lambda: self.wall_ms,
            digest=digest,
            random_bytes=self._random,
        )
        self.opened.append(self.book)
        # Months pass in these tests; what a crash leaves is looked at through the page cache.
        self.book._book._rows.execute("PRAGMA synchronous = OFF")
        if ticked:
            self.tick()
        return self.book

    def close(self) -> None:
        """Close what was left open, as a crash leaves it, too."""
        for book in self.opened:
            book.close()

    def restart(self, off_ms: int = 0) -> ContractDatabase:
        self.book.close()
        self.wall_ms += off_ms
        self.up_ms = 0
        return self.open()

    def crashed_copy(self, folder: Path) -> World:
        """What a restart finds after the power went just now: the files, nothing closed."""
        shutil.copytree(self.folder, folder)
        copy = World.__new__(World)
        copy.__dict__ |= self.__dict__ | {"folder": folder, "path": folder / self.path.name}
        copy.open()
        return copy

    def tick(self, *, tells_order: bool = False) -> None:
        self.book.clock.tick(self.wall_ms, self.up_ms / 1000, tells_order=tells_order)

    def sleep(self, ms: int, step_ms: int = 10 * 60_000) -> None:
        """Run for a while, looking at the clock every ten minutes."""
        for passed in range(0, ms, step_ms):
            step = min(step_ms, ms - passed)
            self.wall_ms += step
            self.up_ms += step
            self.tick()

    def jump(self, ms: int) -> None:
        """Let the wall clock alone move."""
        self.wall_ms += ms
        self.tick()

    def offer(self, space_bytes: int = 1000, days: int = 90, price: Price | None = None) -> Offer:
        return Offer(
            space_bytes=space_bytes,
            duration_ms=days * DAY_MS,
            created_at_ms=self.wall_ms,
            expires_at_ms=self.wall_ms + 7 * DAY_MS,
            price=price or Price(),
        )

    def mint(self, space_bytes: int = 1000, days: int = 90) -> InviteSerial:
        return self.book.mint(self.offer(space_bytes, days), 1 << 40)

    def join(self, renter: NodeId = ANNA, space_bytes: int = 1000, days: int = 90) -> Contract:
        return self.book.redeem(self.mint(space_bytes, days), renter)

    def advance(self) -> list[Contract]:
        return self.book.advance(self.wall_ms)

    def live(self, days: int) -> None:
        """Run for some days, sweeping as the chores do (but only daily)."""
        for _ in range(days):
            self.sleep(DAY_MS)
            self.advance()

    def _random(self, size: int) -> bytes:
        self.drawn += 1
        return sha256(b"random" + self.drawn.to_bytes(4, "big")).digest()[:size]
