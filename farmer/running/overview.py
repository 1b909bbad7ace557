"""The whole farmer at one instant, from memory: what page, metrics and commands show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from farmer.model.contract import ContractStage
from farmer.model.ids import NodeId
from farmer.model.status import NodeState, NodeStatus, VolumeState, VolumeStatus
from farmer.running.alerts import AlertBoard
from farmer.running.fullness import with_reason
from farmer.version import VERSION

_WELL = (VolumeState.HEALTHY, VolumeState.SLOW, VolumeState.FULL, VolumeState.RETIRED)


def usable_bytes(volumes: Iterable[VolumeStatus]) -> int:
    """Return how much of shards the volumes can hold now, with what they hold already."""
    # What leaves a volume takes room on another one; what is gone holds nothing for anybody.
    kept = (one for one in volumes if not one.draining and one.state is not VolumeState.GONE)
    return sum(
        volume.used_bytes + volume.trash_bytes + volume.reserved_bytes + volume.free_bytes
        for volume in kept
    )


@dataclass(frozen=True, slots=True)
class BookCounts:
    """What the contract database held when it was last asked."""

    contracts: tuple[tuple[ContractStage, int], ...] = ()
    open_invites: int = 0
    promised_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class Overview:
    """
    Gathers the status; its fields are set by whoever knows.

    *started_at_ms*, *volumes* and *sessions* answer from memory; nothing here touches a disk.
    """

    node_id: NodeId
    build: str
    pid: int
    started_at_ms: Callable[[], int]
    clean_start: bool
    first_start: bool = False
    board: AlertBoard
    volumes: Callable[[], tuple[VolumeStatus, ...]]
    sessions: Callable[[], int] = field(default=lambda: 0)
    announced: Callable[[], tuple[str, ...]] = field(default=tuple)
    waiting: Callable[[], tuple[str, ...]] = field(default=tuple)
    name: str = ""
    listen: tuple[str, ...] = ()
    page: str = ""
    serving: bool = False
    draining: bool = False
    counts: BookCounts = BookCounts()

    def status(self) -> NodeStatus:
        """Return how the farmer is now."""
        volumes = tuple(map(with_reason, self.volumes()))
        counts = dict(self.counts.contracts)
        return NodeStatus(
            state=self._state(volumes),
            node_id=self.node_id,
            name=self.name,
            version=VERSION,
            build=self.build,
            pid=self.pid,
            started_at_ms=self.started_at_ms(),
            listen=self.listen,
            announce=self.announced(),
            page=self.page,
            volumes=volumes,
            contracts=self.counts.contracts,
            open_invites=self.counts.open_invites,
            promised_bytes=self.counts.promised_bytes,
            renters=counts.get(ContractStage.ACTIVE, 0) + counts.get(ContractStage.GRACE, 0),
            sessions=self.sessions(),
            alerts=self.board.alerts,
            clean_start=self.clean_start,
            first_start=self.first_start,
            waiting=self.waiting(),
        )

    def _state(self, volumes: tuple[VolumeStatus, ...]) -> NodeState:
        if self.draining:
            return NodeState.DRAINING
        if not self.serving:
            return NodeState.STARTING
        well = all(volume.state in _WELL for volume in volumes)
        return NodeState.RUNNING if well and not self.board.alerts else NodeState.DEGRADED
