"""
Kill -9 of the engine: a child works on a real directory and is killed at random moments.

After each kill the volume is opened and everything compared; what is there then is what
must still be there after the next kill.  Every sixteenth time the index is thrown away first.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time
import traceback
from collections import Counter
from pathlib import Path

from farmer.storage.index_file import INDEX_FILES
from tests.crash.belief import Belief, Held, Item
from tests.crash.checking import check_engine
from tests.crash.work import keep_busy, make_volumes, open_engine, volumes_of


def run_and_kill(
    path: Path, seed: str, belief: Belief, after_s: float, *, opening: bool = False
) -> None:
    """
    Let a child work on the volume, kill it, and hear what it said until then.

    *after_s* counts from when it works, or, with *opening*, from its first breath.
    """
    has = {
        item: next(iter(possible))
        for item, possible in belief.possible.items()
        if possible != {Held.ABSENT}
    }
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _be_the_child(path, seed, has, theirs)
    os.close(theirs)
    lines = b"" if opening else _hear_word(ours, b"phase working\n")
    lines += _hear_until(ours, time.monotonic() + after_s)
    os.kill(child, signal.SIGKILL)
    lines += _hear_until(ours, None)
    os.close(ours)
    _, status = os.waitpid(child, 0)
    text = lines.decode()
    belief.hear_all(text.splitlines())
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        belief.said.append(f"odd the child ended by itself: {status}\n{text[-2000:]}")


def _be_the_child(path: Path, seed: str, has: dict[Item, Held], pipe: int) -> None:
    # What the parent had open, and may not have closed yet, is not ours: its locks least of all.
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))

    def say(line: str) -> None:
        os.write(pipe, f"{line}\n".encode())

    try:
        keep_busy(path, seed, say, has)
    except BaseException:
        say("odd " + traceback.format_exc().replace("\n", " | "))
    os._exit(1)


def _hear_word(pipe: int, word: bytes) -> bytes:
    """Return what was said up to a word; nothing more if that never comes."""
    heard = b""
    while word not in heard:
        data = os.read(pipe, 1 << 16)
        if not data:
            break
        heard += data
    return heard


def _hear_until(pipe: int, deadline: float | None) -> bytes:
    """Return what was said up to a moment, or to the end."""
    heard = []
    # Not `select`, which takes no descriptor from 1,024 on.
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not poll.poll(None if left is None else left * 1000):
            break
        data = os.read(pipe, 1 << 16)
        if not data:
            break
        heard.append(data)
        if deadline is not None and time.monotonic() >= deadline:
            break
    return b"".join(heard)


def campaign(folder: Path, kills: int, seed: int = 0) -> tuple[str, list[str]]:
    """Return the last line and the violations of so many kills."""
    rng = random.Random(seed)
    path = folder / "volume"
    make_volumes(path)
    belief, wrong = Belief(), []
    counts: Counter[str] = Counter()
    for number in range(kills):
        opening = rng.random() < 0.15
        after_s = rng.uniform(0.0, 0.03) if opening else rng.uniform(0.0, 0.2)
        run_and_kill(path, f"{seed}.{number}", belief, after_s, opening=opening)
        counts[f"in {belief.phase}"] += 1
        counts["in flight"] += bool(belief.begun)
        wrong += [f"kill {number}: {line}" for line in belief.said]
        belief.said.clear()
        lost_index = number % 16 == 15
        if lost_index:
            for name in INDEX_FILES:
                for volume in volumes_of(path):
                    (volume / name).unlink(missing_ok=True)
        engine = open_engine(path)
        try:
            seen, found = check_engine(engine, belief, path, lost_index=lost_index)
        finally:
            engine.close()
        wrong += [f"kill {number} ({seed}): {line}" for line in found]
        belief.settle(seen)
        if len(wrong) > 20:
            break
    acks = sum(belief.acknowledged.values())
    kinds = " ".join(f"{kind} {count}" for kind, count in sorted(belief.kinds.items()))
    phases = " ".join(f"{phase} {count}" for phase, count in sorted(counts.items()))
    if counts["in flight"] < kills // 2 or acks < kills:
        wrong.append("too little was going on when it was killed")
    return f"engine kills {kills} acks {acks} ({kinds}; {phases}) violations {len(wrong)}", wrong
