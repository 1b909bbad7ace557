"""One farmer with everything set, for the tests and for the documentation."""

from __future__ import annotations

from dataclasses import replace

from farmer.model.contract import ContractStage
from farmer.model.ids import NodeId
from farmer.model.moments import Clocks
from farmer.model.status import (
    Alert,
    NodeState,
    NodeStatus,
    ScrubStatus,
    VolumeState,
    VolumeStatus,
)
from farmer.monitor.metrics import LabelSets, Metrics

NOW_S = 1_790_000_000.0
CLOCKS = Clocks(lambda: int(NOW_S * 1000), lambda: 0.0)

ATTIC = VolumeStatus(
    name="attic",
    path="/mnt/attic",
    state=VolumeState.HEALTHY,
    quota_bytes=2_000_000_000_000,
    used_bytes=1_140_000_000_000,
    reserved_bytes=3_000_000_000,
    trash_bytes=24_000_000_000,
    allowance_bytes=10_000_000_000,
    free_bytes=823_000_000_000,
    shards=1_214_880,
    allocated_bytes=1_164_000_000_000,
    filesystem_size_bytes=4_000_000_000_000,
    filesystem_free_bytes=1_900_000_000_000,
    errors=(("read", 2),),
    waits_s=(("sync", 0.031), ("read", 0.012), ("write", 0.0)),
    scrub=ScrubStatus(ended_at_ms=int((NOW_S - 86_400) * 1000), checked=1_214_880),
)
USB = replace(
    ATTIC,
    name="usb",
    path="/mnt/usb <b>&</b>",
    state=VolumeState.GONE,
    reason="its marker is missing: is the disk mounted?",
    used_bytes=400_000_000_000,
    free_bytes=0,
    shards=3211,
    quarantined=1,
    drift_bytes=-4096,
    scrub=None,
)
STATUS = NodeStatus(
    state=NodeState.DEGRADED,
    node_id=NodeId(bytes(range(32))),
    name="attic <script>",
    version="0.1.0",
    build="0123abcd",
    pid=4711,
    started_at_ms=int((NOW_S - 3_571_200) * 1000),
    listen=("0.0.0.0:4646", "[::]:4646"),
    announce=("farm.example.org:4646",),
    page="127.0.0.1:4647",
    volumes=(ATTIC, USB),
    contracts=((ContractStage.ACTIVE, 3), (ContractStage.GRACE, 1)),
    open_invites=2,
    renters=3,
    sessions=12,
    alerts=(
        Alert(
            name="VolumeGone",
            since_ms=int((NOW_S - 600) * 1000),
            message="The volume usb is not there. Its 3211 shards cannot be served.",
            command="mount /mnt/usb",
        ),
    ),
    clean_start=False,
)
LABELS = LabelSets(
    refusals=("NO_SPACE", "NOT_FOUND"),
    close_reasons=("done", "idle"),
    handshake_reasons=("tls", "late"),
)


def metrics(status: NodeStatus = STATUS) -> Metrics:
    """Return the metrics of that farmer."""
    return Metrics(lambda: status, CLOCKS, LABELS)
