"""
The live daemon struck under load: kill -9, and power cuts by the filesystem's shutdown call.

`farmer run` serves renters over TLS on loopback; each renter is a thread with the blocking
client, which stores small and large shards, deletes, undeletes, erases, and goes on over
the crash where the client's own retries do.  After each crash every renter compares what it
finds with what it was answered.  Invites are redeemed meanwhile, each by somebody new.
"""

from __future__ import annotations

import contextlib
import io
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from farmer.client import blocking
from farmer.client.dial import FarmerAddress
from farmer.client.errors import ClientError, WrongBytesError
from farmer.client.refusals import InviteSpentError, NotFoundError, RefusedError, UnavailableError
from farmer.identity.keys import Identity
from farmer.identity.signing import parse_link
from farmer.model.contract import InviteLink
from farmer.model.shard import ShardState
from tests.crash.belief import AFTER, Belief, Held, Item
from tests.crash.disks import cut_the_power, looped, make_image, mount, unmount
from tests.e2e.daemon import Daemon
from tests.storage.bench import MIB

RENTERS = 3
QUOTA = "900MB"
SPACE = "150MB"
KEPT_BYTES = 20 * MIB
SIZES = (0, 700, 9_000, 66_000, 400_000)
LARGE = (MIB + 1, 3 * MIB, 5 * MIB + 7)
GIVEN_UP_S = 40.0

_HELD = {ShardState.LIVE: Held.LIVE, ShardState.TRASH: Held.TRASH}


class Field:
    """What all threads share: who is up, what crash we are at, what went wrong."""

    def __init__(self) -> None:
        self.crash = 0
        self.is_over = False
        self.is_dark = False
        """Struck, and not yet started again: the disk may be gone under a farmer that runs."""
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def complain(self, line: str) -> None:
        with self.lock:
            self.wrong.append(f"crash {self.crash}: {line}")


class Tenant:
    """One renter at work in a thread of its own."""

    def __init__(self, number: int, folder: Path, link: InviteLink, field: Field) -> None:
        self.number = number
        self.identity = Identity.create(folder)
        self.link = link
        self.field = field
        self.belief = Belief()
        self.fresh: set[Item] = set()
        self.rng = random.Random(number)
        self.seen_crash = 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def join_farmer(self) -> None:
        with blocking.connect(self.link, self.identity) as farmer:
            farmer.redeem(self.link.invite)

    def _run(self) -> None:
        try:
            while not self.field.is_over:
                try:
                    with blocking.connect(_address(self.link), self.identity) as farmer:
                        self._live(farmer)
                except ClientError:
                    time.sleep(0.1)
        except BaseException as error:
            self.field.complain(f"renter {self.number} fell over: {error!r}")
            raise

    def _live(self, farmer: blocking.BlockingFarmer) -> None:
        while not self.field.is_over:
            if self.seen_crash != self.field.crash:
                crash = -1 if self.field.is_dark else self.field.crash
                known = sorted(self.belief.possible)
                self.verify(farmer, self.rng.sample(known, min(4, len(known))))
                self.seen_crash = crash
            self._step(farmer)

    def verify(self, farmer: blocking.BlockingFarmer, more: list[Item]) -> None:
        """Compare the farmer's list with what we were answered; read what is new, and more."""
        listed = {stated.shard: stated for stated in farmer.list()}
        if self.field.is_dark:
            return
        seen: dict[Item, Held] = {}
        for item, possible in self.belief.possible.items():
            stated = listed.pop(item.shard, None)
            held = Held.ABSENT if stated is None else _HELD.get(stated.state)
            if held not in possible:
                may = "/".join(sorted(one.value for one in possible))
                self.field.complain(f"{item} is {held}, must be {may}")
            if held is not None:
                seen[item] = held
        for shard in listed:
            self.field.complain(f"nobody stored {shard}")
        for item in {*self.fresh, *more}:
            if seen.get(item) is Held.LIVE:
                self._read(farmer, item)
        if not self.field.is_dark:
            self.fresh.clear()
            self.belief.settle(seen)

    def _read(self, farmer: blocking.BlockingFarmer, item: Item) -> None:
        target = io.BytesIO()
        try:
            farmer.retrieve(item.shard, target)
        except (RefusedError, WrongBytesError) as error:
            if not (self.field.is_dark and isinstance(error, UnavailableError)):
                self.field.complain(f"{item} cannot be read: {error!r}")
        else:
            if target.getvalue() != item.data:
                self.field.complain(f"{item} has wrong bytes")

    def _step(self, farmer: blocking.BlockingFarmer) -> None:
        operation, item = self._choose()
        self.belief.hear(f"begin {operation} {item}")
        self.fresh.add(item)
        try:
            if operation == "store":
                farmer.store(io.BytesIO(item.data))
            elif operation == "undelete":
                farmer.undelete(item.shard)
            else:
                farmer.delete(item.shard, erase=operation == "erase")
        except NotFoundError:
            # The answer to its first attempt was lost in a crash; the list will tell.
            if operation not in {"delete", "erase"}:
                self.field.complain(f"{item} was not found by {operation}")
        except UnavailableError as error:
            if not self.field.is_dark:
                self.field.complain(f"{operation} {item} was refused: {error!r}")
            time.sleep(0.2)
        except RefusedError as error:
            self.field.complain(f"{operation} {item} was refused: {error!r}")
            time.sleep(0.2)
        else:
            self.belief.hear(f"done {operation} {item}")

    def _choose(self) -> tuple[str, Item]:
        rng = self.rng
        sure = {item: next(iter(p)) for item, p in self.belief.possible.items() if len(p) == 1}
        live = [item for item, held in sure.items() if held is Held.LIVE]
        trash = [item for item, held in sure.items() if held is Held.TRASH]
        if live and sum(item.size_bytes for item in self.belief.possible) > KEPT_BYTES:
            return "erase", rng.choice(live + trash)
        kind = rng.random()
        if live and kind < 0.12:
            return "delete", rng.choice(live)
        if trash and kind < 0.2:
            return rng.choice(("undelete", "store")), rng.choice(trash)
        if live and kind < 0.3:
            return "erase", rng.choice(live + trash)
        size = rng.choice(LARGE if kind > 0.85 else SIZES)
        return "store", Item(self.number, rng.randrange(100_000) if size else 0, size)


class Strangers:
    """Invites, redeemed one by one, each by somebody new; afterwards all must be spent."""

    def __init__(self, folder: Path, links: list[InviteLink], field: Field) -> None:
        self.folder = folder
        self.links = links
        self.field = field
        self.redeemed: list[tuple[InviteLink, Identity]] = []
        self._threads: list[threading.Thread] = []

    def send_one(self) -> None:
        """Let the next one redeem, at the same time as whatever else happens."""
        if self.links:
            link = self.links.pop()
            thread = threading.Thread(target=self._redeem, args=(link,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _redeem(self, link: InviteLink) -> None:
        identity = Identity.create(self.folder / f"stranger{len(self.links)}")
        with contextlib.suppress(ClientError), blocking.connect(link, identity) as farmer:
            farmer.redeem(link.invite)
            with self.field.lock:
                self.redeemed.append((link, identity))
                self.field.counts["redeem"] += 1

    def verify(self) -> None:
        for thread in self._threads:
            thread.join(GIVEN_UP_S)
        thief = Identity.create(self.folder / "thief")
        for link, identity in self.redeemed:
            with blocking.connect(link, identity) as farmer:
                try:
                    farmer.contract()
                except RefusedError as error:
                    self.field.complain(f"a contract is lost: {error!r}")
            with blocking.connect(link, thief) as farmer:
                try:
                    farmer.redeem(link.invite)
                    self.field.complain("an invite was redeemed twice")
                except InviteSpentError:
                    pass


def _address(link: InviteLink) -> FarmerAddress:
    return FarmerAddress(link.farmer, link.addresses)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def make_daemon(folder: Path, logs: Path) -> Daemon:
    """Make a farmer whose port stays the same over its lives."""
    daemon = Daemon(folder / "home", folder / "volume", with_init=False)
    daemon.logs = logs
    made = daemon.call(
        *("init", "--yes", "--volume", f"{daemon.volume}={QUOTA}", "--name", "test"),
        *("--listen", f"127.0.0.1:{free_port()}", "--page", "127.0.0.1:0"),
    )
    assert made.returncode == 0, made.stderr
    return daemon


def campaign(
    folder: Path,
    daemon: Daemon,
    crashes: int,
    strike: Callable[[Daemon], None],
    seed: int,
    *,
    invites: int = 8,
) -> tuple[Counter[str], list[str]]:
    """Strike a daemon so many times under load; return what was counted and what was wrong."""
    rng, field = random.Random(seed), Field()
    daemon.start()
    links = [parse_link(daemon.invite(SPACE)) for _ in range(RENTERS)]
    strangers = Strangers(
        folder, [parse_link(daemon.invite("1MB")) for _ in range(invites)], field
    )
    tenants = [Tenant(n, folder / f"tenant{n}", link, field) for n, link in enumerate(links)]
    for tenant in tenants:
        tenant.join_farmer()
        tenant.thread.start()
    for number in range(crashes):
        time.sleep(rng.uniform(0.05, 0.9))
        if number % max(1, crashes // max(1, invites)) == 0:
            strangers.send_one()
            time.sleep(rng.uniform(0.0, 0.15))
        busy = sum(bool(tenant.belief.begun) for tenant in tenants)
        field.counts["under load"] += bool(busy)
        field.is_dark = True
        strike(daemon)
        field.crash = number + 1
        daemon.start()
        field.is_dark = False
        if number % 5 == 4:
            _wait_until(lambda: all(t.seen_crash == field.crash for t in tenants), field)
    field.is_over = True
    for tenant in tenants:
        tenant.thread.join(GIVEN_UP_S)
        if tenant.thread.is_alive():
            field.complain(f"renter {tenant.number} hangs")
    _verify_all(daemon, tenants, strangers, field)
    for tenant in tenants:
        field.counts.update(tenant.belief.acknowledged)
    return field.counts, field.wrong


def _wait_until(is_true: Callable[[], bool], field: Field) -> None:
    deadline = time.monotonic() + GIVEN_UP_S
    while not is_true():
        if time.monotonic() > deadline:
            field.complain(f"the renters did not get on within {GIVEN_UP_S:g} s")
            return
        time.sleep(0.02)


def _verify_all(daemon: Daemon, tenants: list[Tenant], strangers: Strangers, field: Field) -> None:
    """Everything of everybody, read to the last byte; and the numbers of the farmer."""
    for tenant in tenants:
        with blocking.connect(_address(tenant.link), tenant.identity) as farmer:
            tenant.verify(farmer, sorted(tenant.belief.possible))
    strangers.verify()
    [volume] = daemon.status()["volumes"]
    if volume["state"] != "healthy" or volume["quarantined"]:
        field.complain(f"the volume is {volume}")
    if daemon.stop():
        field.complain("it did not stop in order")


def report(name: str, crashes: int, counts: Counter[str], wrong: list[str]) -> str:
    """Return the last line; too little work at the moment of the crashes is wrong too."""
    acks = sum(counts[kind] for kind in (*AFTER, "redeem"))
    if counts["under load"] < 0.6 * crashes or acks < crashes:
        wrong.append("too little was going on when it was struck")
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    return f"{name} {crashes} acks {acks} ({kinds}) violations {len(wrong)}"


def kill_campaign(folder: Path, kills: int, seed: int) -> tuple[str, list[str]]:
    """Kill -9."""
    with make_daemon(folder, folder / "farmer.log") as daemon:
        counts, wrong = campaign(folder, daemon, kills, Daemon.kill, seed)
    return report("daemon kills", kills, counts, wrong), wrong


def power_campaign(folder: Path, system: str, cuts: int, seed: int) -> tuple[str, list[str]]:
    """Cut the power of a filesystem that holds the farmer's home and its volume."""
    image, disk = folder / f"{system}.image", folder / system
    make_image(image, system, 1024 * MIB)
    disk.mkdir()
    with looped(image) as device:
        mount(device, disk, system)
        try:

            def cut(daemon: Daemon) -> None:
                cut_the_power(disk)
                time.sleep(0.05)
                daemon.kill()
                unmount(disk)
                mount(device, disk, system)

            with make_daemon(disk, folder / f"{system}.log") as daemon:
                people = folder / f"{system}-people"
                people.mkdir()
                counts, wrong = campaign(people, daemon, cuts, cut, seed)
        finally:
            unmount(disk)
    return report(f"{system} power cuts", cuts, counts, wrong), wrong
