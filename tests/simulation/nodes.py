"""What a simulated disk consists of: files, folders and drives, and changes to them."""

from __future__ import annotations

from dataclasses import dataclass, field

Op = tuple[str, int, bytes | int]
"""Which change, where in the file, and what or how long."""

BLOCK = 4096


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
    quota_bytes: int = 1 << 60
    """Of the volume on it."""
    used_bytes: int = 0
    index_bytes: int = 0
    """What the index takes, which is not among the files here."""
    excess_bytes: int = 0
    """The most by which the quota was ever exceeded."""
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

    def take(self, blocks: int) -> None:
        """Let some more be taken."""
        self.used_bytes += blocks * BLOCK
        self.compare()

    def compare(self) -> None:
        """Note whether more is taken than the quota."""
        excess_bytes = self.used_bytes + self.index_bytes - self.quota_bytes
        self.excess_bytes = max(self.excess_bytes, excess_bytes)

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


def enter_name(change: Change) -> None:
    """Carry one change of a directory out, as a crash will leave it."""
    folder, name, entry = change
    if entry is None:
        folder.durable.pop(name, None)
    else:
        folder.durable[name] = entry
