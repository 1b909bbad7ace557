"""Opening a volume: its marker and lock, its index (made again if need be), its leases."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from farmer.model.ids import NodeId
from farmer.storage.annex import annex_of, with_annex
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
from farmer.storage.index import Index
from farmer.storage.index_file import Connect, connect
from farmer.storage.log import Facts, Sequencer, Tail
from farmer.storage.met import read_met
from farmer.storage.overwriting import Overwritten, overwrite_unreadable
from farmer.storage.quota import Ledger, VolumeAccount
from farmer.storage.readying import Ready, Readying, set_aside
from farmer.storage.records import Kind
from farmer.storage.recovery import Progress, Recovered
from farmer.storage.reserve import Reserve
from farmer.storage.rests import Rests
from farmer.storage.scrub import Scrub
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
    annexes: Path | None = None
    """Where the annexes of volumes lie that can only be read; without, those are not opened."""

    def annex(self, volume: bytes) -> Path | None:
        """Return where the annex of a volume is, or would be."""
        return None if self.annexes is None else annex_of(self.annexes, volume)


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
class _Place:
    """Where a volume is read and written."""

    files: Files
    paths: Paths
    is_apart: bool = False
    """Read here, and written in its annex."""

    def readying(
        self, marker: Marker, reserve: Reserve, progress: Progress, connect: Connect
    ) -> Readying:
        """Return what makes the index ready."""
        return Readying(self.paths, marker, self.files, reserve, progress, connect)


@dataclass(frozen=True, slots=True)
class _Held:
    """What a volume has before its index is ready."""

    place: _Place
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
    files = WatchedFiles(around.files, watch)
    marker = read_marker(settings.path, around.node, files)
    around.uuids.claim(marker.volume, settings.path, files)
    is_trusted = not health.is_read_only or health.condition.is_proven
    annex = around.annex(marker.volume)
    lock, place = _locked(settings.path, files, annex, may_come_home=is_trusted)
    try:
        # It may have been retired where only its annex could say so.
        read_marker(settings.path, around.node, place.files)
        reserve = Reserve(place.files, place.paths.reserve)
        reserve.take()
        connect = watched_connect(watch)
        ready = place.readying(marker, reserve, around.progress, connect).open()
        ready.index.waiting = partial(watch.call, "index")
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
    overwritten: Overwritten | None = None,
) -> Recovered:
    """
    Make a closed volume's index again from its records; raises as `open_volume`.

    What the disk cannot read ends it, and the index stays; or is written over if *overwritten*
    wants to be told.
    """
    marker = read_marker(settings.path, node, files)
    annex = None if annexes is None else annex_of(annexes, marker.volume)
    lock, place = _locked(settings.path, files, annex)
    try:
        if overwritten is not None:
            overwrite_unreadable(place.files, place.paths, overwritten)
        reserve = Reserve(place.files, place.paths.reserve)
        is_kept = nullcontext() if place.is_apart else set_aside(place.files, place.paths)
        with is_kept:
            made = place.readying(marker, reserve, progress, connect).rebuild()
            made.index.close(clean=True)
        return made.recovered
    finally:
        files.close(lock)


def _locked(
    root: Path, files: Files, annex: Path | None, *, may_come_home: bool = True
) -> tuple[int, _Place]:
    """Lock a volume, and say where it is read and written; raises as `open_volume`."""
    is_read_only = False
    try:
        lock = lock_volume(root, files)
    except OSError as error:
        if annex is None or error.errno != errno.EROFS:
            raise
        try:
            lock, is_read_only = lock_volume(root, files, Access.READ), True
        except FileNotFoundError:
            # Never opened before: that it cannot be written is what there is to say.
            raise error from None
    try:
        both = with_annex(
            files, root, annex, is_read_only=is_read_only, may_come_home=may_come_home
        )
    except BaseException:
        files.close(lock)
        raise
    if both is None:
        return lock, _Place(files, Paths(root))
    return lock, _Place(both, Paths(root, annex), is_apart=True)


def _assemble(
    settings: VolumeSettings,
    around: Surroundings,
    marker: Marker,
    ready: Ready,
    held: _Held,
) -> Volume:
    ground = _ground(settings, around, marker, ready.index, held)
    files, paths, account = ground.files, ground.paths, ground.account
    totals = ready.index.totals()
    held.reserve.take()
    # Where nothing may be appended, the annex goes on with a segment of its own.
    tail = None if ground.is_apart else _tail(files, paths, ready.recovered)
    try:
        account.index_bytes = ready.index.size_bytes()
        writer = Writer(ground, tail, ready.recovered.end)
        volume = Volume(settings, ground, Handles(files, paths), writer, held.lock)
        volume.ground.refresh_filesystem()
        # As it was noted, until a scrub takes charge at its first turn.
        volume.scrub_status = Scrub(volume, around.monotonic_s).status
        writer.start()
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
        # An upload cannot go on where nothing can be written: it begins anew elsewhere.
        if part.header.kind is Kind.STAGING and not ground.is_apart:
            header = part.header
            space = around.ledger.restore(account, header.renter, header.payload_bytes)
            volume.leases.keep(Lease(header, space))
    _tell(ground.health, ready)
    return volume


def _ground(
    settings: VolumeSettings,
    around: Surroundings,
    marker: Marker,
    index: Index,
    held: _Held,
) -> Ground:
    files, paths = held.place.files, held.place.paths
    sequencer = Sequencer(max(index.position().next_sequence, _met(files, paths)))
    return Ground(
        files=files,
        paths=paths,
        volume=marker.volume,
        index=index,
        ledger=around.ledger,
        account=VolumeAccount(settings.quota_bytes, settings.keep_free_bytes),
        health=held.health,
        facts=Facts(sequencer, around.clock_ms),
        reserve=held.reserve,
        watch=held.watch,
        rests=Rests(around.monotonic_s),
        is_apart=held.place.is_apart,
    )


def _met(files: Files, paths: Paths) -> int:
    """
    Return the sequence below which tombstones are over; 0 if that cannot be read.

    What is written from now on must stand above it: a log whose records are all given back says
    nothing of the sequences that it had, and an index made of it begins anew.  A bad sector
    under it is no reason to leave a volume shut.  Raises `OSError` if it is more than that.
    """
    try:
        return read_met(files, paths.root)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return 0


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
        lost = "see LogDamaged" if ready.recovered.damaged else "no shard was lost by that"
        health.raise_alert(
            "IndexRebuilt",
            f"{health.label}: the index was made again ({ready.rebuilt}) from the"
            f" {ready.recovered.records} records of the volume; {lost}.",
        )
    if ready.recovered.damaged:
        places = ", ".join(ready.recovered.damaged[:3])
        health.raise_alert(
            "LogDamaged",
            f"{len(ready.recovered.damaged)} damaged places were passed over or cut off"
            f" ({places}); shards that stood there are lost, unless a crash tore them before they"
            " were acknowledged, or while their space was given back. The disk may be failing.",
            "dmesg | tail",
        )
