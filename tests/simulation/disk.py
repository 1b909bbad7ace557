"""
A disk that can do what disks do: `farmer.storage.files.Files`, in memory, with a page cache.

What is written lies in the page cache (`Node.cached`) and on a list of what is not synced;
a sync carries the list over to the platter.  At a crash the list loses any part of itself:

    bytes   each unsynced write survives, or not, or torn at 512 or 4096 bytes, in any order
    size    a file may have grown without the bytes (they read as zeros), or not
    names   each create, rename and unlink since the directory was last synced survives or not
            (a rename wholly or not at all); syncing a file does not make its name durable

which is more than ext4 or xfs would do, and nothing that POSIX forbids.  After a failed sync
the cache shows the new bytes, calls them clean, and the platter has some of them or none
(fsyncgate).  What was begun early is in part on the platter before any sync, or lost, which
the next sync says once.  Files of SQLite are not here but real ones (see `databases`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol
from zlib import crc32

from farmer.storage.files import FOLIO_BYTES_MAX, Access, Buffer, Filesystem, whole_folios
from tests.simulation.nodes import BLOCK, Drive, Folder, Node, Op, apply, enter_name
from tests.simulation.power_cut import PowerCut

INDEX = "index.sqlite"
MUTATING = frozenset(
    {"create", "pwritev", "begin_write_back", "sync_data", "sync_directory", "preallocate",
     "punch", "truncate", "rename", "unlink", "make_directory"}
)  # fmt: skip


CARRIED_OUT = {
    "pwritev": {"short"},
    "begin_write_back": {"lost early"},
    "sync_data": {"EIO", "ENOSPC", "lost", "misdirected"},
}
"""By call: the faults that it has to carry out itself; all others are errors before it begins."""


FOLIOS_BYTES = (FOLIO_BYTES_MAX, 16 * BLOCK, BLOCK)
"""What memory forgets at once: of one file so much, of another so much."""


class Watcher(Protocol):
    """Who hears of every call before it is done: counts, traces, crashes, lets others run."""

    def called(self, name: str, where: str, what: object = "") -> None:
        """May raise."""

    def answered(self, what: object) -> None:
        """Hear what a call returned: what it read, or a checksum of that."""

    def struck(self, kind: str) -> None:
        """Hear that a fault has happened."""

    def befell(self, kind: str) -> None:
        """Hear of something that excuses nothing, for it is what a crash leaves."""

    def betrayed(self, node: Node, where: str, lost: tuple[int, bytes], instead: int) -> None:
        """Hear, before it happens, of a write that goes nowhere, or (from 0 on) elsewhere."""


class SimDisk:
    """All drives below one directory."""

    def __init__(self, root: Path, rng: Random, watcher: Watcher, sleep: Callable[[float], None]):
        self.root = root
        self.drives: dict[str, Drive] = {}
        self._rng = rng
        self._watcher = watcher
        self._sleep = sleep
        self._cut = len(str(root)) + 1
        self._fds: dict[int, tuple[Node, Drive, str]] = {}
        self._next_fd = 100
        self._last_fd_of_the_dead = 0
        self._next_node = 1

    def add_drive(self, name: str, size_bytes: int, *, can_punch: bool) -> Drive:
        drive = self.drives[name] = Drive(name, size_bytes, can_punch)
        return drive

    # The port.

    def open(self, path: Path, access: Access) -> int:
        drive, where = self._enter("create" if access is Access.CREATE else "open", path)
        folder, name = self._parent(drive, where)
        entry = folder.names.get(name)
        if isinstance(entry, Folder):
            raise _error(errno.EISDIR, where)
        if entry is None:
            if access in (Access.READ, Access.WRITE):
                raise _error(errno.ENOENT, where)
            entry = Node(self._next_node)
            self._next_node += 1
            entry.links = 1
            folder.names[name] = entry
            drive.journal.append([(folder, name, entry)])
        elif access is Access.CREATE:
            raise _error(errno.EEXIST, where)
        self._next_fd += 1
        self._fds[self._next_fd] = (entry, drive, where)
        entry.opened += 1
        self._watcher.answered(entry.number)
        return self._next_fd

    def close(self, fd: int) -> None:
        if fd <= self._last_fd_of_the_dead:
            # A generator of an earlier life is only now thrown away.
            return
        node, drive, where = self._fds.pop(fd)
        node.opened -= 1
        if node.lock == fd:
            node.lock = None
        self._forget_if_unused(drive, node)
        self._watcher.called("close", where)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        node, _ = self._enter_fd("pread", fd, (length, offset))
        return self._read(node, length, offset)

    def pread_cached(self, fd: int, length: int, offset: int) -> bytes | None:
        """Memory holds it, or not: who knows."""
        node, drive, where = self._fds[fd]
        self._watcher.called("pread_cached", f"{drive.name}/{where}", (length, offset))
        is_well = not (drive.armed or drive.broken or drive.is_away)
        if not is_well or offset + length > len(node.cached) or self._rng.random() < 0.5:
            self._watcher.answered(None)
            return None
        return self._read(node, length, offset)

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        node, _ = self._enter_fd("pread_apart", fd, (length, offset))
        return self._read(node, length, offset)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        raw = b"".join(buffers)
        fault = self._due("pwritev", fd)
        node, drive = self._enter_fd("pwritev", fd, (offset, len(raw), crc32(raw)))
        if fault == "short":
            self._watcher.struck("short write")
            raw = raw[: int(self._rng.random() * len(raw))]
        room = self._room(drive, node, offset, len(raw))
        if room < len(raw):
            self._watcher.struck("ENOSPC at write")
        self._write(drive, node, offset, raw[:room])
        if fault == "short":
            raise _error(errno.EIO, "short write")
        if room < len(raw):
            raise _error(errno.ENOSPC, "write")

    def sync_data(self, fd: int) -> None:
        fault = self._due("sync_data", fd)
        waiting = sum(op[0] == "write" for op in self._fds[fd][0].pending)
        node, _ = self._enter_fd("sync_data", fd, waiting)
        if fault in {"EIO", "ENOSPC"} and node.pending:
            self._watcher.struck(f"{fault} at fsync")
            written = [op for op in node.pending if op[0] == "write"]
            self._fail_to_write(node, written)
            # A hole or a length is for the file system's journal, which no failed page concerns.
            node.pending = [op for op in node.pending if op[0] != "write"]
            node.written_early, node.lost_early = [], False
            raise _error(errno.EIO if fault == "EIO" else errno.ENOSPC, "fsync")
        pending, node.pending = node.pending, []
        early, node.written_early = node.written_early, []
        if pending and fault in {"lost", "misdirected"}:
            pending = self._betray(node, self._fds[fd][2], pending, fault, early)
        self._apply(node.platter, pending)
        if node.lost_early:
            # The rest was written; what was not is clean, and nobody will try again.
            node.lost_early = False
            raise _error(errno.EIO, "fsync")

    def begin_write_back(self, fd: int, offset: int, length: int) -> None:
        """Some of what was written there is on the platter, which no sync has said yet."""
        fault = self._due("begin_write_back", fd)
        node, _ = self._enter_fd("begin_write_back", fd, (offset, length))
        end = offset + length
        begun = [op for op in node.pending if op[0] == "write" and _touches(op, offset, end)]
        if fault and begun:
            self._watcher.struck("EIO in write-back")
            self._fail_to_write(node, begun)
            node.pending = [op for op in node.pending if op not in begun]
            node.lost_early = True
        else:
            early = [op for op in begun if self._rng.random() < 0.5]
            self._apply(node.platter, early)
            node.written_early += early

    def uncache(self, fd: int, offset: int, length: int) -> None:
        """
        Let later reads see the platter, as Linux does for `OsFiles`.

        It forgets whole folios alone: none that reaches beyond the range, and none of which any
        byte is waiting to be written.
        """
        node, _ = self._enter_fd("uncache", fd, (offset, length))
        start, length = whole_folios(offset, length)
        end = min(start + length, len(node.cached)) if length else len(node.cached)
        size = FOLIOS_BYTES[node.number % len(FOLIOS_BYTES)]
        for at in range(-(-start // size) * size, end, size):
            stop = at + size
            is_beyond = length and stop > start + length
            if not is_beyond and not any(_touches(op, at, stop) for op in node.pending):
                stop = min(stop, end)
                node.cached[at:stop] = node.platter[at:stop].ljust(stop - at, b"\0")

    def sync_directory(self, path: Path) -> None:
        if path == self.root:
            return
        drive, where = self._enter("sync_directory", path)
        folder = self._folder(drive, where)
        kept = []
        for changes in drive.journal:
            if any(change[0] is folder for change in changes):
                for one in changes:
                    enter_name(one)
            else:
                kept.append(changes)
        drive.journal = kept

    def preallocate(self, fd: int, length: int) -> None:
        node, drive = self._enter_fd("preallocate", fd, length)
        wanted = set(range(-(-length // BLOCK))) - node.blocks
        node.is_laid_out = True
        if len(wanted) * BLOCK > drive.free_bytes:
            self._watcher.struck("ENOSPC at write")
            raise _error(errno.ENOSPC, "fallocate")
        self._take(drive, node, wanted)
        if length > len(node.cached):
            node.cached.extend(bytes(length - len(node.cached)))
            node.pending.append(("size", length, 0))

    def punch(self, fd: int, offset: int, length: int) -> bool:
        if not self._fds[fd][1].can_punch:
            self._watcher.answered(("no holes", self._fds[fd][2], offset, length))
            return False
        node, drive = self._enter_fd("punch", fd, (offset, length))
        gone = set(range(-(-offset // BLOCK), (offset + length) // BLOCK)) & node.blocks
        self._apply(node.cached, [("punch", offset, length)])
        # What was a hole before stays one, whatever a crash does to this call.
        node.pending += [("punch", block * BLOCK, BLOCK) for block in sorted(gone)]
        node.blocks -= gone
        node.torn -= gone
        drive.used_bytes -= len(gone) * BLOCK
        return True

    def is_hole(self, fd: int, offset: int, length: int) -> bool:
        node, _ = self._enter_fd("is_hole", fd, (offset, length))
        last = -(-(offset + length) // BLOCK)
        is_one = not any(block in node.blocks for block in range(offset // BLOCK, last))
        self._watcher.answered(is_one)
        return is_one

    def truncate(self, fd: int, length: int) -> None:
        node, drive = self._enter_fd("truncate", fd, length)
        self._apply(node.cached, [("cut", length, 0)])
        node.pending.append(("cut", length, 0))
        gone = {block for block in node.blocks if block >= -(-length // BLOCK)}
        node.blocks -= gone
        node.torn = {block for block in node.torn if block < -(-length // BLOCK)}
        drive.used_bytes -= len(gone) * BLOCK

    def size(self, fd: int) -> int:
        size = len(self._enter_fd("size", fd)[0].cached)
        self._watcher.answered(size)
        return size

    def allocated(self, path: Path) -> int:
        drive, where = self._enter("allocated", path)
        if INDEX in where:
            taken = path.lstat().st_blocks * 512
        else:
            entry = self._find(drive, where)
            if entry is None:
                raise _error(errno.ENOENT, where)
            taken = BLOCK if isinstance(entry, Folder) else len(entry.blocks) * BLOCK
        self._watcher.answered(taken)
        return taken

    def exists(self, path: Path) -> bool:
        drive, where = self._enter("exists", path)
        if drive.is_away:
            # What the farmer learns by this is trouble as much as a call that fails.
            self._watcher.struck("disk gone")
            return False
        is_there = path.exists() if INDEX in where else self._find(drive, where) is not None
        self._watcher.answered(is_there)
        return is_there

    def inode(self, place: Path | int) -> tuple[int, int]:
        if isinstance(place, int):
            if place not in self._fds:
                # Whoever compares may come after whoever closes.
                raise _error(errno.EBADF, str(place))
            node, drive = self._enter_fd("inode", place)
            self._watcher.answered(node.number)
            return _number(drive), node.number
        drive, where = self._enter("inode", place)
        entry = self._find(drive, where)
        if entry is None:
            raise _error(errno.ENOENT, where)
        number = entry.number if isinstance(entry, Node) else 0
        self._watcher.answered(number)
        return _number(drive), number

    def list(self, path: Path) -> list[str]:
        drive, where = self._enter("list", path)
        folder = self._folder(drive, where)
        real = [INDEX] if folder is drive.top and (path / INDEX).exists() else []
        names = sorted([*folder.names, *real])
        self._watcher.answered(names)
        return names

    def make_directory(self, path: Path) -> None:
        drive, where = self._enter("make_directory", path)
        if not where:
            return
        folder, name = self._parent(drive, where)
        if name not in folder.names:
            folder.names[name] = fresh = Folder()
            drive.journal.append([(folder, name, fresh)])

    def rename(self, source: Path, target: Path) -> None:
        drive, here = self._enter("rename", source, target.name)
        if INDEX in here:
            source.rename(target)
            return
        there = self._inside(target)[1]
        old_folder, old = self._parent(drive, here)
        new_folder, new = self._parent(drive, there)
        if old not in old_folder.names:
            raise _error(errno.ENOENT, here)
        replaced = new_folder.names.get(new)
        entry = old_folder.names.pop(old)
        new_folder.names[new] = entry
        drive.journal.append([(old_folder, old, None), (new_folder, new, entry)])
        if isinstance(replaced, Node):
            replaced.links -= 1
            self._forget_if_unused(drive, replaced)

    def unlink(self, path: Path) -> None:
        drive, where = self._enter("unlink", path)
        if INDEX in where:
            path.unlink(missing_ok=True)
            return
        try:
            folder, name = self._parent(drive, where)
        except FileNotFoundError:
            return
        entry = folder.names.get(name)
        if entry is None:
            return
        assert isinstance(entry, Node)
        del folder.names[name]
        drive.journal.append([(folder, name, None)])
        entry.links -= 1
        self._forget_if_unused(drive, entry)

    def filesystem(self, path: Path) -> Filesystem:
        drive, _ = self._enter("filesystem", path)
        self._watcher.answered(drive.free_bytes)
        return Filesystem(drive.size_bytes, drive.free_bytes)

    def lock(self, fd: int) -> bool:
        node, _ = self._enter_fd("lock", fd)
        is_free = node.lock is None
        self._watcher.answered(is_free)
        if is_free:
            node.lock = fd
        return is_free

    # What happens to disks.

    def crash(self) -> None:
        """Leave what the platters have, and any part of what was on its way to them."""
        self._fds.clear()
        self._last_fd_of_the_dead = self._next_fd
        for drive in self.drives.values():
            PowerCut(self._rng, drive, self._watcher.befell).happen()

    def exit(self) -> None:
        """Let the process go: its descriptors and locks, nothing else."""
        for node, drive, _ in self._fds.values():
            node.opened, node.lock = 0, None
            self._forget_if_unused(drive, node)
        self._fds.clear()
        self._last_fd_of_the_dead = self._next_fd

    def rot(self, node: Node, offset: int) -> None:
        """Let one byte change, on the platter and, as after an eviction, in the cache."""
        bit = 1 << int(self._rng.random() * 8)
        for side in (node.cached, node.platter):
            if offset < len(side):
                side[offset] ^= bit
        self._watcher.struck("rot")

    def path_of(self, drive: Drive, node: Node) -> str:
        """Return where a file is, from the drive's top."""
        rest: list[tuple[str, Folder]] = [("", drive.top)]
        while rest:
            prefix, folder = rest.pop()
            for name, entry in folder.names.items():
                if entry is node:
                    return prefix + name
                if isinstance(entry, Folder):
                    rest.append((f"{prefix}{name}/", entry))
        return ""

    # How it works.

    def _inside(self, path: Path) -> tuple[Drive, str]:
        name, _, where = str(path)[self._cut :].partition("/")
        return self.drives[name], where

    def _enter(self, call: str, path: Path, more: object = "") -> tuple[Drive, str]:
        drive, where = self._inside(path)
        self._watcher.called(call, f"{drive.name}/{where}", more)
        if drive.is_away and call != "exists":
            self._watcher.struck("disk gone")
            raise _error(errno.ENOENT, where)
        self._strike(drive, call)
        return drive, where

    def _enter_fd(self, call: str, fd: int, more: object = "") -> tuple[Node, Drive]:
        node, drive, where = self._fds[fd]
        self._watcher.called(call, f"{drive.name}/{where}", more)
        if drive.is_away:
            self._watcher.struck("disk gone")
            raise _error(errno.EIO, where)
        self._strike(drive, call)
        return node, drive

    def _due(self, call: str, fd: int) -> str:
        """Return the fault that the call itself has to carry out, if one is due."""
        drive = self._fds[fd][1]
        return drive.armed.pop(call) if _carries_out(call, drive) else ""

    def _strike(self, drive: Drive, call: str) -> None:
        if not drive.armed and not drive.broken:
            return
        if drive.broken and call in MUTATING:
            drive.broken -= 1
            self._watcher.struck("broken disk")
            raise _error(errno.EIO, call)
        # One that became due since the call began, while another strand ran, is the next call's.
        kind = "" if _carries_out(call, drive) else drive.armed.pop(call, "")
        if not kind and call in {"open", "create"}:
            kind = drive.armed.pop("any open", "")
        if kind in {"slow", "hung"}:
            self._watcher.struck(kind)
            self._sleep(0.2 + 3 * self._rng.random() if kind == "slow" else 300.0)
        elif kind:
            if (call, kind) == ("pread", "EIO"):
                # A bad spot, which is one for whoever reads it apart as well.
                drive.armed["pread_apart"] = kind
            self._watcher.struck(f"{kind} at {call}")
            raise _error(getattr(errno, kind), call)

    def _find(self, drive: Drive, where: str) -> Node | Folder | None:
        entry: Node | Folder | None = drive.top
        if where:
            for part in where.split("/"):
                if not isinstance(entry, Folder):
                    return None
                entry = entry.names.get(part)
        return entry

    def _folder(self, drive: Drive, where: str) -> Folder:
        found = self._find(drive, where)
        if not isinstance(found, Folder):
            raise _error(errno.ENOENT, where)
        return found

    def _parent(self, drive: Drive, where: str) -> tuple[Folder, str]:
        above, _, name = where.rpartition("/")
        return self._folder(drive, above), name

    def _read(self, node: Node, length: int, offset: int) -> bytes:
        raw = bytes(memoryview(node.cached)[offset : offset + length])
        self._watcher.answered(crc32(raw))
        return raw

    def _room(self, drive: Drive, node: Node, offset: int, length: int) -> int:
        """Take blocks for a write; return how much of it fits."""
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        wanted = [block for block in range(first, last) if block not in node.blocks]
        have = drive.free_bytes // BLOCK
        if len(wanted) <= have:
            self._take(drive, node, set(wanted))
            return length
        self._take(drive, node, set(wanted[:have]))
        return max(0, wanted[have] * BLOCK - offset)

    def _take(self, drive: Drive, node: Node, blocks: set[int]) -> None:
        node.blocks |= blocks
        drive.take(len(blocks))

    def _write(self, drive: Drive, node: Node, offset: int, raw: bytes) -> None:
        del drive
        if raw:
            self._apply(node.cached, [("write", offset, raw)])
            node.pending.append(("write", offset, raw))
            node.torn -= set(range(-(-offset // BLOCK), (offset + len(raw)) // BLOCK))

    def _apply(self, side: bytearray, ops: Sequence[Op]) -> None:
        for op in ops:
            apply(side, op)

    def _fail_to_write(self, node: Node, lost: Sequence[Op]) -> None:
        """Let the platter have some of it; the pages are clean, and no sync tries them again."""
        self._apply(node.platter, [one for one in lost if self._rng.random() < 0.3])

    def _betray(
        self, node: Node, where: str, pending: list[Op], how: str, early: list[Op]
    ) -> list[Op]:
        """Lose one write that the sync says it made, or put it in a wrong place."""
        writes = [one for one in pending if one[0] == "write" and one not in early]
        if not writes:
            return pending
        lost = writes[int(self._rng.random() * len(writes))]
        offset, raw = lost[1], lost[2]
        assert isinstance(raw, bytes)
        at = -1
        if how == "misdirected" and len(node.platter) > BLOCK:
            at = int(self._rng.random() * (len(node.platter) // BLOCK)) * BLOCK
        self._watcher.struck("write lost though synced" if at < 0 else "misdirected write")
        self._watcher.betrayed(node, where, (offset, raw), at)
        if at >= 0:
            what_fits = ("write", at, raw[: len(node.platter) - at])
            apply(node.platter, what_fits)
            apply(node.cached, what_fits)
        return [one for one in pending if one is not lost]

    def _forget_if_unused(self, drive: Drive, node: Node) -> None:
        if not node.links and not node.opened and not node.is_freed:
            drive.used_bytes -= len(node.blocks) * BLOCK
            node.is_freed = True


def _touches(op: Op, start: int, end: int) -> bool:
    kind, at, what = op
    if kind in {"cut", "size"}:
        return at < end
    return at < end and start < at + (len(what) if isinstance(what, bytes) else what)


def _carries_out(call: str, drive: Drive) -> bool:
    """Say whether what is armed for a call is a fault that it carries out itself."""
    return drive.armed.get(call) in CARRIED_OUT.get(call, ())


def _number(drive: Drive) -> int:
    return sum(drive.name.encode())


def _error(number: int, where: str) -> OSError:
    return OSError(number, os.strerror(number), where)
