"""What an owner types so that the farmer's user may use a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from farmer.storage.rights import command_for
from tests.needs import as_root

ANOTHER, ROOT = 12_345, 0


@pytest.fixture
def volume() -> Iterator[Path]:
    """A volume of another user, as whom the test acts."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "volume"
        (root / "large").mkdir(parents=True)
        (root / "large" / "shard").touch()
        for path in (root, *root.rglob("*")):
            os.chown(path, ANOTHER, ANOTHER)
        os.seteuid(ANOTHER)
        yield root
        os.seteuid(ROOT)


@as_root
def test_a_directory_that_hides_what_is_in_it_is_told_of(volume: Path) -> None:
    """It is ours already: to give it to us would change nothing."""
    large = volume / "large"
    assert command_for(large / "shard", volume) == f"chmod u+rw {large}/shard"
    large.chmod(0o600)
    assert command_for(large / "shard", volume) == f"chmod u+rwx {large}"
    volume.chmod(0)
    assert command_for(large / "shard", volume) == f"chmod u+rwx {volume}"


@as_root
@pytest.mark.parametrize("name", ["", "large", "large/shard"])
def test_what_another_user_owns_is_given_to_us_with_all_the_rest(volume: Path, name: str) -> None:
    os.seteuid(ROOT)
    os.chown(volume / name, ROOT, ROOT)
    if (volume / name).is_dir():
        (volume / name).chmod(0o700)
    os.seteuid(ANOTHER)
    command = command_for(volume / "large" / "shard", volume)
    assert command == f"sudo chown -R {ANOTHER} {volume}"
