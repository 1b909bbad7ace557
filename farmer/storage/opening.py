"""Opening a volume: its marker and lock, its index (made again if need be), its leases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from farmer.model.ids import NodeId
from farmer.storage.directory import (
    Marker,
    Paths,
    VolumeSettings,
    lock_volume,
    read_marker,
)
from farmer.storage.files import Access, Files
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.health import Health
from farmer.storage.index import connect
from farmer.storage.log import Facts, Sequencer, Tail
from farmer.storage.quota import Ledger, VolumeAccount
from farmer.storage.readying import Ready, Readying
from farmer.storage.records import Kind
from farmer.storage.recovery import Progress, Recovered
from farmer.storage.reserve import Reserve
from farmer.storage.staging import Lease
from farmer.storage.threads import begin_thread
from farmer.storage.uuids import Uuids
from farmer.storage.volume import Volume
from farmer.storage.watch import Watch
from farmer.storage.watched import WatchedFiles, watched_connect
from farmer.storage.writer import Writer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all volumes of a farmer share."""

    node: NodeId
    files: Files
    ledger: Ledger
    clock_ms: Callable[[], int]
    progress: Progress
    """Told how far the making of a lost index has come."""
    monotonic_s: Callable[[], float]
    spawn: Spawn
    uuids: Uuids = field(default_factory=Uuids)


Spawn = Callable[[str, Callable[[], None]], None]
"""
Does something by and by, in a thread of its own of this name that nobody waits for.

Raises `OSError` if there is none to be had.
"""


def at_once(_name: str, work: Callable[[], None]) -> None:
    """Do it now, in the thread of whoever asks: a `Spawn` for one thread alone."""
    work()


def in_a_thread(_name: str, work: Callable[[], None]) -> None:
    """Do it in a thread that does not keep the process from ending; raises `OSError`."""
    begin_thread(work)


@dataclass(frozen=True, slots=True)
class _Held:
    """What a volume has before its index is ready."""

    reserve: Reserve
    lock: int
    health: Health
    watch: Watch


def open_volume(
    settings: VolumeSettings, around: Surroundings, health: Health, watch: Watch
) -> Volume:
    """
    Open a volume and start its writer; every call into it is noted in *watch*.

    Raises:
        VolumeSetupError: no volume of this farmer's, or in use.
        FormatTooNewError: written by a newer release.
        VolumeUnavailableError, OSError, sqlite3.Error: the disk failed, or is full.

    """
    files, paths = WatchedFiles(around.files, watch), Paths(settings.path)
    around = replace(around, files=files)
    marker = read_marker(settings.path, around.node, files)
    around.uuids.claim(marker.volume, settings.path, files)
    lock = lock_volume(settings.path, files)
    reserve = Reserve(files, paths.reserve)
    connect = watched_connect(watch)
    try:
        reserve.take()
        ready = Readying(paths, marker, files, reserve, around.progress, connect).open()
    except BaseException:
        files.close(lock)
        raise
    try:
        return _assemble(settings, around, marker, ready, _Held(reserve, lock, health, watch))
    except BaseException:
        ready.index.close(clean=False)
        files.close(lock)
        raise


def rebuild_index(
    settings: VolumeSettings, node: NodeId, files: Files, progress: Progress
) -> Recovered:
    """Make a closed volume's index again from its records; raises as `open_volume`."""
    marker = read_marker(settings.path, node, files)
    lock = lock_volume(settings.path, files)
    try:
        paths = Paths(settings.path)
        reserve = Reserve(files, paths.reserve)
        made = Readying(paths, marker, files, reserve, progress, connect).rebuild()
        made.index.close(clean=True)
        return made.recovered
    finally:
        files.close(lock)


def _assemble(
    settings: VolumeSettings,
    around: Surroundings,
    marker: Marker,
    ready: Ready,
    held: _Held,
) -> Volume:
    files, paths = around.files, Paths(settings.path)
    account = VolumeAccount(settings.quota_bytes, settings.keep_free_bytes)
    totals = ready.index.totals()
    sequencer = Sequencer(ready.index.position().next_sequence)
    ground = Ground(
        files=files,
        paths=paths,
        volume=marker.volume,
        index=ready.index,
        ledger=around.ledger,
        account=account,
        health=held.health,
        facts=Facts(sequencer, around.clock_ms),
        reserve=held.reserve,
        watch=held.watch,
    )
    held.reserve.take()
    tail = _tail(files, paths, ready.recovered)
    try:
        account.index_bytes = ready.index.size_bytes()
        writer = Writer(ground, tail, ready.recovered.end)
        volume = Volume(settings, ground, Handles(files, paths), writer, held.lock)
        volume.refresh_filesystem()
    except BaseException:
        if tail is not None:
            files.close(tail.fd)
        raise
    with suppress(OSError):
        # Without room for it nothing is remembered yet, and the first note tries again.
        volume.witness.recall()
    # From here on nothing can fail: what is entered in the ledger is never taken out again.
    around.ledger.settle(account, totals)
    for part in ready.parts:
        if part.header.kind is Kind.STAGING:
            header = part.header
            space = around.ledger.restore(account, header.renter, header.payload_bytes)
            volume.leases.keep(Lease(header, space))
    _tell(ground.health, ready)
    volume.writer.start()
    return volume


def _tail(files: Files, paths: Paths, recovered: Recovered) -> Tail | None:
    end = recovered.end
    if not end.segment:
        return None
    if not recovered.uuid:
        return None
    fd = files.open(paths.segment(end.segment), Access.WRITE)
    return Tail(end.segment, recovered.uuid, fd, end.offset)


def _tell(health: Health, ready: Ready) -> None:
    if ready.rebuilt:
        health.raise_alert(
            "IndexRebuilt",
            f"{health.label}: the index was missing or damaged and was made again from the"
            f" {ready.recovered.records} records of the volume; no shard was lost by that.",
        )
    if ready.recovered.damaged:
        places = ", ".join(ready.recovered.damaged[:3])
        health.raise_alert(
            "LogDamaged",
            f"{len(ready.recovered.damaged)} damaged places in the log were passed over"
            f" ({places}); shards that stood there are lost. The disk may be failing.",
            "dmesg | tail",
        )
