"""The first byte of a frame: which message its body is."""

from __future__ import annotations

from enum import IntEnum


class Type(IntEnum):
    """The first byte of a frame.  Wire values: never renumber."""

    HELLO = 0x01
    WELCOME = 0x02
    REFUSE = 0x03
    DATA = 0x04
    END = 0x05
    REDEEM = 0x10
    SHOW_CONTRACT = 0x11
    CONTRACT = 0x12
    STORE = 0x20
    ACCEPT = 0x21
    STORED = 0x22
    REPAIR = 0x23
    RETRIEVE = 0x30
    SEND = 0x31
    AUDIT = 0x40
    STAT = 0x50
    STATED = 0x51
    LIST = 0x52
    LISTED = 0x53
    DELETE = 0x54
    DELETED = 0x55
    UNDELETE = 0x56
    EXAMINE = 0x57
    BAD_BLOCKS = 0x58
    PING = 0x60
    PONG = 0x61
