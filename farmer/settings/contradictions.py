"""Settings that are each right but cannot be right together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path, PurePosixPath

from farmer.model.addresses import ADDRESSES_MAX
from farmer.settings.kinds import split_address
from farmer.settings.schema import Settings
from farmer.settings.tree import Fault

_ANYWHERE = ("::", "0.0.0.0")  # noqa: S104  # compared, not bound


def contradictions(settings: Settings, origins: Mapping[str, str]) -> Iterator[Fault]:
    """Yield a fault, at the later of the two places, for each pair that excludes each other."""
    yield from _volumes(settings, origins)
    yield from _addresses(settings, origins)
    price = settings.price
    if (price.stored or price.served) and not price.currency:
        name = "price.stored" if price.stored else "price.served"
        yield Fault(_place(origins, name), f'"{name}" needs "price.currency", like EUR')


def _volumes(settings: Settings, origins: Mapping[str, str]) -> Iterator[Fault]:
    for (i, one), (j, other) in combinations(enumerate(settings.volumes), 2):
        how = lies(other.path, one.path)
        if how:
            message = f'"volumes.{j}.path" {how} "volumes.{i}.path", {one.path}'
            yield Fault(_place(origins, f"volumes.{j}.path"), message)


def lies(path: str, other: str) -> str:
    """Return how a volume lies to another that excludes it, for a person; empty if none does."""
    first, second = _plain(path), _plain(other)
    if first == second:
        return "is the same as"
    if first.is_relative_to(second):
        return "lies inside"
    return "lies around" if second.is_relative_to(first) else ""


def _plain(path: str) -> PurePosixPath:
    """Return the path without `~`, `..` and doubled slashes; links are not looked at."""
    return PurePosixPath(os.path.normpath(Path(path).expanduser()))


def _addresses(settings: Settings, origins: Mapping[str, str]) -> Iterator[Fault]:
    named = [(f"listen.shards.{i}", text) for i, text in enumerate(settings.listen.shards)]
    named.append(("listen.page", settings.listen.page))
    if not settings.listen.shards:
        yield Fault(_place(origins, "listen.shards"), '"listen.shards" needs an address')
    if len(settings.announce) > ADDRESSES_MAX:
        place = _place(origins, f"announce.{ADDRESSES_MAX}")
        yield Fault(place, f'"announce" has room for {ADDRESSES_MAX} addresses, as an invite has')
    for (one, first), (other, second) in combinations(named, 2):
        if _collide(split_address(first), split_address(second)):
            yield Fault(_place(origins, other), f'"{other}" and "{one}" want the same port')


def _collide(first: tuple[str, int], second: tuple[str, int]) -> bool:
    same_host = first[0] == second[0] or first[0] in _ANYWHERE or second[0] in _ANYWHERE
    return first[1] == second[1] != 0 and same_host


def _place(origins: Mapping[str, str], name: str) -> str:
    return origins.get(name) or origins.get(name.rpartition(".")[0]) or "default"
