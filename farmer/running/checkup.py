"""Looking a volume over: by the running farmer, which keeps its indexes to itself, or without."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from farmer.model.ids import NodeId
from farmer.storage.checking import Checked, check_volume
from farmer.storage.files import OsFiles


def look_over(path: Path, node: NodeId, annexes: Path) -> dict[str, Any]:
    """Return what there is in a volume and what is wrong; blocking, and long on a large one."""
    return {"path": str(path)} | asdict(check_volume(path, node, OsFiles(), annexes))


def unseen(path: Path, why: str) -> dict[str, Any]:
    """Return the same of a volume that cannot be looked at."""
    return {"path": str(path)} | asdict(Checked(0, 0, (why,)))
