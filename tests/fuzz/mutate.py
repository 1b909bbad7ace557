"""Changing bytes: the moves of a mutation fuzzer, all drawn from one seeded source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")

BYTES: Final = (0x00, 0x01, 0x02, 0x03, 0x04, 0x10, 0x20, 0x40, 0x7E, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS: Final = (
    *(0, 1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 127, 128, 255, 256, 1000, 1001, 1023, 1024, 1025),
    *(4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1, 1 << 24, 1 << 30),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 62),
    *((1 << 63) - 4097, (1 << 63) - 2, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1),
)
WIDTHS: Final = (1, 2, 2, 3, 4, 4, 8, 8)
CHUNK_MAX: Final = 64


class Picker:
    """Draws; the same seed draws the same."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)
        self.chance = self._random.random

    def below(self, limit: int) -> int:
        """Return a number from 0 to *limit* - 1."""
        return int(self.chance() * limit)

    def one(self, things: Sequence[T]) -> T:
        """Return one of these."""
        return things[int(self.chance() * len(things))]

    def noise(self, size: int) -> bytes:
        """Return random bytes."""
        return self._random.randbytes(size)


def havoc(pick: Picker, data: bytes, other: bytes, *, grow: bool = True) -> bytes:
    """Return *data* after one to a few moves; with *grow* false the length stays."""
    changed = bytearray(data)
    moves = GROWING if grow else STAYING
    for _ in range(1 + int(4 * pick.chance() ** 3)):
        if changed:
            pick.one(moves)(pick, changed, other)
        else:
            changed += pick.noise(pick.below(4)) + other[: pick.below(CHUNK_MAX)]
    return bytes(changed)


def _flip(pick: Picker, data: bytearray, _other: bytes) -> None:
    data[pick.below(len(data))] ^= 1 << pick.below(8)


def _set(pick: Picker, data: bytearray, _other: bytes) -> None:
    data[pick.below(len(data))] = pick.one(BYTES)


def _number(pick: Picker, data: bytearray, _other: bytes) -> None:
    width = min(pick.one(WIDTHS), len(data))
    at = pick.below(len(data) - width + 1)
    data[at : at + width] = (pick.one(NUMBERS) % (1 << 8 * width)).to_bytes(width, "big")


def _nudge(pick: Picker, data: bytearray, _other: bytes) -> None:
    """Add a little to a number: one too many is the mistake that is made most."""
    width = min(pick.one(WIDTHS), len(data))
    at = pick.below(len(data) - width + 1)
    value = int.from_bytes(data[at : at + width], "big") + pick.below(9) - 4
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "big")


def _noise(pick: Picker, data: bytearray, _other: bytes) -> None:
    size = min(1 + pick.below(16), len(data))
    at = pick.below(len(data) - size + 1)
    data[at : at + size] = pick.noise(size)


def _overwrite(pick: Picker, data: bytearray, other: bytes) -> None:
    """Put a piece of another input, or of this one, over something."""
    source = other if other and pick.chance() < 0.5 else data
    size = min(1 + pick.below(CHUNK_MAX), len(data), len(source))
    start, at = pick.below(len(source) - size + 1), pick.below(len(data) - size + 1)
    data[at : at + size] = source[start : start + size]


def _wipe(pick: Picker, data: bytearray, _other: bytes) -> None:
    size = min(1 + pick.below(CHUNK_MAX), len(data))
    at = pick.below(len(data) - size + 1)
    data[at : at + size] = bytes(size)


def _cut(pick: Picker, data: bytearray, _other: bytes) -> None:
    del data[pick.below(len(data)) :]


def _remove(pick: Picker, data: bytearray, _other: bytes) -> None:
    at = pick.below(len(data))
    del data[at : at + 1 + pick.below(CHUNK_MAX)]


def _insert(pick: Picker, data: bytearray, other: bytes) -> None:
    source = other if other and pick.chance() < 0.7 else data
    start, at = pick.below(len(source)), pick.below(len(data) + 1)
    data[at:at] = source[start : start + 1 + pick.below(CHUNK_MAX)]


def _append(pick: Picker, data: bytearray, other: bytes) -> None:
    data += other[: 1 + pick.below(CHUNK_MAX)] if pick.chance() < 0.5 else b"\0"


Move = Callable[[Picker, bytearray, bytes], None]
STAYING: Final[tuple[Move, ...]] = (
    _flip,
    _set,
    _number,
    _number,
    _nudge,
    _noise,
    _overwrite,
    _wipe,
)
GROWING: Final[tuple[Move, ...]] = (*STAYING, *STAYING, _cut, _remove, _insert, _append)


def change_steps(pick: Picker, steps: list[bytes], others: list[bytes]) -> list[bytes]:
    """Return the steps of a program after a few were dropped, doubled, swapped or replaced."""
    changed = list(steps)
    for _ in range(1 + pick.below(3)):
        at = pick.below(len(changed) + 1)
        match pick.below(6):
            case 0:
                del changed[at : at + 1 + pick.below(3)]
            case 1 if changed:
                changed[at:at] = [pick.one(changed)]
            case 2 if len(changed) > 1:
                here, there = pick.below(len(changed)), pick.below(len(changed))
                changed[here], changed[there] = changed[there], changed[here]
            case 3 if at < len(changed):
                changed[at] = havoc(pick, changed[at], b"", grow=False)
            case _ if others:
                changed[at:at] = [pick.one(others)]
    return changed
