"""Sizes, durations, moments and money as people write them, and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, Self

SIZE_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}
"""SI by default, as disks are sold; the binary ones for those who mean them."""

DURATION_UNITS_MS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}

SIZE_BYTES_MAX: Final = 2**63 - 1
"""What the index and the wire can count."""

DURATION_MS_MAX: Final = 100 * DURATION_UNITS_MS["y"]
"""A contract of more than a lifetime is a slip of the finger."""

_NUMBER_AND_UNIT: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,12})?) ?([A-Za-z]*)")
_SIZE_BY_FOLDED: Final = {unit.lower(): factor for unit, factor in SIZE_UNITS.items()}
_FIT_UNITS: Final = ("PB", "TB", "GB", "MB", "kB")
_MICROS: Final = 1_000_000


def parse_size(text: str, usual: str = "GB") -> int:
    """
    Return the bytes of `500GB`, `1.5 TB`, `500GiB`; upper and lower case are the same.

    *usual* is the unit that a hint names.

    Raises:
        ValueError: something else, with a hint; a bare number has no unit and is refused.

    """
    number, unit = _split(text, "size", "500GB or 500GiB")
    if not unit:
        others = ", ".join(one for one in ("MB", "GB", "TB", "MiB", "GiB") if one != usual)
        raise ValueError(f"{text!r} has no unit: write {text.strip()}{usual} (or {others})")
    factor = _SIZE_BY_FOLDED.get(unit.lower())
    if factor is None:
        raise ValueError(f"{unit!r} is not a unit of size: use {', '.join(SIZE_UNITS)}")
    size_bytes = int(number * factor)
    if size_bytes > SIZE_BYTES_MAX:
        raise ValueError(f"{text!r} is larger than any disk")
    return size_bytes


def parse_duration(text: str, usual: str = "d") -> int:
    """
    Return the milliseconds of `90d`, `12h`, `30s`.

    *usual* is the unit that a hint names.

    Raises:
        ValueError: something else, with a hint; a bare number has no unit and is refused.

    """
    number, unit = _split(text, "duration", "90d or 12h")
    if not unit:
        others = ", ".join(one for one in ("s", "m", "h", "d", "w", "y") if one != usual)
        raise ValueError(f"{text!r} has no unit: write {text.strip()}{usual} (or {others})")
    factor = DURATION_UNITS_MS.get(unit)
    if factor is None:
        raise ValueError(f"{unit!r} is not a unit of time: use {', '.join(DURATION_UNITS_MS)}")
    duration_ms = int(number * factor)
    if duration_ms > DURATION_MS_MAX:
        raise ValueError(f"{text!r} is longer than 100 years")
    return duration_ms


def parse_money(text: str) -> int:
    """Return the millionths of `1.50`; raises `ValueError` on anything but a decimal number."""
    try:
        amount = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount, like 1.50") from None
    if not amount.is_finite() or not 0 <= amount < 10**12:
        raise ValueError(f"{text!r} is not an amount of 0 or more, like 1.50")
    micros = amount * _MICROS
    if micros != micros.to_integral_value():
        raise ValueError(f"{text!r} has more than six decimals")
    return int(micros)


def format_size(size_bytes: int) -> str:
    """Return `1.5 GB`: SI, rounded to three digits, for people."""
    for unit in _FIT_UNITS:
        # 0.9995 of a unit would be rounded to 1000 of the next smaller one.
        if size_bytes >= SIZE_UNITS[unit] * 0.9995:
            return f"{_three_digits(size_bytes / SIZE_UNITS[unit])} {unit}"
    return f"{size_bytes} B"


def two_sizes(first_bytes: int, second_bytes: int) -> tuple[str, str]:
    """Return two sizes for people, who must be able to tell which is larger."""
    shown = format_size(first_bytes), format_size(second_bytes)
    if shown[0] == shown[1] and first_bytes != second_bytes:
        return f"{first_bytes} bytes", f"{second_bytes} bytes"
    return shown


def exact_size(size_bytes: int) -> str:
    """Return the shortest text that `parse_size` reads as exactly this many bytes."""
    for unit in sorted(SIZE_UNITS, key=SIZE_UNITS.__getitem__, reverse=True):
        if size_bytes and size_bytes % SIZE_UNITS[unit] == 0:
            return f"{size_bytes // SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def counted(number: int, noun: str) -> str:
    """Return `1 shard`, `2 shards`: a noun whose plural is made with an s, for people."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_duration(duration_ms: int) -> str:
    """Return `3 d 4 h`: the two largest units that say something, for people."""
    parts = []
    rest = max(0, duration_ms)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, DURATION_UNITS_MS[unit])
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def format_moment(unix_ms: int) -> str:
    """Return `2026-03-01 14:05 UTC`, for people; of what is no date, the number."""
    try:
        when = datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{unix_ms} ms"
    return when.strftime("%Y-%m-%d %H:%M UTC")


def exact_duration(duration_ms: int) -> str:
    """Return the shortest text that `parse_duration` reads as exactly this long."""
    for unit in ("d", "h", "m", "s"):
        if duration_ms and duration_ms % DURATION_UNITS_MS[unit] == 0:
            return f"{duration_ms // DURATION_UNITS_MS[unit]}{unit}"
    return f"{duration_ms}ms"


def exact_money(micros: int) -> str:
    """Return the shortest text that `parse_money` reads as exactly this amount."""
    whole, fraction = divmod(micros, _MICROS)
    return f"{whole}.{fraction:06}".rstrip("0").rstrip(".") if fraction else str(whole)


@dataclass(frozen=True, slots=True)
class Space:
    """A share of a disk: so many bytes, or so many percent of the filesystem."""

    size_bytes: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read `500GB`, `500GiB`, `80%` or `max`, which is all of the filesystem.

        Raises:
            ValueError: something else, with a hint.

        """
        stripped = text.strip()
        if stripped == "max":
            return cls(percent=100.0)
        if not stripped.endswith("%"):
            return cls(size_bytes=parse_size(stripped))
        try:
            percent = float(stripped[:-1])
        except ValueError:
            percent = -1.0
        if not 0 <= percent <= 100:
            raise ValueError(f"{text!r} is not a share between 0% and 100%")
        return cls(percent=percent)

    def of(self, filesystem_bytes: int) -> int:
        """Return the bytes on a filesystem of that size."""
        if self.size_bytes is not None:
            return self.size_bytes
        return int(filesystem_bytes * (self.percent or 0.0) / 100)

    def __str__(self) -> str:
        if self.size_bytes is not None:
            return exact_size(self.size_bytes)
        return "max" if self.percent == 100 else f"{self.percent:g}%"


def _split(text: str, noun: str, example: str) -> tuple[Decimal, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a {noun}, like {example}")
    return Decimal(match[1]), match[2]


def _three_digits(number: float) -> str:
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    shown = f"{number:.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if decimals else shown
