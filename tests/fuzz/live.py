"""A farmer with the real session and the real engine, and renters over wires in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from farmer.model.ids import InviteSerial, NodeId
from farmer.node.admission import Sessions
from farmer.node.disk import fire
from farmer.node.farm import Farm
from farmer.node.handlers import Conversation
from farmer.node.session import Session, Surroundings
from farmer.node.tasks import Tasks
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import OsFiles
from tests.fakes import InlineDisk, MemoryBook, MemoryMeter, TestSigner
from tests.node.wires import OFFER, OTHER, RENTER, Peer

R = TypeVar("R")
SETTLED_S = 60


class PatientDisk(InlineDisk):
    """A door that waits for the engine's own writer thread."""

    def settle(self, future: Future[R]) -> Deferred[R]:
        future.exception(SETTLED_S)
        settled: Deferred[R] = Deferred()
        fire(future, settled)
        return settled


class LiveFarm:
    """One farmer on a directory of its own; RENTER and OTHER have contracts."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="live-"))
        self.signer, self.clock, self.meter = TestSigner(), Clock(), MemoryMeter()
        volume = self.folder / "volume"
        create_volume(volume, self.signer.node_id, OsFiles(), self.now_ms())
        self.engine = Engine(
            [VolumeSettings(volume, 128 << 20)],
            self.signer.node_id,
            OsFiles(),
            clock_ms=self.now_ms,
            observed_ms=self.now_ms,
            limits=EngineLimits(shard_bytes_max=4 << 20),
        )
        self.book = MemoryBook(self.signer, self.now_ms)
        for renter in (RENTER, OTHER):
            serial = InviteSerial(renter.raw[:16])
            self.book.mint(serial, OFFER)
            self.book.redeem(serial, renter)
        self.farm = Farm(
            signer=self.signer,
            store=self.engine,
            book=self.book,
            disk=PatientDisk(),
            meter=self.meter,
            clock=self.clock,
            now_ms=self.now_ms,
        )
        self.tasks, self.sessions = Tasks(), Sessions()
        guests = self.sessions
        talk = Conversation(self.farm, guests.began, guests.ended, guests.introduce)
        self._who = RENTER
        self._around = Surroundings(
            clock=self.clock,
            tasks=self.tasks,
            meter=self.meter,
            visitors=guests,
            identify=lambda _: self._who,
            serve=talk.serve,
        )

    @property
    def held_bytes(self) -> int:
        """Return what is counted as unread and unsent, over all sessions."""
        return self._around.held.total_bytes

    def now_ms(self) -> int:
        """Return the wall clock: it goes with the other one."""
        return 1_000_000 + int(self.clock.seconds() * 1000)

    def call(self, renter: NodeId) -> Peer:
        """Connect without a word."""
        self._who = renter
        return Peer(Session(self._around, "192.0.2.1"), self.clock)

    def pass_s(self, seconds: int, pump: Callable[[], None]) -> None:
        """Let time pass with deadlines looked at."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.sessions.check()
            pump()

    def close(self) -> None:
        """Stop and remove everything."""
        self.engine.close()
        shutil.rmtree(self.folder)
