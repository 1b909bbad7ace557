"""One life of the farmer, from boot to stop or crash: real engine, contract book and sessions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from farmer.identity.signing import contract_digest
from farmer.model.moments import Clocks
from farmer.node.admission import Sessions
from farmer.node.farm import Farm, Terms
from farmer.node.handlers import Conversation
from farmer.node.session import Session, Surroundings
from farmer.node.tasks import Tasks
from farmer.running.upkeep import Upkeep
from farmer.storage.contracts import ContractDatabase
from farmer.storage.duty import Duty, Leaving
from farmer.storage.engine import Engine, EngineLimits
from tests.fakes import MemoryMeter
from tests.simulation.network import Line
from tests.simulation.shards import MIB
from tests.simulation.strands import CrashedError, Strands

if TYPE_CHECKING:
    from tests.simulation.world import World

DOORS = 3
"""Strands behind the disk's door."""
MOVE_STEPS = 12
SCRUB_STEPS = 2000
"""More than a pass has, so that one that goes in circles ends."""


class Door:
    """The disk's door: work is done by strands, answers are given on the reactor's one."""

    def __init__(self, strands: Strands) -> None:
        self._strands = strands
        self._work: deque[tuple[Deferred[Any], str, Callable[[], Any]]] = deque()
        self._done: deque[tuple[Deferred[Any], Any]] = deque()
        self._open: dict[Deferred[Any], None] = {}
        self.names: dict[object, str] = {}
        """What each strand is at."""
        self.is_dead = False

    def start(self) -> None:
        for number in range(DOORS):
            self._strands.spawn(f"door {number}", self._serve)

    def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """See `farmer.node.ports.Disk`."""
        result: Deferred[Any] = Deferred()
        if self.is_dead:
            result.errback(Failure(CrashedError()))
            return result
        self._open[result] = None
        name = getattr(work, "__name__", "work")
        self._work.append((result, name, lambda: work(*args, **kwargs)))
        return result

    def follow(self, work: Callable[..., Future[Any]], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """See `farmer.node.ports.Disk`."""
        return self.run(work, *args, **kwargs).addCallback(self.settle)

    def settle(self, future: Future[Any]) -> Deferred[Any]:
        """See `farmer.node.ports.Disk`."""
        result: Deferred[Any] = Deferred()
        self._open[result] = None
        future.add_done_callback(lambda done: self._settled(result, done))
        return result

    @property
    def is_idle(self) -> bool:
        return not self._open

    @property
    def has_answers(self) -> bool:
        return bool(self._done)

    def answer(self) -> None:
        """Give the oldest answer."""
        result, value = self._done.popleft()
        if result in self._open:
            del self._open[result]
            result.callback(value)

    def die(self) -> None:
        """Nothing comes back any more."""
        self.is_dead = True
        self._work.clear()
        # The strands look for work only, since they are asked so often; they will see the end.
        self._work.append((Deferred(), "end", _nothing))
        self._done.clear()
        while self._open:
            waiting = next(iter(self._open))
            del self._open[waiting]
            waiting.errback(Failure(CrashedError()))

    def _settled(self, result: Deferred[Any], future: Future[Any]) -> None:
        error = future.exception(0)
        self._done.append((result, Failure(error) if error else future.result(0)))

    def _serve(self) -> None:
        while True:
            self._strands.block(self._work.__len__)
            if self.is_dead:
                return
            result, name, work = self._work.popleft()
            self.names[self._strands.current] = name
            try:
                value = work()
            except Exception as error:
                value = Failure(error)
            self.names.pop(self._strands.current, None)
            self._done.append((result, value))


def _nothing() -> None:
    pass


class _Tasks(Tasks):
    """Keeps what failed; a crash is no failure."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[str] = []

    def _failed(self, failure: Failure, name: str) -> None:
        if not failure.check(CrashedError):
            self.failed.append(f"{name}: {failure.getTraceback()}")


class House:
    """The farmer, running."""

    def __init__(self, world: World) -> None:
        """Open everything; raises `CrashedError`, and whatever opening raises."""
        strands = world.strands
        self._world = world
        self.book = ContractDatabase(
            world.root / "contracts.sqlite",
            farmer_key=world.signer.public_key,
            now_ms=world.now_ms,
            digest=contract_digest,
            random_bytes=world.rng.randbytes,
        )
        self.book.clock.tick(world.now_ms(), world.strands.now_s)
        self.engine = Engine(
            world.volumes,
            world.signer.node_id,
            world.disk,
            clock_ms=world.now_ms,
            observed_ms=lambda: self.book.clock.observed_ms,
            limits=EngineLimits(uploads_per_renter_max=6, shard_bytes_max=16 * MIB),
            monotonic_s=lambda: strands.now_s,
            spawn=world.strands.spawn,
        )
        self.clock = Clock()
        self.clock.rightNow = world.strands.now_s
        self.tasks = _Tasks()
        self.door = Door(world.strands)
        self.sessions = Sessions()
        farm = Farm(
            signer=world.signer,
            store=self.engine,
            book=self.book,
            disk=self.door,
            meter=MemoryMeter(),
            clock=self.clock,
            now_ms=world.now_ms,
            terms=Terms(shard_bytes_max=16 * MIB),
        )
        self.conversation = Conversation(farm, self.sessions.began, self.sessions.ended)
        self.farm = farm
        clocks = Clocks(world.now_ms, lambda: world.strands.now_s)
        overview: Any = None
        self.upkeep = Upkeep(
            *(self.engine, self.book, overview, self.door, clocks), purged=lambda _why, _n: None
        )
        self.chores: Counter[str] = Counter()
        """Under way, by name."""
        self.door.start()

    def connect(self, line: Line, who: Any) -> None:
        """Let a renter in."""
        line.is_served = False

        async def serve(session: Session) -> None:
            try:
                await self.conversation.serve(session)
            finally:
                line.is_served = True

        around = Surroundings(
            clock=self.clock,
            tasks=self.tasks,
            meter=self.farm.meter,
            visitors=self.sessions,
            identify=lambda _: who,
            serve=serve,
        )
        session = line.session = Session(around, "192.0.2.1")
        session.makeConnection(line)  # type: ignore[arg-type]
        session.handshakeCompleted()

    def start_chore(self, name: str, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do a chore in the background."""

        async def chore() -> None:
            self.chores[name] += 1
            try:
                await work
            except Exception as error:
                self._world.chore_failed(name, error)
            finally:
                self.chores[name] -= 1

        self.tasks.start(name, chore())

    def is_at(self, name: str) -> bool:
        """Say whether a chore is under way."""
        return self.chores[name] > 0

    @property
    def is_sweeping(self) -> bool:
        """Say whether the space of what has gone is being given back, or measured."""
        return self.is_at("sweep") or self.is_at("compare")

    async def move(self, rng: Random) -> None:
        """Empty one of two volumes into the other for a while; or let it take shards again."""
        mover, volumes = self.engine.mover, self.engine.opened()
        leaving = [volume for volume in volumes if volume.duty]
        if not leaving and len(volumes) > 1:
            source = volumes[int(rng.random() * len(volumes))]
            duty = Duty(verb=Leaving.DRAIN, since_ms=self._world.now_ms())
            await self.door.run(mover.begin, source, duty)
        elif rng.random() < 0.3:
            for volume in leaving:
                await self.door.run(mover.cancel, volume)
            if mover.is_idle:
                # Nor does the farmer let one go on that has nothing to do.
                return
        for _ in range(MOVE_STEPS):
            if await self.door.run(mover.step) is None:
                return

    async def scrub(self) -> None:
        """Go over everything, a step at a time."""
        names = await self.door.run(self.engine.scrubs.begin_now)
        for name in names:
            for _ in range(SCRUB_STEPS):
                now_ms = self._world.now_ms()
                if (await self.door.run(self.engine.scrubs.turn, name, 0.0, now_ms, 30.0)).is_idle:
                    break

    def die(self) -> None:
        """After a crash: let the coroutines end; nothing of what they want is done."""
        self.door.die()
        # Here, where every call is refused: else they end when garbage is collected, amid
        # another life, whose disk they would change, or outside of any.
        for emptying in self.engine.mover._emptying.values():
            with suppress(CrashedError):
                emptying.stop()

    def close(self) -> None:
        """Stop in order; blocking."""
        self.engine.begin_close()
        self.engine.close()
        self.book.close()
        self.door.die()
        self._world.strands.others()
