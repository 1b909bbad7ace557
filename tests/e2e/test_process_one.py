"""A real farmer as the one process of a container, as far as the kernel makes one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Renter
from tests.needs import as_root, on_linux

pytestmark = [on_linux, as_root, pytest.mark.tool("unshare")]

APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def test_as_process_one_it_serves_and_ends_in_order_by_sigterm(tmp_path: Path) -> None:
    """The kernel lets no signal through to that one which it has not asked for."""
    with Daemon(tmp_path / "home", tmp_path / "volume", "100MB") as farmer:
        farmer.start(*APART)
        assert farmer.status()["pid"] == 1
        renter, file = Renter(tmp_path / "renter"), tmp_path / "file"
        renter.join(farmer.invite("50MB"))
        file.write_bytes(os.urandom(5000))
        renter.store(file)
        outer = farmer.process
        assert outer is not None
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert outer.wait(60) == 0
        assert "stopped; all transfers were finished" in farmer.logs.read_text()
