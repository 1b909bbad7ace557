"""Opening a volume: its marker and lock, its index (made again if need be), its leases."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread

from farmer.model.ids import NodeId
from farmer.storage.annex import annex_of, with_annex
from farmer.storage.directory import (
    Marker,
    Paths,
    VolumeSettings,
    lock_volume,
    read_marker,
)
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.files import Access, Files
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.health import Health
from farmer.storage.index import (
    INDEX_FILES,
    Connect,
    Index,
    IndexDamagedError,
    connect,
    create_index,
    is_for_room,
)
from farmer.storage.log import Facts, Sequencer, Tail
from farmer.storage.quota import RESERVE_BYTES, Ledger, VolumeAccount
from farmer.storage.records import Kind, RecordHeader
from farmer.storage.recovery import Part, Progress, Recovered, Recovery, read_part
from farmer.storage.reserve import Reserve
from farmer.storage.staging import Lease
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
    annexes: Path | None = None
    """Where the annexes of volumes lie that can only be read; without, those are not opened."""

    def annex(self, volume: bytes) -> Path | None:
        """Return where the annex of a volume is, or would be."""
        return None if self.annexes is None else annex_of(self.annexes, volume)


Spawn = Callable[[str, Callable[[], None]], None]
"""Does something by and by, in a thread of its own of this name that nobody waits for."""


def at_once(_name: str, work: Callable[[], None]) -> None:
    """Do it now, in the thread of whoever asks: a `Spawn` for one thread alone."""
    work()


def in_a_thread(name: str, work: Callable[[], None]) -> None:
    """Do it in a thread that does not keep the process from ending."""
    Thread(target=work, name=name, daemon=True).start()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a volume is read and written."""

    files: Files
    paths: Paths
    is_apart: bool = False
    """Read here, and written in its annex."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What a volume has before its index is ready."""

    place: _Place
    reserve: Reserve
    lock: int
    health: Health
    watch: Watch


@dataclass(frozen=True, slots=True)
class _Ready:
    """An index that is up to date, and what bringing it there has shown."""

    index: Index
    recovered: Recovered
    parts: list[Part]
    rebuilt: str
    """Why the index had to be made again, or empty."""


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
    files = WatchedFiles(around.files, watch)
    marker = read_marker(settings.path, around.node, files)
    around.uuids.claim(marker.volume, settings.path, files)
    lock, place = _locked(settings.path, files, around.annex(marker.volume))
    try:
        # It may have been retired where only its annex could say so.
        read_marker(settings.path, around.node, place.files)
    except BaseException:
        files.close(lock)
        raise
    around = replace(around, files=place.files)
    reserve = Reserve(place.files, place.paths.reserve)
    try:
        reserve.take()
        ready = _ready_with_room(place.paths, marker, around, reserve, watched_connect(watch))
    except BaseException:
        files.close(lock)
        raise
    try:
        held = _Held(place, reserve, lock, health, watch)
        return _assemble(settings, around, marker, ready, held)
    except BaseException:
        ready.index.close(clean=False)
        files.close(lock)
        raise


def rebuild_index(
    settings: VolumeSettings,
    node: NodeId,
    files: Files,
    progress: Progress,
    annexes: Path | None = None,
) -> Recovered:
    """Make a closed volume's index again from its records; raises as `open_volume`."""
    marker = read_marker(settings.path, node, files)
    annex = None if annexes is None else annex_of(annexes, marker.volume)
    lock, place = _locked(settings.path, files, annex)
    try:
        made = _rebuild(place.paths, marker, place.files, progress, connect)
        index, recovered, _parts = made
        index.close(clean=True)
        return recovered
    finally:
        files.close(lock)


def _locked(root: Path, files: Files, annex: Path | None) -> tuple[int, _Place]:
    """Lock a volume, and say where it is read and written; raises as `open_volume`."""
    is_read_only = False
    try:
        lock = lock_volume(root, files)
    except OSError as error:
        if annex is None or error.errno != errno.EROFS:
            raise
        lock, is_read_only = lock_volume(root, files, Access.READ), True
    try:
        both = with_annex(files, root, annex, is_read_only=is_read_only)
    except BaseException:
        files.close(lock)
        raise
    if both is None:
        return lock, _Place(files, Paths(root))
    return lock, _Place(both, Paths(root, annex), is_apart=True)


def _ready_with_room(
    paths: Paths, marker: Marker, around: Surroundings, reserve: Reserve, connect: Connect
) -> _Ready:
    try:
        return _ready_index(paths, marker, around, connect)
    except sqlite3.Error as error:
        if not is_for_room(error) or not reserve.spend(RESERVE_BYTES):
            raise
    return _ready_index(paths, marker, around, connect)


def _ready_index(paths: Paths, marker: Marker, around: Surroundings, connect: Connect) -> _Ready:
    files = around.files
    try:
        index = Index(paths.index, marker.volume, connect=connect)
    except (IndexDamagedError, sqlite3.Error) as error:
        reason = _damage(error)
    else:
        try:
            return _replay(index, paths, marker, files)
        except (IndexDamagedError, sqlite3.DatabaseError) as error:
            index.close(clean=False)
            reason = _damage(error)
        except BaseException:
            index.close(clean=False)
            raise
    index, recovered, parts = _rebuild(paths, marker, files, around.progress, connect)
    return _Ready(index, recovered, parts, reason if recovered.records else "")


def _damage(error: IndexDamagedError | sqlite3.Error) -> str:
    """Return why an index must be made again; raises what says nothing against it."""
    if isinstance(error, sqlite3.Error) and is_for_room(error):
        raise error
    return str(error)


def _replay(index: Index, paths: Paths, marker: Marker, files: Files) -> _Ready:
    parts = _staging_parts(files, paths)
    recovery = Recovery(files, paths, marker.volume, index)
    recovery.adopt(_stored(parts), staged=True)
    recovered = recovery.replay()
    return _Ready(index, recovered, parts, "")


def _rebuild(
    paths: Paths, marker: Marker, files: Files, progress: Progress, connect: Connect
) -> tuple[Index, Recovered, list[Part]]:
    """Throw away what is left of the index, a cache after all, and make it again."""
    for name in INDEX_FILES:
        files.unlink(paths.index.with_name(name))
    try:
        return _made_again(paths, marker, files, progress, connect)
    except IndexDamagedError as error:
        raise VolumeUnavailableError(f"no index can be made there: {error}") from error


def _made_again(
    paths: Paths, marker: Marker, files: Files, progress: Progress, connect: Connect
) -> tuple[Index, Recovered, list[Part]]:
    # Its owner's alone; SQLite gives the files beside it the same mode.
    files.close(files.open(paths.index, Access.ENSURE))
    index = create_index(paths.index, marker.volume, connect)
    try:
        parts = _staging_parts(files, paths)
        recovery = Recovery(files, paths, marker.volume, index)
        recovery.adopt(_stored(parts), staged=True)
        recovered = recovery.rebuild(progress)
        index.finish()
        files.sync_directory(paths.index.parent)
    except BaseException:
        index.close(clean=False)
        raise
    return index, recovered, parts


def _staging_parts(files: Files, paths: Paths) -> list[Part]:
    """Return the sound files in staging; whatever else lies there is removed."""
    parts = []
    for name in files.list(paths.staging):
        part = read_part(files, paths.staging / name)
        if part is None or _is_worthless(part.header):
            files.unlink(paths.staging / name)
        else:
            parts.append(part)
    return parts


def _is_worthless(header: RecordHeader) -> bool:
    """Say whether this is an upload of which no byte is known to be durable."""
    return header.kind is Kind.STAGING and not header.synced_bytes


def _stored(parts: list[Part]) -> list[Part]:
    return [part for part in parts if part.header.kind is Kind.SHARD]


def _assemble(
    settings: VolumeSettings,
    around: Surroundings,
    marker: Marker,
    ready: _Ready,
    held: _Held,
) -> Volume:
    files, paths = held.place.files, held.place.paths
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
        is_apart=held.place.is_apart,
    )
    held.reserve.take()
    # Where nothing may be appended, the annex goes on with a segment of its own.
    tail = None if ground.is_apart else _tail(files, paths, ready.recovered)
    ready.index.opened()
    account.index_bytes = ready.index.size_bytes()
    volume = Volume(
        settings,
        ground,
        Handles(files, paths),
        Writer(ground, tail, ready.recovered.end),
        held.lock,
    )
    volume.refresh_filesystem()
    with suppress(OSError):
        # Without room for it nothing is remembered yet, and the first note tries again.
        volume.witness.recall()
    # From here on nothing can fail: what is entered in the ledger is never taken out again.
    around.ledger.settle(account, totals)
    for part in ready.parts:
        # An upload cannot go on where nothing can be written: it begins anew elsewhere.
        if part.header.kind is Kind.STAGING and not ground.is_apart:
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


def _tell(health: Health, ready: _Ready) -> None:
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
