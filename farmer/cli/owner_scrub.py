"""`farmer scrub`: how far the reading-again is, and telling it to begin, stop or go on."""

from __future__ import annotations

import argparse
import time
from typing import Any

from farmer.cli.exits import OK
from farmer.cli.owner_ask import ask_running
from farmer.cli.owner_naming import volume_meant
from farmer.cli.owner_status import RETIRED
from farmer.cli.tables import table
from farmer.cli.terminal import print_document
from farmer.running.home import Home
from farmer.units import format_duration, format_size

_HEAD = (
    "VOLUME",
    "SCRUB",
    "DONE",
    "OF",
    "SPEED",
    "LEFT",
    "LAST READ THROUGH",
    "CHECKED",
    "DAMAGED",
    "MENDED",
)


def scrub_status(home: Home, options: argparse.Namespace) -> int:
    """Print how far the scrubs are."""
    volumes = ask_running(home, "status")["volumes"]
    if options.volume:
        names = _names(volumes, options.volume)
        volumes = [one for one in volumes if one["name"] in names]
    if options.json:
        rows = [{"name": one["name"], "path": one["path"]} | _known(one) for one in volumes]
        print_document({"volumes": rows})
    else:
        now_ms = time.time() * 1000
        print("\n".join(table(_HEAD, [_row(one, now_ms) for one in volumes])))
    return OK


def scrub_now(home: Home, options: argparse.Namespace) -> int:
    """Begin a pass at once, whatever the hours."""
    return _told(home, options, "scrub-now", "is being read again from now on")


def scrub_pause(home: Home, options: argparse.Namespace) -> int:
    """Stop until told otherwise."""
    return _told(home, options, "scrub-pause", "is left alone until: farmer scrub resume")


def scrub_resume(home: Home, options: argparse.Namespace) -> int:
    """Go on."""
    return _told(home, options, "scrub-resume", "is scrubbed as the settings say")


def _told(home: Home, options: argparse.Namespace, verb: str, what: str) -> int:
    names = []
    if options.volume:
        names = _names(ask_running(home, "status")["volumes"], options.volume)
    answer = ask_running(home, verb, {"volumes": names})
    if options.json:
        print_document(answer)
    else:
        print("\n".join(f"{name} {what}" for name in answer["volumes"]))
    return OK


def _names(volumes: list[dict[str, Any]], wanted: list[str]) -> list[str]:
    """
    Return the names of volumes that are wanted by their names or their paths.

    Raises:
        CommandError: as `volume_meant`.

    """
    known = {one["path"]: one["name"] for one in volumes}
    return [known[volume_meant(text, lambda: known)] for text in wanted]


def _known(volume: dict[str, Any]) -> dict[str, Any]:
    """Return how far its scrub is; of one that is not open there is nothing to say."""
    return volume.get("scrub") or {"state": "unknown"}


def _pass(scrub: dict[str, Any]) -> tuple[str, str]:
    """Return how much of its pass is done, and of how much; of none between passes."""
    if scrub["state"] == "idle" and not scrub["done_bytes"]:
        return "-", "-"
    return f"{scrub['progress'] * 100:.0f} %", format_size(scrub["total_bytes"])


def _last(scrub: dict[str, Any], now_ms: float) -> str:
    """Return when all was read for the last time; a pass over an empty volume has read nothing."""
    ended_ms = scrub["ended_at_ms"]
    if not ended_ms:
        return "never"
    is_over_nothing = scrub["state"] == "idle" and not scrub["checked"]
    return "-" if is_over_nothing else f"{format_duration(int(now_ms) - ended_ms)} ago"


def _row(volume: dict[str, Any], now_ms: float) -> tuple[str, ...]:
    scrub = volume.get("scrub")
    if scrub is None:
        state = RETIRED if volume["state"] == RETIRED else "not known"
        return volume["path"], state, *["-"] * (len(_HEAD) - 2)
    eta_s = scrub["eta_s"]
    return (
        volume["path"],
        scrub["state"],
        *_pass(scrub),
        f"{format_size(int(scrub['bytes_per_s']))}/s" if scrub["bytes_per_s"] else "-",
        format_duration(int(eta_s * 1000)) if eta_s is not None else "-",
        _last(scrub, now_ms),
        *(str(scrub[count]) for count in ("checked", "damaged", "mended")),
    )
