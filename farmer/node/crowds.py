"""Strangers by the networks they come from: who of them goes when all is full."""

from __future__ import annotations

from operator import attrgetter

from farmer.node.session import Guest

_SIZE = attrgetter("size")


class Crowd:
    """
    Strangers of a network, by the smaller networks in it.

    Whose place is to be given away is looked for among networks, not among all strangers.
    """

    __slots__ = ("_guests", "_parts", "size")

    def __init__(self) -> None:
        self.size = 0
        """How many there are."""
        self._guests: dict[Guest, None] = {}
        """Those who are in no smaller network, the oldest first."""
        self._parts: dict[str, Crowd] = {}

    def add(self, guest: Guest, where: tuple[str, ...]) -> None:
        """Note one that has come; *where* are its networks, the widest first."""
        if where:
            part = self._parts.get(where[0])
            if part is None:
                part = self._parts[where[0]] = Crowd()
            part.add(guest, where[1:])
        else:
            self._guests[guest] = None
        self.size += 1

    def discard(self, guest: Guest, where: tuple[str, ...]) -> bool:
        """Note that one is gone, or no stranger any more; tell whether it was here."""
        if where:
            part = self._parts.get(where[0])
            if part is None or not part.discard(guest, where[1:]):
                return False
            if not part.size:
                del self._parts[where[0]]
        elif guest in self._guests:
            del self._guests[guest]
        else:
            return False
        self.size -= 1
        return True

    def part(self, where: tuple[str, ...]) -> Crowd | None:
        """Return the strangers of a network, by all that it is in and itself; None: nobody."""
        if not where:
            return self
        part = self._parts.get(where[0])
        return None if part is None else part.part(where[1:])

    def oldest(self) -> Guest | None:
        """Return the oldest of the largest part of the largest part, and so on."""
        if not self._parts:
            return next(iter(self._guests), None)
        return max(self._parts.values(), key=_SIZE).oldest()
