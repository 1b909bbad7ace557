"""
One turn of one tree: a farmer of its own, stores, retrieves and audits, as JSON.

Run in a process of its own with the tree before everything else on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

import farmer
from farmer.benching.load import Plan, measure_load
from farmer.benching.process import OwnFarmer


def arguments() -> argparse.Namespace:
    """Return what is to be measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, required=True, help="bytes of a shard")
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="for each kind of work")
    parser.add_argument("--space", type=int, required=True, help="bytes stored at most")
    parser.add_argument("--dir", required=True, help="on the disk to be used")
    return parser.parse_args()


def main() -> None:
    """Print the cells, and whose they are."""
    asked = arguments()
    # Whoever began us hears these, and ends us by SIGTERM; until the reactor does, we hear it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    plan = Plan(
        sizes=(asked.size,),
        at_once=(asked.at_once,),
        seconds=asked.seconds,
        bytes_max=asked.space,
        quota_bytes=2 * asked.space + 1_000_000_000,
    )
    # Around the reactor: what is inside a coroutine when a signal stops that is never left.
    with (
        tempfile.TemporaryDirectory(dir=asked.dir) as folder,
        OwnFarmer(Path(folder), plan.quota_bytes) as owned,
    ):
        react(lambda reactor: Deferred.fromCoroutine(_told(owned, Path(folder), plan, reactor)))


async def _told(owned: OwnFarmer, folder: Path, plan: Plan, reactor: Any) -> None:
    cells = await measure_load(owned, folder, plan, reactor, lambda _word: None)
    found = {
        "tree": str(Path(farmer.__file__).parent.parent),
        "cells": [asdict(cell) for cell in cells],
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
