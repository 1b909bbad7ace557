"""
Runs a command of ours, `python -m MODULE ARGUMENT ...`, as on a filesystem without holes.

There the live records of a sparse segment are written again, which elsewhere never happens.
"""

from __future__ import annotations

import runpy
import sys

from farmer.storage.files import OsFiles


def _refuse(_files: OsFiles, _fd: int, _offset: int, _length: int) -> bool:
    return False


if __name__ == "__main__":
    OsFiles.punch = _refuse  # type: ignore[method-assign]
    _python, _flag, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
