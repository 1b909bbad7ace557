"""An old contract database spends nothing before the volumes were asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from farmer.model.ids import InviteSerial
from farmer.storage.errors import InviteSpentError, InviteUnknownError, VolumeUnavailableError
from tests.running.test_remembering import EVE, House, harmed, yesterdays_copy_put_back


@pytest.fixture
def house(tmp_path: Path):  # type: ignore[no-untyped-def]
    house = House(tmp_path)
    yield house
    house.stores.close()


def opened_without_its_volume(
    house: House, tmp_path: Path
) -> tuple[tuple[InviteSerial, InviteSerial], Path]:
    """Put back yesterday's database; return the invites that it calls open, and the volume."""
    invites = harmed(house, yesterdays_copy_put_back, tmp_path)
    hidden = house.disk.with_name("hidden")
    house.disk.rename(hidden)
    house.open()
    return invites, hidden


def test_a_refused_redeem_spends_nothing_while_no_volume_is_there(
    house: House, tmp_path: Path
) -> None:
    """Else it would find itself done when the volume is back, with an invite spent twice."""
    invites, hidden = opened_without_its_volume(house, tmp_path)
    for serial in invites:
        with pytest.raises(VolumeUnavailableError, match="no volume can remember"):
            house.stores.book.redeem(serial, EVE)
    hidden.rename(house.disk)
    house.stores.engine.look_after_disks()
    for serial in invites:
        with pytest.raises((InviteUnknownError, InviteSpentError)):
            house.stores.book.redeem(serial, EVE)


def test_a_volume_that_comes_back_is_asked_before_anything_is_changed(
    house: House, tmp_path: Path
) -> None:
    """Not only at the next look: two changes would write over what it remembers."""
    invites, hidden = opened_without_its_volume(house, tmp_path)
    hidden.rename(house.disk)
    house.stores.engine.look_after_disks()
    for _ in range(3):
        house.mint()
    assert "ContractsRolledBack" in house.alerts()
    for serial in invites:
        with pytest.raises(InviteUnknownError):
            house.stores.book.redeem(serial, EVE)
