"""The stores that the suite runs against, each opened on an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farmer.node.ports import ShardStore
from tests.fakes import MemoryStore

QUOTA_BYTES = 64 << 20
SHARD_BYTES_MAX = 8 << 20


@dataclass
class Opened:
    store: ShardStore
    close: Callable[[], object] = lambda: None


def fake(_folder: Path) -> Opened:
    return Opened(MemoryStore(quota_bytes=QUOTA_BYTES, shard_bytes_max=SHARD_BYTES_MAX))


STORES = [fake]
