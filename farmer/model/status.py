"""All that an owner may see, at one instant.  Nothing here is secret."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from farmer.model.contract import ContractStage
from farmer.model.ids import NodeId

VOLUME_OPERATIONS: Final = (
    *("book", "corrupt", "hung", "index", "measure", "no_space", "probe", "quarantine", "read"),
    *("read_only", "reclaim", "refused", "rename", "sweep", "sync", "truncate", "unlink"),
    "write",
)
"""All that a volume counts failures of."""


class VolumeState(Enum):
    """How a volume is."""

    HEALTHY = "healthy"
    SLOW = "slow"
    """Far slower than usual: new shards go to other volumes first."""
    FULL = "full"
    READ_ONLY = "read-only"
    """Its filesystem takes no writes: shards are served, none stored."""
    FAILING = "failing"
    """Writes have failed: shards are served, none stored, until it has proved itself."""
    GONE = "gone"
    """Not there, or it does not answer."""
    RETIRED = "retired"
    """Its owner gave it up, its shards are elsewhere: shown for a while, never opened again."""


class NodeState(Enum):
    """How the farmer is."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeWork:
    """How far the emptying of a volume is; sizes are charged bytes."""

    verb: str
    """drain, retire or move."""
    to_path: str = ""
    """Of the directory that a volume moves to."""
    since_ms: int = 0
    rate_bytes: int = 0
    """At most so many bytes a second; 0 for no bound."""
    moved_shards: int = 0
    """Since the farmer started, as the next one."""
    moved_bytes: int = 0
    left_shards: int = 0
    left_bytes: int = 0
    damaged: int = 0
    """Of those that are left, the ones that are damaged and stay."""
    unfinished_bytes: int = 0
    """Promised to stores that have begun: they are waited for."""
    bytes_per_s: float = 0.0
    problem: str = ""
    """Why it does not go on now, for a person; empty if it does."""
    wanted_bytes: int = 0
    """What has to go and has no room anywhere takes; 0 unless that is the problem."""
    available_bytes: int = 0
    """How much there was room for."""

    @property
    def is_stuck(self) -> bool:
        """Whether damaged shards are all that is left: of those none goes."""
        return 0 < self.left_shards <= self.damaged

    @property
    def eta_s(self) -> float | None:
        """Return when it will be done at this pace; None if that cannot be told, or never."""
        if self.is_stuck or self.problem or not self.bytes_per_s:
            return None
        return self.left_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubStatus:
    """How far the scrub of one volume is, and what its pass has found."""

    state: str = "idle"
    """idle, running, waiting (for its hours), or paused."""
    total_bytes: int = 0
    """What a whole pass reads, about."""
    done_bytes: int = 0
    """What this pass has read; 0 between passes."""
    bytes_per_s: float = 0.0
    """How fast it really goes, pauses included; 0 if that is not known."""
    began_at_ms: int = 0
    """When this pass, or the last one, began; 0 for never."""
    ended_at_ms: int = 0
    """When the last whole pass ended; 0 for never."""
    checked: int = 0
    damaged: int = 0
    mended: int = 0
    disagreements: int = 0
    """Where the index and the log did not say the same."""

    @property
    def progress(self) -> float:
        """Return how much of the pass is done, 0 to 1."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 0.0

    def is_ahead(self, now_ms: int, pass_ms: int) -> bool:
        """Tell whether more is done than would be by now if the whole pass took *pass_ms*."""
        passed_ms = now_ms - self.began_at_ms
        # A clock that was set back says nothing of the time that is left.
        return passed_ms >= 0 and self.done_bytes * pass_ms > self.total_bytes * passed_ms

    @property
    def eta_s(self) -> float | None:
        """Return how long the rest takes at this speed; None if that is not known."""
        if not self.done_bytes or self.bytes_per_s <= 0:
            return None
        return max(0, self.total_bytes - self.done_bytes) / self.bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeStatus:
    """One volume's numbers, in bytes; `docs/storage-format.md` says what each counts."""

    name: str
    """Short and unique: the `volume` label of the metrics."""
    path: str
    state: VolumeState
    reason: str = ""
    """Why it is not healthy, for a person."""
    draining: bool = False
    """Whether its shards are being moved to other volumes: it takes no new ones."""
    quota_bytes: int = 0
    used_bytes: int = 0
    reserved_bytes: int = 0
    trash_bytes: int = 0
    allowance_bytes: int = 0
    """Kept inside the quota for the index, deletions and one compaction."""
    free_bytes: int = 0
    """What can still be rented: 0 of a volume that takes no new shards now."""
    shards: int = 0
    quarantined: int = 0
    allocated_bytes: int = 0
    """What everything under the volume takes on the disk, at the last comparison."""
    drift_bytes: int = 0
    """Shard bytes on the disk minus shard bytes in the ledger, at the last comparison."""
    filesystem_size_bytes: int = 0
    filesystem_free_bytes: int = 0
    errors: tuple[tuple[str, int], ...] = ()
    """Failed operations since the start, by `VOLUME_OPERATIONS`; without those that never did."""
    waits_s: tuple[tuple[str, float], ...] = ()
    """How long a sync, read or write that waits for the disk takes, on the average of late."""
    work: VolumeWork | None = None
    """Its emptying; None if it is not being emptied."""
    scrub: ScrubStatus | None = None
    """None while it is not known: of a volume that is not open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A condition that is shown until it clears."""

    name: str
    """CamelCase, from a closed set."""
    since_ms: int
    message: str
    """What happened and what it means."""
    command: str = ""
    """What to type about it."""
    about: str = ""
    """Of which of many things it is, where several alerts of the same name may stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """The whole farmer."""

    state: NodeState
    node_id: NodeId
    name: str
    version: str
    build: str
    """Which of all builds of that release: `farmer.version.build`."""
    pid: int
    started_at_ms: int
    listen: tuple[str, ...]
    announce: tuple[str, ...]
    page: str
    volumes: tuple[VolumeStatus, ...]
    contracts: tuple[tuple[ContractStage, int], ...]
    open_invites: int
    renters: int
    sessions: int
    alerts: tuple[Alert, ...] = ()
    clean_start: bool = True
    """Whether the run before this one ended in order."""
    first_start: bool = False
    """Whether there was no run before this one."""
    promised_bytes: int = 0
    """The space of all contracts and open invites."""
    waiting: tuple[str, ...] = ()
    """Settings that were read again, and wait for a restart."""
