"""The stores that the suite runs against, each opened on an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farmer.model.ids import NodeId
from farmer.node.ports import ShardStore
from farmer.storage.directory import VolumeSettings, create_volume
from farmer.storage.engine import Engine, EngineLimits
from farmer.storage.files import OsFiles
from tests.fakes import MemoryStore

QUOTA_BYTES = 128 << 20
SHARD_BYTES_MAX = 16 << 20
NODE = NodeId(b"f" * 32)


@dataclass
class Opened:
    store: ShardStore
    close: Callable[[], object] = lambda: None


def fake(_folder: Path) -> Opened:
    return Opened(MemoryStore(quota_bytes=QUOTA_BYTES, shard_bytes_max=SHARD_BYTES_MAX))


def engine(folder: Path) -> Opened:
    create_volume(folder / "volume", NODE, OsFiles(), 1_000)
    opened = Engine(
        [VolumeSettings(folder / "volume", QUOTA_BYTES)],
        NODE,
        OsFiles(),
        clock_ms=lambda: 1_000,
        observed_ms=lambda: 1_000,
        limits=EngineLimits(shard_bytes_max=SHARD_BYTES_MAX),
    )
    return Opened(opened, opened.close)


STORES = [fake, engine]
