"""What a volume really takes on the disk, to compare it with the ledger."""

from __future__ import annotations

from pathlib import Path

from farmer.storage.volume import Volume


def measure(volume: Volume) -> tuple[int, int]:
    """
    Return the allocated bytes of everything under the volume, and the drift.

    The drift is what segments and large shards take, minus what the ledger says they take.
    Records that are written meanwhile show as a passing drift.  Walks over every file, but for
    those in directories that may not be listed.
    """
    paths, account = volume.ground.paths, volume.ground.account
    records = sum(
        _below(volume, directory, with_directories=False)
        for directory in (paths.log, paths.shards, paths.staging)
    )
    everything = _below(volume, paths.root, with_directories=True)
    staged = account.reserved_bytes - account.unallocated_bytes
    rented = account.total.live_bytes + account.total.trash_bytes
    return everything, records - rented - staged - account.log_bytes


def _below(volume: Volume, directory: Path, *, with_directories: bool) -> int:
    files = volume.ground.files
    total = files.allocated(directory) if with_directories else 0
    try:
        names = files.list(directory)
    except PermissionError:
        if not with_directories:
            raise
        # Not ours, as root's lost+found is where the volume is a whole filesystem.
        names = []
    for name in names:
        path = directory / name
        try:
            with volume.ground.watch.call("stat"):
                is_directory = path.is_dir()
            if is_directory:
                total += _below(volume, path, with_directories=with_directories)
            else:
                total += files.allocated(path)
        except FileNotFoundError:
            continue
    return total
