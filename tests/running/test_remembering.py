"""A contract database that is lost or old is found out by what the volumes remember."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farmer.model.contract import Contract, ContractStage, Offer
from farmer.model.ids import InviteSerial, NodeId, ShardId
from farmer.running import offline
from farmer.running.home import Home
from farmer.running.remembering import complaints, recover
from farmer.running.stores import Stores, open_stores
from farmer.settings.loader import load_text
from farmer.settings.schema import Settings
from farmer.storage.book_schema import BookDamagedError
from farmer.storage.directory import Paths
from farmer.storage.errors import (
    InviteSpentError,
    InviteUnknownError,
    NoContractError,
    VolumeUnavailableError,
)
from farmer.storage.files import OsFiles
from farmer.storage.generation import Generation, Witness
from tests.storage.bench import noise, shard_of
from tests.storage.recording import Fault, RecordingFiles

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
MIB = 1024 * 1024
ANNA, BERTA, EVE = (NodeId(letter * 32) for letter in (b"a", b"b", b"e"))
DATA = noise(70_000)


class House:
    """A home with one volume, which is shut and opened again."""

    def __init__(self, root: Path) -> None:
        self.home = Home.find(str(root / "home"), None, {}, 1000)
        self.home.make()
        self.disk = root / "disk"
        self.settings: Settings = load_text(
            f"version: 1\nvolumes: [{{path: {self.disk}, quota: 100MB}}]\n", "f", {}
        ).settings
        self.stores = self.open()

    def open(self) -> Stores:
        self.stores = open_stores(self.home, self.settings, lambda: NOW_MS, print)
        return self.stores

    def mint(self) -> InviteSerial:
        offer = Offer(
            space_bytes=MIB,
            duration_ms=90 * DAY_MS,
            created_at_ms=NOW_MS,
            expires_at_ms=NOW_MS + 7 * DAY_MS,
        )
        return self.stores.book.mint(offer, 1 << 40)

    def store(self, contract: Contract, data: bytes = DATA) -> ShardId:
        shard = shard_of(data)
        upload: Any = self.stores.engine.begin(contract, shard, len(data))
        upload.write(data)
        upload.commit().result(20)
        return shard

    def read(self, renter: NodeId, shard: ShardId) -> bytes:
        reader = self.stores.engine.open(renter, shard)
        try:
            return reader.read(0, reader.stored.size_bytes)
        finally:
            reader.close()

    def alerts(self) -> set[str]:
        return {alert.name for alert in complaints(self.stores.book, self.stores.engine)}


@pytest.fixture
def house(tmp_path: Path) -> Any:
    house = House(tmp_path)
    yield house
    house.stores.close()


def everything_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


def yesterdays_copy_put_back(path: Path, copies: Path) -> None:
    for one in everything_of(path):
        one.unlink()
    for one in copies.iterdir():
        shutil.copy(one, path.parent / one.name)


def removed(path: Path, _copies: Path) -> None:
    for one in everything_of(path):
        one.unlink()


def emptied(path: Path, _copies: Path) -> None:
    removed(path, _copies)
    path.touch()


def without_its_log(path: Path, copies: Path) -> None:
    """The main file alone, as a careless backup has it."""
    for one in everything_of(path):
        one.unlink()
    shutil.copy(copies / path.name, path)


def zeroed(path: Path, _copies: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path, _copies: Path) -> None:
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 64):
        raw[at] ^= 0xFF
    path.write_bytes(raw)


Harm = Callable[[Path, Path], None]


def harmed(house: House, harm: Harm, tmp_path: Path) -> tuple[InviteSerial, InviteSerial]:
    """Anna and Berta join, Berta after the copy; return Berta's invite and one still open."""
    anna = house.stores.book.redeem(house.mint(), ANNA)
    house.store(anna)
    spent, opened = house.mint(), house.mint()
    copies = tmp_path / "copies"
    copies.mkdir()
    for one in everything_of(house.home.contracts):
        shutil.copy(one, copies / one.name)
    berta = house.stores.book.redeem(spent, BERTA)
    house.store(berta)
    house.stores.close()
    harm(house.home.contracts, copies)
    return spent, opened


def test_the_words_of_an_alert_are_whole_without_the_command_behind_them(
    house: House, tmp_path: Path
) -> None:
    """Page, status and log each put the command in a place of its own."""
    harmed(house, removed, tmp_path)
    house.open()
    words = [one.message for one in complaints(house.stores.book, house.stores.engine)]
    assert [text.rpartition(" made ")[2] for text in words] == [
        "again from the shards",
        "again from what the shards say",
    ]


@pytest.mark.parametrize("harm", [yesterdays_copy_put_back, removed, emptied, without_its_log])
def test_spent_invites_do_not_revive_and_shards_are_served_again(
    house: House, tmp_path: Path, harm: Harm
) -> None:
    spent, opened = harmed(house, harm, tmp_path)
    house.open()
    for serial in (spent, opened):
        with pytest.raises((InviteUnknownError, InviteSpentError)):
            house.stores.book.redeem(serial, EVE)
    assert house.alerts() == {"ContractsRolledBack", "ContractsMissing"}
    with pytest.raises(NoContractError):
        house.stores.book.find(BERTA)
    # Still so after a restart, and what is minted now can be redeemed.
    house.stores.close()
    house.open()
    assert "ContractsRolledBack" in house.alerts()
    with pytest.raises((InviteUnknownError, InviteSpentError)):
        house.stores.book.redeem(spent, EVE)
    house.stores.book.redeem(house.mint(), EVE)

    house.stores.engine._deleting._stamps.observed_ms = lambda: 5_000_000
    trashed = house.store(house.stores.book.find(EVE)[0], b"to be trashed")
    house.stores.engine.delete(EVE, trashed, erase=False).result(20)
    made = recover(house.stores.book, house.stores.engine, NOW_MS)
    assert house.stores.book.clock.observed_ms == 5_000_000
    assert BERTA in {contract.renter for contract in made}
    assert house.alerts() == set()
    contract, stage = house.stores.book.find(BERTA)
    assert stage is ContractStage.ACTIVE
    assert contract.until_ms == NOW_MS + 90 * DAY_MS, "as the shard's header says"
    assert house.read(BERTA, shard_of(DATA)) == house.read(ANNA, shard_of(DATA)) == DATA
    house.stores.close()
    house.open()
    assert house.alerts() == set()


@pytest.mark.parametrize("harm", [zeroed, flipped])
def test_a_damaged_database_is_set_aside_by_the_owner_and_made_again(
    house: House, tmp_path: Path, harm: Harm
) -> None:
    spent, opened = harmed(house, harm, tmp_path)
    with pytest.raises(BookDamagedError, match="farmer contract recover"):
        house.open()
    answer = offline.do(house.home, house.settings, "contract-recover", {})
    assert Path(answer["set_aside"]).exists()
    assert {row["renter"] for row in answer["contracts"]} == {str(ANNA), str(BERTA)}
    house.open()
    assert house.alerts() == set()
    for serial in (spent, opened):
        with pytest.raises(InviteUnknownError):
            house.stores.book.redeem(serial, EVE)
    assert house.read(BERTA, shard_of(DATA)) == DATA


def test_a_database_put_back_without_a_change_since_is_no_news(
    house: House, tmp_path: Path
) -> None:
    house.stores.book.redeem(house.mint(), ANNA)
    opened = house.mint()
    house.stores.close()
    copies = tmp_path / "copies"
    copies.mkdir()
    for one in everything_of(house.home.contracts):
        shutil.copy(one, copies / one.name)
    yesterdays_copy_put_back(house.home.contracts, copies)
    house.open()
    assert house.alerts() == set()
    house.stores.book.redeem(opened, BERTA)


def test_a_volume_that_was_away_bears_witness_when_it_is_back(
    house: House, tmp_path: Path
) -> None:
    spent, opened = harmed(house, yesterdays_copy_put_back, tmp_path)
    hidden = house.disk.with_name("hidden")
    house.disk.rename(hidden)
    house.open()
    with pytest.raises(VolumeUnavailableError, match="no volume can remember"):
        house.stores.book.redeem(opened, EVE)
    with pytest.raises(VolumeUnavailableError, match="away"):
        recover(house.stores.book, house.stores.engine, NOW_MS)
    house.stores.close()
    hidden.rename(house.disk)
    house.open()
    with pytest.raises(InviteUnknownError):
        house.stores.book.redeem(spent, EVE)


def test_a_redeem_that_no_volume_could_note_is_refused_and_given_when_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RecordingFiles()
    monkeypatch.setattr("farmer.running.stores.OsFiles", lambda: files)
    house = House(tmp_path)
    serial = house.mint()
    files.fault = Fault(0, errno.EIO, lambda call: call.path == "book")
    with pytest.raises(VolumeUnavailableError):
        house.stores.book.redeem(serial, ANNA)
    files.fault = None
    files.forget()
    contract = house.stores.book.redeem(serial, ANNA)
    assert [call.name for call in files.calls if call.path == "book"] == ["pwritev", "sync_data"]
    assert house.stores.book.find(ANNA)[0] == contract
    with pytest.raises(InviteSpentError):
        house.stores.book.redeem(serial, EVE)
    house.stores.close()


def test_a_torn_note_leaves_the_one_before(house: House) -> None:
    """Whichever copy a note was written over, the other one says what was there before."""
    paths = Paths(house.disk)
    witness = Witness(OsFiles(), paths)
    witness.recall()
    (before,) = witness.seen
    for counter in range(100, 104):
        old = paths.book.read_bytes().ljust(4096 + 256, b"\0")
        noted = Generation(b"i" * 16, counter, b"stampedo")
        witness.note(noted)
        new = paths.book.read_bytes().ljust(4096 + 256, b"\0")
        (at,) = (at for at in range(0, len(new), 256) if new[at : at + 256] != old[at : at + 256])
        paths.book.write_bytes(new[: at + 100] + noise(156) + new[at + 256 :])
        again = Witness(OsFiles(), paths)
        again.recall()
        assert again.seen == (before,)
        again.close()
        paths.book.write_bytes(new)
        before = noted
    witness.close()
