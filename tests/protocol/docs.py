"""The generated blocks of docs/protocol.md; `python -m tests.protocol.docs` writes them anew."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farmer.protocol import documents, limits, proofs, refusals
from farmer.protocol.messages import MESSAGES
from farmer.protocol.refusals import Refusal
from farmer.protocol.state import FARMER_SENDS, RENTER_SENDS, TRANSITIONS, State, sender_of

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

ADVICE: dict[Refusal, str] = {
    Refusal.MALFORMED: "Your bytes do not follow the layout: a bug, do not retry.",
    Refusal.UNSUPPORTED_VERSION: "Speak a version between the two, or give up.",
    Refusal.UNKNOWN_MESSAGE: "The farmer is older than you: do without that request.",
    Refusal.OUT_OF_ORDER: "Your bytes do not follow the state table: a bug, do not retry.",
    Refusal.FRAME_TOO_LARGE: "Send smaller frames.",
    Refusal.TOO_SLOW: "Connect again; a large store goes on where it was.",
    Refusal.NO_CONTRACT: "Redeem an invite first.",
    Refusal.CONTRACT_ENDED: "Nothing more can be stored; fetch the shards before the second time.",
    Refusal.INVITE_INVALID: "No invite at all, of another farmer, or withdrawn: ask for another.",
    Refusal.INVITE_EXPIRED: "Ask for another; compare clocks if it looks fresh.",
    Refusal.INVITE_SPENT: "Another renter has redeemed it: ask for another.",
    Refusal.NO_SPACE: "Store elsewhere, or less; what is damaged is mended where it lies only.",
    Refusal.CONTRACT_FULL: "Delete something, or redeem a larger invite.",
    Refusal.SHARD_TOO_LARGE: "Cut into smaller shards; WELCOME says the limit.",
    Refusal.TOO_MANY: "Finish stores under way or give them up (see Store); then retry.",
    Refusal.BUSY: "Wait, then retry: another session stores this shard, or all places are taken.",
    Refusal.WRONG_HASH: "Not the bytes that the id names; nothing was kept. Check your hash tree.",
    Refusal.WRONG_SIZE: "Send exactly the declared bytes; nothing was kept.",
    Refusal.NOT_FOUND: "No such shard of yours; or it is in the trash, where nobody reads it.",
    Refusal.CORRUPT: "The farmer's disk damaged it: REPAIR mends it; STORE takes it anew.",
    Refusal.BAD_RANGE: "Ask within the shard.",
    Refusal.AUDIT_BUDGET: "Wait that long; neither passed nor failed.",
    Refusal.DRAINING: "The farmer is about to stop: store elsewhere, or retry after that time.",
    Refusal.UNAVAILABLE: "A disk is away, or cannot give or take this; retry after that time.",
    Refusal.TOO_MANY_SESSIONS: "Too many: close some of yours, or retry later.",
    Refusal.INTERNAL: "A fault of the farmer; retry once, later.",
}


def messages() -> str:
    """Return every message with its layout."""
    parts = []
    for kind, message in sorted(MESSAGES.items()):
        sender = (
            "the renter"
            if kind in RENTER_SENDS
            else "the farmer"
            if kind in FARMER_SENDS
            else "either side"
        )
        text = inspect.cleandoc(message.__doc__ or "").replace("(documents.py)", "(see Documents)")
        text = text.replace("in the order of docs/protocol.md", "see Range proofs")
        first, _, rest = text.partition("\n")
        layout = f"\n```\n{rest.strip()}\n```\n" if rest.strip() else ""
        parts.append(f"#### {kind.name}, 0x{kind:02x}, from {sender}\n\n{first}\n{layout}")
    return "\n".join(parts)


def signed() -> str:
    """Return the layouts of price, invite, contract and receipt."""
    _, _, drawn = (documents.__doc__ or "").partition("    Price")
    return f"```\n{inspect.cleandoc('    Price' + drawn)}\n```\n"


def items() -> str:
    """Return the layout of a proof item."""
    text = proofs.__doc__ or ""
    drawn = text[text.index("    Item") : text.index("Refused:")]
    drawn = textwrap.dedent(drawn).strip().replace("(refusals.py)", "(see Refusals)")
    return f"```\n{drawn}\n```\n"


def transitions() -> str:
    """Return the state table."""
    rows = ["| state | message | sent by the | next state |", "|---|---|---|---|"]
    for at in State:
        for (state_at, kind), to in TRANSITIONS.items():
            if state_at is at:
                side = sender_of(at, kind).name.lower()
                rows.append(f"| {at.name} | {kind.name} | {side} | {to.name} |")
    return "\n".join(rows) + "\n"


def refusal_table() -> str:
    """Return every refusal, its numbers as its comment names them, and what to do."""
    source = inspect.getsource(refusals.Refusal)
    rows = ["| code | name | numbers | what to do |", "|---|---|---|---|"]
    for refusal in Refusal:
        match = re.search(rf"^    {refusal.name} = {int(refusal)}  # (.+)$", source, re.MULTILINE)
        assert match is not None, refusal
        rows.append(f"| {int(refusal)} | `{refusal.name}` | {match[1]} | {ADVICE[refusal]} |")
    return "\n".join(rows) + "\n"


def limit_table() -> str:
    """Return every limit with its value and reason, as limits.py says them."""
    rows = ["| limit | value | reason |", "|---|---|---|"]
    waiting: list[str] = []
    for node in ast.parse(inspect.getsource(limits)).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and waiting:
            reason = " ".join(ast.literal_eval(node.value).split())
            rows += [
                f"| `{name}` | {_value(getattr(limits, name))} | {reason} |" for name in waiting
            ]
            waiting = []
    assert not waiting, f"{waiting} have no reason"
    return "\n".join(rows) + "\n"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}".replace(",", " ")


BLOCKS: dict[str, Callable[[], str]] = {
    "messages": messages,
    "documents": signed,
    "items": items,
    "states": transitions,
    "refusals": refusal_table,
    "limits": limit_table,
}


def with_blocks(page: str) -> str:
    """Return the page with every block made anew."""
    for name, made in BLOCKS.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        assert page.count(begin) == page.count(end) == 1, name
        before, _, rest = page.partition(begin)
        page = before + begin + made() + end + rest.partition(end)[2]
    return page


if __name__ == "__main__":
    PAGE.write_text(with_blocks(PAGE.read_text()))
