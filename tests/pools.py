"""Processes that share the jobs of a long proof."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool


@contextmanager
def to_its_end(pool: Pool) -> Iterator[Pool]:
    """
    Let a pool end by itself when its work is done.

    Left to its own `with`, it is terminated: a process that it begins in that moment, for one
    that has done its share, waits for ever, and so does who waits for it.
    """
    try:
        yield pool
    except BaseException:
        pool.terminate()
        raise
    pool.close()
    pool.join()
