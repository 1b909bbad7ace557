"""Long proofs on real kernels: `python -m tests.crash engine --kills 500` and others."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary one")
    verbs = parser.add_subparsers(dest="verb", required=True)
    engine = verbs.add_parser("engine", help="kill -9 of the engine at random moments")
    engine.add_argument("--kills", type=int, default=500)
    states = verbs.add_parser("states", help="crash states through a block log")
    states.add_argument("--ext4", type=int, default=0)
    states.add_argument("--xfs", type=int, default=0)
    states.add_argument("--btrfs", type=int, default=0)
    states.add_argument("--processes", type=int, default=2)
    states.add_argument("--mutant", action="store_true", help="nothing is synced; must fail")
    daemon = verbs.add_parser("daemon", help="kill -9 of the live daemon under load")
    daemon.add_argument("--kills", type=int, default=100)
    power = verbs.add_parser("power", help="power cuts of the live daemon on ext4 and xfs")
    power.add_argument("--cuts", type=int, default=20, help="half of them on each")
    moving = verbs.add_parser("moving", help="kill -9 while a volume is emptied under load")
    moving.add_argument("--kills", type=int, default=5)
    repairing = verbs.add_parser("repairing", help="kill -9 while renters repair shards")
    repairing.add_argument("--kills", type=int, default=30)
    strace = verbs.add_parser("strace", help="the Nth system call fails, or is the last")
    strace.add_argument("--every", type=int, default=1, help="only every Nth call of a kind")
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        line, wrong = _run(chosen, Path(folder))
    for one in wrong[:50]:
        sys.stdout.write(f"VIOLATION {one}\n")
    sys.stdout.write(f"({time.monotonic() - began:.0f} s)\n{line}\n")
    return 1 if wrong else 0


def _run(chosen: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    if chosen.verb == "engine":
        from tests.crash.killing import campaign

        return campaign(folder, chosen.kills, chosen.seed)
    if chosen.verb == "states":
        return _states(chosen, folder)
    if chosen.verb == "daemon":
        from tests.crash.live import kill_campaign

        return kill_campaign(folder, chosen.kills, chosen.seed)
    if chosen.verb == "moving":
        from tests.crash.moving import campaign as moving_campaign

        return moving_campaign(folder, chosen.kills, chosen.seed)
    if chosen.verb == "repairing":
        from tests.crash.repairing import campaign as repairing_campaign

        return repairing_campaign(folder, chosen.kills, chosen.seed)
    if chosen.verb == "strace":
        from tests.crash import tracing

        return tracing.campaign(folder, chosen.every, chosen.seed)
    if chosen.verb == "power":
        return _power(chosen, folder)
    raise AssertionError(chosen.verb)


def _power(chosen: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    from tests.crash.live import power_campaign

    lines, wrong = [], []
    for system, cuts in (("ext4", chosen.cuts - chosen.cuts // 2), ("xfs", chosen.cuts // 2)):
        line, found = power_campaign(folder, system, cuts, chosen.seed)
        lines.append(line)
        wrong += found
    return "\n".join(lines), wrong


def _states(chosen: argparse.Namespace, folder: Path) -> tuple[str, list[str]]:
    from tests.crash import states

    counts = {"ext4": chosen.ext4, "xfs": chosen.xfs, "btrfs": chosen.btrfs}
    counts = {system: count for system, count in counts.items() if count}
    lines, wrong, outcomes = states.campaign(
        folder, counts, chosen.seed, mutant=chosen.mutant, processes=chosen.processes
    )
    if chosen.mutant:
        wrong = [
            f"{system}: only {outcome.failed} of {outcome.states} states of the mutant fail"
            for system, outcome in outcomes.items()
            if outcome.failed < 0.9 * outcome.states
        ]
        wrong += [line for outcome in outcomes.values() for line in outcome.lacks]
        lines = [f"mutant {line}" for line in lines]
    return "\n".join(lines), wrong


if __name__ == "__main__":
    sys.exit(main())
