"""The status as a JSON document: what `farmer status --json` and the page's route print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farmer.model.moments import Moment
from farmer.model.status import Alert, NodeStatus, ScrubStatus, VolumeStatus, VolumeWork
from farmer.monitor.words import problem_of
from farmer.version import SCHEMA


@dataclass(slots=True, kw_only=True)
class Activity:
    """What the farmer did since it started."""

    since: Moment
    received_bytes: int = 0
    sent_bytes: int = 0
    stored: int = 0
    audits_passed: int = 0
    audits_failed: int = 0
    audits_missing: int = 0
    """Of shards that are not here: whoever erases one, or names any, and asks for it counts."""
    last_contact: Moment | None = None
    """When a renter with a contract was last served."""
    last_proof: Moment | None = None
    """When a shard was last proved."""

    @property
    def last_contact_s(self) -> float:
        """That in Unix seconds; 0 for never."""
        return _unix_s(self.last_contact)

    @property
    def last_proof_s(self) -> float:
        """That in Unix seconds; 0 for never."""
        return _unix_s(self.last_proof)


def _unix_s(moment: Moment | None) -> float:
    return 0.0 if moment is None else moment.at_ms() / 1000


def status_document(status: NodeStatus, activity: Activity | None = None) -> dict[str, Any]:
    """Return what may be shown of *status*, as JSON values."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "state": status.state.value,
        "node_id": str(status.node_id),
        "name": status.name,
        "version": status.version,
        "build": status.build,
        "pid": status.pid,
        "started_at_ms": status.started_at_ms,
        "clean_start": status.clean_start,
        "first_start": status.first_start,
        "listen": list(status.listen),
        "announce": list(status.announce),
        "page": status.page,
        "volumes": [volume_document(volume) for volume in status.volumes],
        "contracts": {stage.name.lower(): count for stage, count in status.contracts},
        "open_invites": status.open_invites,
        "promised_bytes": status.promised_bytes,
        "renters": status.renters,
        "sessions": status.sessions,
        "waiting": list(status.waiting),
        "alerts": [_alert(alert) for alert in status.alerts],
    }
    if activity is not None:
        document["activity"] = _activity(activity)
    return document


def volume_document(volume: VolumeStatus) -> dict[str, Any]:
    """Return one volume, as JSON values."""
    return {
        "name": volume.name,
        "path": volume.path,
        "state": volume.state.value,
        "reason": volume.reason,
        "draining": volume.draining,
        "quota_bytes": volume.quota_bytes,
        "used_bytes": volume.used_bytes,
        "reserved_bytes": volume.reserved_bytes,
        "trash_bytes": volume.trash_bytes,
        "allowance_bytes": volume.allowance_bytes,
        "free_bytes": volume.free_bytes,
        "shards": volume.shards,
        "quarantined": volume.quarantined,
        "allocated_bytes": volume.allocated_bytes,
        "drift_bytes": volume.drift_bytes,
        "filesystem_size_bytes": volume.filesystem_size_bytes,
        "filesystem_free_bytes": volume.filesystem_free_bytes,
        "errors": dict(volume.errors),
        "waits_s": {call: round(took_s, 4) for call, took_s in volume.waits_s},
        "scrub": None if volume.scrub is None else _scrub(volume.scrub),
        "work": None if volume.work is None else _work(volume.work),
    }


def _work(work: VolumeWork) -> dict[str, Any]:
    eta_s = work.eta_s
    return {
        "verb": work.verb,
        "to_path": work.to_path,
        "since_ms": work.since_ms,
        "rate_bytes": work.rate_bytes,
        "moved_shards": work.moved_shards,
        "moved_bytes": work.moved_bytes,
        "left_shards": work.left_shards,
        "left_bytes": work.left_bytes,
        "damaged": work.damaged,
        "unfinished_bytes": work.unfinished_bytes,
        "bytes_per_s": int(work.bytes_per_s),
        "eta_s": None if eta_s is None else int(eta_s),
        "problem": problem_of(work),
    }


def _scrub(scrub: ScrubStatus) -> dict[str, Any]:
    return {
        "state": scrub.state,
        "progress": round(scrub.progress, 4),
        "done_bytes": scrub.done_bytes,
        "total_bytes": scrub.total_bytes,
        "bytes_per_s": round(scrub.bytes_per_s),
        "eta_s": None if scrub.eta_s is None else round(scrub.eta_s),
        "began_at_ms": scrub.began_at_ms,
        "ended_at_ms": scrub.ended_at_ms,
        "checked": scrub.checked,
        "damaged": scrub.damaged,
        "mended": scrub.mended,
        "disagreements": scrub.disagreements,
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "name": alert.name,
        "since_ms": alert.since_ms,
        "message": alert.message,
        "command": alert.command,
    }


def _activity(activity: Activity) -> dict[str, Any]:
    return {
        "since_ms": activity.since.at_ms(),
        "received_bytes": activity.received_bytes,
        "sent_bytes": activity.sent_bytes,
        "stored": activity.stored,
        "audits_passed": activity.audits_passed,
        "audits_failed": activity.audits_failed,
        "audits_missing": activity.audits_missing,
        "last_contact_ms": int(activity.last_contact_s * 1000),
    }
