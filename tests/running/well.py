"""A volume that is well, of few bytes: what it holds, keeps and has free is its quota."""

from __future__ import annotations

from farmer.model.status import VolumeState, VolumeStatus

WELL = VolumeStatus(
    name="a",
    path="/a",
    state=VolumeState.HEALTHY,
    quota_bytes=1000,
    used_bytes=100,
    trash_bytes=20,
    reserved_bytes=3,
    allowance_bytes=60,
    free_bytes=817,
)
