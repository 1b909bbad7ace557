"""Giving the space of single records back: a hole in their segment, or the end of their file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from farmer.storage.files import Access
from farmer.storage.ground import Ground
from farmer.storage.handles import Handles
from farmer.storage.places import Doomed
from farmer.storage.vouching import astray, is_index_wrong, mistaken


class Releaser:
    """One volume's; from any thread."""

    def __init__(self, ground: Ground, handles: Handles) -> None:
        self._ground = ground
        self._handles = handles
        self.makes_holes = True
        """Whether no hole was refused yet: where one is, all are, and the log is compacted."""

    def release(self, doomed: Sequence[Doomed]) -> list[Doomed]:
        """Give back what nobody reads, durably; return what was given back."""
        released: list[Doomed] = []
        free = [one for one in doomed if not self._handles.is_pinned(one.place)]
        free.sort(key=where)
        for number, group in groupby(free, key=lambda one: one.place.segment):
            if number and not self.makes_holes:
                continue
            records = list(group)
            try:
                released += self._punch(number, records) if number else self._unlink(records)
            except OSError:
                self._ground.health.count("reclaim")
        return released

    def _punch(self, number: int, records: Sequence[Doomed]) -> list[Doomed]:
        files = self._ground.files
        fd = files.open(self._ground.paths.segment(number), Access.WRITE)
        try:
            done = []
            for stretch in _stretches(self._vouched_for(number, fd, records)):
                length = sum(one.length for one in stretch)
                if not files.punch(fd, stretch[0].place.offset, length):
                    self.makes_holes = False
                    break
                done += stretch
            if done:
                files.sync_data(fd)
        finally:
            files.close(fd)
        return done

    def _vouched_for(self, number: int, fd: int, records: Sequence[Doomed]) -> list[Doomed]:
        """Return what the log has where the index says; one that errs about the rest must go."""
        ground = self._ground
        log = ground.files, fd, ground.volume, number
        wrong = astray(*log, records)
        if wrong and is_index_wrong(*log, wrong, ground.index):
            ground.index_is_wrong(mistaken(number))
        there = [one.record for one in wrong]
        return [one for one in records if one not in there]

    def _unlink(self, records: Iterable[Doomed]) -> list[Doomed]:
        files, paths, done = self._ground.files, self._ground.paths, []
        touched = set()
        for one in records:
            self._handles.forget(one.place)
            # Both names, and in this order: the writer may move it out of staging meanwhile, and
            # an earlier try may have removed the one or the other without making that durable.
            for path in (paths.part(one.place.file), paths.shard(one.place.file)):
                files.unlink(path)
                if files.exists(path.parent):
                    touched.add(path.parent)
            done.append(one)
        for directory in sorted(touched):
            files.sync_directory(directory)
        return done


def where(record: Doomed) -> tuple[int, int]:
    """Return what sorts records as they lie."""
    return record.place.segment, record.place.offset


def _stretches(records: Iterable[Doomed]) -> Iterator[list[Doomed]]:
    """Yield records of one segment, in order, by what stands without a gap: one hole, not many."""
    stretch: list[Doomed] = []
    end = 0
    for record in records:
        if stretch and record.place.offset != end:
            yield stretch
            stretch = []
        stretch.append(record)
        end = record.place.offset + record.length
    if stretch:
        yield stretch
