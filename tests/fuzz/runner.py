"""Runs one decoder on many inputs and watches what each run costs and raises."""

from __future__ import annotations

import signal
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tests.fuzz.mutate import Picker
from tests.fuzz.target import Target

CORPUS: Final = Path(__file__).parent / "corpus"
FAILURES: Final = Path(".fuzz")
CPU_S_MAX: Final = 1.0
"""Processor time of one run; the longest of ours takes a few milliseconds."""
HANG_S: Final = 60
MEASURED_EVERY: Final = 101
"""Of so many runs one has its memory measured: measuring takes time."""
FAILURES_MAX: Final = 5
"""Of one decoder: the rest is most often the same again."""


class TooMuchError(AssertionError):
    """A run took too much memory or time for its input."""


@dataclass
class Counts:
    """What came of one decoder."""

    name: str
    executions: int = 0
    mended: int = 0
    passed: int = 0
    """Got past the door."""
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    """By where it went wrong: the file of the first such input."""


def corpus_of(target: Target) -> list[bytes]:
    """Return the kept inputs of a target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / target.name).glob("*.bin"))]


def pool_of(target: Target) -> list[tuple[bytes, bytes]]:
    """
    Return what is changed, each with an input that is right, to mend it by.

    What is right stands there three times as often as what is kept, which is mostly wrong.
    """
    seeds = target.seeds()
    kept = [(data, seeds[at % len(seeds)]) for at, data in enumerate(corpus_of(target))]
    times = -(-3 * len(kept) // len(seeds)) or 1
    return [*zip(seeds, seeds, strict=True)] * times + kept


def run_many(target: Target, executions: int, seed: str) -> Counts:
    """Run the target on changed inputs; the same seed gives the same ones."""
    counts, pick = Counts(target.name), Picker(f"{seed}/{target.name}")
    pool = pool_of(target)
    began = time.process_time()
    for number in range(executions):
        one, right = pick.one(pool)
        data = target.mutate(pick, one, pick.one(pool)[0])
        if pick.chance() < target.mended:
            data = target.mend(pick, data, right)
            counts.mended += 1
        counts.passed += guarded(target, data, counts, measured=number % MEASURED_EVERY == 0)
        if len(counts.failures) >= FAILURES_MAX:
            break
    counts.seconds = time.process_time() - began
    return counts


def guarded(target: Target, data: bytes, counts: Counts, *, measured: bool) -> bool:
    """Run once; note a failure and write its input out."""
    counts.executions += 1
    signal.alarm(HANG_S)
    try:
        return _measured(target, data) if measured else _timed(target, data)
    except Exception as error:
        where = _where(error)
        if where not in counts.failures:
            counts.failures[where] = str(_written_out(target, data, error))
        return False
    finally:
        signal.alarm(0)


def _timed(target: Target, data: bytes) -> bool:
    began = time.perf_counter()
    passed = target.run(data)
    if time.perf_counter() - began > CPU_S_MAX / 2:
        # The machine may have been busy: only processor time counts.
        spent = time.process_time()
        target.run(data)
        spent = time.process_time() - spent
        if spent > CPU_S_MAX:
            raise TooMuchError(f"{spent:.1f} s for {len(data)} bytes")
    return passed


def _measured(target: Target, data: bytes) -> bool:
    tracemalloc.start()
    try:
        passed = target.run(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > target.memory_bytes + 64 * len(data):
        raise TooMuchError(f"{peak} bytes of memory for an input of {len(data)}")
    return passed


def _where(error: Exception) -> str:
    """Name the kind of an error and the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def _written_out(target: Target, data: bytes, error: Exception) -> Path:
    FAILURES.mkdir(exist_ok=True)
    path = FAILURES / f"{target.name}.{sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    print(
        f"FAILED {target.name}: {type(error).__name__}: {error}\n"
        f"  again: python -m tests.fuzz --replay {path}",
        flush=True,
    )
    return path


def lines_run(work: Callable[[], object]) -> Iterator[tuple[str, int, int]]:
    """Yield the steps from line to line of our own code that *work* takes."""
    seen: set[tuple[str, int, int]] = set()
    marker = f"{Path('farmer')}/"

    def trace(frame: Any, event: str, _arg: object) -> Any:
        name = frame.f_code.co_filename
        if marker not in name or "/tests/" in name:
            return None
        before = 0

        def step(frame: Any, event: str, _arg: object) -> Any:
            nonlocal before
            if event == "line":
                seen.add((name, before, frame.f_lineno))
                before = frame.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    yield from seen


def grow(target: Target, executions: int, seed: str) -> int:
    """
    Keep inputs that lead where none has led before; return how many are new.

    The seeds themselves are not kept: they are made anew by each run.
    """
    pick, pool = Picker(f"grow/{seed}/{target.name}"), pool_of(target)
    known: set[tuple[str, int, int]] = set()
    for data, _ in pool:
        known.update(lines_run(lambda data=data: target.run(data)))
    folder, kept = CORPUS / target.name, 0
    for _ in range(executions):
        one, right = pick.one(pool)
        data = target.mutate(pick, one, pick.one(pool)[0])
        if pick.chance() < target.mended:
            data = target.mend(pick, data, right)
        found = set(lines_run(lambda data=data: target.run(data)))
        if not found <= known and len(data) <= 8192:
            known |= found
            pool.append((data, right))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{sha256(data).hexdigest()[:12]}.bin").write_bytes(data)
            kept += 1
    return kept
