"""How each HTTP peer is asked to store a shard and to give it back."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.peers.http import Request

CBOR: Final = "application/cbor"
PARTITIONS: Final = 1024
"""Of a Swift ring: what a small cluster has."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Requests for a shard of a name (64 hexadecimal digits) and size."""

    storing: Callable[[str, int], list[Request]]
    """All of them, in order; one sends the bytes."""
    retrieving: Callable[[str, int], Request]


def dav() -> Dialect:
    """Return WebDAV's, as nginx and rclone speak it: PUT and GET of a file."""
    return Dialect(
        lambda name, _size: [Request("PUT", f"/{name}", sends_shard=True)],
        lambda name, _size: Request("GET", f"/{name}"),
    )


def swift() -> Dialect:
    """Return a Swift object server's, as its proxy speaks to it."""

    def path(name: str) -> str:
        return f"/disk/{int(name[:8], 16) % PARTITIONS}/account/container/{name}"

    def put(name: str, _size: int) -> list[Request]:
        headers = (
            ("X-Timestamp", f"{time.time():.5f}"),
            ("Content-Type", "application/octet-stream"),
        )
        return [Request("PUT", path(name), headers, sends_shard=True)]

    return Dialect(put, lambda name, _size: Request("GET", path(name)))


def tahoe(swissnum: str) -> Dialect:
    """
    Return that of Tahoe-LAFS's storage over HTTPS: an allocation, then one PATCH with all bytes.

    Its own client sends a share in many PATCHes; one is its kindest case.
    """
    allowed = ("Authorization", f"Tahoe-LAFS {_base64(swissnum.encode())}")

    def path(name: str) -> str:
        index = base64.b32encode(bytes.fromhex(name)[:16]).decode().lower().rstrip("=")
        return f"/storage/v1/immutable/{index}"

    def store(name: str, size_bytes: int) -> list[Request]:
        upload = _secret("upload-secret")
        leases = (_secret("lease-renew-secret"), _secret("lease-cancel-secret"))
        body = _allocation(size_bytes)
        whole = ("Content-Range", f"bytes 0-{size_bytes - 1}/{size_bytes}")
        kind = (("Content-Type", CBOR), ("Accept", CBOR))
        return [
            Request("POST", path(name), (allowed, *kind, *leases, upload), body),
            Request("PATCH", f"{path(name)}/0", (allowed, upload, whole), sends_shard=True),
        ]

    def retrieve(name: str, size_bytes: int) -> Request:
        return Request("GET", f"{path(name)}/0", (allowed, ("Range", f"bytes=0-{size_bytes - 1}")))

    return Dialect(store, retrieve)


def _secret(name: str) -> tuple[str, str]:
    return "X-Tahoe-Authorization", f"{name} {_base64(os.urandom(32))}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _allocation(size_bytes: int) -> bytes:
    """
    Return the CBOR (RFC 8949) that asks for share 0.

        a2                                a map of two
        6d "share-numbers"  d9 0102 81 00         tag 258, a set: an array of one, 0
        6e "allocated-size" 1b size, 8
    """
    shares = b"\x6dshare-numbers\xd9\x01\x02\x81\x00"
    return b"\xa2" + shares + b"\x6eallocated-size\x1b" + size_bytes.to_bytes(8, "big")
