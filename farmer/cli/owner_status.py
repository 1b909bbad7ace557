"""`farmer status`, `metrics` and `version`: what the running farmer says of itself, fast."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Final

from farmer.cli.exits import CRITICAL, DEGRADED, NOT_RUNNING, OK
from farmer.cli.owner_ask import ask_running
from farmer.cli.tables import table
from farmer.cli.terminal import print_document
from farmer.model.status import NodeState, VolumeState
from farmer.running.caller import NotRunningError, call
from farmer.running.home import Home
from farmer.units import counted, format_duration, format_size
from farmer.version import VERSION, build, release_words

STOPPED: dict[str, Any] = {
    "state": "stopped",
    "node_id": None,
    "listen": [],
    "page": "",
    "volumes": [],
    "alerts": [],
}
"""What a script reads when no farmer runs; the exit code says so too."""

HEAD = ("VOLUME", "STATE", "QUOTA", "USED", "RESERVED", "TRASH", "FREE", "SHARDS", "DAMAGED")
RETIRED: Final = VolumeState.RETIRED.value
_DEAD: Final = tuple(state.value for state in (VolumeState.FAILING, VolumeState.GONE))
_WELL: Final = tuple(state.value for state in (VolumeState.HEALTHY, VolumeState.FULL))
"""States of volumes, as the status names them."""


def status(home: Home, options: argparse.Namespace) -> int:
    """Print how the farmer is; the exit code says it too."""
    try:
        document = call(home, "status")
    except NotRunningError as error:
        if options.json:
            print_document(STOPPED)
        print(f"farmer: {error}; start it with: {home.command('run')}", file=sys.stderr)
        return NOT_RUNNING
    if options.json:
        print_document(document)
    else:
        print("\n".join(lines_of(document, time.time() * 1000)))
    return exit_code(document)


def exit_code(document: dict[str, Any]) -> int:
    """Return 0 if all is well, 4 if something needs the owner, 5 if every volume is dead."""
    states = [one["state"] for one in document["volumes"] if one["state"] != RETIRED]
    if states and all(state in _DEAD for state in states):
        return CRITICAL
    degraded = document["state"] == NodeState.DEGRADED.value or document["alerts"]
    return DEGRADED if degraded or any(state not in _WELL for state in states) else OK


def lines_of(document: dict[str, Any], now_ms: float) -> list[str]:
    """Return the status for a person."""
    name = f" {document['name']}" if document["name"] else ""
    up = format_duration(int(now_ms) - document["started_at_ms"])
    contracts = document["contracts"]
    lines = [
        f"farmer{name} is {document['state']}, for {up} ({_program(document)})",
        f"  node id    {document['node_id']}",
        f"  process    {document['pid']}",
        f"  renters    {', '.join(document['listen'])}",
        f"  announced  {', '.join(document['announce'])}",
        f"  page       http://{document['page']}/",
        f"  contracts  {contracts.get('active', 0)} active, {contracts.get('grace', 0)} in grace, "
        f"{counted(document['open_invites'], 'open invite')}, "
        f"{counted(document['sessions'], 'session')}",
        f"  promised   {format_size(document.get('promised_bytes', 0))}",
    ]
    if document.get("waiting"):
        names = ", ".join(document["waiting"])
        lines.append(f"  settings   were changed and wait for a restart: {names}")
    if build() and build() != document.get("build"):
        told = f"this command is build {build()}"
        lines.append(f"  program    {told}: if you have upgraded, restart the farmer")
    lines.append("")
    lines += volume_table(document["volumes"])
    for alert in document["alerts"]:
        lines += ["", f"! {alert['name']}: {alert['message']}"]
        lines += [f"  type: {alert['command']}"] if alert["command"] else []
    return lines


def _program(document: dict[str, Any]) -> str:
    # Farmers of before there were builds run on while this command is put in their place.
    return f"version {release_words(document['version'], document.get('build', ''))}"


def volume_table(volumes: list[dict[str, Any]]) -> list[str]:
    """Return the volumes for a person."""
    lines = table(HEAD, [_volume_row(volume) for volume in volumes])
    for volume in volumes:
        lines += [f"{volume['path']}: {volume['reason']}"] if volume.get("reason") else []
        lines += _work_lines(volume["path"], volume.get("work"))
    return lines


def _work_lines(path: str, work: dict[str, Any] | None) -> list[str]:
    if work is None:
        return []
    done = f"{counted(work['moved_shards'], 'shard')}, {format_size(work['moved_bytes'])} moved"
    left = f"{counted(work['left_shards'], 'shard')}, {format_size(work['left_bytes'])} left"
    where = f" to {work['to_path']}" if work["to_path"] else ""
    parts = [f"{path}: {work['verb']}{where}: {done}, {left}"]
    if work["left_shards"] and work["eta_s"] is not None:
        parts.append(f"about {format_duration(work['eta_s'] * 1000)} to go")
    if work["damaged"]:
        parts.append(f"{counted(work['damaged'], 'damaged shard')} cannot move{_advice(work)}")
    if work["unfinished_bytes"]:
        parts.append(f"stores of {format_size(work['unfinished_bytes'])} are not finished")
    if not (work["left_shards"] or work["unfinished_bytes"]):
        parts.append("empty")
    if work["problem"]:
        parts.append(f"it does not go on now: {work['problem']}")
    return ["; ".join(parts)]


def _advice(work: dict[str, Any]) -> str:
    """Return what ends the waiting where damaged shards are all that is left."""
    if work["left_shards"] > work["damaged"]:
        return ""
    advice = " until renters have repaired or deleted what is theirs"
    if work["verb"] == "drain":
        return advice
    return f"{advice}; {work['verb']} it with --give-up-damaged to give them up"


def _volume_row(volume: dict[str, Any]) -> tuple[str, ...]:
    sizes = ("quota_bytes", "used_bytes", "reserved_bytes", "trash_bytes", "free_bytes")
    shown = [format_size(volume[size]) for size in sizes]
    counts = (volume["shards"], volume.get("quarantined", 0))
    state = volume["state"] + (", leaving" if volume.get("draining") else "")
    return (volume["path"], state, *shown, *map(str, counts))


def metrics(home: Home, _options: argparse.Namespace) -> int:
    """Print what Prometheus would scrape."""
    sys.stdout.write(ask_running(home, "metrics")["text"])
    return OK


def version(_home: Home, options: argparse.Namespace) -> int:
    """Print the release, and which build of it."""
    if options.json:
        print_document({"version": VERSION, "build": build()})
    else:
        print(f"farmer {release_words(VERSION, build())}")
    return OK
