"""The process's memory, each time in a process of its own: both switches are for ever."""

from __future__ import annotations

import subprocess
import sys

from tests.needs import on_linux

FULL_COLLECTIONS = """
import gc
from farmer.running.memory import collect_seldom
{switch}
before = gc.get_stats()[2]["collections"]
kept = [[[]] for _ in range(300_000)]
print(gc.get_stats()[2]["collections"] - before)
"""

HEAPS = """
import ctypes, os, re, sys, tempfile, threading
from farmer.running.memory import share_heaps
{switch}
barrier = threading.Barrier(9)
def work():
    kept = [bytes(5_000) for _ in range(100)]
    barrier.wait()
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
barrier.wait()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    out = ctypes.c_void_p(libc.fdopen(os.dup(file.fileno()), b"w"))
    libc.malloc_info(0, out)
    libc.fclose(out)
    print(len(re.findall(rb"<heap nr=", open(file.name, "rb").read())))
barrier.wait()
"""


def number(program: str, switch: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", program.format(switch=switch)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(ran.stdout)


def test_a_growing_farmer_is_not_looked_through_again_and_again() -> None:
    """As many objects as some thousand sessions have; Python's own way is several times."""
    assert number(FULL_COLLECTIONS, "collect_seldom()") == 0
    assert number(FULL_COLLECTIONS, "") > 1


@on_linux
def test_threads_share_two_heaps() -> None:
    """Eight threads would have eight more."""
    assert number(HEAPS, "assert share_heaps()") <= 2
    assert number(HEAPS, "") > 2
