"""
Peers from their registries, into the cache directory: nothing on the system changes.

A Debian package is downloaded by apt (which checks its signature) and unpacked, not installed:
no root is needed and no service is started.  What is installed already is used as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.peer import PeerError

INSTALL_S: Final = 900.0
SAID_BYTES_MAX: Final = 400


def cache_directory() -> Path:
    """Return where peers are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "farmer-bench"


def debian_program(name: str, package: str, cache: Path) -> Path:
    """Return a program of the system, or one out of its Debian package; raises `PeerError`."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found:
        return Path(found)
    root = cache / package
    places = [root / folder / name for folder in ("usr/sbin", "usr/bin")]
    if not any(place.exists() for place in places):
        _unpack(package, root)
    for place in places:
        if place.exists():
            return place
    raise PeerError(f"the Debian package {package} has no program {name}")


def python_programs(requirement: str, cache: Path) -> Path:
    """Return the `bin` of a virtual environment with one requirement; raises `PeerError`."""
    folder = cache / requirement.replace("==", "-")
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        words("python", sys.executable, "-m", "venv", folder)
        pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
        words("pip", *pip, "--disable-pip-version-check", requirement)
        done.touch()
    return folder / "bin"


def words(what: str, *command: str | Path, timeout_s: float = INSTALL_S) -> str:
    """Run a command and return what it says; raises `PeerError` with its last words."""
    try:
        told = _run(command, timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{what}: {error}") from error
    if told.returncode:
        raise PeerError(f"{what} failed: {told.stdout.strip()[-SAID_BYTES_MAX:]}")
    return told.stdout


def _unpack(package: str, root: Path) -> None:
    debs = root / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    download = ("sh", "-c", 'cd "$1" && apt-get download "$2"', "sh", debs, package)
    try:
        words("apt-get download", *download)
    except PeerError:
        if os.geteuid():
            raise
        # A fresh system knows of no packages yet; only root may change that.
        words("apt-get update", "apt-get", "update", "-q")
        words("apt-get download", *download)
    for deb in debs.glob("*.deb"):
        words("dpkg-deb", "dpkg-deb", "-x", deb, root)
    shutil.rmtree(debs)


def _run(command: Sequence[str | Path], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )
