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
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Protocol
from zlib import crc32

from farmer.storage.files import Access, Buffer, Filesystem

Op = tuple[str, int, bytes | int]
"""Which change, where in the file, and what or how long."""

BLOCK = 4096
INDEX = "index.sqlite"
MUTATING = frozenset(
    {"create", "pwritev", "begin_write_back", "sync_data", "sync_directory", "preallocate",
     "punch", "truncate", "rename", "unlink", "make_directory"}
)  # fmt: skip


class Watcher(Protocol):
    """Who hears of every call before it is done: counts, traces, crashes, lets others run."""

    def called(self, name: str, where: str, what: object = "") -> None:
        """May raise."""

    def struck(self, kind: str) -> None:
        """Hear that a fault has happened."""

    def betrayed(self, node: Node, where: str, lost: tuple[int, bytes], instead: int) -> None:
        """Hear, before it happens, of a write that goes nowhere, or (from 0 on) elsewhere."""


class Node:
    """One file."""

    __slots__ = (
        *(
            "blocks",
            "cached",
            "is_freed",
            "is_laid_out",
            "links",
            "lock",
            "lost_early",
            "number",
            "opened",
            "pending",
        ),
        "platter",
        "torn",
        "written_early",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.cached = bytearray()
        self.platter = bytearray()
        self.pending: list[Op] = []
        self.blocks: set[int] = set()
        self.links = 0
        self.opened = 0
        self.is_freed = False
        self.is_laid_out = False
        """Whether its space was taken before it was written."""
        self.lock: int | None = None
        self.lost_early = False
        """Whether write-back has failed: the next sync says so, once."""
        self.written_early: list[Op] = []
        """Of what is pending: no sync that lies can lose it."""
        self.torn: set[int] = set()
        """Blocks that a crash met half written or half punched: taken, or not."""


class Folder:
    """One directory: what is in it, and what is known to be in it after a crash."""

    __slots__ = ("durable", "names")

    def __init__(self) -> None:
        self.names: dict[str, Node | Folder] = {}
        self.durable: dict[str, Node | Folder] = {}


Change = tuple[Folder, str, Node | Folder | None]


@dataclass
class Drive:
    """One disk under one directory."""

    name: str
    size_bytes: int
    can_punch: bool = True
    top: Folder = field(default_factory=Folder)
    journal: list[list[Change]] = field(default_factory=list)
    used_bytes: int = 0
    others_bytes: int = 0
    """What somebody else has put on the same filesystem."""
    is_away: bool = False
    armed: dict[str, str] = field(default_factory=dict)
    """By call: what happens to the next one."""
    broken: int = 0
    """Errors of this many more writing calls, of all kinds."""

    @property
    def free_bytes(self) -> int:
        return max(0, self.size_bytes - self.used_bytes - self.others_bytes)

    @property
    def has_unsynced(self) -> bool:
        return bool(self.journal) or any(node.pending for node in self.nodes())

    def nodes(self) -> list[Node]:
        """Return all files, in the order of their names."""
        found: list[Node] = []
        rest = [self.top]
        while rest:
            for _, entry in sorted(rest.pop().names.items(), key=lambda item: item[0]):
                if isinstance(entry, Folder):
                    rest.append(entry)
                else:
                    found.append(entry)
        return found


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
        return bytes(memoryview(node.cached)[offset : offset + length])

    def pread_cached(self, fd: int, length: int, offset: int) -> bytes | None:
        """Memory holds it, or not: who knows."""
        node, drive, where = self._fds[fd]
        self._watcher.called("pread_cached", f"{drive.name}/{where}", (length, offset))
        is_well = not (drive.armed or drive.broken or drive.is_away)
        if not is_well or offset + length > len(node.cached) or self._rng.random() < 0.5:
            return None
        return bytes(memoryview(node.cached)[offset : offset + length])

    def pread_apart(self, fd: int, length: int, offset: int) -> bytes:
        return self.pread(fd, length, offset)

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
        node, _ = self._enter_fd("sync_data", fd)
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
        """Let later reads see the platter, as far as nothing is waiting to be written."""
        node, _ = self._enter_fd("uncache", fd, (offset, length))
        end = offset + length if length else len(node.cached)
        if not any(_touches(op, offset, end) for op in node.pending):
            node.cached[offset:end] = node.platter[offset:end].ljust(
                min(end, len(node.cached)) - offset, b"\0"
            )

    def sync_directory(self, path: Path) -> None:
        if path == self.root:
            return
        drive, where = self._enter("sync_directory", path)
        folder = self._folder(drive, where)
        kept = []
        for changes in drive.journal:
            if any(change[0] is folder for change in changes):
                for one in changes:
                    _enter_name(one)
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
        return not any(
            block in node.blocks
            for block in range(offset // BLOCK, -(-(offset + length) // BLOCK))
        )

    def truncate(self, fd: int, length: int) -> None:
        node, drive = self._enter_fd("truncate", fd, length)
        self._apply(node.cached, [("cut", length, 0)])
        node.pending.append(("cut", length, 0))
        gone = {block for block in node.blocks if block >= -(-length // BLOCK)}
        node.blocks -= gone
        node.torn = {block for block in node.torn if block < -(-length // BLOCK)}
        drive.used_bytes -= len(gone) * BLOCK

    def size(self, fd: int) -> int:
        return len(self._enter_fd("size", fd)[0].cached)

    def allocated(self, path: Path) -> int:
        drive, where = self._enter("allocated", path)
        if INDEX in where:
            return path.lstat().st_blocks * 512
        entry = self._find(drive, where)
        if entry is None:
            raise _error(errno.ENOENT, where)
        return BLOCK if isinstance(entry, Folder) else len(entry.blocks) * BLOCK

    def exists(self, path: Path) -> bool:
        drive, where = self._enter("exists", path)
        if drive.is_away:
            # What the farmer learns by this is trouble as much as a call that fails.
            self._watcher.struck("disk gone")
            return False
        return path.exists() if INDEX in where else self._find(drive, where) is not None

    def inode(self, place: Path | int) -> tuple[int, int]:
        if isinstance(place, int):
            if place not in self._fds:
                # Whoever compares may come after whoever closes.
                raise _error(errno.EBADF, str(place))
            node, drive = self._enter_fd("inode", place)
            return _number(drive), node.number
        drive, where = self._enter("inode", place)
        entry = self._find(drive, where)
        if entry is None:
            raise _error(errno.ENOENT, where)
        return _number(drive), entry.number if isinstance(entry, Node) else 0

    def list(self, path: Path) -> list[str]:
        drive, where = self._enter("list", path)
        folder = self._folder(drive, where)
        real = [INDEX] if folder is drive.top and (path / INDEX).exists() else []
        return sorted([*folder.names, *real])

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
        return Filesystem(drive.size_bytes, drive.free_bytes)

    def lock(self, fd: int) -> bool:
        node, _ = self._enter_fd("lock", fd)
        if node.lock is not None:
            return False
        node.lock = fd
        return True

    # What happens to disks.

    def crash(self) -> None:
        """Leave what the platters have, and any part of what was on its way to them."""
        self._fds.clear()
        self._last_fd_of_the_dead = self._next_fd
        for drive in self.drives.values():
            _Crash(self._rng, drive).happen()

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
        own = {
            "pwritev": {"short"},
            "begin_write_back": {"lost early"},
            "sync_data": {"EIO", "ENOSPC", "lost", "misdirected"},
        }[call]
        return drive.armed.pop(call) if drive.armed.get(call) in own else ""

    def _strike(self, drive: Drive, call: str) -> None:
        if not drive.armed and not drive.broken:
            return
        if drive.broken and call in MUTATING:
            drive.broken -= 1
            self._watcher.struck("broken disk")
            raise _error(errno.EIO, call)
        kind = drive.armed.pop(call, "")
        if not kind and call in {"open", "create"}:
            kind = drive.armed.pop("any open", "")
        if kind in {"slow", "hung"}:
            self._watcher.struck(kind)
            self._sleep(0.2 + 3 * self._rng.random() if kind == "slow" else 300.0)
        elif kind:
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
        drive.used_bytes += len(blocks) * BLOCK

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


class _Crash:
    """What one drive looks like after a crash."""

    def __init__(self, rng: Random, drive: Drive) -> None:
        self._rng = rng
        self._drive = drive
        self._share = rng.choice((0.0, 0.3, 0.7, 1.0))
        """Of what was not synced, how much survives."""
        self._seen: set[int] = set()

    def happen(self) -> None:
        for changes in self._drive.journal:
            if self._survives():
                for one in changes:
                    _enter_name(one)
        self._drive.journal.clear()
        self._drive.used_bytes = 0
        self._drive.armed.clear()
        self._drive.broken = 0
        self._folder(self._drive.top)

    def _survives(self) -> bool:
        return self._rng.random() < self._share

    def _folder(self, folder: Folder) -> None:
        # A name that two changes fought over may be left in two places: one of them counts.
        for name, entry in sorted(folder.durable.items(), key=lambda item: item[0]):
            if isinstance(entry, Folder):
                self._folder(entry)
            elif entry.number in self._seen:
                del folder.durable[name]
            else:
                self._seen.add(entry.number)
                self._file(entry)
        folder.names = dict(folder.durable)

    def _file(self, node: Node) -> None:
        kept = []
        for op in node.pending:
            _note_torn(node, op)
            if not self._survives():
                kept += self._undone(node, op)
            elif op[0] == "write" and self._rng.random() < 0.4:
                kept += self._torn(op[1], op[2])  # type: ignore[arg-type]
            else:
                kept.append(op)
        if self._rng.random() < 0.5:
            self._rng.shuffle(kept)
        for op in kept:
            apply(node.platter, op)
        node.pending.clear()
        if node.cached != node.platter:
            node.cached = bytearray(node.platter)
        node.opened, node.links, node.lock, node.is_freed = 0, 1, None, False
        node.lost_early, node.written_early = False, []
        node.blocks = _taken(node)
        self._drive.used_bytes += len(node.blocks) * BLOCK

    def _undone(self, node: Node, op: Op) -> list[Op]:
        """Return what is left of a change that did not survive; space given back is taken."""
        kind, at, what = op
        if kind == "write" and self._rng.random() < 0.2:
            return [("size", at + len(what), 0)]  # type: ignore[arg-type]
        if kind == "punch":
            node.blocks |= set(range(at // BLOCK, -(-(at + what) // BLOCK)))  # type: ignore[operator]
        if kind == "cut":
            node.blocks |= set(range(at // BLOCK, -(-len(node.platter) // BLOCK)))
        return []

    def _torn(self, offset: int, raw: bytes) -> list[Op]:
        unit = self._rng.choice((512, BLOCK))
        end = offset + len(raw)
        edges = [offset, *range((offset // unit + 1) * unit, end, unit), end]
        pieces = list(pairwise(edges))
        if self._rng.random() < 0.5:
            pieces = pieces[: int(self._rng.random() * (len(pieces) + 1))]
        else:
            pieces = [one for one in pieces if self._rng.random() < 0.5]
        return [("write", start, raw[start - offset : stop - offset]) for start, stop in pieces]


def _taken(node: Node) -> set[int]:
    """
    Return the blocks that are taken: not those to which the only write was lost.

    But whatever holds something is taken, also where the punching of it went with a failed sync.
    """
    platter = node.platter
    end = -(-len(platter) // BLOCK)
    taken = {block for block in node.blocks if block < end} if node.is_laid_out else set()
    zeros = bytes(BLOCK)
    for block in range(end):
        held = platter[block * BLOCK : (block + 1) * BLOCK]
        if held != zeros[: len(held)]:
            taken.add(block)
    return taken


def _touches(op: Op, start: int, end: int) -> bool:
    kind, at, what = op
    if kind in {"cut", "size"}:
        return at < end
    return at < end and start < at + (len(what) if isinstance(what, bytes) else what)


def _note_torn(node: Node, op: Op) -> None:
    kind, at, what = op
    if kind in {"write", "punch"}:
        length = len(what) if isinstance(what, bytes) else what
        node.torn |= set(range(at // BLOCK, -(-(at + length) // BLOCK)))


def apply(side: bytearray, op: Op) -> None:
    """Carry one change of a file's bytes out."""
    kind, at, what = op
    if kind == "write":
        assert isinstance(what, bytes)
        if at > len(side):
            side.extend(bytes(at - len(side)))
        side[at : at + len(what)] = what
    elif kind == "punch":
        assert isinstance(what, int)
        end = min(at + what, len(side))
        if end > at:
            side[at:end] = bytes(end - at)
    elif kind == "cut":
        if at < len(side):
            del side[at:]
        else:
            side.extend(bytes(at - len(side)))
    elif at > len(side):
        side.extend(bytes(at - len(side)))


def _number(drive: Drive) -> int:
    return sum(drive.name.encode())


def _enter_name(change: Change) -> None:
    folder, name, entry = change
    if entry is None:
        folder.durable.pop(name, None)
    else:
        folder.durable[name] = entry


def _error(number: int, where: str) -> OSError:
    return OSError(number, os.strerror(number), where)
