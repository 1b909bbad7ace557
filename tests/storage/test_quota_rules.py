"""The ledger's sums: what counts where, for whom, and until when."""

from __future__ import annotations

import pytest

from farmer.model.ids import NodeId
from farmer.model.shard import ShardState, Usage, charge_bytes
from farmer.storage.errors import ContractFullError, NoSpaceError, TooManyError
from farmer.storage.index import WAL_BYTES_MAX
from farmer.storage.quota import (
    QUOTA_BYTES_MIN,
    RESERVE_BYTES,
    Changes,
    Ledger,
    Tally,
    VolumeAccount,
    overhead_bytes,
    segment_bytes,
)
from tests.storage.bench import ALICE, BOB, MIB, contract_of, shard_of

SIZE = 20 * MIB
CHARGE = charge_bytes(SIZE)
SHARD = shard_of(b"a shard")
LIVE = Tally.of(CHARGE, ShardState.LIVE)
TRASH = Tally.of(CHARGE, ShardState.TRASH)


def account_of(quota_bytes: int = 1 << 40, disk_bytes: int = 1 << 50) -> VolumeAccount:
    return VolumeAccount(quota_bytes, 0, filesystem_free_bytes=disk_bytes)


def changes_of(renter: NodeId, *tallies: Tally, log_bytes: int = 0) -> Changes:
    changes = Changes(log_bytes=log_bytes)
    for tally in tallies:
        changes.of(renter).add(tally)
    return changes


def without(tally: Tally) -> Tally:
    less = Tally()
    less.take(tally)
    return less


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(uploads_per_renter_max=2, shards_per_contract_max=3)


def test_a_segment_is_as_many_whole_mib_as_a_sixteenth_of_the_quota_has() -> None:
    for quota_mib in (64, 100, 1000, 4095):
        size = segment_bytes(quota_mib * MIB)
        assert size % MIB == 0
        assert size * 16 <= quota_mib * MIB < (size + MIB) * 16
    assert segment_bytes(4096 * MIB) == segment_bytes(1 << 50) == 256 * MIB


def test_a_shard_of_one_mib_lies_in_a_segment_and_a_larger_one_in_a_file() -> None:
    assert overhead_bytes(MIB) == overhead_bytes(0) < overhead_bytes(MIB + 1)
    assert overhead_bytes(MIB + 1) == overhead_bytes(1 << 32)


def test_the_smallest_volume_is_not_mostly_allowance() -> None:
    assert 0 < VolumeAccount(QUOTA_BYTES_MIN, 0).allowance_bytes < QUOTA_BYTES_MIN // 2


def test_an_empty_volume_keeps_a_segment_the_reserve_and_the_log_of_the_index() -> None:
    for quota_bytes in (64 * MIB, 1 << 40):
        kept = account_of(quota_bytes).allowance_bytes - segment_bytes(quota_bytes)
        # A map of extents takes 12 bytes a block of 4 KiB at worst.
        assert kept >= MIB + RESERVE_BYTES + WAL_BYTES_MAX + quota_bytes * 12 // 4096


def test_the_allowance_grows_by_what_the_log_takes_and_by_each_shards_overhead() -> None:
    account = account_of()
    empty = account.allowance_bytes
    account.log_bytes = 5000
    assert account.allowance_bytes == empty + 5000
    account.total.shards, account.total.files = 3, 2
    rows = overhead_bytes(0) + 2 * overhead_bytes(SIZE)
    assert account.allowance_bytes == empty + 5000 + rows
    account.pending_overhead_bytes = 700
    assert account.allowance_bytes == empty + 5000 + rows + 700


def test_a_file_of_the_index_that_is_larger_than_its_rows_counts_instead_of_them() -> None:
    account = account_of()
    empty = account.allowance_bytes
    account.index_bytes = MIB
    account.total.shards = 1
    assert account.allowance_bytes == empty + MIB


@pytest.mark.parametrize("quota_bytes", [QUOTA_BYTES_MIN, 1 << 40])
def test_what_the_quota_leaves_is_free(quota_bytes: int) -> None:
    account = account_of(quota_bytes)
    account.total.live_bytes, account.total.trash_bytes = 300, 40
    account.reserved_bytes = 5
    assert account.free_bytes == quota_bytes - account.allowance_bytes - 345


def test_what_the_disk_leaves_is_free_but_what_is_to_be_kept_or_not_yet_taken() -> None:
    account = VolumeAccount(1 << 40, 700, filesystem_free_bytes=5000)
    assert account.free_bytes == 4300
    account.reserved_bytes = account.unallocated_bytes = 80
    assert account.free_bytes == 4220
    account.filesystem_free_bytes = 10
    assert account.free_bytes == 0


def test_a_new_account_has_taken_nothing() -> None:
    account = VolumeAccount(1 << 40, 0)
    assert account.free_bytes == 0, "nobody has asked the disk yet"
    assert (account.filesystem_size_bytes, account.filesystem_free_bytes) == (0, 0)
    account.filesystem_free_bytes = 1 << 50
    assert account.free_bytes == (1 << 40) - account.allowance_bytes
    assert account.unallocated_bytes == 0
    assert Changes().log_bytes == account.log_bytes == 0
    assert account.index_bytes == account.pending_overhead_bytes == 0


def test_tallies_add_up_and_are_taken_out_again() -> None:
    one, other = Tally(1, 20, 300, 4000, 50000), Tally(5, 60, 700, 8000, 90000)
    one.add(other)
    assert one == Tally(6, 80, 1000, 12000, 140000)
    one.take(other)
    assert one == Tally(1, 20, 300, 4000, 50000)
    assert Tally() == Tally(0, 0, 0, 0, 0)


def test_a_shard_counts_as_live_or_as_trash() -> None:
    assert Tally(live_bytes=CHARGE, shards=1) == LIVE
    assert Tally(trash_bytes=CHARGE, shards=1) == TRASH
    assert Tally.of(CHARGE, ShardState.QUARANTINED) == LIVE


def test_changes_of_one_renter_gather() -> None:
    changes = changes_of(ALICE, LIVE, LIVE)
    changes.of(BOB).add(TRASH)
    assert changes.renters == {ALICE: Tally(live_bytes=2 * CHARGE, shards=2), BOB: TRASH}


def test_space_counts_as_not_yet_taken_until_the_disk_has_set_it_aside(ledger: Ledger) -> None:
    account = account_of()
    reservation = ledger.reserve(account, contract_of(ALICE), SIZE)
    assert (account.reserved_bytes, account.unallocated_bytes) == (CHARGE, CHARGE)
    reservation.allocated()
    reservation.allocated()
    assert (account.reserved_bytes, account.unallocated_bytes) == (CHARGE, 0)
    reservation.release()
    reservation.allocated()
    assert (account.reserved_bytes, account.unallocated_bytes) == (0, 0)
    assert account.pending_overhead_bytes == 0


def test_what_is_released_before_the_disk_set_it_aside_is_not_waited_for(ledger: Ledger) -> None:
    account = account_of()
    reservation = ledger.reserve(account, contract_of(ALICE), SIZE)
    reservation.release()
    assert (account.reserved_bytes, account.unallocated_bytes) == (0, 0)


def test_a_promise_lasts_as_long_as_its_block_unless_it_is_held(ledger: Ledger) -> None:
    account = account_of()
    with ledger.reserve(account, contract_of(ALICE), SIZE):
        assert account.reserved_bytes == CHARGE
    assert account.reserved_bytes == 0
    with ledger.reserve(account, contract_of(ALICE), SIZE) as reservation:
        reservation.hold()
    assert account.reserved_bytes == CHARGE
    reservation.release()
    assert account.reserved_bytes == 0


def test_what_was_found_on_the_disk_is_promised_held_and_allocated(ledger: Ledger) -> None:
    account = account_of()
    with ledger.restore(account, ALICE, SIZE):
        pass
    assert (account.reserved_bytes, account.unallocated_bytes) == (CHARGE, 0)
    assert account.pending_overhead_bytes == overhead_bytes(SIZE)
    assert ledger.usage(ALICE) == Usage(reserved_bytes=CHARGE)
    assert ledger.renters() == (ALICE,)


def test_a_renter_may_have_so_many_uploads_and_no_more(ledger: Ledger) -> None:
    account = account_of()
    first = ledger.reserve(account, contract_of(ALICE), SIZE)
    ledger.reserve(account, contract_of(ALICE), SIZE)
    with pytest.raises(TooManyError) as refused:
        ledger.reserve(account, contract_of(ALICE), SIZE)
    assert (refused.value.have, refused.value.allowed) == (2, 2)
    assert ledger.usage(ALICE).reserved_bytes == account.reserved_bytes == 2 * CHARGE
    ledger.reserve(account, contract_of(BOB), SIZE)
    first.release()
    ledger.reserve(account, contract_of(ALICE), SIZE)


def test_what_is_being_stored_counts_as_a_shard_of_the_contract(ledger: Ledger) -> None:
    account = account_of()
    ledger.settle(account, changes_of(ALICE, LIVE, TRASH))
    under_way = ledger.reserve(account, contract_of(ALICE), SIZE)
    with pytest.raises(TooManyError) as refused:
        ledger.reserve(account, contract_of(ALICE), SIZE)
    assert (refused.value.have, refused.value.allowed) == (3, 3)
    ledger.settle(account, changes_of(ALICE, without(TRASH)))
    under_way.release()
    ledger.reserve(account, contract_of(ALICE), SIZE)


def test_a_contract_takes_what_just_fits_and_not_a_byte_more(ledger: Ledger) -> None:
    account = account_of()
    ledger.settle(account, changes_of(ALICE, LIVE, TRASH))
    with pytest.raises(ContractFullError) as refused:
        ledger.reserve(account, contract_of(ALICE, 3 * CHARGE - 1), SIZE)
    assert (refused.value.wanted_bytes, refused.value.available_bytes) == (CHARGE, CHARGE - 1)
    with pytest.raises(ContractFullError) as refused:
        ledger.reserve(account, contract_of(ALICE, CHARGE), SIZE)
    assert refused.value.available_bytes == 0, "a contract may have become smaller"
    ledger.reserve(account, contract_of(ALICE, 3 * CHARGE), SIZE)


def test_settling_turns_a_promise_into_a_shard(ledger: Ledger) -> None:
    account = account_of()
    empty = account.free_bytes
    reservation = ledger.reserve(account, contract_of(ALICE), SIZE)
    promised = account.free_bytes
    stored = changes_of(ALICE, LIVE, Tally(files=1))
    ledger.settle(account, stored, [reservation])
    assert (account.reserved_bytes, account.unallocated_bytes) == (0, 0)
    assert account.total == Tally(live_bytes=CHARGE, shards=1, files=1)
    assert account.free_bytes == promised < empty
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)
    ledger.settle(account, changes_of(ALICE, without(LIVE), TRASH, log_bytes=30))
    ledger.settle(account, changes_of(ALICE, log_bytes=-10))
    assert ledger.usage(ALICE) == Usage(trash_bytes=CHARGE, shards=1)
    assert account.log_bytes == 20


def test_who_has_nothing_left_is_forgotten(ledger: Ledger) -> None:
    account = account_of()
    ledger.settle(account, changes_of(ALICE, LIVE))
    ledger.settle(account, changes_of(BOB, TRASH))
    assert ledger.renters() == (ALICE, BOB)
    ledger.settle(account, changes_of(ALICE, without(LIVE)))
    assert ledger.renters() == (BOB,)
    assert account.renters == {BOB: TRASH}
    assert account.total == TRASH


def test_a_volume_that_is_closed_takes_its_shards_along_and_no_others(ledger: Ledger) -> None:
    here, elsewhere = account_of(), account_of()
    ledger.settle(here, changes_of(ALICE, LIVE))
    ledger.settle(here, changes_of(BOB, LIVE))
    ledger.settle(elsewhere, changes_of(ALICE, TRASH))
    ledger.forget(here)
    assert ledger.usage(ALICE) == Usage(trash_bytes=CHARGE, shards=1)
    assert ledger.renters() == (ALICE,)
    assert here.total == Tally()
    ledger.forget(here)
    assert ledger.usage(ALICE) == Usage(trash_bytes=CHARGE, shards=1)
    ledger.settle(here, changes_of(BOB, LIVE))
    assert ledger.usage(BOB) == Usage(live_bytes=CHARGE, shards=1)


def test_an_upload_outlives_the_volume_it_was_for_until_whoever_holds_it_lets_go(
    ledger: Ledger,
) -> None:
    account = account_of()
    ledger.settle(account, changes_of(ALICE, LIVE))
    reservation = ledger.reserve(account, contract_of(ALICE), SIZE)
    ledger.forget(account)
    assert ledger.usage(ALICE) == Usage(reserved_bytes=CHARGE)
    reservation.release()
    assert ledger.renters() == ()


def copied(ledger: Ledger, source: VolumeAccount, target: VolumeAccount) -> None:
    copy = ledger.reserve_copy(target, source, ALICE, SHARD, SIZE)
    ledger.settle(target, changes_of(ALICE, LIVE), [copy])


def test_a_copy_to_another_volume_takes_space_there_and_none_of_the_renters(
    ledger: Ledger,
) -> None:
    source, target = account_of(), account_of()
    ledger.settle(source, changes_of(ALICE, LIVE))
    with ledger.reserve_copy(target, source, ALICE, SHARD, SIZE) as copy:
        pass
    assert (target.reserved_bytes, target.unallocated_bytes) == (CHARGE, CHARGE)
    assert target.pending_overhead_bytes == overhead_bytes(SIZE)
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)
    copy.release()
    assert (target.reserved_bytes, target.pending_overhead_bytes) == (0, 0)
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)


@pytest.mark.parametrize("size", [MIB, SIZE])
def test_a_copy_needs_room_for_its_overhead_too(ledger: Ledger, size: int) -> None:
    needed, source = charge_bytes(size) + overhead_bytes(size), account_of()
    with pytest.raises(NoSpaceError) as refused:
        ledger.reserve_copy(account_of(disk_bytes=needed - 1), source, ALICE, SHARD, size)
    assert refused.value.available_bytes == needed - 1
    ledger.reserve_copy(account_of(disk_bytes=needed), source, ALICE, SHARD, size)


def test_a_shard_on_two_volumes_counts_once_for_its_renter_until_it_has_left_one(
    ledger: Ledger,
) -> None:
    source, target = account_of(), account_of()
    once = Usage(live_bytes=CHARGE, trash_bytes=CHARGE, shards=2)
    ledger.settle(source, changes_of(ALICE, LIVE, TRASH))
    copied(ledger, source, target)
    assert ledger.usage(ALICE) == once
    assert target.total == LIVE
    leaving = ledger.leaving(source, ALICE, SHARD)
    assert ledger.usage(ALICE) == once
    ledger.settle(source, changes_of(ALICE, without(LIVE)), [leaving])
    assert ledger.usage(ALICE) == once
    assert source.total == TRASH
    assert (source.reserved_bytes, source.unallocated_bytes) == (0, 0)
    assert source.pending_overhead_bytes == 0


def test_a_shard_on_two_volumes_is_one_of_those_that_a_contract_may_have(ledger: Ledger) -> None:
    source, target = account_of(), account_of()
    ledger.settle(source, changes_of(ALICE, LIVE, LIVE))
    copied(ledger, source, target)
    ledger.reserve(target, contract_of(ALICE), SIZE)
    with pytest.raises(TooManyError):
        ledger.reserve(target, contract_of(ALICE), SIZE)


def test_who_has_only_a_shard_that_has_left_everywhere_is_forgotten(ledger: Ledger) -> None:
    source, target = account_of(), account_of()
    ledger.settle(source, changes_of(ALICE, LIVE))
    copied(ledger, source, target)
    ledger.settle(source, changes_of(ALICE, without(LIVE)))
    ledger.settle(target, changes_of(ALICE, without(LIVE)))
    assert ledger.renters() == (ALICE,), "it is not known yet that it has left the source"
    ledger.settle(source, Changes(), [ledger.leaving(source, ALICE, SHARD)])
    assert ledger.renters() == ()


@pytest.mark.parametrize("forgotten", [0, 1])
def test_a_shard_on_two_volumes_counts_once_when_one_of_them_is_closed(
    ledger: Ledger, forgotten: int
) -> None:
    accounts = [account_of(), account_of()]
    ledger.settle(accounts[0], changes_of(ALICE, LIVE))
    copied(ledger, *accounts)
    ledger.forget(accounts[forgotten])
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)
    ledger.forget(accounts[1 - forgotten])
    assert ledger.renters() == ()


def test_a_shard_that_arrives_when_its_source_is_closed_counts_once(ledger: Ledger) -> None:
    source, target = account_of(), account_of()
    ledger.settle(source, changes_of(ALICE, LIVE))
    copy = ledger.reserve_copy(target, source, ALICE, SHARD, SIZE)
    ledger.forget(source)
    ledger.settle(target, changes_of(ALICE, LIVE), [copy])
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)


def test_of_shards_on_two_volumes_only_those_of_the_closed_one_count_as_single(
    ledger: Ledger,
) -> None:
    source, target, third = account_of(), account_of(), account_of()
    ledger.settle(source, changes_of(ALICE, LIVE))
    copied(ledger, source, target)
    ledger.forget(third)
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)


def test_the_leaving_of_a_shard_that_did_not_cross_changes_nothing(ledger: Ledger) -> None:
    account = account_of()
    ledger.settle(account, changes_of(ALICE, LIVE))
    ledger.settle(account, Changes(), [ledger.leaving(account, ALICE, SHARD)])
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)


def test_what_was_promised_to_who_has_shards_too_is_given_back(ledger: Ledger) -> None:
    account = account_of()
    ledger.settle(account, changes_of(ALICE, LIVE))
    ledger.reserve(account, contract_of(ALICE), SIZE).release()
    assert ledger.usage(ALICE) == Usage(live_bytes=CHARGE, shards=1)


def test_a_shard_that_crosses_in_the_trash_counts_once_as_trash(ledger: Ledger) -> None:
    source, target = account_of(), account_of()
    ledger.settle(source, changes_of(ALICE, TRASH))
    copy = ledger.reserve_copy(target, source, ALICE, SHARD, SIZE)
    copy.crosses = (SHARD, TRASH)
    ledger.settle(target, changes_of(ALICE, TRASH), [copy])
    assert ledger.usage(ALICE) == Usage(trash_bytes=CHARGE, shards=1)


def test_a_changed_quota_counts_at_once(ledger: Ledger) -> None:
    account = account_of()
    ledger.change_quota(account, 1 << 39, 1 << 20)
    assert (account.quota_bytes, account.keep_free_bytes) == (1 << 39, 1 << 20)
    assert account.free_bytes == (1 << 39) - account.allowance_bytes
