"""What the engine is doing when it is struck: stores, deletes, erases, resumes, tidying."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from farmer.model.contract import Offer
from farmer.model.ids import NodeId
from farmer.storage import worthwhile
from farmer.storage.claims import EngineUpload
from farmer.storage.contracts import ContractDatabase
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.duty import Duty, Leaving
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError
from farmer.storage.files import Files, OsFiles
from tests.crash.belief import AFTER, Held, Item
from tests.storage.bench import LIMITS, MIB, NODE, contract_of

QUOTA = 64 * MIB
NOW_MS = 1_800_000_000_000
OBSERVED_MS = 5_000_000
KEPT_BYTES = 24 * MIB
"""A renter gives something up before it has more than its part of this."""

SIZES = (0, 100, 3_000, 4_096, 9_000, 30_000, 65_537, 250_000)
LARGE = (MIB + 1, MIB + 400_000)

Say = Callable[[str], None]


def make_volumes(path: Path) -> None:
    """Make two volumes, so that shards can be moved between them."""
    for one in (path, second(path)):
        create_volume(one, NODE, OsFiles(), NOW_MS)


def second(path: Path) -> Path:
    return path.with_name(f"{path.name}-second")


def volumes_of(path: Path) -> list[Path]:
    """Return the volume, and the second one if there is one."""
    return [one for one in (path, second(path)) if one.exists()]


def open_engine(path: Path, files: Files | None = None) -> Engine:
    return Engine(
        [VolumeSettings(one, QUOTA) for one in volumes_of(path)],
        NODE,
        files or OsFiles(),
        clock_ms=lambda: NOW_MS,
        observed_ms=lambda: OBSERVED_MS,
        limits=LIMITS,
    )


def open_book(path: Path) -> ContractDatabase:
    book = ContractDatabase(
        path, farmer_key=b"k" * 32, now_ms=lambda: NOW_MS, digest=lambda _: bytes(32)
    )
    book.clock.tick(NOW_MS, 0)
    return book


class Worker:
    """One renter, one operation at a time; says before and after each."""

    def __init__(self, engine: Engine, renter: int, seed: object, say: Say) -> None:
        self.engine = engine
        self.renter = renter
        self.say = say
        self.rng = random.Random(f"{renter} {seed}")
        self.has: dict[Item, Held] = {}
        self.share_bytes = KEPT_BYTES
        self.large_share = 0.06

    def step(self) -> None:
        """Do one thing and say so; what the engine refuses is said as well."""
        operation, item = self._choose()
        self.say(f"begin {operation} {item}")
        try:
            if self._do(operation, item):
                self.say(f"done {operation} {item}")
        except StorageError as error:
            said = " ".join(alert.message for alert in self.engine.trouble()).replace("\n", " ")
            self.say(f"odd {operation} {item} {error!r} {said}".rstrip())
            self.has.pop(item, None)
        else:
            if operation in AFTER:
                self.has[item] = AFTER[operation]
            if self.has.get(item) is Held.ABSENT:
                del self.has[item]

    def _choose(self) -> tuple[str, Item]:
        rng = self.rng
        live = [item for item, held in self.has.items() if held is Held.LIVE]
        trash = [item for item, held in self.has.items() if held is Held.TRASH]
        if sum(item.size_bytes + 8192 for item in self.has) > self.share_bytes:
            return "erase", rng.choice(live or trash)
        kind = rng.random()
        if live and kind < 0.14:
            return "delete", rng.choice(live)
        if trash and kind < 0.22:
            return rng.choice(("undelete", "store")), rng.choice(trash)
        if live and kind < 0.36:
            return "erase", rng.choice(live + trash)
        if kind < 0.36 + self.large_share:
            item = Item(self.renter, rng.randrange(4), rng.choice(LARGE))
            return ("half" if item not in self.has and rng.random() < 0.5 else "store"), item
        size_bytes = rng.choice(SIZES)
        # All empty shards of a renter are one.
        number = rng.randrange(100_000) if size_bytes else 0
        return "store", Item(self.renter, number, size_bytes)

    def _do(self, operation: str, item: Item) -> bool:
        engine, renter = self.engine, item.renter_id
        if operation in {"delete", "erase"}:
            engine.delete(renter, item.shard, erase=operation == "erase").result(60)
        elif operation == "undelete":
            engine.undelete(renter, item.shard).result(60)
        else:
            return self._store(item, half=operation == "half")
        return True

    def _store(self, item: Item, *, half: bool) -> bool:
        upload = self.engine.begin(contract_of(item.renter_id), item.shard, item.size_bytes)
        if not isinstance(upload, EngineUpload):
            return not half
        data = item.data
        end = len(data) // 2 if half else len(data)
        for start in range(upload.offset, end, 128 * 1024):
            upload.write(data[start : min(end, start + 128 * 1024)])
        if half:
            upload.abandon()
            return True
        upload.commit().result(60)
        return True


class Redeemer:
    """Renters who redeem invites, each once."""

    def __init__(self, book: ContractDatabase, seed: object, say: Say) -> None:
        self.book = book
        self.say = say
        self.rng = random.Random(f"redeemer {seed}")

    def step(self) -> None:
        offer = Offer(
            space_bytes=1000,
            duration_ms=90 * 86_400_000,
            created_at_ms=NOW_MS,
            expires_at_ms=NOW_MS + 86_400_000,
        )
        serial = self.book.mint(offer, 1 << 40)
        renter = NodeId(self.rng.randbytes(32))
        name = f"{serial.raw.hex()}:{renter.raw.hex()}"
        self.say(f"begin redeem {name}")
        self.book.redeem(serial, renter)
        self.say(f"done redeem {name}")
        # Beside the shards, not instead of them.
        time.sleep(0.02)


def tidy(engine: Engine, say: Say) -> None:
    """Compact, condense marks, empty what is to be emptied."""
    say("phase tidying")
    before = _segments(engine)
    engine.sweep(NOW_MS, OBSERVED_MS)
    # Only a compaction takes a segment away; what stores began meanwhile is not among these.
    if compacted := len(before - _segments(engine)):
        say(f"did compact {compacted}")
    say("phase working")


def _segments(engine: Engine) -> set[Path]:
    logs = [volume.ground.paths.log for volume in engine.opened()]
    return {segment for log in logs for segment in log.iterdir()}


def move_some(engine: Engine, rng: random.Random, say: Say) -> None:
    """Empty one of two volumes into the other for a while, or to the end."""
    volumes = engine.opened()
    if len(volumes) < 2:
        return
    say("phase moving")
    if not any(volume.duty for volume in volumes):
        engine.mover.begin(rng.choice(volumes), Duty(verb=Leaving.DRAIN, since_ms=NOW_MS))
    before = _moved(engine)
    is_over = False
    for _ in range(4):
        is_over = engine.mover.step() is None
        if is_over:
            break
    if moved := _moved(engine) - before:
        say(f"did move {moved}")
    for volume in volumes:
        if is_over and volume.duty:
            engine.mover.cancel(volume)
    say("phase working")


def _moved(engine: Engine) -> int:
    """Return how many shards have left the volumes that are being emptied."""
    works = map(engine.mover.work, engine.opened())
    return sum(work.moved_shards for work in works if work is not None)


def keep_busy(
    path: Path,
    seed: object,
    say: Say,
    has: dict[Item, Held],
    *,
    workers: int = 3,
    seconds: float = 3600.0,
    kept_bytes: int = KEPT_BYTES,
    kind_of_files: type[OsFiles] = OsFiles,
    book: Path | None = None,
) -> None:
    """
    Open a volume and work on it from several threads until killed, or for so long.

    With *book*, invites are redeemed as well.
    """
    rng = random.Random(str(seed))
    files = kind_of_files()
    if rng.random() < 0.5:
        files.punch = lambda _fd, _offset, _length: False  # type: ignore[method-assign]
    if rng.random() < 0.5:
        worthwhile.MARKS_SLACK_BYTES = 0  # type: ignore[misc]  # condense at every opportunity
    say("phase opening")
    engine = open_engine(path, files)
    say("phase working")
    until = time.monotonic() + seconds

    contracts = open_book(book) if book else None
    renters = [Worker(engine, renter, seed, say) for renter in range(workers)]
    steps: list[Callable[[], None]] = []
    for worker in renters:
        worker.share_bytes = kept_bytes // workers
        worker.has = {item: held for item, held in has.items() if item.renter == worker.renter}
        steps.append(worker.step)
    if contracts:
        steps.append(Redeemer(contracts, seed, say).step)
    threads = [
        threading.Thread(target=_repeat, args=(step, until, say), daemon=True) for step in steps
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.001, 0.03))
        tidy(engine, say)
        if rng.random() < 0.4:
            move_some(engine, rng, say)
    for thread in threads:
        thread.join()
    say("phase end")
    engine.close()
    if contracts:
        contracts.close()


def _repeat(step: Callable[[], None], until: float, say: Say) -> None:
    try:
        while time.monotonic() < until:
            step()
    except BaseException as error:
        say(f"odd {error!r}")
        raise
