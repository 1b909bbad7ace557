"""
Load on a real daemon: `python -m tests.load idle|hostile|soak`.

Each prints its figures and a line with a verdict; the exit code is 1 if a limit was not kept.
"""

from __future__ import annotations

import argparse
import sys

from tests.load import hostile, idle, soak

HOLD_S = idle.PING_S + 5
"""So each session pings at least once while all are held."""


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    quiet = kinds.add_parser("idle", help="many sessions that only ping")
    quiet.add_argument("--sessions", type=int, default=10_000)
    quiet.add_argument("--hold", type=float, default=HOLD_S, help="seconds")
    slow = kinds.add_parser("hostile", help="slow and silent peers, and one honest renter")
    slow.add_argument("--peers", type=int, default=2000)
    slow.add_argument("--seconds", type=float, default=150.0)
    slow.add_argument("--baseline", type=float, default=30.0, help="seconds")
    slow.add_argument("--untimed", action="store_true", help="tell times, judge all else")
    long = kinds.add_parser("soak", help="ordinary work for a long time")
    long.add_argument("--minutes", type=float, default=60.0)
    asked = parser.parse_args(words)
    if asked.kind == "soak":
        return soak.run(asked.minutes)
    if asked.kind == "hostile":
        return hostile.run(asked.peers, asked.seconds, asked.baseline, timed=not asked.untimed)
    return idle.run(asked.sessions, asked.hold)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
