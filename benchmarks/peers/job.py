"""What the process that measures is told, and what it tells: values that pass as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Target:
    """Where a running server is, and how it is spoken to."""

    dialect: str
    """`dav`, `swift`, `tahoe` or `farmer`."""
    pid: int
    """Of the server; its children count with it."""
    port: int = 0
    """At 127.0.0.1."""
    pin: str = ""
    """SHA-256 of its certificate, hexadecimal; empty: no TLS."""
    secret: str = ""
    """What it wants to hear from who may store."""
    invites: tuple[str, ...] = ()
    """A farmer's."""


@dataclass(frozen=True, slots=True)
class Job:
    """One cell: so many at once, at one size."""

    target: Target
    folder: str
    """For what the client needs on disk: its identities."""
    size_bytes: int
    at_once: int
    seconds: float
    """For the stores, and as long for the retrieves; the last operations may end later."""
    bytes_max: int
    """Stored at most."""

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` wrote."""
        fields = json.loads(text)
        target = fields.pop("target")
        return cls(Target(**target | {"invites": tuple(target["invites"])}), **fields)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of one kind of work in one cell."""

    what: str
    """`store` or `retrieve`."""
    count: int
    seconds: float
    server_s: float
    """Processor time of the server and its children."""
    client_s: float
    """Processor time of the client; as long as `seconds`, and the client is the limit."""
    pss_bytes: int
    """Memory of the server and its children at the end, shared pages counted once."""
    median_ms: float
    p99_ms: float
