"""The ledger alone: what a promise takes, and that nothing comes between check and promise."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from farmer.model.shard import charge_bytes
from farmer.storage.errors import ContractFullError, NoSpaceError
from farmer.storage.quota import Ledger, VolumeAccount, overhead_bytes
from tests.storage.bench import ALICE, MIB, contract_of

SIZES = [0, 4000, MIB, MIB + 1, 20 * MIB]


def account_of(filesystem_free_bytes: int = 1 << 40) -> VolumeAccount:
    return VolumeAccount(128 * MIB, 0, filesystem_free_bytes=filesystem_free_bytes)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(uploads_per_renter_max=9, shards_per_contract_max=9)


@pytest.mark.parametrize("size", SIZES)
def test_a_shard_needs_room_for_its_overhead_too(ledger: Ledger, size: int) -> None:
    needed = charge_bytes(size) + overhead_bytes(size)
    with pytest.raises(NoSpaceError):
        ledger.reserve(account_of(needed - 1), contract_of(ALICE), size)
    ledger.reserve(account_of(needed), contract_of(ALICE), size)


@pytest.mark.parametrize("size", SIZES)
def test_a_promise_takes_the_overhead_too_and_gives_all_back_once(
    ledger: Ledger, size: int
) -> None:
    account = account_of()
    free = account.free_bytes
    reservation = ledger.reserve(account, contract_of(ALICE), size)
    assert free - account.free_bytes == charge_bytes(size) + overhead_bytes(size)
    reservation.release()
    reservation.release()
    assert account.free_bytes == free
    assert ledger.renters() == ()


class Gap:
    """A lock behind whose first release something else happens at once."""

    def __init__(self, then: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._then: list[Callable[[], object]] = [then]

    def __enter__(self) -> None:
        assert self._lock.acquire(timeout=5)

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()
        if self._then:
            self._then.pop()()

    @property
    def is_held(self) -> bool:
        return self._lock.locked()


def test_nothing_comes_between_the_check_of_the_volume_and_the_promise(ledger: Ledger) -> None:
    size = 20 * MIB
    account = account_of(charge_bytes(size) + overhead_bytes(size))

    def second() -> None:
        with pytest.raises(NoSpaceError):
            ledger.reserve(account, contract_of(ALICE), size)

    ledger._lock = Gap(second)  # type: ignore[assignment]  # all that is asked of a lock
    ledger.reserve(account, contract_of(ALICE), size)
    assert account.reserved_bytes == charge_bytes(size)


def test_nothing_comes_between_the_check_of_the_contract_and_the_promise(ledger: Ledger) -> None:
    size = 20 * MIB
    account, contract = account_of(), contract_of(ALICE, charge_bytes(size))

    def second() -> None:
        with pytest.raises(ContractFullError):
            ledger.reserve(account, contract, size)

    ledger._lock = Gap(second)  # type: ignore[assignment]  # all that is asked of a lock
    ledger.reserve(account, contract, size)
    assert ledger.usage(ALICE).reserved_bytes == charge_bytes(size)


def test_free_space_is_looked_at_under_the_lock(ledger: Ledger) -> None:
    gap = Gap(lambda: None)

    class Watched(VolumeAccount):
        @property
        def free_bytes(self) -> int:
            looks.append(gap.is_held)
            return super().free_bytes

    looks: list[bool] = []
    ledger._lock = gap  # type: ignore[assignment]  # all that is asked of a lock
    ledger.reserve(Watched(128 * MIB, 0, filesystem_free_bytes=1 << 40), contract_of(ALICE), 10)
    assert looks == [True]
