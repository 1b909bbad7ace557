"""
Every call of every operation fails once in every way, and the machine stops at each of them.

The discipline of SQLite's own I/O error loops: the Nth call fails for N = 1, 2, ... until the
operation passes.  After each the volume is opened again on a healthy disk and held against
what was acknowledged; then its index is lost and made again, and must say the same.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from farmer.model.ids import ShardId
from farmer.model.shard import ShardState, charge_bytes
from farmer.storage.errors import ShardNotFoundError
from farmer.storage.index_errors import CommitInDoubtError
from tests.nthcall.disk import THE_END, NthFiles, killed
from tests.nthcall.failures import OPENING, PASSING, Failure
from tests.nthcall.jobs import ALICE, Belief, Job, State, attempt
from tests.nthcall.platter import Platter
from tests.nthcall.sqlite_disk import SQL_PASSING, SqlDisk, SqlFailure, memory_for, watched
from tests.nthcall.sqlite_memory import SqlMemory
from tests.storage.bench import Farm, crash_copy, noise, shard_of

POINTS_MAX = 2000
MEMORY_EVERY = 97
STOPS = ("killed", "power")
BLOCK_BYTES = 4096


@dataclass
class Tally:
    """What was tried, by operation and fault, and what was wrong."""

    points: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.points += other.points
        self.violations += other.violations


class ViolationError(AssertionError):
    """A promise that was broken."""


@contextmanager
def workshop() -> Iterator[Path]:
    """Lend a directory, in memory where that is possible: nothing here needs a real disk."""
    memory = Path("/dev/shm")
    place = str(memory) if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="nthcall-", dir=place) as name:
        yield Path(name)


class Scenes:
    """A prepared state of some volumes, to be used again and again."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job = job
        self._folder = folder
        self._numbers = itertools.count()
        self.belief = Belief()
        first = folder / "first"
        farm = Farm(first, volumes=job.volumes, files=NthFiles(can_punch=job.can_punch))
        try:
            job.prepare(farm, self.belief)
            self.template = folder / "template"
            self.clocks = farm.clocks
            if job.loses_index:
                crash_copy(first, self.template)
                for path in self.template.rglob("index.sqlite-*"):
                    path.unlink()
        finally:
            farm.engine.close()
        if not job.loses_index:
            crash_copy(first, self.template)
        shutil.rmtree(first)

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """Lend a copy of the prepared state."""
        folder = self._folder / f"scene{next(self._numbers)}"
        crash_copy(self.template, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def farm(self, folder: Path, files: NthFiles) -> Farm:
        """Open the farmer over a copy."""
        return Farm(folder, volumes=self._job.volumes, files=files)


def sweep_errors(job: Job, failure: Failure, folder: Path, every: int = 1) -> Tally:
    """Let each call fail in one way."""
    tally = Tally()
    scenes = Scenes(job, folder / f"{job.name}-{failure.value}".replace(" ", "-"))
    for number in range(0, POINTS_MAX, every):
        with scenes.fresh() as root:
            files = NthFiles(can_punch=job.can_punch)
            belief = scenes.belief.copy()
            struck = _fail_once(job, scenes, root, files, belief, failure, number, tally)
            if not struck:
                return tally
            tally.points[job.name, failure.value] += 1
    raise ViolationError(f"{job.name} did not come to its end")


def _fail_once(  # noqa: PLR0917  # one point of the sweep
    job: Job,
    scenes: Scenes,
    root: Path,
    files: NthFiles,
    belief: Belief,
    failure: Failure,
    number: int,
    tally: Tally,
) -> str:
    try:
        if job.opens:
            files.arm(number, failure)
            farm = scenes.farm(root, files)
        else:
            farm = scenes.farm(root, files)
            files.arm(number, failure)
            attempt(job, farm, belief)
        struck = files.struck
        files.disarm()
        check_living(farm, job, goes_on=failure in PASSING)
        check(farm, belief)
    except Exception as error:
        tally.violations.append(
            f"{job.name}, {failure.value} at call {number} ({files.struck}): {error!r}"
        )
        return files.struck or "?"
    return struck


def sweep_index(job: Job, failure: SqlFailure, folder: Path, every: int = 1) -> Tally:
    """Let each call fail that SQLite makes for the index."""
    with memory_for(failure) as memory:
        scenes = Scenes(job, folder / f"{job.name}-{failure.name}".replace(" ", "-"))
        return _sweep_index(job, scenes, memory, failure, every * stride(failure))


def stride(failure: SqlFailure) -> int:
    """Return how many calls are passed over: a statement asks for memory again and again."""
    return MEMORY_EVERY if failure is SqlFailure.MEMORY else 1


def _sweep_index(
    job: Job, scenes: Scenes, memory: SqlMemory, failure: SqlFailure, every: int
) -> Tally:
    tally = Tally()
    for number in itertools.islice(itertools.count(0, every), POINTS_MAX):
        with scenes.fresh() as root, watched(root, memory) as disk:
            belief = scenes.belief.copy()
            try:
                struck = _fail_in_index(job, scenes, root, disk, belief, (number, failure))
            except Exception as error:
                struck = disk.struck or "?"
                tally.violations.append(
                    f"{job.name}, {failure.value} at call {number} ({struck}): {error!r}"
                )
            if not struck:
                return tally
            tally.points[job.name, failure.value] += 1
    raise ViolationError(f"{job.name} did not come to its end")


def _fail_in_index(  # one point of the sweep
    job: Job,
    scenes: Scenes,
    root: Path,
    disk: SqlDisk,
    belief: Belief,
    fault: tuple[int, SqlFailure],
) -> str:
    files = NthFiles(can_punch=job.can_punch)
    files.besides = lambda name: _same(fault[1], name) if disk.struck else None
    if job.opens:
        disk.arm(*fault)
        farm = scenes.farm(root, files)
    else:
        farm = scenes.farm(root, files)
        disk.arm(*fault)
        attempt(job, farm, belief)
    files.besides = lambda _name: None
    struck = disk.struck
    disk.disarm()
    goes_on = fault[1] in SQL_PASSING and not is_in_doubt(farm, struck)
    check_living(farm, job, goes_on=goes_on)
    check(farm, belief)
    return struck


def _same(failure: SqlFailure, call: str) -> Failure | None:
    """Return how a call of ours fails where SQLite's have failed so."""
    if failure is SqlFailure.EDQUOT and call == "preallocate":
        return Failure.EDQUOT
    if failure is SqlFailure.EMFILE and call in OPENING:
        return Failure.EMFILE
    return None


def sweep_stops(job: Job, folder: Path, every: int = 1, *, again: bool = True) -> Tally:
    """Stop the machine before each call; with *again*, also at each call of one recovery."""
    tally = Tally()
    scenes = Scenes(job, folder / f"{job.name}-stops".replace(" ", "-"))
    with scenes.fresh() as root:
        stops = _stops_of(job, scenes, root, folder / "stops", every)
    middle = stops[len(stops) // 2].folder if stops and again else None
    for stop in stops:
        if stop.folder == middle:
            tally.add(_stop_the_recovery(job, scenes, stop, folder / "stops-again"))
        tally.points[job.name, stop.how] += 1
        try:
            farm = scenes.farm(stop.folder, NthFiles(can_punch=job.can_punch))
            farm.engine.close()
            check(farm, stop.belief)
        except Exception as error:
            tally.violations.append(f"{job.name}, {stop.how} before {stop.call}: {error!r}")
        shutil.rmtree(stop.folder)
    return tally


def _stop_the_recovery(job: Job, scenes: Scenes, stop: Stop, folder: Path) -> Tally:
    """Let the machine stop once more while it recovers from a stop."""
    tally = Tally()
    reopening = Job(job.name, job.prepare, lambda _farm, _belief: None, job.volumes, opens=True)
    copy = folder.with_name("stopped")
    crash_copy(stop.folder, copy)
    scenes_of = _At(scenes, stop.belief)
    for second in _stops_of(reopening, scenes_of, copy, folder, 1):
        tally.points[job.name, f"{second.how} again"] += 1
        try:
            farm = scenes.farm(second.folder, NthFiles(can_punch=job.can_punch))
            farm.engine.close()
            check(farm, second.belief)
        except Exception as error:
            tally.violations.append(
                f"{job.name}, {stop.how} before {stop.call}, then before {second.call}: {error!r}"
            )
        shutil.rmtree(second.folder)
    shutil.rmtree(copy)
    return tally


@dataclass
class _At:
    """Scenes whose belief is that of a moment."""

    scenes: Scenes
    belief: Belief

    def farm(self, folder: Path, files: NthFiles) -> Farm:
        return self.scenes.farm(folder, files)


@dataclass
class Stop:
    """One moment: what a start finds, and what had been acknowledged."""

    call: str
    how: str
    folder: Path
    belief: Belief


def _stops_of(job: Job, scenes: Scenes | _At, root: Path, folder: Path, every: int) -> list[Stop]:
    files, belief, stops = NthFiles(can_punch=job.can_punch), scenes.belief.copy(), []
    roots = [root / f"volume{number}" for number in range(job.volumes)]
    calls = itertools.count()

    def stop(call: str, platter: Platter) -> None:
        if next(calls) % every and call != THE_END:
            return
        for how in STOPS:
            copy = folder / f"{job.name}-{len(stops)}".replace(" ", "-")
            targets = [copy / one.name for one in roots]
            if how == "killed":
                killed(roots, targets)
            else:
                platter.write_to(targets)
            stops.append(Stop(call, how, copy, belief.copy()))

    if job.opens:
        files.watch(roots, stop)
        farm = scenes.farm(root, files)
    else:
        farm = scenes.farm(root, files)
        files.watch(roots, stop)
        attempt(job, farm, belief)
    files.stop_now()
    files.disarm()
    farm.engine.close()
    return stops


# What must be true afterwards.


def check_living(farm: Farm, job: Job, *, goes_on: bool) -> None:
    """What the farmer that met it holds is right; if it *goes_on*, it works; then close it."""
    try:
        check_reserved(farm)
        if goes_on:
            farm.engine.look_after_disks()
            check_reserved(farm)
            check_usable(farm)
            if not job.makes_index:
                check_kept(farm)
    finally:
        farm.engine.close()
    if left_open := farm.files.left_open:  # type: ignore[attr-defined]
        raise ViolationError(f"left open: {left_open}")


def is_in_doubt(farm: Farm, struck: str) -> bool:
    """
    Say whether the index has to be opened again to know what it holds.

    A sync that finds no room is told by SQLite as one that failed; and where memory ran out in a
    commit, only the file can tell.
    """
    reasons = " ".join(status.reason for status in farm.engine.volumes())
    return struck.startswith("sync") or CommitInDoubtError.__name__ in reasons


def check_reserved(farm: Farm) -> None:
    """What is promised is what leases hold, and files that could not be removed; nobody reads."""
    for volume in farm.engine.opened():
        if volume.readers:
            raise ViolationError(f"{volume.readers} records are held by nobody")
        leases = sum(lease.reservation.charge_bytes for lease in volume.leases.of())
        leftovers = sum(one.held.charge_bytes for one in volume.ground.doubts._leftovers)
        reserved = volume.ground.account.reserved_bytes
        if reserved != leases + leftovers:
            raise ViolationError(f"{reserved} bytes reserved, {leases + leftovers} held")


def check(farm: Farm, belief: Belief) -> None:
    """Open on a healthy disk and hold everything against what was acknowledged."""
    farm.files = NthFiles(can_punch=farm.files._can_punch)  # type: ignore[attr-defined]
    farm.open()
    try:
        seen = check_shards(farm, belief)
        check_numbers(farm, seen, belief)
        check_reserved(farm)
        check_usable(farm)
    finally:
        farm.engine.close()
    for settings in farm.settings:
        for path in settings.path.glob("index.sqlite*"):
            path.unlink()
    farm.open()
    try:
        again = check_shards(farm, belief)
        if again != seen:
            raise ViolationError(f"without its index: {_short(again)} instead of {_short(seen)}")
        check_numbers(farm, seen, belief)
    finally:
        farm.engine.close()


def check_shards(farm: Farm, belief: Belief) -> dict[ShardId, ShardState]:
    """Acknowledged is there, deleted is not, and the bytes are right; return what is there."""
    for alert in farm.engine.trouble():
        if alert.name not in {"IndexRebuilt"}:
            raise ViolationError(f"{alert.name}: {alert.message}")
    rows = farm.engine.page(ALICE, ShardId(bytes(32)), 1000)
    seen = {row.shard: row.state for row in rows}
    if len(seen) != len(rows):
        raise ViolationError("a shard is listed twice")
    for shard, may in belief.may.items():
        if seen.get(shard) not in may:
            raise ViolationError(f"a shard is {seen.get(shard)}, where {may} may be")
    if strangers := seen.keys() - belief.may.keys():
        raise ViolationError(f"{len(strangers)} shards that nobody stored")
    for shard, state in seen.items():
        if state is ShardState.LIVE and farm.read(shard) != belief.data[shard]:
            raise ViolationError("wrong bytes")
    return seen


def check_numbers(farm: Farm, seen: dict[ShardId, ShardState], belief: Belief) -> None:
    """The ledger says what is there, and the disk agrees."""
    usage = farm.engine.usage(ALICE)
    charged = sum(charge_bytes(len(belief.data[shard])) for shard in seen)
    if usage.live_bytes + usage.trash_bytes != charged or usage.shards != len(seen):
        raise ViolationError(f"{usage} where {len(seen)} shards take {charged} bytes")
    # What was given back and not entered yet counts as taken until the next sweep finds it.
    for volume in farm.engine.opened():
        volume.reclaim()
    farm.engine.compare_with_disk()
    for status in farm.engine.volumes():
        taken = status.used_bytes + status.trash_bytes + status.reserved_bytes
        if taken + status.allowance_bytes > status.quota_bytes:
            raise ViolationError("more is promised than the quota")
        if status.drift_bytes % BLOCK_BYTES or not 0 <= status.drift_bytes <= 8 * BLOCK_BYTES:
            raise ViolationError(f"the disk holds {status.drift_bytes} bytes more than the ledger")


def check_kept(farm: Farm) -> None:
    """An index that was there was not thrown away for what passes."""
    if any(one.name == "IndexRebuilt" for one in farm.engine.trouble()):
        raise ViolationError("the index was made again")


def check_usable(farm: Farm) -> None:
    """It stores, serves and erases as if nothing had been."""
    data = noise(3000, "afterwards")
    shard = farm.store(data).shard
    if shard != shard_of(data) or farm.read(shard) != data:
        raise ViolationError("not usable afterwards")
    farm.delete(shard, erase=True)
    try:
        farm.engine.stat(ALICE, shard)
    except ShardNotFoundError:
        return
    raise ViolationError("erased, and still there")


def _short(seen: dict[ShardId, ShardState]) -> dict[str, State]:
    return {str(shard)[:8]: state for shard, state in seen.items()}
