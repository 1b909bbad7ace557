"""Strangers by network: who is to go, and that nothing is kept of who is gone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farmer.node.crowds import Crowd
from farmer.node.origins import networks, origin, widest

PATHS = [networks(origin(f"2001:db8:{n >> 3:x}:{n & 7:x}00::1")) for n in range(24)]
PATHS += [networks(origin(f"192.0.2.{n}")) for n in range(4)]


def test_an_origin_is_in_wider_networks_of_ipv6_only() -> None:
    """Whoever has more of them than a /64 is not to be seen; an IPv4 address is one alone."""
    household = origin("2001:db8:1:2345:6::7")

    assert networks(household) == (
        "2001:db8:1::/48",
        "2001:db8:1:2300::/56",
        "2001:db8:1:2345::/64",
    )
    assert widest(household) == "2001:db8:1::/48"
    for host in ("192.0.2.7", "::ffff:192.0.2.7", "a-path", "local"):
        assert networks(origin(host)) == (origin(host),)
        assert widest(origin(host)) == origin(host)


def test_the_oldest_of_the_largest_part_of_the_largest_network_goes() -> None:
    crowd = Crowd()
    for guest, host in (
        ("alone", "192.0.2.1"),
        ("neighbour", "2001:db8:1:100::1"),
        ("first", "2001:db8:1:200::1"),
        ("second", "2001:db8:1:200::1"),
        ("elsewhere", "2001:db8:2::1"),
        ("elsewhere too", "2001:db8:2::1"),
    ):
        crowd.add(guest, networks(origin(host)))  # type: ignore[arg-type]

    assert crowd.oldest() == "first"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200)), max_size=120))
def test_who_goes_is_the_oldest_of_a_largest_part_on_each_level(
    steps: list[tuple[bool, int]],
) -> None:
    """However strangers come and go, and nothing is left of them at the end."""
    crowd, here = Crowd(), dict[Any, tuple[str, ...]]()
    for comes, number in steps:
        where = PATHS[number % len(PATHS)]
        if comes and number not in here:
            crowd.add(number, where)  # type: ignore[arg-type]
            here[number] = where
        else:
            assert crowd.discard(number, where) is (number in here)  # type: ignore[arg-type]
            here.pop(number, None)
        check(crowd, here)
    for number, where in tuple(here.items()):
        assert crowd.discard(number, where)
    assert not (crowd.size or crowd._parts)


def check(crowd: Crowd, here: dict[Any, tuple[str, ...]]) -> None:
    assert crowd.size == len(here)
    oldest = crowd.oldest()
    assert (oldest is None) is (not here)
    if oldest is None:
        return
    where = here[oldest]
    for depth in range(len(where)):
        around = [path for path in here.values() if path[:depth] == where[:depth]]
        sizes = Counter(path[depth] for path in around)
        assert sizes[where[depth]] == max(sizes.values())
        part = crowd.part(where[: depth + 1])
        assert part is not None and part.size == sizes[where[depth]]
    assert oldest == next(guest for guest, path in here.items() if path == where)
