"""
One turn of one tree: a farmer of its own, stores, retrieves and audits, as JSON.

Run in a process of its own with the tree before everything else on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
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


async def measure(reactor: Any, asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return the cells of one turn."""
    plan = Plan(
        sizes=(asked.size,),
        at_once=(asked.at_once,),
        seconds=asked.seconds,
        bytes_max=asked.space,
        quota_bytes=2 * asked.space + 1_000_000_000,
    )
    with OwnFarmer(folder, plan.quota_bytes) as owned:
        cells = await measure_load(owned, folder, plan, reactor, lambda _word: None)
    return [asdict(cell) for cell in cells]


def main() -> None:
    """Print the cells, and whose they are."""
    asked = arguments()

    async def run(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(dir=asked.dir) as folder:
            cells = await measure(reactor, asked, Path(folder))
        json.dump({"tree": str(Path(farmer.__file__).parent.parent), "cells": cells}, sys.stdout)

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
