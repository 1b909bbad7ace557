"""What can be typed after `farmer`: its verbs, their options, and which function does each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, TypeVar

from farmer.settings.kinds import ADDRESS, NAME, PUBLIC_ADDRESS, Kind
from farmer.units import format_size, parse_duration, parse_money, parse_size
from farmer.version import VERSION

V = TypeVar("V")

SERVING: Final = "owner_run:run"
"""What whoever started us watches and ends by our process id."""

VOLUME: Final = "a directory, and how much of its disk: 500GB, 500GiB, 80%% or max; at least 64MiB"

NAMED: Final = "a volume, by its directory or its short name"
"""The name that alerts, metrics and `farmer scrub` have it by."""

BENCH_BYTES_MIN: Final = 300_000_000
"""A quarter is one file; each size of shard has to come at least once."""

SECONDS_MIN: Final = 0.1
SECONDS_MAX: Final = 3600.0
"""How long a bench may take for each figure."""

BEFORE_THE_COMMAND: Final = ("--home", "--config")
"""What holds for all commands stands before them."""

DESCRIPTION: Final = "Rent out spare disk: store shards, prove that they are there, serve them."


def parser() -> argparse.ArgumentParser:
    """Return the grammar of the command line."""
    top = argparse.ArgumentParser("farmer", description=DESCRIPTION)
    top.add_argument("--home", metavar="DIR", help="keep everything under DIR (or FARMER_HOME)")
    top.add_argument("--config", metavar="FILE", help="read the settings from FILE")
    top.add_argument("--version", action="version", version=f"farmer {VERSION}")
    top.set_defaults(json=False)
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_running(verbs)
    _add_renting(verbs)
    _add_keeping(verbs)
    return top


Verbs = Any
"""What `add_subparsers` returns; argparse does not name it in public."""


def _add_running(verbs: Verbs) -> None:
    init = _add(verbs, "init", "make a home, settings and volumes", "owner_settings:init")
    init.add_argument("--yes", action="store_true", help="ask nothing, take the defaults")
    many: dict[str, Any] = {"action": "append", "default": []}
    rented = f"rent out {VOLUME}"
    init.add_argument("--volume", type=_volume, metavar="PATH=SIZE", help=rented, **many)
    address: dict[str, Any] = {"type": _address, "metavar": "HOST:PORT"}
    init.add_argument("--listen", help="where renters connect", **address, **many)
    init.add_argument("--page", default="", help="where the page is served", **address)
    outside = "the address that invites name, as renters outside reach it"
    public = address | many | {"type": _public_address}
    init.add_argument("--announce", help=outside, **public)
    init.add_argument("--name", type=_name, default="", help="what the page calls this farmer")
    _add(verbs, "run", "serve, in the foreground", SERVING)
    _add(verbs, "status", "how the farmer is", "owner_status:status", json=True)
    _add(verbs, "metrics", "what Prometheus would scrape", "owner_status:metrics")
    _add(verbs, "version", "the release, and which build of it", "owner_status:version", json=True)
    bench = _add(verbs, "bench", "what disk and farmer can do", "owner_bench:bench", json=True)
    bench.add_argument("--dir", metavar="DIR", help="on this disk; default: the first volume's")
    space = "to use meanwhile; default: 1GB, at least 300MB"
    bench.add_argument("--space", type=_bench_size, metavar="SIZE", default="1GB", help=space)
    each = "for each figure; default: 3, which makes a minute or two in all"
    bench.add_argument("--seconds", type=_seconds, metavar="N", default=3.0, help=each)


def _add_renting(verbs: Verbs) -> None:
    invite = _add(verbs, "invite", "offer a contract", "owner_rent:invite", json=True)
    below = invite.add_subparsers(metavar="[list|withdraw]")
    invite.add_argument("--space", type=_size, metavar="SIZE", help="like 200GB; needed")
    _add_duration(invite, "--for", "how long the contract lasts, like 90d; needed")
    invite.add_argument(
        *("--expires",),
        type=_duration,
        metavar="DURATION",
        default="7d",
        help="how long the invite can be redeemed; default: 7d",
    )
    invite.add_argument("--price", type=_money, metavar="AMOUNT", help="per TB and 30 days")
    invite.add_argument("--price-served", type=_money, metavar="AMOUNT", help="per TB retrieved")
    invite.add_argument("--currency", help="like EUR; default: the settings' price")
    _add(below, "list", "open invites", "owner_rent:invite_list", json=True)
    withdraw = _add(below, "withdraw", "take one back", "owner_rent:invite_withdraw", json=True)
    withdraw.add_argument("serial", metavar="SERIAL", help="its serial, or the first 8 digits")

    contracts = _group(verbs, "contract", "the renters' contracts")
    _add(contracts, "list", "all of them", "owner_rent:contract_list", json=True)
    _add(
        contracts,
        "recover",
        "make lost contracts again from the shards",
        "owner_rent:contract_recover",
        json=True,
    )
    for name, what in (
        ("show", "one of them"),
        ("extend", "let one end later"),
        ("end", "end one now"),
    ):
        verb = _add(contracts, name, what, f"owner_rent:contract_{name}", json=True)
        verb.add_argument("contract", metavar="CONTRACT", help="its id, or the first 8 digits")
        if name == "extend":
            _add_duration(verb, "--for", "by how much, like 30d", required=True)
            verb.add_argument("--space", type=_size, metavar="SIZE", help="and to how much space")


def _add_keeping(verbs: Verbs) -> None:
    volumes = _group(verbs, "volume", "the directories that hold shards")
    _add(volumes, "list", "how they are", "owner_volumes:volume_list", json=True)
    add = _add(volumes, "add", "rent out another directory", "owner_volumes:volume_add", json=True)
    add.add_argument("volume", type=_volume, metavar="PATH=SIZE", help=VOLUME)
    check = _add(volumes, "check", "look one over", "owner_volumes:volume_check", json=True)
    check.add_argument("path", nargs="?", metavar="PATH", help=f"{NAMED}; default: all")
    _add_leaving(volumes)
    rebuild = _add(
        volumes, "rebuild", "make a new index from the shards", "owner_volumes:volume_rebuild"
    )
    rebuild.add_argument("path", metavar="PATH", help=f"{NAMED}; farmer stopped")
    rebuild.add_argument(
        "--overwrite-unreadable",
        action="store_true",
        help="give up what the disk cannot read, so that the rest is to be had again",
    )
    forget = _add(
        volumes, "forget", "give up a volume and its shards", "owner_volumes:volume_forget"
    )
    forget.add_argument("path", metavar="PATH", help="one that is not in the settings any more")

    _add_scrub(verbs)
    identities = _group(verbs, "identity", "who this farmer is")
    _add(identities, "show", "node id and path", "owner_rent:identity_show", json=True)
    clock = _group(verbs, "clock", "the machine's clock")
    _add(clock, "confirm", "the clock is right", "owner_rent:clock_confirm", json=True)

    config = _group(verbs, "config", "the settings")
    check = _add(config, "check", "find all mistakes", "owner_settings:check")
    check.add_argument("file", nargs="?", metavar="FILE", help="default: the settings in use")
    show = _add(config, "show", "the settings in force", "owner_settings:show", json=True)
    show.add_argument("--origin", action="store_true", help="and where each comes from")
    _add(config, "schema", "JSON Schema for editors", "owner_settings:schema")
    _add(config, "example", "a commented example", "owner_settings:print_example")


def _add_leaving(volumes: Verbs) -> None:
    module = "owner_moving"
    drain = _add(volumes, "drain", "move all its shards away", f"{module}:volume_drain", json=True)
    retire = _add(
        volumes, "retire", "drain it, then give it up", f"{module}:volume_retire", json=True
    )
    move = _add(volumes, "move", "put another in its place", f"{module}:volume_move", json=True)
    for verb in (drain, retire, move):
        verb.add_argument("path", metavar="PATH", help=f"{NAMED}; farmer running")
        bound = "at most so many bytes a second, like 20MB; default: what others leave"
        verb.add_argument("--rate", type=_size, metavar="SIZE", help=bound)
    drain.add_argument("--cancel", action="store_true", help="let what is there stay")
    drain.add_argument("--force", action="store_true", help="move as much as has room elsewhere")
    target = "the new directory; its size is that of the old one unless you say =SIZE"
    move.add_argument("to", metavar="NEWPATH", help=target)
    for verb in (retire, move):
        lost = "in the end, give up damaged shards and unfinished uploads"
        verb.add_argument("--give-up-damaged", action="store_true", help=lost)
        verb.add_argument("--remove", action="store_true", help="remove its files in the end")


def _add_scrub(verbs: Verbs) -> None:
    scrub = _group(verbs, "scrub", "reading everything again, to find what the disk has lost")
    for name, what in (
        ("status", "how far it is"),
        ("now", "begin at once, whatever the hours"),
        ("pause", "leave the disks alone until told otherwise"),
        ("resume", "go on"),
    ):
        verb = _add(scrub, name, what, f"owner_scrub:scrub_{name}", json=True)
        only = f"only this one: {NAMED}; repeatable"
        verb.add_argument("--volume", action="append", default=[], metavar="PATH", help=only)


def _group(verbs: Verbs, name: str, what: str) -> Verbs:
    group = verbs.add_parser(name, help=what, description=what)
    return group.add_subparsers(metavar="COMMAND", required=True)


def _add(
    verbs: Verbs, name: str, what: str, action: str, *, json: bool = False
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    verb.set_defaults(action=action, verb=verb)
    if json:
        # Only where it stands: what a word below has not would undo what one above it has.
        unsaid = argparse.SUPPRESS
        verb.add_argument("--json", action="store_true", default=unsaid, help="for scripts")
    return verb


def _add_duration(
    verb: argparse.ArgumentParser, flag: str, what: str, *, required: bool = False
) -> None:
    verb.add_argument(
        flag, type=_duration, metavar="DURATION", dest="duration", required=required, help=what
    )


def _typed(parse: Callable[[str], V]) -> Callable[[str], V]:
    def convert(text: str) -> V:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _parse_seconds(text: str) -> float:
    seconds = float(text)
    # No number at all (nan) lies between any two.
    if not SECONDS_MIN <= seconds <= SECONDS_MAX:
        raise ValueError(f"{text!r} is not between {SECONDS_MIN:g} and {SECONDS_MAX:g} seconds")
    return seconds


def _parse_volume(text: str) -> str:
    # It reads YAML, which takes long to import.
    from farmer.settings.written import VolumeLine

    VolumeLine.parse(text)
    return text


def _parse_bench_size(text: str) -> int:
    size_bytes = parse_size(text)
    if size_bytes < BENCH_BYTES_MIN:
        raise ValueError(f"at least {format_size(BENCH_BYTES_MIN)} are needed, not {text}")
    return size_bytes


def _as_typed(kind: Kind[str]) -> Callable[[str], str]:
    """Return a check of one of the settings' kinds that leaves it as typed; empty is none."""

    def check(text: str) -> str:
        if text:
            kind.parse(text)
        return text

    return _typed(check)


_address = _as_typed(ADDRESS)
_public_address = _as_typed(PUBLIC_ADDRESS)
_name = _as_typed(NAME)
_volume = _typed(_parse_volume)
_bench_size = _typed(_parse_bench_size)
_size = _typed(parse_size)
_duration = _typed(parse_duration)
_money = _typed(parse_money)
_seconds = _typed(_parse_seconds)
