"""Why a volume whose disk is well takes nothing more, for a person."""

from __future__ import annotations

from dataclasses import replace

from farmer.model.status import VolumeState, VolumeStatus
from farmer.units import format_size


def with_reason(volume: VolumeStatus) -> VolumeStatus:
    """Return the status of a volume; if it is full, with why it is."""
    if volume.state is not VolumeState.FULL or volume.reason:
        return volume
    return replace(volume, reason=_why_full(volume))


def _why_full(volume: VolumeStatus) -> str:
    taken = volume.used_bytes + volume.trash_bytes + volume.reserved_bytes
    quota, kept = format_size(volume.quota_bytes), format_size(volume.allowance_bytes)
    if taken > volume.quota_bytes:
        return (
            f"it holds {format_size(taken)}, more than its quota of {quota}: what is there is "
            "served, and nothing new is taken until it holds less, or has more quota"
        )
    if taken + volume.allowance_bytes >= volume.quota_bytes:
        return f"its quota of {quota} is used up: {kept} of it are kept for index and tidying up"
    free = format_size(volume.filesystem_free_bytes)
    return f"its filesystem has {free} free, no more than what is to be kept free (keep_free)"
