"""
A filesystem without holes: there the live records of a sparse segment are written again.

Run as a program it runs a command of ours, `python -m MODULE ARGUMENT ...`, as on such a one.
"""

from __future__ import annotations

import runpy
import sys

from farmer.storage.files import OsFiles


class WithoutHoles(OsFiles):
    """A filesystem that cannot punch."""

    def punch(self, fd: int, offset: int, length: int) -> bool:
        """Refuse."""
        del fd, offset, length
        return False


if __name__ == "__main__":
    OsFiles.punch = WithoutHoles.punch  # type: ignore[method-assign]
    _python, _flag, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
