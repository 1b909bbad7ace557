"""
One volume's keeper: opens it, looks after it every few seconds, and brings it back by itself.

Each look is one job in a thread of its own, for any call of it may never return.  A volume
whose directory went or was exchanged is not written to by what was opened before: it is
forsaken, and opened anew once the right directory stands there.  So is one that was failing
and has proved itself; opening checks the log and the index.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from threading import Lock
from typing import Final

from farmer.model.status import Alert, VolumeState, VolumeStatus
from farmer.storage.annex import NoAnnexError, make_annex
from farmer.storage.condition import Presence, Writing
from farmer.storage.directory import VolumeSettings, VolumeSetupError, read_marker
from farmer.storage.errors import FormatTooNewError, StorageError, internal
from farmer.storage.files import Files
from farmer.storage.health import Health
from farmer.storage.opening import Surroundings, open_volume
from farmer.storage.pace import Tempo
from farmer.storage.probing import probe
from farmer.storage.records import segment_uuid
from farmer.storage.rights import NOT_LET, command_for, file_of
from farmer.storage.tailcheck import Doubt
from farmer.storage.volume import Volume
from farmer.storage.watch import HUNG_S, Watch
from farmer.storage.watched import WatchedFiles

PART_EVERY_S: Final = 60.0
"""A copy of an index is made for it, which is not to be done again and again."""

ANNEX_EVERY_S: Final = 300.0
"""Between two tries to make an annex that could not be made."""

EXCHANGED: Final = "another directory stands in its place"
MARKER_GONE: Final = "its marker is gone: the disk may not be mounted"


class Slot:
    """One volume of the settings: open, or why it is not."""

    def __init__(self, settings: VolumeSettings, around: Surroundings) -> None:
        self.settings = settings
        self.volume: Volume | None = None
        self.health = Health(settings.label, around.clock_ms, around.monotonic_s)
        self.watch = Watch(around.monotonic_s)
        self.tempo = Tempo(self.watch.meters, self.health)
        self.too_new: FormatTooNewError | None = None
        self.job: Future[None] = Future()
        """The look, or the closing, that was begun last."""
        self.job.set_result(None)
        self.left_shards = 0
        """How many were there when it was closed."""
        self.reopenings = 0
        """How often it began to be opened anew, and how often that was over: see below."""
        self._around = around
        self._files = WatchedFiles(around.files, self.watch)
        self._lock = Lock()
        self._closing = False
        self._next_probe_s = 0.0
        self._next_part_s = 0.0
        self._doubtful: dict[int, Doubt] = {}
        """What a failing volume could not have read back: it is when it was opened anew."""
        self._next_annex_s = 0.0

    @property
    def alert(self) -> Alert | None:
        """Why it is left shut, if it is."""
        return self.settings.left_shut

    @property
    def is_hung(self) -> bool:
        """Whether a call into it does not return."""
        # Also where an opening has failed meanwhile, by which it is gone.
        return self.health.condition.presence is Presence.HUNG or bool(self.watch.hung_reason)

    @property
    def is_reopening(self) -> bool:
        """Whether it is closed for the moment that an opening takes."""
        return self.reopenings % 2 == 1

    @property
    def can_be_asked(self) -> bool:
        """Whether it is open and there."""
        return self.volume is not None and self.health.is_here

    def check_not_too_new(self) -> None:
        """Raise `FormatTooNewError` if that kept it from being opened."""
        if self.too_new is not None:
            raise self.too_new

    def status(self) -> VolumeStatus:
        """Return its numbers; never waits for a disk."""
        if (volume := self.volume) is not None:
            return volume.status()
        left_shut = self.settings.left_shut
        return VolumeStatus(
            name=self.settings.label,
            path=str(self.settings.path),
            state=VolumeState.GONE,
            reason=left_shut.message if left_shut else self.health.reason or "closed",
            quota_bytes=0 if left_shut else self.settings.quota_bytes,
            errors=self.health.errors(),
        )

    def trouble(self) -> tuple[Alert, ...]:
        """Return the conditions that stand."""
        return (self.alert,) if self.alert is not None else self.health.alerts()

    # Jobs.

    def look_soon(self) -> Future[None]:
        """Begin to look after it, unless that is being done; return the look."""
        return self._begin("look", self._look)

    def part_soon(self) -> Future[None]:
        """Begin to open it apart from its annex's disk, if it is open and cannot be written."""
        return self._begin("annex", self._part)

    def close_soon(self) -> Future[None]:
        """Begin to close it: what its writer has is finished, and a clean mark left."""
        self._closing = True
        return self._begin("close", self._close)

    def watch_calls(self) -> None:
        """Notice that a call does not return, or that it has; never waits."""
        longest_s, what = self.watch.longest()
        if longest_s > HUNG_S and not self.watch.hung_reason:
            reason = f"the disk does not answer: a call ({what}) hangs since {longest_s:.0f} s"
            self.health.hang(reason)
            self.watch.declare(reason)
            if self.volume is not None:
                self.volume.writer.promises.break_all(reason)
        elif longest_s <= HUNG_S and self.watch.hung_reason:
            self.health.returned()
            self.watch.declare("")

    def _begin(self, name: str, work: Callable[[], None]) -> Future[None]:
        with self._lock:
            if not self.job.done():
                if name == "look":
                    return self.job
                before = self.job
            else:
                before = None
            job: Future[None] = Future()
            self.job = job

        def do() -> None:
            try:
                if before is not None:
                    # How that ended was told to whoever asked for it.
                    wait([before])
                work()
            except BaseException as error:
                job.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                job.set_result(None)

        try:
            self._around.spawn(f"{name} {self.settings.label}", do)
        except OSError:
            # The next look tries again; whoever waits for this one must not.
            job.set_result(None)
        return job

    # What the jobs do.

    def _look(self) -> None:
        if self.settings.left_shut is not None or self._closing:
            return
        if not self.watch.hung_reason:
            self.watch.catch_up()
        if self.volume is None:
            self._open()
            return
        self._look_at_place(self.volume)
        if self.health.is_here:
            self.volume.ground.look_at_unopened()
            self._look_at_writing(self.volume)

    def _look_at_place(self, volume: Volume) -> None:
        health = self.health
        try:
            trouble = place_trouble(volume)
        except OSError as error:
            trouble = f"its directory cannot be read ({error})"
        if trouble:
            if health.is_here:
                health.go(trouble)
            if trouble != EXCHANGED:
                return
        if health.condition.presence is not Presence.GONE:
            return
        # What was opened before may be another disk's, or a dead one's.
        if self._is_ours():
            self._open_anew(volume)
            if trouble:
                health.raise_alert(
                    "VolumeExchanged",
                    f"{self.settings.path} was exchanged for another directory while the farmer"
                    " ran, and that one is used now. What was stored since it was copied lies in"
                    " the other one only.",
                    "farmer volume list",
                )

    def _look_at_writing(self, volume: Volume) -> None:
        if volume.ground.is_apart and volume.writer.is_broken:
            # Its disk has nothing to prove: what it would write goes to another one.
            self._open_anew(volume)
            return
        with suppress(StorageError):
            volume.ground.refresh_filesystem()
            if volume.ground.account.free_bytes:
                self.health.room()
            volume.settle_doubts()
        now_s = self._around.monotonic_s()
        if volume.duty is not None and now_s >= self._next_part_s:
            self._next_part_s = now_s + PART_EVERY_S
            self._part_for_duty()
            if self.volume is not volume:
                return
        if not self.health.condition.wants_probe:
            self._next_probe_s = 0.0
            return
        if not self._next_probe_s:
            self._next_probe_s = now_s + self.health.condition.probe_every_s
        if now_s < self._next_probe_s:
            return
        if probe(self._files, volume.ground.paths.probe):
            self.health.probe_worked()
        else:
            self.health.probe_failed()
        self._next_probe_s = now_s + self.health.condition.probe_every_s
        condition = self.health.condition
        if condition.is_proven or (volume.ground.is_apart and condition.writing is Writing.WELL):
            self._open_anew(volume)

    def _part_for_duty(self) -> None:
        """Let a volume that is being emptied, and cannot be written any more, be emptied still."""
        try:
            self._part()
        except OSError as error:
            self._next_part_s = self._around.monotonic_s() + ANNEX_EVERY_S
            self.health.raise_alert(
                "VolumeAnnexFailed",
                f"{self.health.label} cannot be written, and what leaves it cannot be noted in the"
                f" farmer's home either ({error}): it is not emptied now.",
                "farmer volume list",
            )
        else:
            self.health.clear_alert("VolumeAnnexFailed")

    def _part(self) -> None:
        """
        From now on note elsewhere what is given up here, if nothing can be written here.

        Raises `OSError`, and leaves all as it was.
        """
        volume = self.volume
        if volume is None or volume.ground.is_apart or not self.health.is_read_only:
            return
        annex = self._around.annex(volume.ground.volume)
        if annex is not None:
            with volume.ground.index.only_appended():
                make_annex(self._files, self.settings.path, annex, self._around.files)
            self._open_anew(volume)

    def _open_anew(self, volume: Volume) -> None:
        self.reopenings += 1
        try:
            self.volume = None
            volume.forsake()
            self._doubtful |= volume.writer.doubtful
            # What was put off while the disk hung is the old opening's, and let go with it.
            self.watch.catch_up()
            self._open()
        finally:
            self.reopenings += 1

    def _is_ours(self) -> bool:
        """Say whether the directory that stands there now is one of this farmer's."""
        try:
            read_marker(self.settings.path, self._around.node, self._files)
        except (VolumeSetupError, StorageError, OSError):
            return False
        return True

    def _open(self) -> None:
        now_s = self._around.monotonic_s()
        waits = now_s < self._next_annex_s
        # While that waits there is none, and one that can be written needs none.
        around = replace(self._around, annexes=None) if waits else self._around
        try:
            volume = open_volume(self.settings, around, self.health, self.watch)
        except FormatTooNewError as error:
            self.too_new = error
            self.health.go(f"cannot be used: {error}")
        except NoAnnexError as error:
            self._next_annex_s = now_s + ANNEX_EVERY_S
            self.health.go(f"it can only be read, and the farmer's home has no place: {error}")
        except (VolumeSetupError, StorageError, OSError, sqlite3.Error) as error:
            # Of one that waits for its annex it was said why.
            if not (waits and isinstance(error, OSError) and error.errno == errno.EROFS):
                self.health.go(f"cannot be used: {error}{self._advice(error)}")
        except MemoryError:
            raise
        except Exception as error:  # whatever rot brings up here, the other volumes must open
            self.health.go(f"cannot be used: {internal(error)}")
        else:
            self._has_opened(volume)

    def _has_opened(self, volume: Volume) -> None:
        self.volume = volume
        # In this order, and the other way round where they change: who changed them while it
        # was being opened found no volume to tell.
        volume.change_quota(self.settings.quota_bytes, self.settings.keep_free_bytes)
        self.health.reopened()
        if volume.ground.is_apart and not self.health.is_read_only:
            self.health.read_only("it takes no writes")
        doubtful, self._doubtful = self._doubtful, {}
        for number, doubt in doubtful.items():
            # Where another disk stands there by now, it is none of that one's segments.
            if doubt.uuid == segment_uuid(volume.ground.volume, number):
                volume.writer.read_back(doubt)

    def _advice(self, error: Exception) -> str:
        root = self.settings.path
        if isinstance(error, OSError) and error.errno in NOT_LET:
            return (
                ". The disk is well, the system refuses it, as where another user has put files"
                " back; nothing is lost, and it comes back by itself. Type: "
                + command_for(file_of(error, root), root)
            )
        if not (isinstance(error, OSError) and error.errno == errno.EIO):
            return ""
        anew = f"farmer volume rebuild {quote(str(root))}"
        return (
            ". It comes back by itself if that passes. If not, and the disk has bad sectors: stop"
            f" the farmer; {anew} says what can be done"
        )

    def _close(self) -> None:
        self.watch.catch_up()
        volume = self.volume
        if volume is not None:
            volume.close()
            self.left_shards = volume.ground.account.total.shards
            self.volume = None
            # In this order: of one that is open, nothing in the ledger means that it is empty.
            volume.leave_ledger()


def place_trouble(volume: Volume) -> str:
    """
    Return why the volume's directory is not the one that was opened, or nothing.

    A copy with a valid marker, or another disk mounted over it, has other inodes than the
    descriptors that are held.  Raises `OSError`.
    """
    files, paths = volume.ground.files, volume.ground.paths
    if not files.exists(paths.marker):
        return MARKER_GONE
    while not _are_in_place(files, held := volume.held_files()):
        if volume.held_files() == held:
            return EXCHANGED
        # The writer went on to its next segment meanwhile: the descriptor was closed, and its
        # number may be another file's.
    return ""


def _are_in_place(files: Files, held: list[tuple[Path, int]]) -> bool:
    """Say whether each name stands for the file that the descriptor holds; raises `OSError`."""
    try:
        return all(files.inode(path) == files.inode(fd) for path, fd in held)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EBADF}:
            return False
        raise
