"""
Crash states: every moment of a recorded run, with unflushed writes lost, torn and reordered.

A run is recorded through `tests.crash.fuse`: the real engine and contract book on a real
filesystem on our block device.  A state is the disk as a power cut may leave it: all that
was flushed, and of the writes since the last flush a random part in a random order, some
torn at 512 bytes.  It is mounted, opened, and compared with what was acknowledged by then.

A filesystem's own superblock is never torn: all three rely on one sector or one page being
written whole, and what they would lose is not ours.
"""

from __future__ import annotations

import bisect
import multiprocessing
import os
import random
import sqlite3
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from farmer.storage import quota
from farmer.storage.files import OsFiles
from tests.crash.belief import Belief
from tests.crash.checking import check_book, check_engine
from tests.crash.disks import make_image, mounted, unmount
from tests.crash.fuse import BlockLog, Kind, read_log
from tests.crash.work import keep_busy, make_volumes, open_book, open_engine
from tests.pools import to_its_end
from tests.storage.bench import MIB

SECTOR = 512
KEPT_BYTES = 6 * MIB
RUN_S = 1.5
SEGMENT_BYTES = MIB // 4
STATES_PER_RUN = 50
_SUPERBLOCKS = (0, 65536, 64 * MIB)
_TRIES = 40
_DEEP = 3

KINDS = ("store", "delete", "redeem", "compact", "move")
"""Of each of these some must lie before the cuts of a campaign, on each filesystem."""

JUDGED_STATES = 100
"""From so many on: one run, of a second and a half on a busy machine, may lack one of them."""


class UnsyncedFiles(OsFiles):
    """The mutant: nothing is ever made durable."""

    def sync_data(self, fd: int) -> None:
        """Pretend."""

    def sync_directory(self, path: Path) -> None:
        """Pretend."""


def unsynced(kind: type[sqlite3.Connection]) -> type[sqlite3.Connection]:
    """Return the mutant's connection: synchronous is off, whatever is asked for."""

    class Unsynced(kind):  # type: ignore[valid-type,misc]
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            if "synchronous" in sql.lower():
                sql = "PRAGMA synchronous = OFF"
            found: sqlite3.Cursor = super().execute(sql, *rest)
            return found

    return Unsynced


@dataclass
class Outcome:
    """What came of the states of one filesystem."""

    system: str
    states: int = 0
    acks: int = 0
    """Acknowledgements before the cuts, over all states."""
    kinds: Counter[str] = field(default_factory=Counter)
    """What they were, and what was done unasked before the cuts, over all states."""
    dropped: int = 0
    reordered: int = 0
    torn: int = 0
    failed: int = 0
    """States with at least one violation."""
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        self.states += other.states
        self.acks += other.acks
        self.kinds += other.kinds
        self.dropped += other.dropped
        self.reordered += other.reordered
        self.torn += other.torn
        self.failed += other.failed
        self.wrong += other.wrong

    @property
    def lacks(self) -> list[str]:
        """In words, which kinds of work lay before no cut of a campaign that is not small."""
        if self.states < JUDGED_STATES:
            return []
        return [
            f"{self.system}: no {kind} before any cut" for kind in KINDS if not self.kinds[kind]
        ]

    @property
    def line(self) -> str:
        kinds = " ".join(f"{kind} {self.kinds[kind]}" for kind in sorted({*KINDS, *self.kinds}))
        return (
            f"{self.system} states {self.states} acks {self.acks} ({kinds}) dropped {self.dropped}"
            f" reordered {self.reordered} torn {self.torn} violations {self.failed}"
        )


def record(folder: Path, system: str, seed: str, *, mutant: bool) -> tuple[Path, Path]:
    """Run the workload on our block device; return the empty image and the log."""
    image, log = folder / "image", folder / "log"
    make_image(image, system)
    empty = folder / "empty"
    sparse_copy(image, empty)
    device, disk = folder / "device", folder / "disk"
    device.mkdir()
    disk.mkdir()
    block_log = BlockLog(image, log)
    block_log.mount(device)
    server = _fork(block_log.serve)
    block_log.let_go()
    try:
        with mounted(device / "disk", disk, system):
            worker = _fork(lambda: _work(device / "mark", disk, seed, mutant=mutant))
            _, status = os.waitpid(worker, 0)
    finally:
        unmount(device)
        os.waitpid(server, 0)
    assert status == 0, f"the recorded run ended with {status}"
    return empty, log


def _work(mark: Path, disk: Path, seed: str, *, mutant: bool) -> None:
    # In so short a run segments of the usual size would hardly be sealed, let alone compacted.
    quota.SEGMENT_BYTES_MAX = SEGMENT_BYTES  # type: ignore[misc]
    make_volumes(disk / "volume")
    open_engine(disk / "volume").close()
    open_book(disk / "contracts.sqlite").close()
    if mutant:
        connect = sqlite3.connect

        def unsyncing(*where: Any, **how: Any) -> sqlite3.Connection:
            kind = unsynced(how.pop("factory", sqlite3.Connection))
            return connect(*where, factory=kind, **how)

        sqlite3.connect = unsyncing
    fd = os.open(mark, os.O_WRONLY)

    def say(line: str) -> None:
        os.write(fd, f"{line}\n".encode())

    keep_busy(
        disk / "volume",
        seed,
        say,
        {},
        seconds=RUN_S,
        kept_bytes=KEPT_BYTES,
        kind_of_files=UnsyncedFiles if mutant else OsFiles,
        book=disk / "contracts.sqlite",
    )


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class Tape:
    """A recorded run: its entries, and where it can be cut."""

    def __init__(self, log: Path) -> None:
        entries = read_log(log)
        end = next(
            at
            for at, (kind, _, data) in enumerate(entries)
            if kind is Kind.MARK and data == b"phase end\n"
        )
        # Up to the next flush: what a run that never asks for one has written by then.
        while end < len(entries) and entries[end][0] is not Kind.FLUSH:
            end += 1
        self.entries = entries[:end]
        self.flushes = [-1]
        first_ack, pending = None, 0
        self.cuts: list[int] = []
        self.deep: list[int] = []
        """Where several writes were not flushed yet."""
        for at, (kind, _, data) in enumerate(self.entries):
            if kind is Kind.FLUSH:
                self.flushes.append(at)
                pending = 0
            elif kind is Kind.WRITE:
                pending += 1
            elif data.startswith(b"done ") and first_ack is None:
                first_ack = at
            if pending and first_ack is not None:
                self.cuts.append(at + 1)
                if pending >= _DEEP:
                    self.deep.append(at + 1)
        assert self.cuts, "the run had nothing to cut"

    def last_flush(self, cut: int) -> int:
        """Return the entry of the last flush before a cut, -1 if there is none."""
        return self.flushes[bisect.bisect_left(self.flushes, cut) - 1]

    def belief(self, cut: int) -> Belief:
        belief = Belief()
        for kind, _, data in self.entries[:cut]:
            if kind is Kind.MARK:
                belief.hear(data.decode())
        return belief


@dataclass(frozen=True)
class State:
    """One disk: a cut, and the writes since the last flush that made it, in their order."""

    cut: int
    flush: int
    writes: tuple[tuple[int, int, int], ...]
    """Entry, and the first and last sector of it that were written."""
    dropped: bool
    reordered: bool
    torn: bool

    @property
    def digest(self) -> bytes:
        return sha256(repr((self.flush, self.writes)).encode()).digest()


def choose(tape: Tape, rng: random.Random) -> State | None:
    """Return a random state, or None if by chance nothing was lost, torn or reordered."""
    cut = rng.choice(rng.choice((tape.cuts, tape.deep or tape.cuts)))
    flush = tape.last_flush(cut)
    pending = [at for at in range(flush + 1, cut) if tape.entries[at][0] is Kind.WRITE]
    keep = rng.choice((0.1, 0.5, 0.9))
    kept = [at for at in pending if rng.random() < keep]
    order = kept[:]
    rng.shuffle(order)
    writes, torn = [], False
    for at in order:
        _, offset, data = tape.entries[at]
        sectors = len(data) // SECTOR
        first, last = 0, sectors
        whole = any(offset <= place < offset + len(data) for place in _SUPERBLOCKS)
        if sectors > 1 and not whole and rng.random() < 0.3:
            first, last = sorted(rng.sample(range(sectors + 1), 2))
            torn = torn or (first, last) != (0, sectors)
        writes.append((at, first, last))
    state = State(cut, flush, tuple(writes), len(kept) < len(pending), order != kept, torn)
    return state if state.dropped or state.reordered or state.torn else None


def states_of(tape: Tape, count: int, rng: random.Random) -> list[State]:
    """Return so many states, all different, in the order of their flushes."""
    found: dict[bytes, State] = {}
    for _ in range(count * _TRIES):
        state = choose(tape, rng)
        if state is not None:
            found[state.digest] = state
        if len(found) == count:
            break
    return sorted(found.values(), key=lambda state: (state.flush, state.cut))


def run(system: str, count: int, seed: str, shared: Path, *, mutant: bool) -> Outcome:
    """Record one run and look at so many of its states."""
    outcome = Outcome(system)
    folder = shared / f"{system}-{seed}"
    folder.mkdir()
    base, log = record(folder, system, seed, mutant=mutant)
    tape, rng = Tape(log), random.Random(seed)
    complaints = tape.belief(len(tape.entries)).said
    outcome.wrong += [f"{system} {seed}, while recording: {line}" for line in complaints]
    applied = -1
    with base.open("r+b", buffering=0) as durable:
        for number, state in enumerate(states_of(tape, count, rng)):
            for kind, offset, data in tape.entries[applied + 1 : state.flush + 1]:
                if kind is Kind.WRITE:
                    os.pwrite(durable.fileno(), data, offset)
            applied = max(applied, state.flush)
            belief = tape.belief(state.cut)
            wrong = _look(folder, base, tape, state, belief, system, lose_index=number % 16 == 15)
            outcome.states += 1
            outcome.acks += sum(belief.acknowledged.values())
            outcome.kinds += belief.kinds
            outcome.dropped += state.dropped
            outcome.reordered += state.reordered
            outcome.torn += state.torn
            outcome.failed += bool(wrong)
            outcome.wrong += [f"{system} {seed} cut {state.cut}: {line}" for line in wrong[:3]]
    for name in ("image", "empty", "log", "state"):
        (folder / name).unlink(missing_ok=True)
    return outcome


def _look(
    folder: Path,
    base: Path,
    tape: Tape,
    state: State,
    belief: Belief,
    system: str,
    *,
    lose_index: bool,
) -> list[str]:
    image, disk = folder / "state", folder / "disk"
    sparse_copy(base, image)
    with image.open("r+b", buffering=0) as file:
        for at, first, last in state.writes:
            _, offset, data = tape.entries[at]
            part = data[first * SECTOR : last * SECTOR]
            os.pwrite(file.fileno(), part, offset + first * SECTOR)
    try:
        with mounted(image, disk, system):
            return _check(disk, belief, lose_index=lose_index)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        return [f"{error!r} at {' > '.join(f'{one.name}:{one.lineno}' for one in frames)}"]


def _check(disk: Path, belief: Belief, *, lose_index: bool) -> list[str]:
    if lose_index:
        for path in disk.glob("volume*/index.sqlite*"):
            path.unlink()
    engine = open_engine(disk / "volume")
    try:
        # Extents of three filesystems cannot be foretold: the ledger is compared with shards.
        _, wrong = check_engine(
            engine, belief, disk / "volume", exact=False, lost_index=lose_index
        )
    finally:
        engine.close()
    book = open_book(disk / "contracts.sqlite")
    try:
        wrong += check_book(book, belief)
    finally:
        book.close()
    return wrong


def sparse_copy(source: Path, target: Path) -> None:
    """Copy what is in a file, not its holes."""
    with source.open("rb", buffering=0) as old, target.open("wb", buffering=0) as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        at = 0
        while at < size:
            try:
                start = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            while start < at:
                start += os.copy_file_range(old.fileno(), new.fileno(), at - start, start, start)


def campaign(
    folder: Path, counts: dict[str, int], seed: int, *, mutant: bool, processes: int = 2
) -> tuple[list[str], list[str], dict[str, Outcome]]:
    """Return the last lines, the violations, and the outcome of each filesystem."""
    jobs = []
    for system, count in counts.items():
        for number, start in enumerate(range(0, count, STATES_PER_RUN)):
            some = min(STATES_PER_RUN, count - start)
            jobs.append((system, some, f"{seed}.{number}", folder, mutant))
    outcomes = {system: Outcome(system) for system, count in counts.items() if count}
    began = time.monotonic()
    processes_of = multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1)
    with to_its_end(processes_of) as pool:
        for outcome in pool.imap_unordered(_run, jobs, chunksize=1):
            outcomes[outcome.system].add(outcome)
    seconds = time.monotonic() - began
    lines = [outcome.line for outcome in outcomes.values()]
    wrong = [line for outcome in outcomes.values() for line in outcome.wrong]
    for system, outcome in outcomes.items():
        if outcome.states < counts[system]:
            wrong.append(f"{system}: only {outcome.states} different states")
        wrong += outcome.lacks
    lines.insert(0, f"{sum(o.states for o in outcomes.values()) / seconds:.1f} states a second")
    return lines, wrong, outcomes


def _run(job: tuple[str, int, str, Path, bool]) -> Outcome:
    system, count, seed, folder, mutant = job
    return run(system, count, seed, folder, mutant=mutant)
