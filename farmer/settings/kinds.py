"""The kinds of values a setting can have: how each is read, checked, shown and described."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from typing import Any, Final, Generic, TypeVar

from farmer.model.addresses import is_address
from farmer.settings.paths import absolute
from farmer.units import (
    Space,
    exact_duration,
    exact_money,
    exact_size,
    parse_duration,
    parse_money,
    parse_size,
)

V = TypeVar("V")

VOLUME_BYTES_MIN: Final = 64 * 1024**2
"""The smallest quota that leaves room for shards beside the volume's own bookkeeping."""

SHARD_BYTES_MAX: Final = 4 * 1024**3
"""The same as in the model; a test compares them."""

NAME_CHARACTERS_MAX: Final = 64
CURRENCY_BYTES_MAX: Final = 16
"""The same as on the wire; a test compares them."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[V]):
    """One kind of scalar: its name for messages, its parser and its counterpart."""

    noun: str
    parse: Callable[[str], V]
    """From the text of the YAML scalar or the environment; raises ValueError with a hint."""
    show: Callable[[V], str] = str
    """The text that `parse` reads as the same value."""
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})
    """The JSON Schema of the YAML value."""
    words: bool = False
    """Whether it is free text: then YAML's `yes` or `12` need quotes, so that none is a slip."""


def split_address(text: str) -> tuple[str, int]:
    """
    Return host and port of `host:port`; an IPv6 host stands in brackets, and loses them.

    An address of IPv6 has many spellings: it comes in the one that systems use.

    Raises:
        ValueError: something else.

    """
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"{text!r} is not an address like 192.168.1.20:4646 or [::1]:4646")
    if ":" in host and "/" not in host and not bracketed:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, like [::1]:4646")
    if int(port) > 65535:
        raise ValueError(f"{text!r}: a port is at most 65535")
    bare = host[1:-1] if bracketed else host
    is_plain = bare.isprintable() and not any(
        one.isspace() or one in "[]/@,%\\\"'" for one in bare
    )
    if not bare or not is_plain:
        raise ValueError(f"{text!r}: {bare!r} is not a host name or address")
    try:
        return str(ip_address(bare)), int(port)
    except ValueError:
        return bare, int(port)


def join_address(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(text: str) -> str:
    return join_address(*split_address(text))


def _public_address(text: str) -> str:
    host, port = split_address(text)
    if port == 0 or host in ("0.0.0.0", "::"):  # noqa: S104  # refused here, not bound
        raise ValueError(f"{text!r} is not an address that others can call")
    address = join_address(host, port)
    if not is_address(address):
        raise ValueError(
            f"{text!r} is not an address that an invite can carry: a name of letters, digits, "
            ". - and _ (others as the DNS has them, xn--...), an IPv4 address, or an IPv6 address "
            "in brackets"
        )
    return address


def _name(text: str) -> str:
    if len(text) > NAME_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"a name has at most {NAME_CHARACTERS_MAX} printable characters")
    return text


def _currency(text: str) -> str:
    if len(text) > CURRENCY_BYTES_MAX or not (text.isascii() and text.isprintable()):
        raise ValueError(f"a currency has at most {CURRENCY_BYTES_MAX} ASCII characters: EUR")
    return text


def _path(text: str) -> str:
    if not text.startswith(("/", "~/")) or "\0" in text:
        raise ValueError(f"{text!r} is not an absolute path, like /srv/farmer")
    absolute(text)  # raises, where nobody knows whose home it begins with
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!r} is not UTF-8, in which paths are shown and written") from error
    return text


def _version(text: str) -> int:
    if text != "1":
        raise ValueError(f"version {text} of the settings is not known to this release: write 1")
    return 1


def _ratio(text: str) -> float:
    try:
        ratio = Decimal(text)
    except InvalidOperation:
        ratio = Decimal(0)
    if not ratio.is_finite() or not 1 <= ratio <= 100:
        raise ValueError(f"{text!r} is not a ratio between 1.0 and 100")
    return float(ratio)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6 or not 1 <= int(text) <= 100_000:
        raise ValueError(f"{text!r} is not a number between 1 and 100000")
    return int(text)


def _shard_size(text: str) -> int:
    size_bytes = parse_size(text, usual="MiB")
    if not 1 <= size_bytes <= SHARD_BYTES_MAX:
        raise ValueError(f"{text!r}: the largest shard is between 1B and 4GiB")
    return size_bytes


def _short_duration(text: str) -> int:
    return parse_duration(text, usual="s")


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of each day, in minutes since midnight, local time; it may pass midnight."""

    start: int = 0
    end: int = 24 * 60

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Read `01:00-07:00` or `always`."""
        if text == "always":
            return cls()
        found = re.fullmatch(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)", text)
        numbers = [int(part) for part in found.groups()] if found else []
        if not numbers or max(numbers[0], numbers[2]) > 24 or max(numbers[1], numbers[3]) > 59:
            raise ValueError(f"{text!r} is not a part of the day like 01:00-07:00, or always")
        start, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
        if start == end or max(start, end) > 24 * 60:
            raise ValueError(f"{text!r} is no time at all: write 01:00-07:00, or always")
        return cls(start, end)

    def __str__(self) -> str:
        if self == Hours():
            return "always"
        start, end = divmod(self.start, 60), divmod(self.end, 60)
        return f"{start[0]:02}:{start[1]:02}-{end[0]:02}:{end[1]:02}"

    @property
    def share(self) -> float:
        """Which share of a day that is."""
        return (self.end - self.start) % (24 * 60) / (24 * 60) or 1.0

    def contain(self, minute: int) -> bool:
        """Say whether a minute of the day is one of them."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


def _rate(text: str) -> int:
    if text == "max":
        return 0
    amount, slash, unit = text.partition("/")
    if slash and unit != "s":
        raise ValueError(f"{text!r} is not a rate like 20MB/s, or max")
    rate = parse_size(amount, usual="MB")
    if not rate:
        raise ValueError(f"{text!r} is not a rate like 20MB/s, or max")
    return rate


def _show_rate(rate: int) -> str:
    return f"{exact_size(rate)}/s" if rate else "max"


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 365):
        raise ValueError(f"{text!r} is not a number of days between 1 and 365")
    return int(text)


def _tranquility(text: str) -> float:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or not 0 <= number <= 1000:
        raise ValueError(f"{text!r} is not a number between 0 and 1000")
    return float(number)


def _quota(text: str) -> Space:
    quota = Space.parse(text)
    is_small = quota.size_bytes is not None and quota.size_bytes < VOLUME_BYTES_MIN
    if is_small or quota.percent == 0:
        raise ValueError(f"{text!r} is too small for a volume: at least 64MiB")
    return quota


def choice(*words: str) -> Kind[str]:
    """Return the kind of a setting that is one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return Kind("one of " + ", ".join(words), parse, schema={"enum": list(words)})


COUNT: Final = Kind("number", _count, str, {"type": "integer", "minimum": 1, "maximum": 100_000})
SHARD_SIZE: Final = Kind("size", _shard_size, exact_size)
QUOTA: Final = Kind("size or share", _quota)
SPACE: Final = Kind("size or share", Space.parse)
SHORT_DURATION: Final = Kind("duration", _short_duration, exact_duration)
MONEY: Final = Kind("amount", parse_money, exact_money, {"type": ["number", "string"]})
HOURS: Final = Kind("part of the day", Hours.parse)
RATE: Final = Kind("rate", _rate, _show_rate)
DAYS: Final = Kind("number of days", _days, str, {"type": "integer", "minimum": 1, "maximum": 365})
TRANQUILITY: Final = Kind(
    "number", _tranquility, str, {"type": "number", "minimum": 0, "maximum": 1000}
)
RATIO: Final = Kind("ratio", _ratio, str, {"type": "number", "minimum": 1, "maximum": 100})
VERSION: Final = Kind("version", _version, str, {"const": 1})
NAME: Final = Kind("name", _name, str, {"type": "string", "maxLength": 64}, words=True)
CURRENCY: Final = Kind("currency", _currency, str, {"type": "string"}, words=True)
ADDRESS: Final = Kind("address", _address)
PUBLIC_ADDRESS: Final = Kind("address", _public_address)
PATH: Final = Kind("path", _path, words=True)
