"""
A volume of the live daemon emptied under load, back and forth, and struck while it is.

Renters work as in `tests.crash.live`; besides, they audit what they hold and read it, and
every one of their stores is timed: emptying a volume must not make them wait.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from farmer.client.auditing import Verdict
from farmer.client.blocking import BlockingFarmer
from farmer.identity.signing import parse_link
from farmer.model.contract import InviteLink, Receipt
from farmer.model.ids import ShardId
from tests.crash.belief import AFTER, Held, Item
from tests.crash.live import (
    GIVEN_UP_S,
    LARGE,
    QUOTA,
    RENTERS,
    SIZES,
    SPACE,
    Field,
    Tenant,
    make_daemon,
)
from tests.e2e.daemon import Daemon

PAUSE_S_MAX = 1.0
"""What a store may be kept waiting by a switch from one volume to the other."""

SHARDS_KEPT = 120
"""Of each renter; some 35 MB."""

TRASH_KEPT = 40

STILL_S = 5.0
"""Load before the first strike."""


class Watcher(Tenant):
    """A renter who also audits, and watches the clock."""

    def __init__(self, number: int, folder: Path, link: InviteLink, field: Field) -> None:
        super().__init__(number, folder, link, field)
        self.longest_s = 0.0
        self.receipts: dict[ShardId, Receipt] = {}

    def _step(self, farmer: BlockingFarmer) -> None:
        if self.rng.random() < 0.15:
            self._audit(farmer)
        before, began_s = self.field.crash, time.monotonic()
        was_dark = self.field.is_dark
        super()._step(cast(BlockingFarmer, _Keeping(farmer, self.receipts)))
        if not (was_dark or self.field.is_dark) and self.field.crash == before:
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)

    def _choose(self) -> tuple[str, Item]:
        """Keep many shards: what is to be moved must not be gone before its turn."""
        rng = self.rng
        sure = {item: next(iter(p)) for item, p in self.belief.possible.items() if len(p) == 1}
        live = [item for item, held in sure.items() if held is Held.LIVE]
        trash = [item for item, held in sure.items() if held is Held.TRASH]
        kind = rng.random()
        if len(trash) > TRASH_KEPT:
            # It counts against the contract, which would be full before long.
            return "erase", rng.choice(trash)
        if len(live) > SHARDS_KEPT or (live and kind < 0.15):
            return rng.choice(("erase", "delete")), rng.choice(live)
        if trash and kind < 0.35:
            return rng.choice(("undelete", "erase")), rng.choice(trash)
        size = rng.choice(LARGE if kind > 0.93 else SIZES)
        return "store", Item(self.number, rng.randrange(100_000) if size else 0, size)

    def _audit(self, farmer: BlockingFarmer) -> None:
        sure = (item for item, may in self.belief.possible.items() if may == {Held.LIVE})
        held = [self.receipts[item.shard] for item in sure if item.shard in self.receipts]
        some = self.rng.sample(held, min(8, len(held)))
        if not some:
            return
        crash = self.field.crash
        report = farmer.audit(some)
        failed = report.of(Verdict.FAILED)
        if failed and self.field.crash == crash and not self.field.is_dark:
            self.field.complain(f"an audit failed: {failed}")
        self.field.counts["audited"] += len(some)


class _Keeping:
    """A farmer's client that keeps the receipts it is given."""

    def __init__(self, farmer: BlockingFarmer, receipts: dict[ShardId, Receipt]) -> None:
        self._farmer = farmer
        self._receipts = receipts

    def store(self, source: BinaryIO) -> Receipt:
        receipt = self._farmer.store(source)
        self._receipts[receipt.shard] = receipt
        return receipt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._farmer, name)


def campaign(folder: Path, kills: int, seed: int) -> tuple[str, list[str]]:
    """Kill it so often while a volume is emptied; return the last line, and what was wrong."""
    with make_daemon(folder, folder / "farmer.log") as daemon:
        daemon.start()
        other = folder / "other"
        assert daemon.call("volume", "add", f"{other}={QUOTA}").returncode == 0
        field = Field()
        links = [parse_link(daemon.invite(SPACE)) for _ in range(RENTERS)]
        tenants = [Watcher(n, folder / f"t{n}", link, field) for n, link in enumerate(links)]
        with _at_work(tenants, field):
            time.sleep(STILL_S)
            drains = _strike(daemon, [daemon.volume, other], kills, field, seed)
            drains += _until_empty(daemon, daemon.volume, field)
        _check(daemon, tenants, field)
        if daemon.stop():
            field.complain("it did not stop in order")
    longest_ms = max(tenant.longest_s for tenant in tenants) * 1000
    if longest_ms > PAUSE_S_MAX * 1000:
        field.complain(f"an operation took {longest_ms:.0f} ms")
    for tenant in tenants:
        field.counts.update(tenant.belief.acknowledged)
    acks = sum(field.counts[kind] for kind in AFTER)
    if not (acks and field.counts["moved shards"]):
        field.complain("too little was going on")
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(field.counts.items()))
    line = (
        f"moving kills {kills} drains {drains} acks {acks} ({kinds}) longest {longest_ms:.0f} ms"
    )
    return f"{line} violations {len(field.wrong)}", field.wrong


@contextmanager
def _at_work(tenants: list[Watcher], field: Field) -> Iterator[None]:
    for tenant in tenants:
        tenant.join_farmer()
        tenant.thread.start()
    yield
    field.is_over = True
    for tenant in tenants:
        tenant.thread.join(GIVEN_UP_S)
        if tenant.thread.is_alive():
            field.complain(f"renter {tenant.number} hangs")


def _strike(daemon: Daemon, volumes: list[Path], kills: int, field: Field, seed: int) -> int:
    """Empty one volume, then the other, and kill the farmer in the middle of it."""
    rng, drains = random.Random(seed), 0
    for number in range(kills):
        source, other = volumes if number % 2 == 0 else reversed(volumes)
        daemon.call("volume", "drain", str(other), "--cancel")
        begun = daemon.call("volume", "drain", str(source), "--rate", "6MB")
        if begun.returncode:
            field.complain(f"no drain was begun: {begun.stderr}")
        time.sleep(rng.uniform(0.3, 1.5))
        field.counts["moved shards"] += _work(daemon, source)["moved_shards"]
        drains += 1
        field.is_dark = True
        daemon.kill()
        field.crash += 1
        daemon.start()
        field.is_dark = False
        if _work(daemon, source)["verb"] != "drain":
            field.complain("it does not go on by itself")
        drains += _until_empty(daemon, source, field) if number % 2 else 0
        daemon.call("volume", "drain", str(source), "--cancel")
    return drains


def _until_empty(daemon: Daemon, source: Path, field: Field) -> int:
    if _row(daemon, source)["work"] is None:
        daemon.call("volume", "drain", str(source))
    deadline = time.monotonic() + GIVEN_UP_S
    while (work := _work(daemon, source))["left_shards"] or work["unfinished_bytes"]:
        if time.monotonic() > deadline:
            field.complain(f"it is not empty after {GIVEN_UP_S:g} s: {work}")
            return 0
        time.sleep(0.3)
    field.counts["moved shards"] += work["moved_shards"]
    return 1


def _check(daemon: Daemon, tenants: list[Watcher], field: Field) -> None:
    """Everything of everybody, read to the last byte; ledger and disks agree."""
    from farmer.client import blocking

    for tenant in tenants:
        with blocking.connect(tenant.link, tenant.identity) as farmer:
            tenant.verify(farmer, sorted(tenant.belief.possible))
            mine, used = len(list(farmer.list())), farmer.contract().usage
            if used.shards != mine:
                field.complain(f"{mine} shards are listed, {used.shards} counted")
    rows = [_row(daemon, path) for path in (daemon.volume, daemon.volume.parent / "other")]
    for row in rows:
        if row["state"] != "healthy" or row["quarantined"]:
            field.complain(f"a volume is {row}")


def _work(daemon: Daemon, path: Path) -> dict[str, Any]:
    return _row(daemon, path)["work"] or {"verb": "", "moved_shards": 0}


def _row(daemon: Daemon, path: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = daemon.status()["volumes"]
    return next(row for row in rows if row["path"] == str(path))
