"""What a renter keeps, over crashes and releases."""

import errno
import os
import pwd
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from farmer.client.dial import FarmerAddress
from farmer.client.errors import FarmerBrokeProtocolError, NotJoinedError
from farmer.client.home import (
    LEDGER_FILE,
    Home,
    NotStoredError,
    UnknownHomeError,
    UnknownShardError,
    default_home,
    named_home,
)
from farmer.client.ledger import Ledger, LedgerError
from farmer.client.ledger_rows import Standing
from farmer.identity.keys import Identity
from farmer.model.addresses import ADDRESSES_MAX
from farmer.model.ids import ContractId, NodeId, ShardId
from farmer.model.shard import SHARD_BYTES_MAX
from farmer.protocol.documents import contract_body, receipt_bytes
from tests.client.fake_farmer import FakeFarmer

ONE, OTHER = NodeId(bytes([1]) * 32), NodeId(bytes([2]) * 32)
SHARD = ShardId(bytes([0xAB]) * 32)


@pytest.fixture
def home(tmp_path):
    home = Home.open(tmp_path / "home")
    yield home
    home.ledger.close()


@pytest.fixture
def fake():
    return FakeFarmer(Identity.of_key(Ed25519PrivateKey.generate()))


def test_what_was_kept_is_there_in_a_copy_taken_without_closing(home, fake, tmp_path):
    home.ledger.join(FarmerAddress(ONE, ("a:1", "[::1]:2")), fake.shown())
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "/a/file")
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    copy = Home.open(tmp_path / "copy")
    assert copy.farmer() == FarmerAddress(ONE, ("a:1", "[::1]:2"))
    (entry,) = copy.ledger.entries()
    assert (entry.receipt, entry.farmer) == (fake.receipt(SHARD, 7), ONE)
    assert (entry.file, entry.standing) == ("/a/file", Standing.HELD)
    assert copy.identity == home.identity
    copy.ledger.close()


def test_every_change_is_synced(home):
    ((level,),) = home.ledger._connection.execute("PRAGMA synchronous").fetchall()
    assert level == 2


def test_nobody_else_may_read_the_home(home, tmp_path):
    for path in (tmp_path / "home", *(tmp_path / "home").iterdir()):
        assert not path.stat().st_mode & 0o077, path


def test_the_farmer_joined_last_is_the_default_and_prefixes_name_the_others(home, fake):
    with pytest.raises(NotJoinedError, match="renter join"):
        home.farmer()
    for farmer in (ONE, OTHER, ONE):
        home.ledger.join(FarmerAddress(farmer, ("a:1",)), fake.shown())
    assert home.farmer().farmer == ONE
    assert home.farmer("0202").farmer == OTHER
    with pytest.raises(NotJoinedError, match="2 joined farmers"):
        home.farmer("0")
    with pytest.raises(NotJoinedError, match="no joined farmer"):
        home.farmer("ff")


def test_a_shard_is_asked_for_where_its_receipt_says(home, fake):
    for farmer in (ONE, OTHER):
        home.ledger.join(FarmerAddress(farmer, ("a:1",)), fake.shown())
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "")
    assert home.holder(SHARD).farmer == ONE
    assert home.holder(ShardId(bytes(32))).farmer == OTHER
    assert home.holder(SHARD, "02").farmer == OTHER


def test_the_beginning_of_a_stored_id_stands_for_it(home, fake):
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "")
    assert home.shard("ABABABAB") == SHARD
    assert home.shard(str(SHARD)) == SHARD
    home.ledger.keep(ONE, fake.receipt(ShardId(b"\xab" * 31 + b"\0"), 7), "")
    with pytest.raises(UnknownShardError, match="2 shards"):
        home.shard("abababab")
    with pytest.raises(NotStoredError, match="renter list"):
        home.shard("cdcdcdcd")
    for text in ("ababab", "x" * 64, ""):
        with pytest.raises(UnknownShardError, match="not a shard id"):
            home.shard(text)


def test_a_receipt_without_a_file_leaves_the_file_that_is_known(home, fake):
    """Of what is stored again from a pipe: a repair needs the copy."""
    home.keep(ONE, fake.receipt(SHARD, 7), "/file")
    home.keep(ONE, fake.receipt(SHARD, 7), "")
    assert [entry.file for entry in home.ledger.entries()] == ["/file"]
    home.keep(ONE, fake.receipt(SHARD, 7), "/other")
    assert [entry.file for entry in home.ledger.entries()] == ["/other"]


def test_what_was_deleted_is_not_held_until_it_is_again(home, fake):
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "")
    assert [entry.receipt.shard for entry in home.held()[ONE]] == [SHARD]
    for standing in (Standing.TRASHED, Standing.ERASED):
        home.ledger.mark(ONE, SHARD, standing)
        assert home.held() == {}
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "")
    assert list(home.held("01")) == [ONE]
    assert home.held("02") == {}


def test_a_shard_that_one_farmer_still_holds_is_looked_for_there(home, fake):
    for farmer in (ONE, OTHER):
        home.ledger.keep(farmer, fake.receipt(SHARD, 7), "")
    home.ledger.mark(ONE, SHARD, Standing.ERASED)
    assert home.entry(SHARD).farmer == OTHER
    assert home.entry(SHARD, standing=Standing.TRASHED).farmer == OTHER
    home.ledger.mark(OTHER, SHARD, Standing.TRASHED)
    assert home.entry(SHARD).farmer == OTHER
    home.ledger.mark(ONE, SHARD, Standing.HELD)
    assert home.entry(SHARD).farmer == ONE
    assert home.entry(SHARD, standing=Standing.TRASHED).farmer == OTHER


def test_a_notice_is_told_once(home):
    assert [home.ledger.tell_once("x"), home.ledger.tell_once("x")] == [True, False]


def test_a_newer_ledger_is_left_alone(tmp_path):
    path = tmp_path / LEDGER_FILE
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="newer release"):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_named(tmp_path):
    (tmp_path / LEDGER_FILE).write_bytes(b"nonsense" * 1000)
    with pytest.raises(LedgerError, match="backup"):
        Ledger.open(tmp_path / LEDGER_FILE)
    with pytest.raises(LedgerError):
        Ledger.open(tmp_path / "absent" / LEDGER_FILE)


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "who may write to it"),
        (errno.EROFS, "who may write to it"),
        (errno.EIO, "look at its disk"),
    ],
)
def test_a_ledger_that_cannot_be_opened_need_not_be_damaged(tmp_path, monkeypatch, number, what):
    """Who brings a backup back loses the receipts since."""
    monkeypatch.setattr(Path, "touch", failing(number))
    with pytest.raises(LedgerError, match="not known to be damaged") as caught:
        Ledger.open(tmp_path / LEDGER_FILE)
    assert what in str(caught.value)
    assert "backup" not in str(caught.value)


def test_a_ledger_that_another_program_uses_is_not_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("farmer.client.ledger._BUSY_S", 0)
    Ledger.open(tmp_path / LEDGER_FILE).close()
    other = sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="not known to be damaged: another program uses it"):
        Ledger.open(tmp_path / LEDGER_FILE)
    other.close()


def test_a_ledger_that_another_program_is_just_making_is_waited_for(tmp_path, monkeypatch):
    """As by two commands at once in a new home."""
    other = sqlite3.connect(tmp_path / LEDGER_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("time.sleep", lambda _: other.close())
    Ledger.open(tmp_path / LEDGER_FILE).close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        other.execute("COMMIT")


@pytest.mark.parametrize(
    ("setting", "what"),
    [("max_page_count = 1", "free some space"), ("query_only = 1", "who may write to it")],
)
def test_a_write_that_fails_says_what_to_do(home, fake, setting, what):
    home.ledger._connection.execute(f"PRAGMA {setting}")
    with pytest.raises(LedgerError, match=what):
        for number in range(200):
            home.ledger.keep(ONE, fake.receipt(ShardId(bytes([number]) * 32), 7), "")


def test_of_what_sqlite_says_the_details_do_not_count(home):
    """As when the table of free pages is found to be wrong."""
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
    home.ledger._connection.close()
    home.ledger._connection = Sick(error)
    with pytest.raises(LedgerError, match=r"malformed; bring it back .* Without one move it away"):
        home.ledger.entries()


class Sick:
    """A connection of which every question fails."""

    def __init__(self, error):
        self.error = error

    def execute(self, *_):
        raise self.error

    def close(self):
        """Nothing is open."""


def spoil(home, text, *values):
    home.ledger._connection.execute(text, values)


GOOD = ShardId(bytes([0xCD]) * 32)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("receipt", b"short"),
        ("receipt", "text"),
        ("receipt", 10**12),
        ("farmer", b"short"),
        ("shard", b"\xab" * 31 + b"\0"),
        ("shard", 7),
        ("file", 5),
        ("standing", 9),
        ("standing", "held"),
    ],
)
def test_a_damaged_receipt_is_named_and_the_others_are_there(home, fake, column, value):
    for shard in (SHARD, GOOD):
        home.ledger.keep(ONE, fake.receipt(shard, 7), "")
    spoil(home, f"UPDATE receipts SET {column} = ? WHERE shard = ?", value, SHARD.raw)
    assert [entry.receipt.shard for entry in home.ledger.entries()] == [GOOD]
    assert [entry.receipt.shard for entry in home.held()[ONE]] == [GOOD]
    (damaged,) = home.ledger.damaged
    assert "the renter's ledger is damaged" in str(damaged)
    mended = "a backup" if column in {"farmer", "shard"} else "store the file again"
    assert mended in str(damaged)
    assert home.entry(GOOD).farmer == ONE


@pytest.mark.parametrize("column", ["receipt", "shard", "farmer", "file", "standing"])
def test_a_text_of_no_letters_costs_no_other_row(home, fake, column):
    """Python would decode it, and one that cannot be decoded ended the whole answer."""
    for shard in (SHARD, GOOD):
        home.ledger.keep(ONE, fake.receipt(shard, 7), "/a/b")
    spoil(
        home,
        f"UPDATE receipts SET {column} = CAST({column} || x'ff' AS TEXT) WHERE shard = ?",
        SHARD.raw,
    )
    assert [entry.receipt.shard for entry in home.ledger.entries()] == [GOOD]
    (damaged,) = home.ledger.damaged
    assert "a text in place of" in str(damaged) or "is one for" in str(damaged)


def test_a_bit_of_a_header_costs_its_row_only(home, fake, tmp_path):
    """The kind of the receipt, and with its length where the next value begins."""
    for shard in (SHARD, GOOD):
        home.ledger.keep(ONE, fake.receipt(shard, 7), "/a/b")
    spoil(home, "PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / "home" / LEDGER_FILE
    content = bytearray(path.read_bytes())
    # Before the values: their kinds, of which 0x4c is a blob of 32 bytes.
    kinds = content.rfind(b"\x4c\x4c", 0, content.find(ONE.raw + SHARD.raw))
    assert content[kinds + 2] & 0x80, "the kind of a receipt has two bytes"
    content[kinds + 3] ^= 1
    path.write_bytes(content)
    ledger = Ledger.open(path)
    assert [entry.receipt.shard for entry in ledger.entries()] == [GOOD]
    (damaged,) = ledger.damaged
    assert str(SHARD) in str(damaged)
    ledger.close()


@pytest.mark.parametrize("cast", ["BLOB", "TEXT"])
@pytest.mark.parametrize("column", ["farmer", "shard", "file", "standing"])
def test_what_is_told_of_a_damaged_row_is_no_receipt(home, fake, column, cast):
    """Whatever column its bytes came into."""
    receipt = receipt_bytes(fake.receipt(SHARD, 7))
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "")
    spoil(home, f"UPDATE receipts SET {column} = CAST({column} || ? AS {cast})", receipt)
    home.ledger.entries()
    told = " ".join(map(str, home.ledger.damaged))
    assert receipt[-32:].hex() not in told
    assert repr(receipt[-8:])[2:-1] not in told


def test_a_receipt_with_a_bit_that_changed_is_held_against_nobody(home, fake):
    """It can be read, and says what the farmer never signed."""
    for shard in (SHARD, GOOD):
        home.ledger.keep(ONE, fake.receipt(shard, 7), "/a/file")
    raw = bytearray(receipt_bytes(fake.receipt(SHARD, 7)))
    raw[113 + 6] ^= 1
    spoil(home, "UPDATE receipts SET receipt = ? WHERE shard = ?", bytes(raw), SHARD.raw)
    changed, good = sorted(home.ledger.entries(), key=lambda entry: entry.receipt.shard)
    assert changed.receipt.size_bytes == 263
    assert not home.ledger.damaged
    assert [home.ledger.is_sound(entry) for entry in (good, changed, changed)] == [True, 0, 0]
    (damaged,) = home.ledger.damaged
    assert "is not as the farmer signed it; store the file again" in str(damaged)
    assert (damaged.farmer, damaged.is_expected) == (ONE, True)
    assert home.entry(SHARD) is None
    assert home.entry(GOOD) == good


def test_a_receipt_for_more_than_a_shard_can_have_is_damaged(home, fake):
    home.ledger.keep(ONE, fake.receipt(SHARD, SHARD_BYTES_MAX + 1), "")
    assert home.ledger.entries() == []
    assert "more bytes than a shard can have" in str(home.ledger.damaged[0])


def test_a_shard_with_a_changed_receipt_is_asked_for_where_it_was_stored(home, fake):
    for farmer in (ONE, OTHER):
        home.ledger.join(FarmerAddress(farmer, ("a:1",)), fake.shown())
    home.ledger.keep(ONE, replace(fake.receipt(SHARD, 7), size_bytes=8), "")
    assert home.entry(SHARD) is None
    assert home.holder(SHARD).farmer == ONE


def test_a_receipt_is_held_to_the_contract_that_the_farmer_showed_last(home, fake):
    good = fake.receipt(SHARD, 7)
    home.keep(ONE, good, "of a farmer that was never joined")
    home.ledger.join(FarmerAddress(ONE, ("a:1",)), fake.shown())
    assert home.ledger.contract(ONE) == fake.contract
    for worthless, told in (
        (replace(good, contract=ContractId(b"7" * 16)), "is under another contract"),
        (replace(good, until_ms=fake.contract.until_ms - 1), "ends before the contract"),
    ):
        with pytest.raises(FarmerBrokeProtocolError, match=told):
            home.keep(ONE, worthless, "")
    home.keep(ONE, replace(good, until_ms=good.until_ms + 1), "extended since")
    fake.contract = replace(fake.contract, revision=2, until_ms=8)
    home.ledger.refresh(ONE, fake.shown())
    home.keep(ONE, fake.receipt(SHARD, 7), "ended")
    assert home.farmer() == FarmerAddress(ONE, ("a:1",))


def test_a_contract_renewed_while_a_shard_is_sent_costs_no_receipt(home, fake):
    """The farmer accepted it under the contract before, which the renter knew then."""
    home.ledger.join(FarmerAddress(ONE, ("a:1",)), fake.shown())
    before, good = home.ledger.contract(ONE), fake.receipt(SHARD, 7)
    fake.contract = replace(fake.contract, revision=2, until_ms=good.until_ms + 1)
    home.ledger.refresh(ONE, fake.shown())
    with pytest.raises(FarmerBrokeProtocolError, match="ends before the contract"):
        home.keep(ONE, good, "")
    with pytest.raises(FarmerBrokeProtocolError, match="ends before the contract"):
        home.keep(ONE, replace(good, until_ms=good.until_ms - 1), "", before)
    home.keep(ONE, good, "", before)
    assert [entry.receipt for entry in home.ledger.entries()] == [good]


def test_no_contract_that_a_farmer_signed_is_lost_to_the_next(home, fake):
    """It may have been the better one; each is kept once, for its own farmer."""
    address, first = FarmerAddress(ONE, ("a:1",)), fake.contract
    home.ledger.join(FarmerAddress(OTHER, ("b:1",)), fake.shown())
    home.ledger.join(address, fake.shown())
    home.ledger.refresh(ONE, fake.shown())
    assert home.ledger.earlier_contracts(ONE) == []
    for fake.contract in (
        replace(first, revision=2, until_ms=8),
        first,
        replace(first, revision=3),
    ):
        home.ledger.refresh(ONE, fake.shown())
    home.ledger.join(address, fake.shown())
    assert home.ledger.earlier_contracts(ONE) == [first, replace(first, revision=2, until_ms=8)]
    fake.contract = replace(first, revision=4)
    home.ledger.join(address, fake.shown())
    assert [one.revision for one in home.ledger.earlier_contracts(ONE)] == [1, 2, 3]
    assert home.ledger.contract(ONE) == fake.contract
    assert home.ledger.earlier_contracts(OTHER) == []


def test_a_ledger_of_an_older_release_keeps_them_too(home, fake, tmp_path):
    """One that has no place for them yet."""
    home.ledger.join(FarmerAddress(ONE, ("a:1",)), fake.shown())
    spoil(home, "DROP TABLE earlier_contracts")
    older = fake.contract
    fake.contract = replace(older, revision=2)
    again = Ledger.open(tmp_path / "home" / LEDGER_FILE)
    again.refresh(ONE, fake.shown())
    assert again.earlier_contracts(ONE) == [older]
    again.close()


@pytest.mark.parametrize("value", [b"short", 7, None])
def test_receipts_are_held_to_no_contract_that_is_damaged(home, fake, value):
    home.ledger.join(FarmerAddress(ONE, ("a:1",)), fake.shown())
    if value is None:
        value = bytearray(contract_body(fake.contract) + fake.shown().signature)
        value[101] ^= 1
    spoil(home, "UPDATE farmers SET contract = ?", value)
    assert home.ledger.contract(ONE) is None
    home.keep(ONE, fake.receipt(SHARD, 7), "")


def test_a_receipt_that_is_kept_again_is_whole(home, fake):
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "")
    spoil(home, "UPDATE receipts SET receipt = x'00'")
    assert home.ledger.entries() == []
    home.ledger.keep(ONE, fake.receipt(SHARD, 7), "")
    assert [entry.receipt.shard for entry in home.ledger.entries()] == [SHARD]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("farmer", b"short"),
        ("farmer", "text"),
        ("farmer", 7),
        ("addresses", "[not json"),
        ("addresses", b"\xff\xfe"),
        ("addresses", "5"),
        ("addresses", '["a:1", 2]'),
        ("addresses", '["nowhere"]'),
        ("addresses", "[]"),
        ("addresses", "[" * 100_000),
    ],
)
def test_a_damaged_farmer_is_named_and_the_others_can_be_asked(home, fake, column, value):
    """But not as the one joined last: it may have been the other."""
    for farmer in (ONE, OTHER):
        home.ledger.join(FarmerAddress(farmer, ("a:1",)), fake.shown())
    if column == "addresses" and isinstance(value, bytes):
        spoil(home, "UPDATE farmers SET addresses = CAST(? AS TEXT) WHERE joined = 2", value)
    else:
        spoil(home, f"UPDATE farmers SET {column} = ? WHERE joined = 2", value)
    assert [one.farmer for one in home.ledger.farmers()] == [ONE]
    assert home.farmer("01").farmer == ONE
    with pytest.raises(LedgerError, match="--farmer"):
        home.farmer()
    (damaged,) = home.ledger.damaged
    assert ("a backup" if column == "farmer" else "join it again with its invite") in str(damaged)


def test_a_farmer_that_was_joined_with_more_addresses_than_are_tried_has_the_first_of_them(
    home, fake
):
    places = tuple(f"a:{number}" for number in range(1, 20))
    home.ledger.join(FarmerAddress(ONE, places), fake.shown())
    assert home.farmer() == FarmerAddress(ONE, places[:ADDRESSES_MAX])


def test_a_farmer_is_joined_last_whatever_the_others_rows_say(home, fake):
    home.ledger.join(FarmerAddress(ONE, ("a:1",)), fake.shown())
    spoil(home, "UPDATE farmers SET joined = 'first'")
    home.ledger.join(FarmerAddress(OTHER, ("a:1",)), fake.shown())
    assert {one.farmer for one in home.ledger.farmers()} == {ONE, OTHER}


def test_a_ledger_that_cannot_be_read_is_named(tmp_path, fake):
    """Opened it can be, for the first page is whole."""
    ledger = Ledger.open(tmp_path / LEDGER_FILE)
    for number in range(200):
        ledger.keep(ONE, fake.receipt(ShardId(bytes([number]) * 32), 7), "")
    ledger.close()
    with (tmp_path / LEDGER_FILE).open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 30 * 4096)
    ledger = Ledger.open(tmp_path / LEDGER_FILE)
    with pytest.raises(LedgerError, match="bring it back from a backup"):
        ledger.entries()
    ledger.close()


def test_a_failed_write_is_a_ledger_error_and_changes_nothing(home, fake):
    home.ledger._connection.execute("DROP TABLE told")
    with pytest.raises(LedgerError, match="told"):
        home.ledger.tell_once("x")
    home.ledger.keep(ONE, replace(fake.receipt(SHARD, 7)), "")
    assert len(home.ledger.entries()) == 1


def test_the_home_is_named_by_the_environment():
    assert default_home({"RENTER_HOME": "/a"}) == Path("/a")
    assert default_home({"XDG_DATA_HOME": "/b"}) == Path("/b/renter")
    usual = Path.home() / ".local/share/renter"
    assert default_home({"HOME": os.environ["HOME"]}) == usual
    # Another one in each directory, with another identity, would be of no use.
    assert default_home({"XDG_DATA_HOME": "b"}) == default_home({"XDG_DATA_HOME": "~/b"}) == usual


def test_a_home_may_begin_with_a_tilde(monkeypatch):
    """Which no shell takes away where it stands after `=` or in quotes."""
    monkeypatch.setenv("HOME", "/h")
    assert default_home({"RENTER_HOME": "~/r"}) == Path("/h/r")
    assert named_home("~/r") == Path("/h/r")
    assert named_home("r") == Path("r")


def test_a_home_that_nobody_knows_is_told_with_what_to_do(monkeypatch):
    def nobody(_number):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for environment in ({}, {"RENTER_HOME": "~/r"}, {"RENTER_HOME": "~no-such-user/r"}):
        with pytest.raises(UnknownHomeError, match="name a home with --home or RENTER_HOME"):
            default_home(environment)
    assert default_home({"XDG_DATA_HOME": "/b"}) == Path("/b/renter")
