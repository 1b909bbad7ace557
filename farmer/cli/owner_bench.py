"""`farmer bench`: what the disk, the processor and a farmer on both can do."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from farmer.benching.disk import PIECE_BYTES, measure_disk
from farmer.benching.load import Cell, Plan, measure_load
from farmer.benching.process import BenchError, OwnFarmer
from farmer.benching.processor import measure_processor
from farmer.cli.exits import OK, CommandError
from farmer.cli.owner_bench_words import disk_words, load_words, processor_words, verdicts
from farmer.cli.terminal import print_document
from farmer.client.errors import ClientError
from farmer.running.caller import FarmerRefusedError, NotRunningError, call
from farmer.running.home import Home
from farmer.settings.paths import absolute
from farmer.units import format_size

reactor: Any = _reactor
"""The real one; the module's type says too little of it."""

KIB: Final = 1024
SIZES: Final = (64 * KIB, 2 * KIB * KIB, 64 * KIB * KIB)
AT_ONCE: Final = (1, 16)

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""By any of them a command is ended; a farmer reads its settings again at the last."""


def bench(home: Home, options: argparse.Namespace) -> int:
    """Measure, say what came out, and leave nothing behind."""
    where = absolute(options.dir) if options.dir else _disk_of(home)
    _check_room(where, options.space)
    told = _quiet if options.json else _say
    if _is_running(home):
        told("Your farmer is running and does its work meanwhile: these figures are low.")
    try:
        with _ending_in_order(), TemporaryDirectory(prefix=".farmer-bench-", dir=where) as folder:
            document = _measured(Path(folder), options)
    except (BenchError, ClientError) as error:
        raise CommandError(f"the measuring failed: {error}") from error
    if options.json:
        print_document({"directory": str(where)} | document)
    return OK


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """
    Let whoever ends us end the farmer of ours too, and find nothing left behind.

    He is heard once: what is to be done then takes some seconds.
    """
    handlers = {number: signal.getsignal(number) for number in ENDING}
    # Somebody who began us (nohup) does not want us to hear some of them.
    heard = {one: was for one, was in handlers.items() if was is not signal.SIG_IGN}

    def end(_number: int, _frame: object) -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        if not reactor.running:
            raise KeyboardInterrupt
        # What is raised in there counts as an error of whatever happens to run.
        reactor.callFromThread(reactor.stop)

    for number in heard:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _measured(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    told = _quiet if options.json else _say
    file_bytes = options.space // 4 // PIECE_BYTES * PIECE_BYTES
    disk = measure_disk(folder, file_bytes, options.seconds)
    _each(told, disk_words(disk))
    processor = measure_processor(options.seconds)
    _each(told, processor_words(processor))
    # The quota is no more than a number; what is really stored is bounded by the plan.
    quota_bytes = 2 * options.space
    plan = Plan(SIZES, AT_ONCE, options.seconds, options.space // 4, quota_bytes)
    with OwnFarmer(folder, quota_bytes) as owned:
        cells = _load(owned, folder, plan)
    _each(told, ["", *load_words(cells), "", *verdicts(disk, cells)])
    return {
        "disk": asdict(disk),
        "processor": asdict(processor),
        "cells": [asdict(cell) for cell in cells],
    }


def _load(owned: OwnFarmer, folder: Path, plan: Plan) -> list[Cell]:
    """Run the renters' reactor until they are done."""
    outcome: list[list[Cell] | Failure] = []

    def begin() -> None:
        work = measure_load(owned, folder, plan, reactor, _progress)
        _ = Deferred.fromCoroutine(work).addBoth(end)

    def end(result: list[Cell] | Failure) -> None:
        outcome.append(result)
        reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    if not outcome:
        raise KeyboardInterrupt
    [found] = outcome
    if isinstance(found, Failure):
        found.raiseException()
    assert isinstance(found, list)
    return found


def _disk_of(home: Home) -> Path:
    """Return where we may write on the disk of the first volume: beside it, else in it."""
    from farmer.cli.owner_settings import load_settings
    from farmer.running.volumes import volume_paths

    volume = volume_paths(home, load_settings(home).settings)[0]
    there = next(place for place in (volume, *volume.parents) if place.exists())
    beside = volume.parent
    is_beside = beside.exists() and beside.stat().st_dev == there.stat().st_dev
    for place in (beside, there) if is_beside else (there,):
        if os.access(place, os.W_OK | os.X_OK):
            return place
    raise CommandError(
        f"the first volume is {volume}, and you may write neither there nor beside it: name a "
        "directory on the disk in question with --dir, or be the user that the farmer runs as"
    )


def _check_room(where: Path, space_bytes: int) -> None:
    if not where.is_dir():
        raise CommandError(f"{where} is no directory; name one on the disk in question: --dir")
    free_bytes = shutil.disk_usage(where).free
    if free_bytes < 2 * space_bytes:
        raise CommandError(
            f"{where} has {format_size(free_bytes)} free; this takes {format_size(space_bytes)}"
            " for a minute or two, and as much again must be left: --space less, --dir elsewhere"
        )


def _is_running(home: Home) -> bool:
    try:
        call(home, "status")
    except (NotRunningError, FarmerRefusedError):
        return False
    return True


def _each(told: Callable[[str], None], words: Iterable[str]) -> None:
    for line in words:
        told(line)


def _say(line: str) -> None:
    print(line, flush=True)


def _quiet(_line: str) -> None:
    """Say nothing: the document says all."""


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what} ...\r", end="", file=sys.stderr, flush=True)
