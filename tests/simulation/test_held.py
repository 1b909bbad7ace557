"""What a renter may find of a shard of which the disk has lost a mark, and what it may not."""

from __future__ import annotations

import pytest

from tests.simulation.harm import Betrayal, Stretch
from tests.simulation.held import Harm, Held, Is
from tests.simulation.nodes import Node
from tests.simulation.shards import content


def a_shard(*may: Is, lost_a_mark: bool = True) -> Held:
    """Return one that was stored again since, which ended what was harmed then."""
    held = Held(content(1, 0), set(may))
    if lost_a_mark:
        harm = Harm(whole=True)
        held.harms.append(harm)
        held.may_have_twins = True
        held.was_written_anew([harm])
    return held


def test_a_given_up_shard_may_be_back_if_a_mark_of_an_older_copy_was_lost() -> None:
    """The newer copy alone was erased: the older one is found again, and may be damaged."""
    held = a_shard(Is.ABSENT)
    held.may_be_lost_with_the_index()
    assert held.may == {Is.ABSENT, Is.LIVE, Is.TRASH}
    assert held.may_be_damaged
    assert held.is_bad_between(0, 1)


def test_an_older_copy_takes_nothing_from_the_newer_one() -> None:
    """Live, that one is shown; in the trash, it is there beside whatever has come back."""
    live, trash = a_shard(Is.LIVE), a_shard(Is.TRASH)
    for held in (live, trash):
        held.lost_power()
        assert not held.may_be_damaged
    assert live.may == {Is.LIVE}
    assert trash.may == {Is.TRASH, Is.LIVE}


@pytest.mark.parametrize("state", Is)
def test_without_a_lost_mark_nothing_comes_back(state: Is) -> None:
    held = a_shard(state, lost_a_mark=False)
    held.lost_power()
    assert held.may == {state}
    assert not held.may_be_damaged


def test_what_was_sent_to_be_mended_may_be_or_not_until_that_is_known() -> None:
    """The farmer may have written it anew, and been killed before it could say so."""
    held = a_shard(Is.LIVE, lost_a_mark=False)
    held.harms = [Harm(block=0), Harm(block=2)]
    assert held.is_told({0, 2})
    assert not held.is_told(set())
    held.may_be_mended = True
    assert held.is_told(set())
    assert held.is_told({0, 2})
    assert not held.is_told({1})
    held.was_written_anew(list(held.harms))
    assert held.is_told(set())
    assert not held.is_told({0})


def test_what_was_harmed_before_a_store_went_on_with_it_may_be_damaged() -> None:
    harm = Harm(whole=True)
    held = Held(content(1, 0), {Is.LIVE}, harms=[harm])
    held.was_written_anew([harm], partly=True)
    assert held.may_be_damaged
    held.was_written_anew(list(held.harms))
    assert not held.may_be_damaged


def test_a_write_upon_a_record_whose_header_is_spoiled_touches_its_shard() -> None:
    file = Node(1)
    held = Held(content(1, 0), {Is.LIVE}, harms=[Harm(lies=Stretch(file, 8192, 16384))])
    for instead, touches in ((4096, False), (8192, True), (12288, True), (16384, False)):
        betrayal = Betrayal(file, "volume0/log/00000001.seg", 0, bytes(4096), instead)
        assert held.is_touched_by(betrayal) is touches
    assert not held.is_touched_by(Betrayal(Node(2), "", 0, bytes(4096), 8192))
    assert not held.is_touched_by(Betrayal(file, "", 8192, bytes(4096)))
