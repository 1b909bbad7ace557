"""
The Nth system call fails, or is the last: the engine under strace, call by call.

A child stores, deletes, erases, compacts, moves shards between two volumes and closes, alone
and always the same way. strace lets the Nth call of one kind fail with EIO or ENOSPC, or write
nothing although it was asked to, or kills the process at it. Afterwards the volumes are opened
again without strace, every fourth time without their indexes, and compared with what was
acknowledged: what was refused may be there or not.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from farmer.storage import quota, worthwhile
from farmer.storage.contracts import ContractDatabase
from farmer.storage.engine import Engine
from farmer.storage.errors import StorageError
from farmer.storage.files import OsFiles
from farmer.storage.index_file import INDEX_FILES
from tests.crash.belief import Belief, Held
from tests.crash.checking import check_book, check_engine
from tests.crash.work import (
    Redeemer,
    Say,
    Worker,
    make_volumes,
    move_some,
    open_book,
    open_engine,
    tidy,
    volumes_of,
)
from tests.storage.bench import MIB

CALLS = {
    "pwritev2": ("error=EIO", "error=ENOSPC", "retval=0", "signal=KILL"),
    "pwrite64": ("error=EIO", "error=ENOSPC", "retval=0", "signal=KILL"),
    "fdatasync": ("error=EIO", "error=ENOSPC", "signal=KILL"),
    "fsync": ("error=EIO", "error=ENOSPC", "signal=KILL"),
    "rename": ("error=EIO", "signal=KILL"),
    "unlink": ("error=EIO", "signal=KILL"),
    "fallocate": ("error=ENOSPC", "error=EIO", "signal=KILL"),
    "ftruncate": ("error=EIO", "signal=KILL"),
    "openat": ("error=EIO", "error=EMFILE", "signal=KILL"),
    "pread64": ("error=EIO",),
    "preadv2": ("error=EIO",),
}
"""What is injected into which call. Calls of the interpreter's own are no concern of ours: those
before the work begins are passed over."""

INDEX_LOST_EVERY = 4
ESCAPED_MAX = 0.15
"""The part of those to be killed that may end before the call at which they were to be."""
ESCAPED_FEW = 3
"""So many may do so in a campaign of any size: in a small one they are a large part."""
WRONG = "wrong"
"""What a child says before whatever no fault excuses."""

STEPS = 60
_STRACE = ("strace", "-f", "-qq", "-o", "/dev/null")
# Not --seccomp-bpf, which would be faster: with threads nothing is injected then.


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault: which call, what happens, the how-manieth."""

    call: str
    fault: str
    number: int

    @property
    def words(self) -> tuple[str, ...]:
        what = f"{self.call}:{self.fault}:when={self.number}"
        return ("-e", f"trace={self.call}", "-e", f"inject={what}")

    def __str__(self) -> str:
        return f"{self.call} {self.number} {self.fault}"


def child(folder: Path) -> None:
    """What is done under strace: `python -m tests.crash.tracing FOLDER`, on a made volume."""
    worthwhile.MARKS_SLACK_BYTES = 0  # type: ignore[misc]
    # So little work fills several segments, and what is erased is not punched but compacted.
    quota.SEGMENT_BYTES_MAX = MIB // 4  # type: ignore[misc]
    files = OsFiles()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    book: ContractDatabase | None = None
    engine, rng = open_engine(folder / "volume", files), random.Random("traced")
    worker = Worker(engine, 1, "traced", say)
    worker.large_share = 0.12
    worker.share_bytes = 6 * MIB
    try:
        book = open_book(folder / "contracts.sqlite")
        redeemer = Redeemer(book, "traced", say)
        for number in range(STEPS):
            if number == STEPS // 2:
                files.punch = lambda _fd, _offset, _length: False  # type: ignore[method-assign]
            worker.step()
            if number % 4 == 3:
                read_one(engine, worker, rng, say)
            if number % 12 == 11:
                redeemer.step()
                tidy(engine, say)
                move_some(engine, rng, say)
    except (StorageError, OSError) as error:
        # A refusal; what was begun and not answered stays open.
        say(f"odd {error!r}")
    finally:
        engine.close()
        if book is not None:
            book.close()


def read_one(engine: Engine, worker: Worker, rng: random.Random, say: Say) -> None:
    """Read a shard as it is served, from memory where that has it; never wrong bytes."""
    live = [item for item, held in worker.has.items() if held is Held.LIVE and item.size_bytes]
    if not live:
        return
    item = rng.choice(live)
    try:
        reader = engine.open(item.renter_id, item.shard)
        try:
            reader.prepare()
            data = reader.read_cached(0, item.size_bytes) or reader.read(0, item.size_bytes)
        finally:
            reader.close()
    except StorageError as error:
        say(f"odd {item} was not read: {error!r}")
    else:
        if bytes(data) != item.data:
            say(f"{WRONG} bytes of {item}")


def prepare(folder: Path) -> None:
    make_volumes(folder / "volume")
    open_engine(folder / "volume").close()
    open_book(folder / "contracts.sqlite").close()


def count_calls(folder: Path) -> Counter[str]:
    """
    Return how often the child makes each call, undisturbed: by the thread that makes most.

    strace counts each thread for itself.  `before CALL` is how often the first thread makes one
    before its work begins.
    """
    folder.mkdir()
    prepare(folder)
    trace = folder / "trace"
    subprocess.run(
        [
            *("strace", "-f", "--seccomp-bpf", "-qq", "-o", str(trace)),
            *("-e", f"trace={','.join(CALLS)}", *_command(folder)),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    by_thread: Counter[tuple[str, str]] = Counter()
    calls: Counter[str] = Counter()
    for line in trace.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found is None:
            continue
        by_thread[found[1], found[2]] += 1
        calls["begun"] |= "/volume" in line
        calls[f"before {found[2]}"] += not calls["begun"]
    for (_, call), count in by_thread.items():
        calls[call] = max(calls[call], count)
    return calls


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of one injection."""

    was_killed: bool
    escaped: bool
    """It should have been killed, but made fewer calls this time: threads share them anew."""
    belief: Belief
    wrong: list[str]


def run_one(folder: Path, injection: Injection, *, lose_index: bool) -> Ended:
    """Let the child run with one fault, and compare; without its indexes if they are lost."""
    folder.mkdir()
    prepare(folder)
    done = subprocess.run(
        [*_STRACE, *injection.words, *_command(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    belief = Belief()
    belief.hear_all(line for line in done.stdout.splitlines(keepends=True) if line[-1:] == "\n")
    if lose_index:
        for volume in volumes_of(folder / "volume"):
            for name in INDEX_FILES:
                (volume / name).unlink(missing_ok=True)
    engine = open_engine(folder / "volume")
    try:
        # What a failing disk could not be asked to give back is given back by the next sweep.
        _, wrong = check_engine(engine, belief, folder / "volume", lost_index=True)
    finally:
        engine.close()
    book = open_book(folder / "contracts.sqlite")
    try:
        wrong += check_book(book, belief)
    finally:
        book.close()
    wrong += [line for line in belief.said if line.startswith(WRONG)]
    killed = done.returncode in {-9, 137}
    escaped = not killed and injection.fault == "signal=KILL"
    if escaped and done.returncode:
        wrong.append(f"it was not killed: {done.returncode} {done.stderr[-500:]}")
    if wrong:
        wrong.append(f"it ended with {done.returncode}: {done.stderr[-800:]}")
    how = f"{injection}, index lost" if lose_index else f"{injection}"
    return Ended(killed, escaped, belief, [f"{how}: {line}" for line in wrong])


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.crash.tracing", str(folder)]


def campaign(folder: Path, every: int, seed: int = 0, processes: int = 2) -> tuple[str, list[str]]:
    """Inject into every Nth call of each kind, beginning at one of the first N, by chance."""
    calls = count_calls(folder / "count")
    rng = random.Random(seed)
    chosen = [
        Injection(call, fault, number)
        for call, faults in CALLS.items()
        for fault in faults
        for number in _numbers(call, calls, every, rng)
    ]

    def run(numbered: tuple[int, Injection]) -> Ended:
        number, injection = numbered
        lose_index = number % INDEX_LOST_EVERY == INDEX_LOST_EVERY - 1
        return run_one(folder / f"run{number}", injection, lose_index=lose_index)

    with ThreadPoolExecutor(processes) as pool:
        outcomes = list(pool.map(run, enumerate(chosen)))
    return report(calls, outcomes)


def report(calls: Counter[str], outcomes: list[Ended]) -> tuple[str, list[str]]:
    """Return the last line, and what was wrong."""
    wrong = [line for ended in outcomes for line in ended.wrong]
    done: Counter[str] = Counter()
    for ended in outcomes:
        done += ended.belief.kinds
    if not (done["move"] and done["compact"]):
        wrong.append("nothing was moved, or nothing compacted")
    wrong += [f"{call} was never called" for call in CALLS if not calls[call]]
    killed = sum(ended.was_killed for ended in outcomes)
    escaped = sum(ended.escaped for ended in outcomes)
    if not killed or escaped > max(ESCAPED_FEW, ESCAPED_MAX * (killed + escaped)):
        wrong.append(f"{escaped} were not killed, {killed} were")
    acks = sum(sum(ended.belief.acknowledged.values()) for ended in outcomes)
    made = " ".join(f"{call} {calls[call]}" for call in CALLS)
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
    return (
        f"strace injections {len(outcomes)} of calls ({made}) killed {killed} acks {acks}"
        f" ({kinds}) violations {len(wrong)}",
        wrong,
    )


def _numbers(call: str, calls: Counter[str], every: int, rng: random.Random) -> range:
    """Return which calls of a kind are to fail: one at least, however few there are."""
    first = calls[f"before {call}"] + 1
    start = first + rng.randrange(max(1, min(every, calls[call] - first)))
    return range(start, calls[call], every)


if __name__ == "__main__":
    try:
        child(Path(sys.argv[1]))
    except StorageError as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(3)
