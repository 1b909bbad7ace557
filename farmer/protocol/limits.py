"""Every limit of the wire, with its reason.  docs/protocol.md prints this table."""

from __future__ import annotations

from typing import Final

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1
"""Protocol versions that this release speaks."""

FRAME_HEADER_BYTES: Final = 4
"""Type and length before each body."""

CONTROL_BYTES_MAX: Final = 64 * 1024
"""A control frame is held whole in memory before it is understood."""

HELLO_BYTES_MAX: Final = 73
"""A renter's first frame, its text included: who sends a longer one does not speak this."""

DATA_BYTES_MAX: Final = 1024 * 1024
"""A data frame is passed on as it arrives; this bounds how long one may last."""

DATA_BYTES_SENT: Final = 256 * 1024
"""What we put into one data frame ourselves: the memory one stream needs per step."""

TINY_DATA_BYTES: Final = 1024
TINY_FRAMES_MAX: Final = 1024
"""
DATA frames of less than so many bytes, one after another: each costs as much time as a large one.
"""

PIPELINE_MAX: Final = 64
"""Requests a renter sends ahead of their answers; a farmer leaves them unread meanwhile."""

AUDIT_ENTRIES_MAX: Final = 1024
"""Shards in one batch audit: their challenge fits one control frame."""

LIST_ENTRIES_MAX: Final = 1000
"""Shards on one page of a listing: the page fits one control frame."""

TEXT_BYTES_MAX: Final = 64
"""A peer's version or currency: shown escaped, never stored or used in a path."""

CERTIFICATE_BYTES_MAX: Final = 2048
"""An Ed25519 certificate of ours has about 300 bytes; nobody needs a chain."""

HANDSHAKE_S: Final = 10.0
"""From accept to HELLO, TLS included: a stranger holds a socket no longer than that."""

IDLE_S: Final = 300.0
"""Between exchanges; a PING keeps a connection open."""

STRANGER_S: Final = 60.0
"""From accept: a session without a contract has time to redeem one, not to stay by pinging."""

DISCARD_S: Final = 60.0
"""From a refusal in mid-store to the END that the renter owes: what is thrown away is bounded."""

CLOSE_S: Final = 5.0
"""From the last words to the peer's own close; then the connection is cut."""

ANSWER_S: Final = 120.0
"""A renter's patience for the next bytes of an answer: longer than a disk that spins up."""

RATE_BYTES_PER_S_MIN: Final = 16 * 1024
"""Minimum average of a transfer, after the grace: one byte a second holds nothing for long."""

RATE_GRACE_S: Final = 30.0
"""A transfer may be slower than the minimum rate for its first seconds."""

TURN_S: Final = 20.0
"""For memory or a place of the farmer's to become free; then the answer is BUSY."""

HURRIED_S: Final = 2.0
"""
How long anybody may keep us waiting at once while memory that it holds is wanted; to take a step
of an answer, as much longer as it lasts at the least average.
"""

HURRIED_BYTES_PER_S_MIN: Final = 32 * 1024
"""The least average of such a one, after as long: a store of 1 MiB holds its part for 32 s."""

SESSIONS_MAX: Final = 512
"""Connections in all: bounds memory (about 44 KiB each) and descriptors."""

SESSIONS_PER_ADDRESS_MAX: Final = 64
"""Connections from one IPv4 address or IPv6 /64: one household cannot take them all."""

SESSIONS_PER_RENTER_MAX: Final = 32
"""Connections of one node id, from wherever: one key with many addresses cannot take them all."""

STRANGERS_PART: Final = 16
"""Renters with a contract leave this part of all places to those who have yet to show theirs."""

SMALL_BYTES_IN_FLIGHT_MAX: Final = 12 * 1024 * 1024
"""Shards of 64 KiB to 1 MiB being received, over all sessions: they are buffered whole."""

UPLOADS_PER_RENTER_MAX: Final = 64
"""Stores under way, leases included, of one renter: each holds a reservation."""

SHARDS_PER_CONTRACT_MAX: Final = 20_000_000
"""Index rows a single renter can make the farmer keep."""

AUDIT_BUDGET_BYTES_MIN: Final = 1024**3
AUDIT_BUDGET_STORED_FACTOR: Final = 2
"""
A renter may have max(1 GiB, 2 x stored) read by audits at once, and as much again over the next 24
hours.
"""
