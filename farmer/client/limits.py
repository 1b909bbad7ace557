"""How long a renter waits and how often it tries; the limits of the wire are in the protocol."""

from __future__ import annotations

from typing import Final

from farmer.protocol.limits import IDLE_S, SHARDS_PER_CONTRACT_MAX

CONNECT_S: Final = 15.0
"""For one address to answer: a home server behind a slow line, not one that is off."""

DIAL_S: Final = 60.0
"""For all addresses of a farmer together, and all hosts that their names stand for."""

READ_AHEAD_BYTES: Final = 256 * 1024
"""Unread bytes at which we stop reading: one step of a stream, larger than any control frame."""

SESSIONS_MAX: Final = 4
"""Connections to one farmer: enough to hide its syncs, few for a home line."""

HASHED_BYTES_PER_S_MIN: Final = 4 * 1024 * 1024
"""
How fast a farmer's disk must read for a full audit, or for a store that is to go on: both are
silent until all is read.
"""

RETRY_DELAYS_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Waits after a lost connection, 8 s together: a farmer or a router that restarts."""

SILENCES_MAX: Final = 1
"""Times that one operation asks again who greeted and then was silent: each wait is minutes."""

BUSY_DELAYS_MS: Final = (500, 10_000)
"""Least and most that we wait when a store is `BUSY`, each time twice as long, or as told."""

BUSY_S: Final = IDLE_S + 30.0
"""A farmer that did not see a former connection end holds its store about as long as `IDLE_S`."""

GIVE_UP_S: Final = 20.0
"""For the farmer to take in that a store was given up: a courtesy, and the cause is known."""

RETRY_PROGRESS_BYTES: Final = 1024 * 1024
"""A transfer that got this much further since the last loss begins to count anew."""

LISTED_MAX: Final = SHARDS_PER_CONTRACT_MAX
"""Shards in a whole list: ids can be invented for ever, each page above the one before."""

UNKNOWN_SHOWN_MAX: Final = 250_000
"""Shards without a receipt that `renter list` shows: 2 kB of memory each, and easy to invent."""

SMALL_PAGES_MAX: Final = 100
"""Pages of a list not half as full as asked for, with more to come: one shard each has no end."""

LISTED_PER_S_MIN: Final = 100
"""Shards of a list a second, after `ANSWER_S`: even a cold disk finds more."""
