"""
What an owner can set: one frozen class per section, one line of truth per key.

The strict reader, the commented example, the reference page and the JSON Schema are all
made from these classes.
"""

# ruff: noqa: RUF009  # the calls in these defaults are dataclasses.field in other words
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from farmer.settings.kinds import (
    ADDRESS,
    COUNT,
    CURRENCY,
    DAYS,
    HOURS,
    MONEY,
    NAME,
    PATH,
    PUBLIC_ADDRESS,
    QUOTA,
    RATE,
    RATIO,
    SHARD_SIZE,
    SHORT_DURATION,
    SPACE,
    TRANQUILITY,
    VERSION,
    Hours,
    Kind,
    choice,
)
from farmer.units import Space

V = TypeVar("V")
S = TypeVar("S")

VERSION_NOW: Final = 1
PORT: Final = 4646
PAGE_PORT: Final = 4647


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one setting beside its value."""

    help: str
    kind: Kind[Any] | None = None
    """How a scalar is read; None for a section or a list of sections."""
    section: type[Any] | None = None
    many: bool = False
    """A list of them; a single scalar counts as a list of one."""
    example: str = ""
    """What the example file and the reference show instead of the default."""
    live: bool = False
    """Whether a reload applies it; otherwise it needs a restart."""
    required: bool = False


def setting(help: str, kind: Kind[V], default: V, *, example: str = "", live: bool = False) -> V:
    """Declare a setting with one value."""
    key = Key(help, kind=kind, example=example, live=live)
    return dataclasses.field(default=default, metadata={"key": key})


def required(help: str, kind: Kind[V], *, example: str, live: bool = False) -> V:
    """Declare a setting that has no default."""
    key = Key(help, kind=kind, example=example, live=live, required=True)
    field: V = dataclasses.field(metadata={"key": key})
    return field


def listed(
    help: str, kind: Kind[V], default: tuple[V, ...], *, example: str = "", live: bool = False
) -> tuple[V, ...]:
    """Declare a setting with any number of values."""
    key = Key(help, kind=kind, many=True, example=example, live=live)
    return dataclasses.field(default=default, metadata={"key": key})


def section(help: str, kind: type[S]) -> S:
    """Declare a group of settings."""
    return dataclasses.field(default_factory=kind, metadata={"key": Key(help, section=kind)})


def sections(help: str, kind: type[S]) -> tuple[S, ...]:
    """Declare a list of groups of settings."""
    return dataclasses.field(default=(), metadata={"key": Key(help, section=kind, many=True)})


def keys_of(kind: type[Any]) -> dict[str, Key]:
    """Return the settings of a section by name, in order."""
    return {field.name: field.metadata["key"] for field in dataclasses.fields(kind)}


def default_of(kind: type[Any], name: str) -> object:
    """Return the default of one setting; `MISSING` if it is required."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSettings:
    """Where the farmer listens."""

    shards: tuple[str, ...] = listed(
        "Where renters connect, host:port; several are allowed. [::] means every address of"
        " this machine, IPv6 and IPv4.",
        ADDRESS,
        (f"[::]:{PORT}",),
    )
    page: str = setting(
        "Where the status page and the metrics are served; keep it off the open internet.",
        ADDRESS,
        f"127.0.0.1:{PAGE_PORT}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSettings:
    """One directory on one disk."""

    path: str = required(
        "A directory on the disk that is rented out.", PATH, example="/srv/farmer"
    )
    quota: Space = required(
        "How much of it, everything included: 500GB, 500GiB, 80% of the filesystem, or max;"
        " at least 64MiB.",
        QUOTA,
        example="500GB",
        live=True,
    )
    keep_free: Space = setting(
        "How much of the filesystem always stays free for you, whatever the quota says.",
        SPACE,
        Space(percent=1.0),
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSettings:
    """Which shards are taken."""

    size_max: int = setting(
        "The largest shard that is accepted; at most 4GiB.", SHARD_SIZE, 64 * 1024**2
    )
    fill: str = setting(
        "Which volume a new shard goes to: spread, by free space; or first, the first of the"
        " list that has room. Slow volumes come last, and those being drained never.",
        choice("spread", "first"),
        "spread",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSettings:
    """What new invites ask for."""

    currency: str = setting(
        "Any short word; the default is no price.", CURRENCY, "", example="EUR", live=True
    )
    stored: int = setting("For one TB stored for 30 days.", MONEY, 0, example="1.50", live=True)
    served: int = setting("For one TB retrieved.", MONEY, 0, example="5", live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How many connections are held at once."""

    most: int = setting(
        "Connections in all. Each takes about 44 KiB of memory while it is quiet, and a file"
        " descriptor.",
        COUNT,
        512,
    )
    most_per_address: int = setting(
        "Connections from one IPv4 address, or from one IPv6 /64.", COUNT, 64
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSettings:
    """How much may be promised."""

    overcommit: float = setting(
        "Contracts and open invites together may promise this many times the quotas. Above 1,"
        " renters can find the disk full although their contract is not.",
        RATIO,
        1.0,
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubSettings:
    """How everything is read again, to find what the disk has lost."""

    days: int = setting(
        "Within how many days every byte is read again; there is an alert where that is not"
        " possible.",
        DAYS,
        30,
        live=True,
    )
    hours: Hours = setting(
        "When, in local time; always, or a part of the day, which may pass midnight.",
        HOURS,
        Hours(),
        example="01:00-07:00",
        live=True,
    )
    rate: int = setting(
        "How much is read in a second at most, of each volume; max for no bound.",
        RATE,
        20_000_000,
        live=True,
    )
    tranquility: float = setting(
        "How many times as long as it worked it then rests; more by itself while others use the"
        " disks.",
        TRANQUILITY,
        2.0,
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and how; always to standard error."""

    level: str = setting(
        "The least important lines shown: debug, info, warn or error.",
        choice("debug", "info", "warn", "error"),
        "info",
        live=True,
    )
    format: str = setting(
        "text for people, journald, or json; auto chooses by where standard error goes. "
        "Times are RFC 3339, with their offset from UTC; the journal has its own.",
        choice("auto", "text", "journald", "json"),
        "auto",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorSettings:
    """How the machine's cores are used."""

    one_core: str = setting(
        "auto keeps the farmer's threads on one core while it answers many small requests at"
        " once, which costs less; the kernel chooses which, each second anew. never lets them be"
        " anywhere.",
        choice("auto", "never"),
        "auto",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSettings:
    """How the farmer stops."""

    grace: int = setting(
        "How long running transfers may go on after a request to stop; with systemd, its"
        " TimeoutStopSec must be a minute longer.",
        SHORT_DURATION,
        30_000,
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a farmer."""

    version: int = required("The version of this file's format.", VERSION, example="1")
    name: str = setting("What the page calls this farmer.", NAME, "", example="attic", live=True)
    listen: ListenSettings = section("Where the farmer listens.", ListenSettings)
    announce: tuple[str, ...] = listed(
        "The addresses that invites name, host:port, 8 at most: what renters outside can reach,"
        " such as your router's name with a forwarded port. Default: this machine's own address.",
        PUBLIC_ADDRESS,
        (),
        example="farmer.example.org:4646",
        live=True,
    )
    volumes: tuple[VolumeSettings, ...] = sections(
        "The directories that hold shards, one for each disk. Default: one small volume beside"
        " the farmer's own files.",
        VolumeSettings,
    )
    shards: ShardSettings = section("Which shards are taken.", ShardSettings)
    sessions: SessionSettings = section("How many connections are held at once.", SessionSettings)
    price: PriceSettings = section("What new invites ask for.", PriceSettings)
    contracts: ContractSettings = section("How much may be promised.", ContractSettings)
    scrub: ScrubSettings = section(
        "How everything is read again, to find what the disk has lost.", ScrubSettings
    )
    processor: ProcessorSettings = section("How the machine's cores are used.", ProcessorSettings)
    log: LogSettings = section("What is logged; always to standard error.", LogSettings)
    drain: DrainSettings = section("How the farmer stops.", DrainSettings)


DEFAULTS: Final = Settings(version=VERSION_NOW)
