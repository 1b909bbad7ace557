"""What is mounted where, from the kernel's list."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.running.mounts import mount_point

LIST = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
41 27 8:1 / /mnt/a rw,relatime - ext4 /dev/sda1 rw
42 41 8:2 / /mnt/a/b rw - ext4 /dev/sda2 rw
43 27 0:50 / /mnt/my\\040disk rw - fuse.x x rw
"""


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/mnt/a/volume", "/mnt/a"),
        ("/mnt/a", "/mnt/a"),
        ("/mnt/a/b/c", "/mnt/a/b"),
        ("/mnt/ab", "/"),
        ("/mnt/my disk/volume", "/mnt/my disk"),
        ("/home/farmer", "/"),
    ],
)
def test_a_path_lies_below_the_nearest_mount_point(tmp_path: Path, path: str, point: str) -> None:
    (tmp_path / "mounts").write_text(LIST)
    assert mount_point(Path(path), tmp_path / "mounts") == Path(point)


def test_without_a_list_nothing_is_known(tmp_path: Path) -> None:
    assert mount_point(Path("/mnt"), tmp_path / "mounts") is None
