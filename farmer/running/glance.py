"""The volumes of a farmer that does not run, seen from outside: nothing is opened."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from farmer.model.status import VolumeState, VolumeStatus
from farmer.monitor.status import volume_document
from farmer.running.answering import answer_of
from farmer.running.clocks import wall_clock_ms
from farmer.running.home import Home
from farmer.running.register import not_among
from farmer.running.retired import Retired
from farmer.running.volumes import VolumePlan, free_bytes, plan_volumes
from farmer.settings.schema import Settings
from farmer.storage.outside import Holdings, holdings, volume_id
from farmer.storage.quota import Tally, VolumeAccount


def volumes_at_rest(home: Home, settings: Settings) -> list[dict[str, Any]]:
    """Return a row for each volume, as `status_document` has them; the state says `stopped`."""
    plans = plan_volumes(home, settings)
    rows = [_planned(home, plan) for plan in plans]
    silent = {plan.path for plan in plans if plan.is_guess}
    for known in not_among(home, [plan.path for plan in plans], silent):
        shards = known.held.shards if known.held is not None else 0
        rows.append(_gone(known.path, 0, "not in the settings") | {"shards": shards})
    return rows + [volume_document(one) for one in Retired(home).shown(wall_clock_ms())]


def _planned(home: Home, plan: VolumePlan) -> dict[str, Any]:
    if plan.new:
        return _gone(plan.path, plan.quota_bytes, "never made") | {"state": "new"}
    seen = None if plan.is_guess else answer_of(partial(_look, plan.path, home.annexes))
    if seen is None:
        return _gone(plan.path, plan.quota_bytes, "its disk is not there, or does not answer")
    held, free = seen
    if held is None:
        return _gone(plan.path, plan.quota_bytes, "it cannot be read from outside")
    account = _account(plan, held, free)
    status = VolumeStatus(
        name=plan.name,
        path=str(plan.path),
        state=VolumeState.HEALTHY,
        quota_bytes=plan.quota_bytes,
        used_bytes=held.used_bytes,
        trash_bytes=held.trash_bytes,
        allowance_bytes=account.allowance_bytes,
        free_bytes=account.free_bytes,
        shards=held.shards,
        quarantined=held.quarantined,
    )
    return volume_document(status) | {"state": "stopped"}


def _look(path: Path, annexes: Path) -> tuple[Holdings | None, int]:
    return holdings(path, annexes) if volume_id(path) else None, free_bytes(path)


def _account(plan: VolumePlan, held: Holdings, free: int) -> VolumeAccount:
    total = Tally(held.used_bytes, held.trash_bytes, held.shards, held.files, held.quarantined)
    account = VolumeAccount(plan.quota_bytes, plan.keep_free_bytes, total)
    account.filesystem_free_bytes = free
    return account


def _gone(path: Path, quota_bytes: int, reason: str) -> dict[str, Any]:
    return volume_document(
        VolumeStatus(
            name=path.name,
            path=str(path),
            state=VolumeState.GONE,
            reason=reason,
            quota_bytes=quota_bytes,
        )
    )
