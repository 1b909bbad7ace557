"""What the farmer is doing when a call fails: one operation each, on a volume that is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from farmer.audit.full import FullDigest
from farmer.audit.proof import verify_sample
from farmer.model.audit import AuditEntry
from farmer.model.ids import ShardId
from farmer.model.shard import ShardState
from farmer.storage.duty import Duty, Leaving
from farmer.storage.errors import StorageError
from tests.storage.bench import ALICE, MIB, Farm, noise, shard_of

NONCE = bytes(32)
SMALL, LARGE = 5000, MIB + 70_000
State = ShardState | None
DRAIN = Duty(verb=Leaving.DRAIN, since_ms=1)


class WrongBytesError(AssertionError):
    """Something else was served than was stored."""


@dataclass
class Belief:
    """What may be true of each shard; what was acknowledged leaves one thing."""

    data: dict[ShardId, bytes] = field(default_factory=dict)
    may: dict[ShardId, set[State]] = field(default_factory=dict)

    def copy(self) -> Belief:
        return Belief(dict(self.data), {shard: set(may) for shard, may in self.may.items()})

    def now(self, shard: ShardId) -> State:
        (state,) = self.may.get(shard, {None})
        return state

    @contextmanager
    def becomes(self, shard: ShardId, state: State) -> Iterator[None]:
        """Until the block ends well, both are possible."""
        self.may[shard] = {*self.may.get(shard, {None}), state}
        yield
        self.may[shard] = {state}

    def store(self, farm: Farm, data: bytes) -> ShardId:
        shard = shard_of(data)
        self.data[shard] = data
        with self.becomes(shard, ShardState.LIVE):
            farm.store(data)
        return shard

    def delete(self, farm: Farm, shard: ShardId, *, erase: bool = False) -> None:
        with self.becomes(shard, None if erase else ShardState.TRASH):
            farm.delete(shard, erase=erase)

    def undelete(self, farm: Farm, shard: ShardId) -> None:
        with self.becomes(shard, ShardState.LIVE):
            farm.engine.undelete(ALICE, shard).result(20)


Step = Callable[[Farm, Belief], None]


@dataclass(frozen=True)
class Job:
    """An operation, and how a volume is made ready for it."""

    name: str
    prepare: Step
    act: Step
    volumes: int = 1
    can_punch: bool = True
    opens: bool = False
    """The operation is the opening itself."""
    makes_index: bool = False
    """There is none before it."""
    loses_index: bool = False
    """What is in the index's write-ahead log is lost before it."""


def _some(farm: Farm, belief: Belief) -> None:
    for number in range(4):
        belief.store(farm, noise(SMALL, number))
    belief.store(farm, noise(LARGE, "held"))
    belief.delete(farm, shard_of(noise(SMALL, 0)))
    belief.delete(farm, shard_of(noise(SMALL, 1)), erase=True)


def _part(farm: Farm, belief: Belief) -> None:
    _some(farm, belief)
    data = noise(LARGE, "part")
    belief.data[shard_of(data)] = data
    upload = farm.begin(data)
    upload.write(data[: LARGE // 2])
    upload.abandon()


def _full_segment(farm: Farm, belief: Belief) -> None:
    for number in range(5):
        belief.store(farm, noise(700_000, number))


def _crowd(farm: Farm, belief: Belief) -> None:
    """Two segments, the first of them sparse."""
    for number in range(10):
        belief.store(farm, noise(700_000, number))
    for number in range(0, 6):
        belief.delete(farm, shard_of(noise(700_000, number)), erase=True)
    belief.delete(farm, shard_of(noise(700_000, 7)))


def _unclean(farm: Farm, belief: Belief) -> None:
    """A log that its index does not know: a start has to replay it."""
    _part(farm, belief)
    belief.store(farm, noise(SMALL, "late"))
    belief.delete(farm, shard_of(noise(SMALL, 2)))


def _no_index(farm: Farm, belief: Belief) -> None:
    _part(farm, belief)
    farm.engine.close()
    for path in farm.path.glob("index.sqlite*"):
        path.unlink()


def _two(farm: Farm, belief: Belief) -> None:
    farm.engine._slots.opened()[1].duty = DRAIN
    _some(farm, belief)
    farm.engine._slots.opened()[1].duty = None


def _drain(farm: Farm, belief: Belief) -> None:
    del belief
    try:
        farm.engine.mover.begin(farm.engine._slots.opened()[0], DRAIN)
    except OSError:
        return
    for _ in range(200):
        if farm.engine.mover.step() is None:
            return


def _store(size: int) -> Step:
    return lambda farm, belief: (belief.store(farm, noise(size, "new")), None)[1]


def _resume(farm: Farm, belief: Belief) -> None:
    belief.store(farm, noise(LARGE, "part"))


def _read(farm: Farm, belief: Belief) -> None:
    """Serve and prove a small shard and a large one; what comes is right."""
    for data in (noise(SMALL, 2), noise(LARGE, "held")):
        shard = shard_of(data)
        if farm.read(shard) != belief.data[shard]:
            raise WrongBytesError(shard)
        entry = AuditEntry(shard, len(data), 4)
        proof = farm.engine.prove_sample(ALICE, NONCE, entry)
        verify_sample(shard, len(data), NONCE, 4, proof)
        whole = FullDigest(NONCE, shard)
        whole.update(data)
        if farm.engine.prove_full(ALICE, NONCE, entry) != whole.finish():
            raise WrongBytesError(shard)


def _sweep(farm: Farm, belief: Belief) -> None:
    """Empty the trash, give space back, and the log its form."""
    farm.clocks.pass_days(8)
    for shard, may in belief.may.items():
        if may == {ShardState.TRASH}:
            belief.may[shard] = {ShardState.TRASH, None}
    farm.sweep()


def _nothing(farm: Farm, belief: Belief) -> None:
    del farm, belief


JOBS = (
    Job("store small", _some, _store(SMALL)),
    Job("store large", _some, _store(LARGE)),
    Job("store rolls", _full_segment, _store(700_000)),
    Job("store resumed", _part, _resume),
    Job("delete", _some, lambda farm, belief: belief.delete(farm, shard_of(noise(SMALL, 2)))),
    Job(
        "erase",
        _some,
        lambda farm, belief: belief.delete(farm, shard_of(noise(SMALL, 2)), erase=True),
    ),
    Job(
        "erase large",
        _some,
        lambda farm, belief: belief.delete(farm, shard_of(noise(LARGE, "held")), erase=True),
    ),
    Job("undelete", _some, lambda farm, belief: belief.undelete(farm, shard_of(noise(SMALL, 0)))),
    Job("read", _some, _read),
    Job("sweep", _some, _sweep),
    Job("compact", _crowd, _sweep, can_punch=False),
    Job("recovery", _unclean, _nothing, opens=True, loses_index=True),
    Job("rebuild", _no_index, _nothing, opens=True, makes_index=True),
    Job("move", _two, _drain, volumes=2),
)


def attempt(job: Job, farm: Farm, belief: Belief) -> bool:
    """Do the job; say whether it was done, and not refused."""
    try:
        job.act(farm, belief)
    except (StorageError, MemoryError):
        return False
    return True
