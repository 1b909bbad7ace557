"""
The Nth system call fails, or is the last: the engine under strace, call by call.

A child stores, deletes, erases, compacts and closes, alone and always the same way. strace
lets the Nth call of one kind fail with EIO or ENOSPC, or write nothing although it was
asked to, or kills the process at it. Afterwards the volume is opened again without strace
and compared with what was acknowledged: what was refused may be there or not.
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

from farmer.storage import reclaim
from farmer.storage.contracts import ContractDatabase
from farmer.storage.directory import create_volume
from farmer.storage.errors import StorageError
from farmer.storage.files import OsFiles
from tests.crash.belief import Belief
from tests.crash.checking import check_book, check_engine
from tests.crash.work import (
    NOW_MS,
    OBSERVED_MS,
    Redeemer,
    Worker,
    open_book,
    open_engine,
)
from tests.storage.bench import MIB, NODE

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
}
"""What is injected into which call. An openat of the interpreter's own is no concern of ours:
those before the work begins are passed over."""

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
    reclaim.MARKS_SLACK_BYTES = 0  # type: ignore[misc]

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    book: ContractDatabase | None = None
    engine = open_engine(folder / "volume")
    worker = Worker(engine, 1, "traced", say)
    worker.large_share = 0.12
    worker.share_bytes = 6 * MIB
    try:
        book = open_book(folder / "contracts.sqlite")
        redeemer = Redeemer(book, "traced", say)
        for number in range(STEPS):
            worker.step()
            if number % 12 == 11:
                redeemer.step()
                engine.sweep(NOW_MS, OBSERVED_MS)
    except (StorageError, OSError) as error:
        # A refusal; what was begun and not answered stays open.
        say(f"odd {error!r}")
    finally:
        engine.close()
        if book is not None:
            book.close()


def prepare(folder: Path) -> None:
    create_volume(folder / "volume", NODE, OsFiles(), NOW_MS)
    open_engine(folder / "volume").close()
    open_book(folder / "contracts.sqlite").close()


def count_calls(folder: Path) -> Counter[str]:
    """
    Return how often the child makes each call, undisturbed: by the thread that makes most.

    strace counts each thread for itself.  `before` is how often the first thread opens a file
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
        calls["before"] += found[2] == "openat" and not calls["begun"]
    for (_, call), count in by_thread.items():
        calls[call] = max(calls[call], count)
    return calls


def run_one(folder: Path, injection: Injection) -> tuple[bool, int, list[str]]:
    """Return whether it was killed, how much was acknowledged, and what was wrong."""
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
    killed = done.returncode in {-9, 137}
    if not killed and injection.fault == "signal=KILL":
        wrong.append(f"it was not killed: {done.returncode} {done.stderr[-500:]}")
    if wrong:
        wrong.append(f"it ended with {done.returncode}: {done.stderr[-800:]}")
    acknowledged = sum(belief.acknowledged.values())
    return killed, acknowledged, [f"{injection}: {line}" for line in wrong]


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.crash.tracing", str(folder)]


def campaign(folder: Path, every: int, seed: int = 0, processes: int = 2) -> tuple[str, list[str]]:
    """Inject into every Nth call of each kind, beginning at a random one of the first N."""
    calls = count_calls(folder / "count")
    rng = random.Random(seed)
    chosen = [
        Injection(call, fault, number)
        for call, faults in CALLS.items()
        for fault in faults
        for number in range(_first(call, calls) + rng.randrange(every), calls[call], every)
    ]
    with ThreadPoolExecutor(processes) as pool:
        outcomes = list(
            pool.map(lambda one: run_one(folder / f"run{one[0]}", one[1]), enumerate(chosen))
        )
    wrong = [line for _, _, found in outcomes for line in found]
    killed = sum(was for was, _, _ in outcomes)
    acks = sum(count for _, count, _ in outcomes)
    kinds = " ".join(f"{call} {calls[call]}" for call in CALLS)
    return (
        f"strace injections {len(chosen)} of calls ({kinds}) killed {killed} acks {acks}"
        f" violations {len(wrong)}",
        wrong,
    )


def _first(call: str, calls: Counter[str]) -> int:
    return calls["before"] + 1 if call == "openat" else 1


if __name__ == "__main__":
    try:
        child(Path(sys.argv[1]))
    except StorageError as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(3)
