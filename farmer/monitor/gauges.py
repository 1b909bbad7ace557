"""What the farmer is right now, as gauges made from its status at each scrape."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import twisted
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farmer.model.contract import ContractStage
from farmer.model.status import (
    VOLUME_OPERATIONS,
    NodeState,
    NodeStatus,
    VolumeState,
    VolumeStatus,
)
from farmer.monitor.status import Activity

VOLUME_GAUGES: Final[tuple[tuple[str, str, Callable[[VolumeStatus], float | None]], ...]] = (
    ("quota_bytes", "Space the owner offers on this volume.", lambda v: v.quota_bytes),
    ("used_bytes", "Space charged for live shards.", lambda v: v.used_bytes),
    ("trash_bytes", "Space held by deleted shards until they are gone.", lambda v: v.trash_bytes),
    ("reserved_bytes", "Space promised to stores under way.", lambda v: v.reserved_bytes),
    (
        "available_bytes",
        "Space that can still be rented: 0 while the volume takes no new shards.",
        lambda v: v.free_bytes,
    ),
    (
        "allocated_bytes",
        "Disk space taken by everything under the volume, at the last comparison.",
        lambda v: v.allocated_bytes,
    ),
    (
        "ledger_drift_bytes",
        "Shard bytes on the disk minus shard bytes in the ledger, at the last comparison.",
        lambda v: v.drift_bytes,
    ),
    (
        "filesystem_size_bytes",
        "Size of the filesystem under this volume.",
        lambda v: v.filesystem_size_bytes,
    ),
    (
        "filesystem_free_bytes",
        "Free bytes of the filesystem under this volume.",
        lambda v: v.filesystem_free_bytes,
    ),
    (
        "draining",
        "1 while the volume's shards are being moved to other volumes.",
        lambda v: v.draining,
    ),
    ("shards", "Live shards on this volume.", lambda v: v.shards),
    (
        "scrub_progress_ratio",
        "How far the running scrub is, 0 when idle.",
        lambda v: None if v.scrub is None else v.scrub.progress,
    ),
    (
        "scrub_last_success_timestamp_seconds",
        "Unix time at which the last whole scrub ended; not there before the first, "
        "nor while the volume is not open.",
        lambda v: v.scrub.ended_at_ms / 1000 if v.scrub and v.scrub.ended_at_ms else None,
    ),
    (
        "leaving_bytes",
        "Space of the shards that are still to be moved to other volumes.",
        lambda v: v.work.left_bytes if v.work is not None else 0,
    ),
    (
        "moved_bytes",
        "Space of the shards moved to other volumes since the start.",
        lambda v: v.work.moved_bytes if v.work is not None else 0,
    ),
    ("quarantined_shards", "Shards found damaged and set aside.", lambda v: v.quarantined),
    (
        "up",
        "1 when the volume is there, carries our marker and can be read.",
        lambda v: v.state is not VolumeState.GONE,
    ),
)


class StatusCollector(Collector):
    """Asks for the status once a scrape; touches no disk."""

    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registration must not ask for a status that is not there yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all families of one status."""
        status = self._status()
        yield from _node(status)
        yield from _volumes(status.volumes)
        yield from _renting(status)


class MomentsCollector(Collector):
    """When last came what should come now and then; no sample before the first since the start."""

    # A 0 for never would make whatever compares it with the time ring after each restart.

    def __init__(self, activity: Activity) -> None:
        self._activity = activity

    def collect(self) -> Iterator[Metric]:
        """Yield both families."""
        yield _moment(
            "last_renter_contact_timestamp_seconds",
            "Unix time at which a request of a renter with a contract was last answered in full; "
            "not there before the first since the start.",
            self._activity.last_contact_s,
        )
        yield _moment(
            "audit_last_success_timestamp_seconds",
            "Unix time of the last good proof; not there before the first since the start.",
            self._activity.last_proof_s,
        )


def _node(status: NodeStatus) -> Iterator[Metric]:
    yield _gauge(
        "build_info",
        "Always 1; the versions in labels; `build` differs wherever the program does.",
        ("version", "build", "python", "twisted"),
        [((status.version, status.build, platform.python_version(), twisted.__version__), 1)],
    )
    yield _gauge(
        "node_info",
        "Always 1; who this farmer is.",
        ("node_id", "name"),
        [((str(status.node_id), status.name), 1)],
    )
    yield _gauge(
        "start_time_seconds",
        "Unix time at which the daemon started, by the clock as it is now.",
        (),
        [((), status.started_at_ms / 1000)],
    )
    yield _gauge(
        "state",
        "1 for the state the farmer is in, 0 for the others.",
        ("state",),
        [((state.value,), state is status.state) for state in NodeState],
    )
    yield _gauge(
        "alerts",
        "Conditions that want the owner's attention, 1 each while they stand.",
        ("alert",),
        [((name,), 1) for name in sorted({alert.name for alert in status.alerts})],
    )


def _volumes(volumes: tuple[VolumeStatus, ...]) -> Iterator[Metric]:
    used = [volume for volume in volumes if volume.state is not VolumeState.RETIRED]
    for name, text, figure in VOLUME_GAUGES:
        figures = [((volume.name,), figure(volume)) for volume in used]
        rows = [(labels, known) for labels, known in figures if known is not None]
        yield _gauge(f"volume_{name}", text, ("volume",), rows)
    yield _gauge(
        "volume_state",
        "1 for the state the volume is in, 0 for the others.",
        ("volume", "state"),
        [((v.name, state.value), state is v.state) for v in volumes for state in VolumeState],
    )
    yield _gauge(
        "volume_wait_seconds",
        "How long a call that waits for the disk takes, on the average of the last seconds.",
        ("volume", "call"),
        [((v.name, call), took_s) for v in volumes for call, took_s in v.waits_s],
    )
    yield _gauge(
        "scrub_shards",
        "Shards that the running scrub has read, or the last one, by result.",
        ("volume", "result"),
        [
            ((v.name, result), number)
            for v in used
            if (scrub := v.scrub) is not None
            for result, number in (
                ("ok", scrub.checked - scrub.damaged - scrub.mended),
                ("damaged", scrub.damaged),
                ("mended", scrub.mended),
            )
        ],
    )
    errors = CounterMetricFamily(
        "farmer_volume_errors",
        "Operations that failed on the volume, by operation.",
        labels=("volume", "operation"),
    )
    for volume in used:
        # From 0 on: a rate over a series that appears with 1 misses the one.
        counts = dict.fromkeys(VOLUME_OPERATIONS, 0) | dict(volume.errors)
        for operation, count in counts.items():
            errors.add_metric((volume.name, operation), count)
    yield errors


def _renting(status: NodeStatus) -> Iterator[Metric]:
    yield _gauge("renters", "Renters with a contract here.", (), [((), status.renters)])
    yield _gauge("open_invites", "Invites not yet redeemed.", (), [((), status.open_invites)])
    counts = dict(status.contracts)
    stages = [stage for stage in ContractStage if stage is not ContractStage.GONE]
    yield _gauge(
        "contracts",
        "Contracts by state.",
        ("state",),
        [((stage.name.lower(),), counts.get(stage, 0)) for stage in stages],
    )


def _moment(name: str, text: str, unix_s: float) -> Metric:
    return _gauge(name, text, (), [((), unix_s)] if unix_s else [])


def _gauge(
    name: str,
    text: str,
    labels: tuple[str, ...],
    rows: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    family = GaugeMetricFamily(f"farmer_{name}", text, labels=labels)
    for values, figure in rows:
        family.add_metric(values, float(figure))
    return family
