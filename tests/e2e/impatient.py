"""
A farmer that tells of a slow disk, and takes it for quick again, sooner than others do.

    python -m tests.e2e.impatient python -m farmer.cli.owner ...

How long it takes usually is judged in `tests/storage/test_pace.py`, where no clock runs.
"""

from __future__ import annotations

import sys

from farmer.cli import owner
from farmer.storage import pace

SOONER_S = {"TOLD_AFTER_S": 20.0, "QUICK_FOR_S": 10.0}


def main() -> int:
    for name, time_s in SOONER_S.items():
        assert getattr(pace, name) > time_s
        setattr(pace, name, time_s)
    sys.argv[:] = sys.argv[3:]
    return owner.main()


if __name__ == "__main__":
    sys.exit(main())
