"""
Every message, drawn by offset: what stands in a frame's body.

A frame is   0  1  type
             1  3  length of the body, bytes
             4  -  body
Integers are big-endian and unsigned; times are Unix ms; u64 never has its top bit set;
nothing may follow the last field.  DATA is the only data frame: its body is passed on as
it arrives and never built as a message.
"""

from __future__ import annotations

from typing import Final

from farmer.protocol.fields import LayoutError, Reader
from farmer.protocol.opening import End, Hello, Refuse, Welcome
from farmer.protocol.questions import (
    ContractShown,
    Delete,
    Deleted,
    List,
    Listed,
    Ping,
    Pong,
    Redeem,
    ShowContract,
    Stat,
    Stated,
    Undelete,
)
from farmer.protocol.repairs import BadBlocksNamed, Examine, Repair
from farmer.protocol.transfers import Accept, Audit, Retrieve, Send, Store, Stored
from farmer.protocol.types import Type

_Question = Stat | List | Delete | Undelete | Examine | Ping
Request = Redeem | ShowContract | Store | Retrieve | Repair | Audit | _Question
Answer = ContractShown | Stored | Send | Stated | Listed | Deleted | BadBlocksNamed | Pong
Message = Hello | Welcome | Refuse | End | Accept | Request | Answer

MESSAGES: Final[dict[Type, type[Message]]] = {
    kind.TYPE: kind
    for kind in (
        *(Hello, Welcome, Refuse, End, Redeem, ShowContract, ContractShown),
        *(Store, Accept, Stored, Retrieve, Send, Audit, Stat, Stated),
        *(List, Listed, Delete, Deleted, Undelete, Ping, Pong),
        *(Examine, Repair, BadBlocksNamed),
    )
}


def encode(message: Message) -> bytes:
    """Return the message as one whole frame."""
    body = message.body()
    return bytes((message.TYPE,)) + len(body).to_bytes(3, "big") + body


def decode(kind: Type, body: bytes) -> Message:
    """
    Return the message in a frame's body.

    Raises:
        LayoutError: the body does not follow the layout to its last byte.

    """
    reader = Reader(body)
    try:
        message = MESSAGES[kind].read(reader)
        reader.end()
    except LayoutError as error:
        raise LayoutError(f"{kind.name}: {error}", kind) from error
    return message
