"""
The live daemon killed while renters repair what has rotted on its disk.

Each renter keeps some shards.  One after the other rots, in some of its blocks, where it lies on
the disk, and is repaired over TLS.  Whenever the farmer is killed, the old record or the new
one is there: every shard is held, no wrong byte is served, and what was acknowledged as repaired
is sound.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections import Counter
from pathlib import Path

from farmer.client import blocking
from farmer.client.errors import ClientError
from farmer.client.refusals import CorruptError, RefusedError
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from farmer.model.contract import InviteLink, Receipt
from farmer.model.shard import BLOCK_BYTES, block_count
from tests.crash.belief import Item
from tests.crash.live import GIVEN_UP_S, RENTERS, SPACE, Field, make_daemon
from tests.e2e.daemon import Daemon
from tests.storage.bench import MIB

SIZES = (9_000, 300_000, MIB, 3 * MIB, 6 * MIB + 7)
"""Buffered ones, and large ones that are written step by step."""

ROTTEN_MAX = 8
"""Blocks of one shard that rot together."""

NEEDLE_BYTES = 64

AMID_S = 0.05
"""A kill comes at most so much after it was seen that a repair is going on."""


class Mender:
    """One renter at work in a thread of its own."""

    def __init__(self, number: int, folder: Path, link: InviteLink, field: Field) -> None:
        self.field = field
        self.link = link
        self.identity = Identity.create(folder / f"mender{number}")
        # Bytes that no other renter has: what rots is found by them.
        self.items = [Item(number, number, size) for size in SIZES]
        self.receipts: dict[Item, Receipt] = {}
        self.sound: set[Item] = set()
        """Those whose repair was acknowledged, and that have not rotted since."""
        self.seen_crash = 0
        self.is_sending = False
        """Whether blocks of a shard are on their way to the farmer."""
        self.rng = random.Random(number)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.volume = folder / "volume"

    def move_in(self) -> None:
        """Redeem the invite and store everything."""
        with blocking.connect(self.link, self.identity) as farmer:
            farmer.redeem(self.link.invite)
            for item in self.items:
                self.receipts[item] = farmer.store(io.BytesIO(item.data))
        self.sound = set(self.items)

    def _run(self) -> None:
        try:
            while not self.field.is_over:
                try:
                    with blocking.connect(self.link, self.identity) as farmer:
                        self._live(farmer)
                except ClientError:
                    time.sleep(0.1)
        except BaseException as error:
            self.field.complain(f"renter {self.identity.node_id} fell over: {error!r}")
            raise

    def _live(self, farmer: blocking.BlockingFarmer) -> None:
        while not self.field.is_over:
            crash = self.field.crash
            if self.seen_crash != crash:
                self.verify(farmer)
                self.seen_crash = crash
            item = self.rng.choice(self.items)
            self._rot(item)
            self.mend(farmer, item)
            self._read(farmer, item)

    def _rot(self, item: Item) -> None:
        self.sound.discard(item)
        # A last block of a few bytes would be found in other shards, too.
        blocks = max(1, block_count(item.size_bytes) - 1)
        some = self.rng.sample(range(blocks), min(blocks, self.rng.randint(1, ROTTEN_MAX)))
        needles = [item.data[block * BLOCK_BYTES :][:NEEDLE_BYTES] for block in some]
        for path in self.volume.rglob("*"):
            if path.suffix in {".seg", ".part"}:
                rot_in(path, needles)

    def mend(self, farmer: blocking.BlockingFarmer, item: Item) -> None:
        """Repair one; a kill in between is made up for by the client, or seen as an error."""

        def progress(_done: int, wanted: int) -> None:
            self.is_sending = bool(wanted)

        try:
            repaired = farmer.repair(item.shard, io.BytesIO(item.data), progress)
        except RefusedError as error:
            self.field.complain(f"the repair of {item} was refused: {error!r}")
        else:
            self.receipts[item] = repaired.receipt
            self.sound.add(item)
            with self.field.lock:
                self.field.counts["repaired"] += bool(repaired.bad.blocks)
                self.field.counts["blocks"] += len(repaired.bad.blocks)
        finally:
            self.is_sending = False

    def verify(self, farmer: blocking.BlockingFarmer) -> None:
        """Everything is held; of what is not sound, nothing wrong is served."""
        listed = {stated.shard for stated in farmer.list()}
        for item in self.items:
            if item.shard not in listed:
                self.field.complain(f"{item} is lost")
            else:
                self._read(farmer, item)

    def _read(self, farmer: blocking.BlockingFarmer, item: Item) -> None:
        target, was_sound = io.BytesIO(), item in self.sound
        try:
            farmer.retrieve(item.shard, target)
        except CorruptError as error:
            if was_sound:
                self.field.complain(f"{item} was repaired, and is damaged: {error!r}")
        except RefusedError as error:
            self.field.complain(f"{item} cannot be read: {error!r}")
        else:
            if target.getvalue() != item.data:
                self.field.complain(f"{item} has wrong bytes")


def rot_in(path: Path, needles: list[bytes]) -> None:
    """Change a bit at each place where one of the needles stands."""
    try:
        with path.open("r+b") as file:
            content = file.read()
            for needle in needles:
                at = content.find(needle)
                while at >= 0:
                    file.seek(at)
                    file.write(bytes([content[at] ^ 1]))
                    at = content.find(needle, at + 1)
    except FileNotFoundError:
        # Given back, or moved out of staging, in the meantime: it rots another time.
        return


def campaign(folder: Path, kills: int, seed: int) -> tuple[str, list[str]]:
    """Kill the farmer so often; return the last line, and what was wrong."""
    field = Field()
    with make_daemon(folder, folder / "farmer.log") as daemon:
        daemon.start()
        links = [parse_link(daemon.invite(SPACE)) for _ in range(RENTERS)]
        menders = [Mender(number, folder, link, field) for number, link in enumerate(links)]
        for mender in menders:
            mender.move_in()
            mender.thread.start()
        _strike(daemon, menders, field, kills, seed)
        field.is_over = True
        for mender in menders:
            mender.thread.join(GIVEN_UP_S)
            if mender.thread.is_alive():
                field.complain("a renter hangs")
        _check(daemon, menders, field)
    return report(kills, field.counts, field.wrong), field.wrong


def _strike(daemon: Daemon, menders: list[Mender], field: Field, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(kills):
        _wait(lambda: _is_the_moment(menders, rng), field, "repair anything")
        field.counts["amid repairs"] += _are_sending(menders)
        daemon.kill()
        field.crash = number + 1
        daemon.start()
        if number % 3 == 2:
            _wait(lambda: all(m.seen_crash == field.crash for m in menders), field, "get on")


def _are_sending(menders: list[Mender]) -> bool:
    return any(mender.is_sending for mender in menders)


def _is_the_moment(menders: list[Mender], rng: random.Random) -> bool:
    """Whether to kill now, amid a repair: early or late in it, however fast the machine is."""
    if not _are_sending(menders):
        return False
    time.sleep(rng.uniform(0.0, AMID_S))
    return _are_sending(menders)


def _wait(is_so, field: Field, what: str) -> None:  # type: ignore[no-untyped-def]  # a lambda
    deadline = time.monotonic() + GIVEN_UP_S
    while not is_so():
        if time.monotonic() > deadline:
            field.complain(f"the renters did not {what} within {GIVEN_UP_S:g} s")
            return
        time.sleep(0.002)


def _check(daemon: Daemon, menders: list[Mender], field: Field) -> None:
    """Repair what is left: then all is sound, audits pass, and nothing is held for nobody."""
    for mender in menders:
        with blocking.connect(mender.link, mender.identity) as farmer:
            for item in mender.items:
                mender.mend(farmer, item)
            mender.verify(farmer)
            audited = farmer.audit(mender.receipts.values())
            if not audited.is_pass:
                field.complain(f"an audit failed: {audited}")
    [volume] = daemon.status()["volumes"]
    held = len(menders) * len(SIZES)
    if (volume["state"], volume["shards"], volume["quarantined"]) != ("healthy", held, 0):
        field.complain(f"the volume is {volume}")
    if volume["reserved_bytes"]:
        field.complain(f"{volume['reserved_bytes']} bytes are kept for repairs that ended")
    if daemon.stop():
        field.complain("it did not stop in order")


def report(kills: int, counts: Counter[str], wrong: list[str]) -> str:
    """Return the last line; too little work at the moment of the kills is wrong too."""
    if counts["amid repairs"] < 0.6 * kills or counts["repaired"] < kills:
        wrong.append("too little was going on when it was killed")
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    return f"repairing kills {kills} ({kinds}) violations {len(wrong)}"
