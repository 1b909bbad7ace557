"""Renters at once: how they are dealt out, what a round comes to, and who set the limit."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks import load, small
from benchmarks.handshakes import source
from benchmarks.rig.crowding import Crowding, Job
from benchmarks.rig.population import Population
from benchmarks.rig.together import Tally, dealt, limit, rows

ADDRESS = ("127.0.0.1", 1)


def job(renters: int) -> Job:
    shards = Population(100, renters=renters)
    return Job(ADDRESS, "audit", shards, tuple(range(renters)), "127.0.1.1")


def test_a_job_passes_to_another_process_as_it_was() -> None:
    """On one line."""
    text = job(3).to_json()
    assert "\n" not in text
    assert Job.from_json(text) == job(3)


def test_renters_are_dealt_out_and_nobody_is_left_or_twice() -> None:
    """Also among more processes than there are renters: then some are not needed."""
    parts = dealt(job(5), 2)
    assert [part.renters for part in parts] == [(0, 2, 4), (1, 3)]
    assert [part.renters for part in dealt(job(2), 4)] == [(0,), (1,)]
    assert {part.shards for part in parts} == {job(5).shards}


def test_what_a_renter_audits_comes_round_and_what_it_stores_ends() -> None:
    """Each has its own shards of the population."""
    audits = Crowding(job(30))._numbers_of(9)
    assert [next(audits) for _ in range(5)] == [9, 39, 69, 99, 9]
    stores = Crowding(Job(ADDRESS, "store", job(30).shards, (0,)))._numbers_of(29)
    assert list(stores) == [29, 59, 89]


def test_a_round_comes_to_rates_and_costs() -> None:
    """The busiest client counts: it is the first that can do no more."""
    tally = Tally(10_000, 2.0, farmer_s=0.5, clients_s=(1.0, 1.6))
    assert tally.per_s == 5000
    assert tally.farmer_us == pytest.approx(50)
    assert tally.farmer_cores == 0.25
    assert tally.client_cores == 0.8


@pytest.mark.parametrize(
    ("farmer_s", "client_s", "said"),
    [(1.9, 1.9, "the client"), (1.9, 1.0, "the farmer"), (1.0, 1.0, "neither")],
)
def test_who_takes_a_core_sets_the_limit(farmer_s: float, client_s: float, said: str) -> None:
    """A client that does says nothing of what the farmer could do."""
    tally = Tally(10, 2.0, farmer_s, (client_s,))
    assert limit(tally).startswith(said)
    [words] = [told for name, told in rows("some", [tally]).items() if "limit" in name]
    assert words == limit(tally)


def test_a_round_in_which_nothing_was_done_still_has_figures() -> None:
    """None of them is a division by zero."""
    assert rows("some", [Tally(0, 2.0, 1.0, (1.0,))])["some, a second"] == "0 [0..0]"


def test_stores_are_compared_with_the_syncs_of_their_own_round() -> None:
    """A disk that is half as fast for a while changes both, and no ratio."""
    stores = [Tally(2400, 2.0, 1.0, (1.0,)), Tally(1200, 2.0, 1.0, (1.0,))]
    one = [Tally(10, 2.0, 1.0, (1.0,))] * 2
    found = small.Found(one, one, stores, [1000.0, 500.0]).figures()
    assert found["stores for one such fdatasync"] == "1.2 [1.2..1.2]"
    assert found["durable stores of 1 KiB, a second"] == "900 [600..1200]"


def test_no_round_stores_what_another_one_did() -> None:
    """Nor what is audited: a shard that is there already is answered without a sync."""
    rounds = [small.AUDITED, *(small.stored_in(turn) for turn in range(20))]
    for one, other in pairwise(rounds):
        assert one.numbers.stop <= other.numbers.start


def test_rounds_of_handshakes_come_from_addresses_of_their_own() -> None:
    """A port of a connection that was closed is not free again for a minute."""
    assert len({source(turn) for turn in range(20)}) == 20


def cell(what: str, per_s: float, moved: float) -> dict[str, object]:
    work = {"what": what, "size_bytes": 65536, "at_once": 16}
    return work | {"per_s": per_s, "mb_per_s": moved, "processor_us": 9.0, "p99_ms": 2.0}


def test_runs_of_the_bench_come_together_cell_by_cell() -> None:
    """An audit moves nothing to speak of, and has no MB a second."""
    disk = {"write_mb_per_s": 1.0, "flushes_per_s": 2.0, "durable_per_s": 3.0}
    runs = [
        {"disk": disk, "cells": [cell("store", 1.0, 5.0), cell("audit", per_s, 0.0)]}
        for per_s in (100.0, 300.0)
    ]
    found = load.figures(runs)
    assert found["audit 64 KiB x16, a second"] == "200 [100..300]"
    assert found["store 64 KiB x16, MB/s"] == "5 [5..5]"
    assert "audit 64 KiB x16, MB/s" not in found
    assert found["disk, 64 KiB appended and synced, a second"] == "3 [3..3]"
