"""
Fuzz every decoder: `python -m tests.fuzz --executions 2000000 [--decoder X] [--seed S]`.

The last line gives the counts; the exit code is 1 if a decoder failed, 2 if a floor was missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.campaign import campaign
from tests.fuzz.decoders import ALL, target_of
from tests.fuzz.runner import FAILURES, grow


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=2_000_000, help="of all decoders")
    parser.add_argument("--decoder", action="append", help="this one only; may be repeated")
    parser.add_argument("--seed", default="1", help="the same seed tries the same inputs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", type=Path, help="run a written-out input again")
    parser.add_argument("--grow", action="store_true", help="add to the kept corpus, slowly")
    parser.add_argument("--list", action="store_true", help="name the decoders")
    asked = parser.parse_args(words)
    if asked.list:
        print("\n".join(ALL))
        return 0
    if asked.replay is not None:
        return replay(asked.replay)
    names = asked.decoder or list(ALL)
    if asked.grow:
        for name in names:
            _grown(name, asked)
        return 0
    return campaign(names, asked.executions, asked.seed, asked.processes)


def _grown(name: str, asked: argparse.Namespace) -> None:
    target = target_of(name)
    try:
        kept = grow(target, asked.executions, asked.seed)
    finally:
        target.close()
    print(f"{name}: {kept} inputs kept", flush=True)


def replay(path: Path) -> int:
    """Run one input with its traceback."""
    written_out = path.parent.name == FAILURES.name
    target = target_of(path.name.split(".")[0] if written_out else path.parent.name)
    try:
        passed = target.run(path.read_bytes())
    finally:
        target.close()
    print(f"{target.name}: no fault; the input {'got past' if passed else 'stopped at'} the door")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
