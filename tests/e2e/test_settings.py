"""Settings that renters or the owner meet, none of them the default, on a real farmer."""

from __future__ import annotations

import re
import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farmer.model.contract import Price
from farmer.protocol.opening import Refuse
from farmer.protocol.questions import Ping
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.transfers import Accept, Store, Stored
from tests.e2e.daemon import Daemon, Renter
from tests.fakes import shard_of
from tests.hostile import base
from tests.waiting import wait_until

MIB = 1 << 20
SHARDS = 8

SETTINGS = """
shards: {size_max: 1MiB, fill: first}
sessions: {most_per_address: 2}
drain: {grace: 1s}
log: {format: text, level: debug}
"""
"""A log that goes to a file, as here, would be json if nothing was said."""

GREETED = "speaks 'hostile'"
"""Logged at `debug` for each session, and at no other level."""

STOPPED_S_MAX = 20.0
"""Far from the second that is allowed, and from the 30 of the default."""


class Place:
    """A farmer with these settings, a small volume before a large one, and a renter's home."""

    def __init__(self, folder: Path) -> None:
        self.daemon = Daemon(folder / "home", folder / "small", "100MB")
        assert self.daemon.call("volume", "add", f"{folder / 'large'}=1GB").returncode == 0
        self._settings = self.daemon.home / "farmer.yaml"
        self._settings.write_text(self._settings.read_text() + SETTINGS)
        self.daemon.start()
        self._home = folder / "renter"
        Renter(self._home).join(self.daemon.invite(space="50MB"))
        self._stored = 0

    def call(self) -> base.Renter:
        """Connect as the renter, when those before have gone."""
        wait_until(lambda: not self.daemon.status()["sessions"])
        return self.call_too()

    def call_too(self) -> base.Renter:
        """Connect as the renter."""
        return base.Renter(self._home, self.daemon.status()["listen"][0])

    def stored_where(self) -> list[int]:
        """Store a few shards that nobody stored before; return how many each volume got."""
        before = self._shards()
        with self.call() as renter:
            for _ in range(SHARDS):
                self._stored += 1
                assert isinstance(renter.store(self._stored.to_bytes(1000, "big")), Stored)
        return [now - then for now, then in zip(self._shards(), before, strict=True)]

    def _shards(self) -> list[int]:
        return [one["shards"] for one in self.daemon.status()["volumes"]]

    def greeted(self) -> int:
        """Return of how many sessions the log tells."""
        return self.daemon.logs.read_text().count(GREETED)

    @contextmanager
    def reloaded(self, *changed: tuple[str, str], more: str) -> Iterator[None]:
        """Have other settings in force for a while."""
        text = before = self._settings.read_text()
        for old, new in (*changed, ('name: "test"', 'name: "other"')):
            assert old in text
            text = text.replace(old, new)
        self._reload(text + more, "other")
        try:
            yield
        finally:
            self._reload(before, "test")

    def _reload(self, text: str, name: str) -> None:
        self._settings.write_text(text)
        assert self.daemon.process is not None
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.status()["name"] == name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    with place.daemon:
        yield place


def test_a_shard_of_the_largest_size_is_taken_and_none_above_it(place: Place) -> None:
    with place.call() as renter:
        assert isinstance(renter.store(bytes(MIB)), Stored)
        above = bytes(MIB + 1)
        too_large = Refused(Refusal.SHARD_TOO_LARGE, MIB + 1, MIB)
        assert renter.ask(Store(shard_of(above), len(above))) == Refuse(too_large)


def test_new_shards_go_to_the_first_volume_that_has_room(place: Place) -> None:
    """By free space nearly all would go to the other."""
    assert place.stored_where() == [SHARDS, 0]


def test_no_more_come_from_one_address_than_may(place: Place) -> None:
    closed = pytest.raises((ConnectionError, ssl.SSLError))
    with place.call(), place.call_too(), closed:
        place.call_too()


def test_the_log_is_as_the_owner_wants_it(place: Place) -> None:
    greeted = place.greeted()
    with place.call():
        wait_until(lambda: place.greeted() == greeted + 1)
    [*_, line] = [line for line in place.daemon.logs.read_text().splitlines() if GREETED in line]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d debug ", line)


def test_a_reload_is_in_force_for_renters(place: Place) -> None:
    """Price, fill and level of the log; and what was before is in force again after another."""
    price = "price: {currency: EUR, stored: 1.50, served: 5}\n"
    changed = (("fill: first", "fill: spread"), ("level: debug", "level: warn"))
    with place.reloaded(*changed, more=price):
        greeted = place.greeted()
        assert place.stored_where()[1] > 0
        with place.call() as renter:
            assert renter.ask(Ping(1)).price == Price(
                currency="EUR", stored_micros=1_500_000, served_micros=5_000_000
            )
        assert place.greeted() == greeted
    assert place.stored_where() == [SHARDS, 0]
    with place.call() as renter:
        assert renter.ask(Ping(1)).price == Price()
    assert place.greeted() > greeted


@pytest.mark.slow
def test_a_stop_waits_for_a_transfer_as_long_as_it_may(place: Place) -> None:
    with place.call() as renter:
        renter.ask(Store(shard_of(bytes(MIB - 1)), MIB - 1), Accept)
        began_s = time.monotonic()
        assert place.daemon.stop() == 0
        took_s = time.monotonic() - began_s
    assert 1.0 <= took_s < STOPPED_S_MAX
    assert "some transfers were cut off" in place.daemon.logs.read_text()
    place.daemon.start()
