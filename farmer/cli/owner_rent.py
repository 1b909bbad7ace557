"""`farmer invite`, `contract`, `clock`: what renters are offered and hold."""

from __future__ import annotations

import argparse
from typing import Any

from farmer.cli.exits import OK, USAGE, CommandError
from farmer.cli.owner_ask import ask, must_be_there
from farmer.cli.owner_words import warn
from farmer.cli.tables import table, visible
from farmer.cli.terminal import print_document
from farmer.model.contract import GRACE_MS, TRASH_MS
from farmer.running.home import Home
from farmer.units import exact_money, format_duration, format_moment, format_size


def invite(home: Home, options: argparse.Namespace) -> int:
    """Make an invite and print its line."""
    if options.space is None or options.duration is None:
        message = "an invite needs space and time: farmer invite --space 200GB --for 90d"
        raise CommandError(message, USAGE)
    answer = ask(
        home,
        "invite",
        {
            "space_bytes": options.space,
            "duration_ms": options.duration,
            "expires_ms": options.expires,
            "stored_micros": options.price,
            "served_micros": options.price_served,
            "currency": options.currency,
        },
    )
    return _print(options, answer, [answer["invite"]])


def invite_list(home: Home, options: argparse.Namespace) -> int:
    """Print the invites that nobody has redeemed yet."""
    answer = ask(home, "invites", {})
    rows = [
        (
            row["serial"],
            format_size(row["space_bytes"]),
            format_duration(row["duration_ms"]),
            format_moment(row["expires_at_ms"]),
            row["invite"] or "(no address is known: set announce)",
        )
        for row in answer["invites"]
    ]
    head = ("SERIAL", "SPACE", "FOR", "EXPIRES", "INVITE")
    return _print(options, answer, table(head, rows) if rows else ["no open invites"])


def invite_withdraw(home: Home, options: argparse.Namespace) -> int:
    """Take an open invite back."""
    answer = ask(home, "invite-withdraw", {"serial": options.serial})
    return _print(options, answer, [f"withdrawn: {answer['serial']}"])


def contract_list(home: Home, options: argparse.Namespace) -> int:
    """Print all contracts."""
    answer = ask(home, "contracts", {})
    rows = [_row(row) for row in answer["contracts"]]
    head = ("CONTRACT", "RENTER", "STAGE", "SPACE", "USED", "UNTIL", "PRICE")
    return _print(options, answer, table(head, rows) if rows else ["no contracts"])


def contract_show(home: Home, options: argparse.Namespace) -> int:
    """Print one contract."""
    answer = ask(home, "contract", {"contract": options.contract})
    return _print(options, answer, _facts(answer["contract"]))


def contract_recover(home: Home, options: argparse.Namespace) -> int:
    """Make lost contracts again from what the shards say of them."""
    answer = ask(home, "contract-recover", {})
    lines = []
    if "set_aside" in answer:
        lines.append(f"the damaged contract database was set aside: {answer['set_aside']}")
    rows = [_row(row) for row in answer["contracts"]]
    if not rows:
        return _print(options, answer, [*lines, "no shard is without its contract"])
    head = ("CONTRACT", "RENTER", "STAGE", "SPACE", "USED", "UNTIL", "PRICE")
    lines += [*table(head, rows), "", _WHAT_THEY_LACK]
    return _print(options, answer, lines)


_WHAT_THEY_LACK = (
    "These renters can retrieve what they stored. Prices are not known any more, and there is no"
    " room for more: for that make them new invites."
)


def contract_extend(home: Home, options: argparse.Namespace) -> int:
    """Let a contract end later."""
    words = {
        "contract": options.contract,
        "for_ms": options.duration,
        "space_bytes": options.space,
    }
    answer = ask(home, "contract-extend", words)
    return _print(options, answer, _facts(answer["contract"]))


def contract_end(home: Home, options: argparse.Namespace) -> int:
    """End a contract now; grace and trash follow."""
    answer = ask(home, "contract-end", {"contract": options.contract})
    row = answer["contract"]
    return _print(options, answer, [*_facts(row), "", _what_follows(row, answer["had_ended"])])


def _what_follows(row: dict[str, Any], had_ended: bool) -> str:
    ended = "This contract had ended already." if had_ended else "The contract has ended."
    if row["stage"] != "grace":
        return f"{ended} Its shards are in the trash: they cannot be read, and go soon."
    readable_until = format_moment(row["until_ms"] + GRACE_MS)
    return (
        f"{ended} The renter can store no more, and can read until {readable_until}; "
        f"then the shards are in the trash for {format_duration(TRASH_MS)}, then gone.\n"
        f"To take it back until then: farmer contract extend {row['contract'][:8]} --for 30d"
    )


def clock_confirm(home: Home, options: argparse.Namespace) -> int:
    """Tell the farmer that the machine's clock is right."""
    answer = ask(home, "clock-confirm", {})
    now = format_moment(answer["now_ms"])
    return _print(options, answer, [f"the clock is right: it is {now}"])


def identity_show(home: Home, options: argparse.Namespace) -> int:
    """Print who this farmer is."""
    from farmer.identity.keys import Identity

    home.check()
    must_be_there(home)
    identity = Identity.load(home.identity)
    answer = {"node_id": str(identity.node_id), "path": str(home.identity)}
    return _print(options, answer, [f"node id  {identity.node_id}", f"path     {home.identity}"])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["contract"][:8],
        row["renter"][:16],
        row["stage"],
        format_size(row["space_bytes"]),
        "-" if row["used_bytes"] is None else format_size(row["used_bytes"]),
        format_moment(row["until_ms"]),
        _price(row),
    )


def _facts(row: dict[str, Any]) -> list[str]:
    facts = {
        "contract": row["contract"],
        "renter": row["renter"],
        "stage": row["stage"],
        "space": format_size(row["space_bytes"]),
        "from": format_moment(row["from_ms"]),
        "until": format_moment(row["until_ms"]),
        "price": _price(row),
        "revision": str(row["revision"]),
    }
    return [f"{name:9} {text}" for name, text in facts.items()]


def _price(row: dict[str, Any]) -> str:
    price = row["price"]
    if not price["stored_micros"] and not price["served_micros"]:
        return "free"
    stored, served = exact_money(price["stored_micros"]), exact_money(price["served_micros"])
    return f"{stored} + {served} {visible(price['currency'])}"


def _print(options: argparse.Namespace, answer: dict[str, Any], lines: list[str]) -> int:
    if "warning" in answer:
        warn(answer["warning"])
    if options.json:
        print_document(answer)
    else:
        print("\n".join(lines))
    return OK
