"""Client and `renter` over a real socket and real TLS, against a farmer in memory."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import random
import shlex
import signal
import sqlite3
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory

from farmer.cli import renter_sources
from farmer.cli.exits import UNANSWERED
from farmer.cli.renter import main
from farmer.client import blocking, dial, refusals
from farmer.client.auditing import Verdict
from farmer.client.door import ThreadDoor
from farmer.client.errors import ConnectionFailedError, WrongFarmerError
from farmer.client.home import LEDGER_FILE
from farmer.client.ledger import Ledger
from farmer.client.ledger_rows import Standing
from farmer.identity.keys import Identity
from farmer.identity.signing import format_link, make_invite
from farmer.identity.tls import farmer_side, renter_side
from farmer.model.contract import ContractStage, InviteLink, Offer, Price
from farmer.model.ids import ContractId, InviteSerial, ShardId
from farmer.model.shard import BLOCK_BYTES, BadBlocks, ShardState, Usage
from farmer.protocol.opening import End
from farmer.protocol.proofs import encode_item
from farmer.protocol.questions import Listed, Stated
from farmer.protocol.refusals import Refusal, Refused
from farmer.protocol.repairs import BadBlocksNamed
from farmer.protocol.transfers import Send, Stored
from farmer.protocol.types import Type
from farmer.running.remembering import RECOVERED_REVISION
from tests.client.fake_farmer import FakeFarmer, Talk, shard_of

pytestmark = pytest.mark.apart

MIB = 1024 * 1024


class Served:
    """A fake farmer that listens on loopback, and the home of its renter."""

    def __init__(self, home: Path):
        self.home = home
        self.fake = FakeFarmer(Identity.create(home))
        offer = Offer(space_bytes=1, duration_ms=1, created_at_ms=1, expires_at_ms=2)
        self.invite = make_invite(self.fake.identity, InviteSerial(bytes(16)), offer)
        self.port = None

    def __enter__(self):
        blocking.run(self._listen)
        return self

    def __exit__(self, *_):
        blocking.run(self._stop)

    async def _listen(self, reactor):
        talks = Factory.forProtocol(lambda: Talk(self.fake))
        tls = TLSMemoryBIOFactory(farmer_side(self.fake.identity), False, talks, reactor)
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(tls)
        self.address = f"127.0.0.1:{self.port.getHost().port}"

    async def _stop(self, _reactor):
        await self.port.stopListening()
        for talk in self.fake.talks:
            if not talk.lost:
                talk.cut()

    @property
    def link(self) -> str:
        node_id = self.fake.identity.node_id
        return format_link(
            InviteLink(farmer=node_id, addresses=(self.address,), invite=self.invite)
        )

    def connect(self):
        return blocking.connect(self.link, self.fake.renter)

    def renter(self, *words: str) -> int:
        return main(["--home", str(self.home), *words])


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path / "home") as farmer:
        yield farmer


@pytest.fixture
def joined(served):
    assert served.renter("join", served.link) == 0
    return served


@pytest.mark.slow
def test_what_is_stored_over_tls_comes_back_and_is_proved(served, tmp_path):
    content = random.Random(1).randbytes(20 * MIB + 17)
    (tmp_path / "file").write_bytes(content)
    with served.connect() as farmer:
        receipt = farmer.store(tmp_path / "file")
        back = io.BytesIO()
        farmer.retrieve(receipt.shard, back)
        part = io.BytesIO()
        farmer.retrieve(receipt.shard, part, 5_000_001, 100_000, proved=True)
        report = farmer.audit([receipt])
        listed = [entry.shard for entry in farmer.list()]
    assert back.getvalue() == content
    assert part.getvalue() == content[5_000_001:5_100_001]
    assert report.is_pass
    assert listed == [receipt.shard]


def test_a_refusal_is_an_exception_in_the_calling_thread(served):
    with served.connect() as farmer, pytest.raises(refusals.NotFoundError):
        farmer.stat(ShardId(bytes(32)))


def test_another_key_at_the_farmers_address_is_told_nothing(served):
    other = Identity.of_key(Ed25519PrivateKey.generate()).node_id
    with (
        blocking.connect(f"{other}@{served.address}", served.fake.renter) as farmer,
        pytest.raises(WrongFarmerError, match="another farmer answers at"),
    ):
        farmer.ping()
    assert served.fake.asked == []


def test_another_key_is_noticed_after_a_handshake_too(served, monkeypatch):
    """Should TLS ever let one through."""
    monkeypatch.setattr(dial, "renter_side", lambda identity, _farmer: renter_side(identity))
    test_another_key_at_the_farmers_address_is_told_nothing(served)


def test_nobody_at_the_address_is_told_at_once(served):
    node_id = served.fake.identity.node_id
    with (
        blocking.connect(f"{node_id}@127.0.0.1:1", served.fake.renter) as farmer,
        pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"),
    ):
        farmer.ping()


def test_an_earlier_copy_stays_until_all_of_the_new_one_is_there(served, tmp_path):
    node_id = served.fake.identity.node_id
    copy = tmp_path / "photo"
    copy.write_bytes(b"earlier")
    copy.chmod(0o606)  # what no umask leaves
    before = sorted(tmp_path.iterdir())
    shard = shard_of(b"later")
    with (
        blocking.connect(f"{node_id}@127.0.0.1:1", served.fake.renter) as away,
        pytest.raises(ConnectionFailedError),
    ):
        away.retrieve(shard, copy)
    assert copy.read_bytes() == b"earlier"
    served.fake.shards[shard] = b"later"
    with served.connect() as farmer:
        farmer.retrieve(shard, str(copy))
        farmer.retrieve(shard, "/dev/null")
    assert copy.read_bytes() == b"later"
    assert copy.stat().st_mode & 0o777 == 0o606
    assert sorted(tmp_path.iterdir()) == before


def test_a_lost_connection_in_mid_store_is_made_again_and_the_store_goes_on(served):
    content = random.Random(2).randbytes(8 * MIB)
    cuts = [3]

    def cut_once(talk):
        if cuts and len(talk.open[2]) > cuts[0] * MIB:
            cuts.pop()
            talk.cut()

    served.fake.on_data = cut_once
    with served.connect() as farmer:
        receipt = farmer.store(io.BytesIO(content))
    assert served.fake.shards[receipt.shard] == content
    assert len(served.fake.talks) == 2


def test_the_command_line_stores_audits_and_brings_back(joined, tmp_path, capsys):
    capsys.readouterr()
    files = []
    for number, size in enumerate((0, 1, 70_000, 3 * MIB + 1)):
        path = tmp_path / f"file {number}"
        path.write_bytes(random.Random(number).randbytes(size))
        files.append(path)
    assert joined.renter("store", *map(str, files), "--json") == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert "as they are" in err
    assert [row["file"] for row in rows] == [str(path) for path in files]
    assert [row["stored"] for row in rows] == [True] * 4
    assert [row["error"] for row in rows] == [None] * 4
    assert joined.renter("audit", "--all", "--json") == 0
    audit = json.loads(capsys.readouterr().out)
    assert (audit["audited"], audit["passed"], audit["failed"]) == (4, 4, 0)
    for row, path in zip(rows, files, strict=True):
        assert joined.renter("retrieve", row["shard"], "-o", str(tmp_path / "back")) == 0
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob(".*.part"))


def test_that_bytes_are_stored_as_they_are_is_said_once(joined, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"1")
    joined.renter("store", str(tmp_path / "file"))
    assert "as they are" in capsys.readouterr().err
    joined.renter("store", str(tmp_path / "file"))
    assert "as they are" not in capsys.readouterr().err


def test_what_is_said_once_is_not_used_up_by_files_that_cannot_be_read(joined, tmp_path, capsys):
    assert joined.renter("store", str(tmp_path / "absent")) == 1
    assert "as they are" not in capsys.readouterr().err
    (tmp_path / "file").write_bytes(b"1")
    assert joined.renter("store", str(tmp_path / "file")) == 0
    assert "as they are" in capsys.readouterr().err


def test_a_file_that_is_too_large_is_told_with_the_command_that_helps(joined, tmp_path, capsys):
    allowed, name = 64 * MIB, "big file.bin"

    def refuse(talk, message):
        talk.refuse(Refusal.SHARD_TOO_LARGE, message.size_bytes, allowed)

    joined.fake.script[Type.STORE] = refuse
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(allowed + 3 * MIB)
    assert joined.renter("store", str(path)) == 1
    words = capsys.readouterr().err
    assert f"{path} was not stored: SHARD_TOO_LARGE: it has 70.3 MB" in words
    assert "this farmer takes 67.1 MB at most: split it " in words
    assert f"(split -b 64M {shlex.quote(str(path))} part-)" in words
    assert "or the owner raises shards.size_max" in words
    assert joined.renter("store", str(path), "--json") == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["refusal"] == {
        "name": "SHARD_TOO_LARGE",
        "declared_bytes": allowed + 3 * MIB,
        "allowed_bytes": allowed,
    }


def test_a_farmer_that_is_busy_for_hours_is_told_at_once(joined, tmp_path, capsys):
    joined.fake.script[Type.STORE] = lambda talk, _: talk.refuse(Refusal.BUSY, 18_000_000)
    (tmp_path / "file").write_bytes(b"precious")
    capsys.readouterr()
    assert joined.renter("store", str(tmp_path / "file"), "--json") == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["error"].endswith("try again in 5 h")
    assert row["refusal"] == {"name": "BUSY", "retry_after_ms": 18_000_000}


def test_every_file_has_its_row_also_when_some_fail(joined, tmp_path, capsys):
    capsys.readouterr()
    (tmp_path / "good").write_bytes(b"good")
    words = (str(tmp_path / "absent"), str(tmp_path), str(tmp_path / "good"))
    assert joined.renter("store", *words, "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["stored"] for row in rows] == [False, False, True]
    assert all(row["error"] for row in rows[:2])


def test_standard_input_is_not_split_between_two_shards(joined, capsys):
    assert joined.renter("store", "-", "-") == 2
    assert "name - once" in capsys.readouterr().err
    assert joined.fake.shards == {}


@pytest.fixture
def piped(tmp_path):
    """A pipe with a name, that somebody writes 3 MiB into."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write():
        with suppress(BrokenPipeError):
            path.write_bytes(bytes(3 * MIB))

    writer = threading.Thread(target=write)
    writer.start()
    yield path
    writer.join()


def test_a_pipe_for_which_there_is_no_room_is_told_with_what_to_do(
    joined, piped, capsys, monkeypatch
):
    full = open("/dev/full", "r+b")  # noqa: SIM115, PTH123 - the store closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
    assert joined.renter("store", str(piped)) == 1
    words = capsys.readouterr().err
    assert f"{piped} was not stored: no room in {tempfile.gettempdir()}" in words
    assert "TMPDIR" in words


def test_an_endless_pipe_does_not_fill_the_disk(joined, piped, capsys, monkeypatch):
    monkeypatch.setattr(renter_sources, "SHARD_BYTES_MAX", MIB)
    assert joined.renter("store", str(piped)) == 1
    words = capsys.readouterr().err
    assert f"{piped} was not stored: it has more than 1.05 MB, as much as a shard can" in words
    assert "split" in words
    assert joined.fake.shards == {}


def test_an_audit_of_all_finds_what_the_farmer_no_longer_has(joined, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    joined.fake.shards.clear()
    capsys.readouterr()
    assert joined.renter("audit", "--all", "--json") == 1
    audit = json.loads(capsys.readouterr().out)
    assert (audit["audited"], audit["passed"], audit["failed"]) == (1, 0, 1)
    assert audit["failures"][0]["shard"] == str(shard_of(b"precious"))
    assert "NOT_FOUND" in audit["failures"][0]["error"]


def test_auditing_at_a_farmer_that_was_never_joined_is_a_slip(joined, capsys):
    assert joined.renter("audit", "--farmer", "9999") == 1
    assert "no joined farmer has an id that begins with '9999'" in capsys.readouterr().err
    assert joined.renter("audit", *named(joined)) == 1
    assert "no receipts" in capsys.readouterr().err


def test_auditing_nothing_fails_and_says_so(joined, capsys):
    assert joined.renter("audit", "--all") == 1
    assert "not a pass" in capsys.readouterr().err


def test_a_full_audit_uses_the_file_or_else_fetches_the_shard(joined, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    assert joined.renter("audit", "--full") == 0
    assert "Retrieve" not in [type(one).__name__ for one in joined.fake.asked]
    (tmp_path / "file").write_bytes(b"changed")
    assert joined.renter("audit", "--full") == 0
    assert "Retrieve" in [type(one).__name__ for one in joined.fake.asked]
    joined.fake.shards[shard_of(b"precious")] = b"precioux"
    capsys.readouterr()
    assert joined.renter("audit", "--full", "--json") == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 1


def test_a_full_audit_goes_on_where_one_of_our_files_cannot_be_read(joined, tmp_path, capsys):
    """The shard of that file is fetched, like one whose file has changed."""
    for name in ("sick", "well"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
    (tmp_path / "sick").unlink()
    (tmp_path / "sick").symlink_to("/proc/self/mem")  # opens like a file; reading fails: EIO
    capsys.readouterr()
    assert joined.renter("audit", "--full", "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed"] == 2
    fetched = [one.shard for one in joined.fake.asked if one.TYPE is Type.RETRIEVE]
    assert fetched == [shard_of(b"sick")]


def test_what_was_judged_before_an_error_is_told_beside_it(joined, tmp_path, capsys):
    """Of three shards the first is lost; the second is proved; at the third the farmer lies."""
    shards = sorted(shard_of(name.encode()) for name in ("one", "two", "three"))
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
    del joined.fake.shards[shards[0]]

    def lie_at_last(talk, audit):
        if audit.challenge.entries[0].shard == shards[2]:
            talk.send(End())
        else:
            Talk.answer(talk, audit)

    joined.fake.script[Type.AUDIT] = lie_at_last
    capsys.readouterr()
    assert joined.renter("audit", "--full", "--json") == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["audited"], found["passed"], found["failed"]) == (2, 1, 1)
    assert [row["shard"] for row in found["failures"]] == [str(shards[0])]
    assert ["broke the protocol" in row["error"] for row in found["errors"]] == [True]
    assert "could not be audited to the end" in err


@pytest.fixture(params=["proved by its digest", "fetched"])
def three(joined, tmp_path, capsys, request):
    """Three stored shards, of which we have the files or have them no more; return their ids."""
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
        if request.param == "fetched":
            (tmp_path / name).unlink()
    capsys.readouterr()
    return sorted(joined.fake.shards)


def test_a_farmer_without_a_place_for_us_has_lost_nothing(joined, three, capsys):
    def full(talk, _):
        talk.transport.write(talk.connection.hang_up(Refused(Refusal.TOO_MANY_SESSIONS, 5, 4)))

    joined.fake.script[Type.HELLO] = full
    assert joined.renter("audit", "--full", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["audited"], found["failures"], found["postponed"]) == (0, [], [])
    (error,) = found["errors"]
    assert "TOO_MANY_SESSIONS" in error["error"]
    assert [one.TYPE for one in joined.fake.asked].count(Type.HELLO) == 1 + len(three) + 1


@pytest.mark.parametrize(
    ("refusal", "passed", "failed", "errors"),
    [("INTERNAL", 2, 0, 1), ("TOO_SLOW", 1, 0, 1), ("NOT_FOUND", 2, 1, 0), ("CORRUPT", 2, 1, 0)],
)
def test_a_refusal_that_is_not_about_a_shard_does_not_accuse_it(
    joined, three, capsys, refusal, passed, failed, errors
):
    """At the second of three; after a fault of the farmer's the third is asked for."""

    def refuse(talk, asked):
        one = asked.challenge.entries[0] if asked.TYPE is Type.AUDIT else asked
        if one.shard == three[1]:
            talk.refuse(Refusal[refusal])
        else:
            Talk.answer(talk, asked)

    joined.fake.script[Type.AUDIT] = joined.fake.script[Type.RETRIEVE] = refuse
    assert joined.renter("audit", "--full", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["failed"], len(found["errors"])) == (passed, failed, errors)
    assert found["postponed"] == []
    assert all(refusal in row["error"] for row in found["errors"] + found["failures"])


@pytest.mark.parametrize(
    ("offset", "length", "where"),
    [(BLOCK_BYTES, BLOCK_BYTES, "in block 1 of 64 KiB"), (0, 3 * BLOCK_BYTES, "renter stat says")],
)
def test_who_hears_of_damage_is_told_where_and_what_mends_it(
    joined, tmp_path, capsys, offset, length, where
):
    """After a restart the farmer calls all of a shard damaged."""
    content = bytes(3 * BLOCK_BYTES)
    (tmp_path / "file").write_bytes(content)
    joined.renter("store", str(tmp_path / "file"))
    (tmp_path / "file").unlink()
    shard, farmer = shard_of(content), joined.fake.identity.node_id.short
    for kind in (Type.AUDIT, Type.RETRIEVE):
        joined.fake.script[kind] = lambda talk, _: talk.refuse(Refusal.CORRUPT, offset, length)
    capsys.readouterr()
    assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back")) == 1
    assert joined.renter("audit", "--full") == 1
    told = capsys.readouterr()
    for words in (told.err, told.out):
        assert where in words
        assert f"renter repair {shard} --farmer {farmer}" in words


def test_deleted_shards_are_not_audited_until_undeleted(joined, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    prefix = str(shard_of(b"precious"))[:8]
    assert joined.renter("delete", prefix) == 0
    assert joined.renter("audit", "--all") == 1
    assert joined.renter("undelete", prefix) == 0
    assert joined.renter("audit", "--all") == 0
    capsys.readouterr()
    assert joined.renter("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in listed["shards"]] == [str(tmp_path / "file")]
    assert listed["missing"] == []


@pytest.fixture
def other(joined, tmp_path):
    """A second farmer of the same renter, joined last."""
    with Served(tmp_path / "other home") as farmer:
        farmer.fake.renter_is_whoever_calls = True
        assert joined.renter("join", farmer.link) == 0
        yield farmer


def named(served) -> tuple[str, str]:
    return ("--farmer", str(served.fake.identity.node_id))


def test_what_one_farmer_lost_is_told_before_the_next_is_asked(joined, other, tmp_path, capsys):
    """The next may be one that takes its time."""
    (tmp_path / "file").write_bytes(b"precious")
    told = []

    def tell_and_answer(talk, audit):
        told.append(capsys.readouterr().out)
        Talk.answer(talk, audit)

    for farmer in (joined, other):
        assert joined.renter("store", str(tmp_path / "file"), *named(farmer)) == 0
        farmer.fake.shards.clear()
        farmer.fake.script[Type.AUDIT] = tell_and_answer
    capsys.readouterr()
    assert joined.renter("audit") == 1
    assert told[0] == ""
    assert told[1].startswith(f"{shard_of(b'precious')}  FAILED: NOT_FOUND")
    assert capsys.readouterr().out.endswith("2 audited, 0 passed, 2 failed\n")


@pytest.mark.parametrize("deleted_at", [0, 1])
def test_undelete_asks_the_farmer_in_whose_trash_the_shard_is(
    joined, other, tmp_path, capsys, deleted_at
):
    """Not the one that still has it, which would say that all is well."""
    (tmp_path / "file").write_bytes(b"precious")
    shard, farmers = shard_of(b"precious"), (joined, other)
    for farmer in farmers:
        assert joined.renter("store", str(tmp_path / "file"), *named(farmer)) == 0
    trashed = farmers[deleted_at]
    assert joined.renter("delete", str(shard), *named(trashed)) == 0
    assert shard in trashed.fake.trash
    capsys.readouterr()
    assert joined.renter("undelete", str(shard), "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["farmer"] == str(trashed.fake.identity.node_id)
    assert shard in trashed.fake.shards
    assert joined.renter("audit", "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed"] == 2


def test_who_is_told_of_the_trash_is_told_in_whose(joined, other, tmp_path, capsys):
    """Something else with our identity deleted it: our receipts know of no trash."""
    (tmp_path / "file").write_bytes(b"precious")
    shard, farmers = shard_of(b"precious"), (joined, other)
    for farmer in farmers:
        assert joined.renter("store", str(tmp_path / "file"), *named(farmer)) == 0
    for farmer in farmers:
        farmer.fake.trash[shard] = farmer.fake.shards.pop(shard)
        capsys.readouterr()
        assert joined.renter("retrieve", str(shard), *named(farmer)) == 1
        command = capsys.readouterr().err.split("bring it back with: renter ")[1]
        assert joined.renter(*command.split()) == 0
        assert shard in farmer.fake.shards


def test_erasing_what_was_erased_when_the_answer_was_lost_is_done(joined, tmp_path, capsys):
    """The farmer keeps no memory of it; audits would accuse it of a loss for ever."""
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    shard = shard_of(b"precious")
    del joined.fake.shards[shard]
    assert joined.renter("audit", "--all") == 1
    assert joined.renter("delete", str(shard)) == 1, "to the trash it cannot be moved"
    capsys.readouterr()
    assert joined.renter("delete", str(shard), "--erase") == 0
    assert capsys.readouterr().out == f"{shard} is erased\n"
    assert joined.renter("audit", "--all") == 1, "nothing is left to be audited"
    assert "no receipts" in capsys.readouterr().err
    assert joined.renter("delete", "ab" * 32, "--erase") == 1, "no receipt, so it is a mistake"


@pytest.mark.parametrize("verb", ["delete", "undelete"])
def test_of_several_each_is_done_whatever_becomes_of_the_others(
    joined, other, tmp_path, capsys, verb
):
    """At whichever farmers they are; a shard that was typed twice is one."""
    for name, farmer in (("one", joined), ("two", joined), ("three", other)):
        (tmp_path / name).write_text(name)
        assert joined.renter("store", str(tmp_path / name), *named(farmer)) == 0
    if verb == "undelete":
        for name in ("one", "two", "three"):
            assert joined.renter("delete", str(shard_of(name.encode()))) == 0
    lost, well, elsewhere = (shard_of(name) for name in (b"one", b"two", b"three"))
    from_, to = ("shards", "trash") if verb == "delete" else ("trash", "shards")
    del getattr(joined.fake, from_)[lost]
    capsys.readouterr()
    typed = [str(lost), str(well)[:8], str(elsewhere), str(well)]
    assert joined.renter(verb, *typed) == 1
    out, err = capsys.readouterr()
    assert [line[:64] for line in out.splitlines()] == [str(well), str(elsewhere)]
    assert err.startswith(f"renter: {lost}: NOT_FOUND: ")
    assert [well in getattr(joined.fake, to), elsewhere in getattr(other.fake, to)] == [True] * 2


def test_programs_get_a_row_for_each_of_several(joined, other, tmp_path, capsys):
    """Of one that was typed the document that they always got."""
    (tmp_path / "file").write_bytes(b"precious")
    assert joined.renter("store", str(tmp_path / "file"), *named(joined)) == 0
    well, farmer = str(shard_of(b"precious")), str(joined.fake.identity.node_id)
    capsys.readouterr()
    assert joined.renter("delete", well, "ab" * 32, "--json", *named(joined)) == 1
    done = {"farmer": farmer, "shard": well, "outcome": "trashed", "gone_at_ms": 99}
    refused = {"farmer": farmer, "shard": "ab" * 32}
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == done | {"error": None, "refusal": None}
    assert rows[1] == refused | {"error": rows[1]["error"], "refusal": {"name": "NOT_FOUND"}}
    assert joined.renter("undelete", well, well, "--json") == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["live"]
    assert joined.renter("delete", well, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1} | done


def test_a_slip_among_several_deletes_none(joined, three, capsys):
    words = [str(three[0]), "no-shard"]
    assert joined.renter("delete", *words) == 2
    assert sorted(joined.fake.shards) == three


def test_of_several_at_a_farmer_out_of_reach_one_is_waited_for(
    joined, other, tmp_path, capsys, monkeypatch
):
    """The others would wait as long, each; those elsewhere are deleted."""
    for name, farmer in (("one", joined), ("two", joined), ("three", other)):
        (tmp_path / name).write_text(name)
        assert joined.renter("store", str(tmp_path / name), *named(farmer)) == 0
    dial_it, tried = dial.TlsDialer.dial, []

    async def all_but_the_first(dialer):
        tried.append(dialer)
        if dialer is tried[0]:
            raise ConnectionFailedError("no answer")
        return await dial_it(dialer)

    monkeypatch.setattr(dial.TlsDialer, "dial", all_but_the_first)
    capsys.readouterr()
    words = [str(shard_of(name)) for name in (b"one", b"two", b"three")]
    assert joined.renter("delete", *words, "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["error"] for row in rows] == ["no answer", "no answer", None]
    assert len(tried) == 2


@pytest.mark.usefixtures("heard_interrupts")
def test_who_interrupts_a_deletion_of_several_is_told_what_was_done(joined, three, capsys):
    def interrupt_at_the_second(talk, message):
        if message.shard == three[1]:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        else:
            Talk.answer(talk, message)

    joined.fake.script[Type.DELETE] = interrupt_at_the_second
    assert joined.renter("delete", *map(str, three), "--json") == 130
    first, *others = json.loads(capsys.readouterr().out)
    assert first["outcome"] == "trashed"
    assert ["interrupted" in row["error"] for row in others] == [True, True]
    assert three[2] in joined.fake.shards


def in_the_trash(joined, tmp_path):
    """Store a file and have somebody else with our identity delete it; return the shard."""
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    shard = shard_of(b"precious")
    joined.fake.trash[shard] = joined.fake.shards.pop(shard)
    return shard


def brought_back(joined, shard):
    """Return the error that says how."""
    farmer = joined.fake.identity.node_id.short
    return (
        "NOT_FOUND: it is in the trash until 1970-01-01 00:00 UTC; bring it back with: "
        f"renter undelete {shard} --farmer {farmer}"
    )


def test_what_is_in_the_trash_is_told_with_the_command_that_brings_it_back(
    joined, tmp_path, capsys
):
    shard = in_the_trash(joined, tmp_path)
    capsys.readouterr()
    assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back"), "--json") == 1
    out, err = capsys.readouterr()
    assert brought_back(joined, shard) in err
    assert json.loads(out)["refusal"] == {"name": "NOT_FOUND"}
    assert not (tmp_path / "back").exists()
    assert joined.renter("undelete", str(shard)) == 0
    assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back")) == 0


def test_a_shard_of_an_ended_contract_is_not_said_to_come_back_from_the_trash(
    joined, tmp_path, capsys
):
    """It is taken out of the trash of a running contract only."""
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "other").write_bytes(b"cheap")
    joined.renter("store", str(tmp_path / "file"), str(tmp_path / "other"))
    shard = shard_of(b"precious")
    joined.fake.contract = replace(joined.fake.contract, revision=2, until_ms=1)
    joined.fake.stage = ContractStage.GRACE
    assert joined.renter("contract") == 0
    capsys.readouterr()
    assert joined.renter("delete", str(shard)) == 0
    assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back")) == 1
    assert joined.renter("audit") == 0
    out, err = capsys.readouterr()
    for told in (out, err):
        assert "undelete brings it back once another invite has renewed it" in told
    assert "bring it back with" not in out + err
    assert "; undelete brings it back\n" not in out


@pytest.mark.parametrize("how", [(), ("--full",)])
def test_an_audit_fails_what_others_put_into_the_trash_but_not_what_we_did(
    joined, tmp_path, capsys, how
):
    shard = in_the_trash(joined, tmp_path)
    (tmp_path / "file").unlink()
    capsys.readouterr()
    assert joined.renter("audit", str(shard), "--json", *how) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == 1
    assert found["failures"][0]["error"] == brought_back(joined, shard)
    assert found["failures"][0]["refusal"] == {"name": "NOT_FOUND"}
    joined.renter("undelete", str(shard))
    joined.renter("delete", str(shard))
    capsys.readouterr()
    assert joined.renter("audit", str(shard), "--json", *how) == 4
    found = json.loads(capsys.readouterr().out)
    assert (found["failed"], len(found["postponed"])) == (0, 1)
    assert brought_back(joined, shard) in found["postponed"][0]["error"]


@pytest.mark.parametrize("refusal", ["BUSY", "UNAVAILABLE", "DRAINING", "AUDIT_BUDGET"])
def test_an_audit_that_is_not_answered_yet_is_neither_good_nor_bad(
    joined, tmp_path, capsys, refusal
):
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
    item = encode_item(Refused(Refusal[refusal], 5000, 0))

    def half(talk, audit):
        for entry in audit.challenge.entries:
            proof = encode_item(talk.item(audit.challenge, entry))
            talk.data(item if entry.shard == shard_of(b"one") else proof)
        talk.send(End())

    joined.fake.script[Type.AUDIT] = half
    capsys.readouterr()
    assert joined.renter("audit") == 4
    out = capsys.readouterr().out
    row, summary = out.splitlines()
    assert row.startswith(f"{shard_of(b'one')}  not audited: {refusal}: ")
    assert summary == "1 audited, 1 passed, 0 failed, 1 not answered yet"
    assert joined.renter("audit", "--json") == 4
    found = json.loads(capsys.readouterr().out)
    assert [row["refusal"]["name"] for row in found["postponed"]] == [refusal]


def test_an_audit_of_very_much_that_is_lost_is_not_a_question_for_each(joined, tmp_path, capsys):
    files = []
    for number in range(102):
        files.append(tmp_path / str(number))
        files[-1].write_text(str(number))
    joined.renter("store", *map(str, files))
    joined.fake.shards.clear()
    capsys.readouterr()
    assert joined.renter("audit", "--json") == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 102
    assert [one.TYPE for one in joined.fake.asked].count(Type.STAT) == 100


def test_where_a_shard_was_written_is_told(joined, tmp_path, capsys):
    (tmp_path / "photo.jpg").write_bytes(bytes(1500))
    joined.renter("store", str(tmp_path / "photo.jpg"))
    shard, there = str(shard_of(bytes(1500))), tmp_path / "there"
    there.mkdir()
    capsys.readouterr()
    assert joined.renter("retrieve", shard, "-o", str(there)) == 0
    assert capsys.readouterr().out == f"1.5 kB written to {there / 'photo.jpg'}\n"
    assert joined.renter("retrieve", shard, "-o", str(there), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "shard": shard,
        "file": str(there / "photo.jpg"),
        "size_bytes": 1500,
    }
    assert joined.renter("retrieve", shard, "-o", "/dev/null") == 0
    assert capsys.readouterr().out == ""


def test_a_part_does_not_get_the_name_of_the_whole(joined, tmp_path, monkeypatch):
    content = bytes(range(200))
    (tmp_path / "photo.jpg").write_bytes(content)
    joined.renter("store", str(tmp_path / "photo.jpg"))
    monkeypatch.chdir(tmp_path)
    shard = str(shard_of(content))
    assert joined.renter("retrieve", shard, "--offset", "10", "--length", "5", "-o", ".") == 0
    assert (tmp_path / "photo.jpg").read_bytes() == content
    assert (tmp_path / "photo.jpg.10-15").read_bytes() == content[10:15]
    assert joined.renter("retrieve", shard, "--offset", "190", "-o", ".") == 0
    assert (tmp_path / "photo.jpg.190-200").read_bytes() == content[190:]


@pytest.mark.parametrize("other", [b"another photo", b"ours!"])
def test_a_file_whose_name_nobody_typed_is_not_replaced(joined, tmp_path, capsys, other):
    """Neither one of another size, which is seen at once, nor one of the same."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"photo")
    joined.renter("store", str(photo))
    photo.write_bytes(other)
    shard = str(shard_of(b"photo"))
    assert joined.renter("retrieve", shard, "-o", str(tmp_path)) == 1
    assert "is left as it is: say where to write with -o FILE" in capsys.readouterr().err
    assert photo.read_bytes() == other
    assert not list(tmp_path.glob(".*.part"))
    assert joined.renter("retrieve", shard, "-o", str(photo)) == 0
    assert photo.read_bytes() == b"photo"


def test_a_file_in_a_directory_that_is_not_there_is_refused_with_that_name(
    joined, tmp_path, capsys
):
    """Not with the name of a draft that nobody typed."""
    joined.fake.shards[shard_of(b"photo")] = b"photo"
    there = tmp_path / "backup"
    assert joined.renter("retrieve", str(shard_of(b"photo")), "-o", f"{there}/photo") == 1
    assert f"there is no directory {there}: make it first" in capsys.readouterr().err
    assert Type.RETRIEVE not in [one.TYPE for one in joined.fake.asked]


@pytest.mark.parametrize("end", ["/", "/."])
def test_a_directory_that_is_not_there_is_not_taken_for_a_file(joined, tmp_path, capsys, end):
    """Each retrieve into it would have replaced what the last one brought."""
    joined.fake.shards[shard_of(b"photo")] = b"photo"
    there = tmp_path / "backup"
    assert joined.renter("retrieve", str(shard_of(b"photo")), "-o", f"{there}{end}") == 1
    assert f"{there}{end} is not a directory: make it first" in capsys.readouterr().err
    assert not there.exists()
    assert Type.RETRIEVE not in [one.TYPE for one in joined.fake.asked]
    there.mkdir()
    assert joined.renter("retrieve", str(shard_of(b"photo")), "-o", f"{there}{end}") == 0
    assert [path.read_bytes() for path in there.iterdir()] == [b"photo"]


def test_links_that_lead_round_in_a_circle_are_told(joined, tmp_path, capsys):
    joined.fake.shards[shard_of(b"photo")] = b"photo"
    (tmp_path / "link").symlink_to("link")
    command = ("retrieve", str(shard_of(b"photo")), "-o", str(tmp_path / "link"))
    assert joined.renter(*command) == 1
    told = capsys.readouterr().err
    assert told == f"renter: {tmp_path / 'link'}: Too many levels of symbolic links\n"
    assert not list(tmp_path.glob(".*.part"))


def refusing_room(file):
    """Return the file, as on a disk that has no room for what is written to it."""

    class Full(type(file)):
        def write(self, _data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return Full(file.detach())


def test_a_full_disk_is_told_with_the_file_that_had_no_room(joined, tmp_path, capsys, monkeypatch):
    content = random.Random(8).randbytes(100_000)
    joined.fake.shards[shard_of(content)] = content
    fdopen = os.fdopen
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", lambda *how: refusing_room(fdopen(*how)))
        command = ("retrieve", str(shard_of(content)), "-o", str(tmp_path / "back"))
        assert joined.renter(*command) == 1
    assert capsys.readouterr().err == (
        f"renter: no room for {tmp_path / 'back'} (No space left on device): free some there, or "
        "write to another disk with -o FILE\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_a_full_disk_for_what_is_put_aside_is_told_with_what_to_do(joined, capsys, monkeypatch):
    content = random.Random(8).randbytes(100_000)
    joined.fake.shards[shard_of(content)] = content
    full = open("/dev/full", "r+b")  # noqa: SIM115, PTH123 - the retrieve closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
    assert joined.renter("retrieve", str(shard_of(content))) == 1
    out, err = capsys.readouterr()
    assert err == (
        f"renter: no room in {tempfile.gettempdir()} to put it aside (No space left on device): "
        "name a directory on another disk in TMPDIR\n"
    )
    assert out == ""


def test_a_damaged_receipt_costs_no_other_and_is_no_pass(joined, tmp_path, capsys):
    for name in ("sick", "well"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
    sick = shard_of(b"sick")
    with closing(sqlite3.connect(joined.home / LEDGER_FILE)) as ledger, ledger:
        ledger.execute("UPDATE receipts SET receipt = x'00' WHERE shard = ?", (sick.raw,))
    capsys.readouterr()
    assert joined.renter("retrieve", str(shard_of(b"well"))[:8], "-o", str(tmp_path / "x")) == 0
    assert capsys.readouterr().err == ""
    assert joined.renter("list") == 0
    assert f"the renter's ledger is damaged: its receipt for {sick}" in capsys.readouterr().err
    assert joined.renter("audit", "--json") == 1
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert (answer["passed"], answer["failed"]) == (1, 0)
    (error,) = answer["errors"]
    assert error["farmer"] == str(joined.fake.identity.node_id)
    assert str(sick) in error["error"]
    assert err.count(str(sick)) == 1
    assert joined.renter("audit", str(sick)) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert joined.renter("store", str(tmp_path / "sick")) == 0
    assert joined.renter("audit") == 0


def test_a_receipt_that_promises_less_than_the_contract_is_not_kept(joined, tmp_path, capsys):
    """Until the renter has seen the contract that there is now."""
    (tmp_path / "file").write_text("x")
    fake = joined.fake
    fake.contract = replace(fake.contract, revision=2, until_ms=fake.contract.until_ms - 1)
    assert joined.renter("store", str(tmp_path / "file")) == 1
    assert "receipt ends before the contract" in capsys.readouterr().err
    assert joined.renter("audit") == 1
    assert joined.renter("contract") == 0
    assert joined.renter("store", str(tmp_path / "file")) == 0
    assert joined.renter("audit") == 0


@pytest.mark.parametrize("verb", ["store", "repair"])
def test_a_contract_renewed_while_a_shard_is_sent_is_no_lie(joined, tmp_path, capsys, verb):
    """Another program redeemed an invite meanwhile; the receipt is as the store began."""
    (tmp_path / "file").write_text("x")
    fake = joined.fake
    if verb == "repair":
        assert joined.renter("store", str(tmp_path / "file")) == 0
    receipt = fake.receipt(shard_of(b"x"), 1)

    def renewed_meanwhile(talk, _asked):
        fake.contract = replace(fake.contract, revision=2, until_ms=fake.contract.until_ms + 1)
        with closing(Ledger.open(joined.home / LEDGER_FILE)) as ledger:
            ledger.refresh(fake.identity.node_id, fake.shown())
        talk.send(Stored(receipt))

    fake.script[Type.STORE] = fake.script[Type.REPAIR] = renewed_meanwhile
    words = [str(tmp_path / "file")] if verb == "store" else [str(receipt.shard)]
    assert joined.renter(verb, *words) == 0, capsys.readouterr().err
    assert kept(joined)[0] == fake.contract


@pytest.mark.parametrize("words", [[], ["--full"]])
def test_what_we_erase_while_it_is_audited_is_no_failure(joined, tmp_path, capsys, words):
    """Nor is what we put into the trash: another program did it before the farmer was asked."""
    fake = joined.fake
    names = {"erased": Standing.ERASED, "trashed": Standing.TRASHED, "kept": Standing.HELD}
    for name in names:
        (tmp_path / name).write_text(name)
        assert joined.renter("store", str(tmp_path / name)) == 0

    def changed_meanwhile(talk, asked):
        with closing(Ledger.open(joined.home / LEDGER_FILE)) as ledger:
            for name, standing in names.items():
                ledger.mark(fake.identity.node_id, shard_of(name.encode()), standing)
        fake.shards.pop(shard_of(b"erased"), None)
        content = fake.shards.pop(shard_of(b"trashed"), None)
        if content is not None:
            fake.trash[shard_of(content)] = content
        talk.on_audit(asked)

    fake.script[Type.AUDIT] = changed_meanwhile
    capsys.readouterr()
    assert joined.renter("audit", "--json", *words) == UNANSWERED
    answer = json.loads(capsys.readouterr().out)
    assert (answer["passed"], answer["failed"], answer["errors"]) == (1, 0, [])
    assert [one["shard"] for one in answer["postponed"]] == [str(shard_of(b"trashed"))]


def test_what_is_stored_while_the_farmer_lists_is_not_missing(joined, tmp_path, capsys):
    """Nor what is erased; another program does it."""
    fake = joined.fake
    (tmp_path / "old").write_text("old")
    assert joined.renter("store", str(tmp_path / "old")) == 0

    def stored_meanwhile(talk, asked):
        with closing(Ledger.open(joined.home / LEDGER_FILE)) as ledger:
            ledger.keep(fake.identity.node_id, fake.receipt(shard_of(b"new"), 3), "new")
            ledger.mark(fake.identity.node_id, shard_of(b"old"), Standing.ERASED)
        fake.shards.pop(shard_of(b"old"), None)
        talk.on_list(asked)

    fake.script[Type.LIST] = stored_meanwhile
    capsys.readouterr()
    assert joined.renter("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["missing"] == []
    assert joined.renter("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["missing"] == [str(shard_of(b"new"))]


DEAR = Price(currency="EUR", stored_micros=5)


def kept(served):
    """Return the contract in the renter's ledger, if any, and those before it."""
    farmer = served.fake.identity.node_id
    ledger = Ledger.open(served.home / LEDGER_FILE)
    found = ledger.contract(farmer), ledger.earlier_contracts(farmer)
    ledger.close()
    return found


@pytest.mark.parametrize("revision", [1, 2, RECOVERED_REVISION])
def test_a_contract_that_has_less_than_its_invite_is_taken_only_anyway(served, capsys, revision):
    fake = served.fake
    fake.contract = replace(fake.contract, revision=revision, price=DEAR)
    assert served.renter("join", served.link, "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "another price than its invite, and was not taken" in error
    assert "renter join --anyway" in error
    assert kept(served) == (None, [])
    assert served.renter("join", served.link, "--anyway") == 0
    assert "has another price than this invite, and was taken anyway" in capsys.readouterr().err
    assert kept(served) == (fake.contract, [])


def test_a_contract_of_revision_0_is_none(served, capsys):
    served.fake.contract = replace(served.fake.contract, revision=0)
    assert served.renter("join", served.link, "--anyway") == 1
    assert "revisions count from 1" in capsys.readouterr().err
    assert kept(served) == (None, [])


def test_an_invite_that_leaves_less_than_there_was_is_taken_only_anyway(joined, capsys):
    """It gave all that it offered, and took from the contract that it was redeemed on."""
    fake, before = joined.fake, joined.fake.contract
    fake.contract = replace(before, revision=2, space_bytes=10**6)
    fake.script[Type.SHOW_CONTRACT] = lambda talk, _: talk.refuse(Refusal.NO_CONTRACT)
    assert joined.renter("join", joined.link) == 1
    told = capsys.readouterr().err
    assert "1MB in place of 1GB. It was not taken" in told
    assert "renter join --anyway" in told
    assert kept(joined) == (before, [])
    assert joined.renter("join", joined.link, "--anyway") == 0
    assert "1MB in place of 1GB. If its owner did not" in capsys.readouterr().err
    assert kept(joined) == (fake.contract, [before])


def test_the_price_of_an_invite_that_is_redeemed_is_agreed(joined, capsys):
    fake, before = joined.fake, joined.fake.contract
    offer = Offer(space_bytes=10**10, duration_ms=1, created_at_ms=1, expires_at_ms=2, price=DEAR)
    joined.invite = make_invite(fake.identity, InviteSerial(bytes(16)), offer)

    def renew(talk, redeem):
        fake.contract = replace(before, revision=2, space_bytes=10**10, price=DEAR)
        talk.on_redeem(redeem)

    fake.script[Type.REDEEM] = renew
    assert joined.renter("join", joined.link) == 0
    assert capsys.readouterr().err == ""
    assert kept(joined) == (fake.contract, [before])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"revision": 4, "until_ms": 10**14}, "revision 4 after 5"),
        ({"space_bytes": 10**10}, "revision 5 after 5"),
        ({"revision": 6, "price": DEAR}, "EUR stored and 0 EUR retrieved in place of nothing"),
        ({"revision": 1, "contract": ContractId(b"7" * 16)}, "another contract in place of"),
    ],
    ids=["older", "rewritten", "dearer", "other"],
)
def test_a_contract_that_was_rewritten_is_taken_only_anyway(served, capsys, changes, told):
    fake = served.fake
    fake.contract = replace(fake.contract, revision=5)
    assert served.renter("join", served.link) == 0
    before, fake.contract = fake.contract, replace(fake.contract, **changes)
    capsys.readouterr()
    assert served.renter("contract", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert told in error
    assert "renter contract --anyway" in error
    assert kept(served) == (before, [])
    assert served.renter("contract", "--anyway") == 0
    assert told in capsys.readouterr().err
    assert kept(served) == (fake.contract, [before])
    assert served.renter("contract") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"until_ms": 10**12}, "an earlier end, 2001-"), ({"space_bytes": 5}, "5B in place of 1GB")],
    ids=["end", "space"],
)
def test_what_an_owner_may_have_shortened_is_told_and_the_signed_one_kept(
    joined, capsys, changes, told
):
    fake, before = joined.fake, joined.fake.contract
    fake.contract = replace(before, revision=2, **changes)
    capsys.readouterr()
    assert joined.renter("contract", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["revision"] == 2
    assert told in err
    assert "is kept in the ledger" in err
    assert kept(joined) == (fake.contract, [before])


def redeemed(served):
    return [one.TYPE for one in served.fake.asked].count(Type.REDEEM)


def test_an_invite_that_brings_nothing_is_not_spent(joined, capsys):
    """It can be spent once, and what it offers is not added to what there is."""
    assert joined.renter("join", joined.link, "--json") == 1
    told = capsys.readouterr()
    assert "not spent: your contract with this farmer has 1 GB until" in told.err
    assert "--anyway" in json.loads(told.out)["error"]
    assert "address" not in told.err
    assert redeemed(joined) == 1
    assert joined.renter("join", joined.link, "--anyway") == 0
    assert redeemed(joined) == 2


@pytest.mark.parametrize(
    "less",
    [{"space_bytes": 0}, {"until_ms": 1000}, {"price": Price(served_micros=1)}],
    ids=["space", "time", "price"],
)
def test_an_invite_that_brings_something_is_spent(joined, less):
    fake, agreed = joined.fake, joined.fake.contract
    fake.contract = replace(agreed, revision=2, **less)
    assert joined.renter("contract", "--anyway") == 0

    def renew(talk, redeem):
        fake.contract = replace(agreed, revision=3)
        talk.on_redeem(redeem)

    fake.script[Type.REDEEM] = renew
    assert joined.renter("join", joined.link) == 0
    assert redeemed(joined) == 2


def test_who_has_lost_the_contract_spends_the_invite(joined):
    joined.fake.script[Type.SHOW_CONTRACT] = lambda talk, _: talk.refuse(Refusal.NO_CONTRACT)
    assert joined.renter("join", joined.link) == 0
    assert redeemed(joined) == 2


def test_an_invite_that_is_not_spent_tells_where_the_farmer_is_now(joined, capsys):
    """An owner who moves has no other way to tell."""
    node_id = joined.fake.identity.node_id
    places = (joined.address, "127.0.0.1:1")
    moved = format_link(InviteLink(farmer=node_id, addresses=places, invite=joined.invite))
    assert joined.renter("join", moved) == 1
    assert "the farmer's new address is remembered" in capsys.readouterr().err
    ledger = Ledger.open(joined.home / LEDGER_FILE)
    assert [one.addresses for one in ledger.farmers()] == [places]
    ledger.close()


def test_a_forged_invite_moves_no_farmer(joined, capsys):
    """Who makes one up chooses where a renter calls from then on, and how long that takes."""
    fake = joined.fake
    fake.script[Type.REDEEM] = lambda talk, _: talk.refuse(Refusal.INVITE_INVALID)
    stranger = Identity.of_key(Ed25519PrivateKey.generate())
    offer = Offer(space_bytes=1, duration_ms=1, created_at_ms=1, expires_at_ms=2)
    forged = InviteLink(
        farmer=fake.identity.node_id,
        addresses=(joined.address, "192.0.2.1:1"),
        invite=make_invite(stranger, InviteSerial(bytes(16)), offer),
    )
    assert joined.renter("join", format_link(forged)) == 1
    assert "INVITE_INVALID" in capsys.readouterr().err
    with closing(Ledger.open(joined.home / LEDGER_FILE)) as ledger:
        assert [one.addresses for one in ledger.farmers()] == [(joined.address,)]


def test_a_bit_of_our_own_disk_accuses_no_farmer(joined, tmp_path, capsys):
    """It changed the size in a receipt, which can be read, and which the farmer contradicts."""
    for name in ("sick", "well"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
    sick = str(shard_of(b"sick"))
    with closing(sqlite3.connect(joined.home / LEDGER_FILE)) as ledger, ledger:
        where = (shard_of(b"sick").raw,)
        (receipt,) = ledger.execute(
            "SELECT receipt FROM receipts WHERE shard = ?", where
        ).fetchone()
        changed = bytearray(receipt)
        changed[113 + 6] ^= 1
        ledger.execute("UPDATE receipts SET receipt = ? WHERE shard = ?", (bytes(changed), *where))
    capsys.readouterr()
    told = f"its receipt for {sick} of farmer {joined.fake.identity.node_id}: it is not as the"
    for command in (("list",), ("stat", sick), ("retrieve", sick, "-o", str(tmp_path / "x"))):
        assert joined.renter(*command) == 0
        assert told in capsys.readouterr().err
    assert (tmp_path / "x").read_bytes() == b"sick"
    for how in ((), ("--full",)):
        assert joined.renter("audit", "--json", *how) == 1
        answer = json.loads(capsys.readouterr().out)
        assert (answer["passed"], answer["failed"]) == (1, 0)
        assert [told in one["error"] for one in answer["errors"]] == [True]
    assert joined.renter("store", str(tmp_path / "sick")) == 0
    assert joined.renter("audit") == 0


def test_a_damaged_receipt_for_what_was_deleted_is_no_error_of_an_audit(joined, tmp_path, capsys):
    for name in ("sick", "well"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
    sick = shard_of(b"sick")
    joined.renter("delete", str(sick))
    with closing(sqlite3.connect(joined.home / LEDGER_FILE)) as ledger, ledger:
        ledger.execute("UPDATE receipts SET receipt = x'00' WHERE shard = ?", (sick.raw,))
    capsys.readouterr()
    assert joined.renter("audit", "--json") == 0
    assert json.loads(capsys.readouterr().out)["errors"] == []


def test_a_list_of_shards_that_nobody_stored_does_not_fill_the_memory(
    joined, tmp_path, capsys, monkeypatch
):
    """Limit: UNKNOWN_SHOWN_MAX; what we have receipts for does not count."""
    monkeypatch.setattr("farmer.client.limits.UNKNOWN_SHOWN_MAX", 2)
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)
        joined.renter("store", str(tmp_path / name))
    for content in (b"a", b"b"):
        joined.fake.shards[shard_of(content)] = content
    assert joined.renter("list") == 0
    joined.fake.shards[shard_of(b"c")] = b"c"
    capsys.readouterr()
    assert joined.renter("list", "--json") == 1
    out, _ = capsys.readouterr()
    assert "lists more than 2 shards that you have no receipts for" in json.loads(out)["error"]


def test_headings_stand_over_their_columns(joined, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"1")
    joined.renter("store", str(tmp_path / "file"))
    assert joined.renter("contract") == 0
    capsys.readouterr()
    assert joined.renter("list") == 0
    head, row = capsys.readouterr().out.splitlines()
    for name in ("SHARD", "STORED", "STATE", "FILE"):
        at = head.index(name)
        assert row[at] != " "
        assert at == 0 or row[at - 1] == " "


def test_the_price_is_shown_as_it_was_signed(joined, capsys):
    price = Price(currency="EUR", stored_micros=12_345_678, served_micros=1)
    joined.fake.contract = replace(joined.fake.contract, price=price)
    capsys.readouterr()
    assert joined.renter("contract", "--anyway") == 0
    told = capsys.readouterr().out
    assert "12.345678 EUR per TB and 30 days stored, 0.000001 EUR per TB retrieved" in told


def test_a_refused_retrieve_names_the_refusal_and_leaves_nothing(joined, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert joined.renter("retrieve", "ab" * 32, "-o", str(tmp_path / "back")) == 1
    assert "NOT_FOUND" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_bytes_never_get_the_targets_name(joined, tmp_path, capsys):
    (tmp_path / "back").write_bytes(b"older")
    joined.fake.shards[shard_of(b"right")] = b"wrong"
    assert joined.renter("retrieve", str(shard_of(b"right")), "-o", str(tmp_path / "back")) == 1
    assert "shard id names" in capsys.readouterr().err
    assert (tmp_path / "back").read_bytes() == b"older"
    assert not list(tmp_path.glob(".*.part"))


def test_standard_output_gets_only_checked_bytes(joined, capfdbinary):
    capfdbinary.readouterr()
    joined.fake.shards[shard_of(b"right")] = b"wrong"
    assert joined.renter("retrieve", str(shard_of(b"right"))) == 1
    assert capfdbinary.readouterr().out == b""
    joined.fake.shards[shard_of(b"right")] = b"right"
    assert joined.renter("retrieve", str(shard_of(b"right"))) == 0
    assert capfdbinary.readouterr().out == b"right"


def test_a_retrieve_that_lost_its_farmer_is_gone_on_with(joined, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("farmer.client.retries.RETRY_DELAYS_S", ())
    content = random.Random(3).randbytes(4 * MIB)
    (tmp_path / "file").write_bytes(content)
    joined.renter("store", str(tmp_path / "file"))
    shard = shard_of(content)

    def half(talk, asked):
        talk.send(Send(len(content), asked.offset, len(content) - asked.offset))
        talk.data(content[asked.offset : 2 * MIB])
        talk.transport.loseConnection()

    joined.fake.script[Type.RETRIEVE] = half
    assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back")) == 1
    assert "go on" in capsys.readouterr().err
    joined.fake.script.clear()
    assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back")) == 0
    assert (tmp_path / "back").read_bytes() == content
    assert joined.fake.asked[-1].offset == 2 * MIB
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("refusal", ["DRAINING", "TOO_SLOW", "UNAVAILABLE", "INTERNAL"])
def test_a_retrieve_that_is_refused_in_its_middle_is_gone_on_with(
    joined, tmp_path, capsys, refusal
):
    """Unless the refusal will be the same later."""
    content = random.Random(3).randbytes(4 * MIB)
    (tmp_path / "file").write_bytes(content)
    joined.renter("store", str(tmp_path / "file"))

    def half(talk, asked):
        talk.send(Send(len(content), asked.offset, len(content) - asked.offset))
        talk.data(content[asked.offset : 2 * MIB])
        talk.refuse(Refusal[refusal], 1000)

    joined.fake.script[Type.RETRIEVE] = half
    command = ("retrieve", str(shard_of(content)), "-o", str(tmp_path / "back"))
    assert joined.renter(*command) == 1
    assert ("go on" in capsys.readouterr().err) is (refusal != "INTERNAL")
    joined.fake.script.clear()
    assert joined.renter(*command) == 0
    assert (tmp_path / "back").read_bytes() == content
    assert joined.fake.asked[-1].offset == (0 if refusal == "INTERNAL" else 2 * MIB)


@pytest.mark.parametrize("words", [(), ("--offset", "1")])
@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_what_could_not_be_made_durable_is_fetched_again(
    joined, tmp_path, monkeypatch, capsys, words, fails
):
    """It looks whole in the cache, and a second fsync of it would succeed."""

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    command = ("retrieve", str(shard_of(b"precious")), "-o", str(tmp_path / "back"), *words)
    before = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os if fails == "fsync" else Path, fails, fail)
        assert joined.renter(*command) == 1
    assert "Input/output error" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    assert joined.renter(*command) == 0
    assert [one.TYPE for one in joined.fake.asked].count(Type.RETRIEVE) == 2


@pytest.mark.parametrize("words", [(), ("--offset", "1")])
@pytest.mark.parametrize("known", [True, False])
def test_what_an_earlier_attempt_left_never_gets_into_the_file(joined, tmp_path, words, known):
    content = random.Random(4).randbytes(10_000)
    shard = shard_of(content)
    joined.fake.shards[shard] = content
    if known:
        (tmp_path / "file").write_bytes(content)
        joined.renter("store", str(tmp_path / "file"))
    (tmp_path / f".back.{shard.short}.part").write_bytes(content + b"stale")
    assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back"), *words) == 0
    assert (tmp_path / "back").read_bytes() == content[1 if words else 0 :]


def test_a_target_that_another_program_writes_is_left_alone(joined, tmp_path, capsys):
    shard = shard_of(b"right")
    joined.fake.shards[shard] = b"right"
    part = tmp_path / f".back.{shard.short}.part"
    with part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert joined.renter("retrieve", str(shard), "-o", str(tmp_path / "back")) == 1
    assert "another program" in capsys.readouterr().err
    assert part.exists()


def test_file_names_that_are_not_text_are_stored_too(joined, tmp_path, capsys):
    name = os.fsencode(tmp_path) + b"/\xff\x1b[2J"
    with open(name, "wb") as file:  # noqa: PTH123 - a name of raw bytes
        file.write(b"precious")
    capsys.readouterr()
    assert joined.renter("store", os.fsdecode(name), "--json") == 0
    assert os.fsencode(json.loads(capsys.readouterr().out)[0]["file"]) == name
    assert joined.renter("list") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert joined.renter("audit", "--full") == 0


def test_a_name_with_lines_of_its_own_takes_one_line(joined, tmp_path, capsys):
    """Else it could look like the row of another shard."""
    odd, other = tmp_path / "odd\nname", tmp_path / "other\nname"
    odd.write_bytes(b"precious")
    capsys.readouterr()
    assert joined.renter("store", str(odd), str(other)) == 1
    assert joined.renter("list") == 0
    there = ("retrieve", str(shard_of(b"precious")), "-o")
    assert joined.renter(*there, str(odd)) == 0
    assert joined.renter(*there, f"{other}/") == 1
    assert joined.renter("repair", str(shard_of(b"precious")), "--from", str(other)) == 1
    told = capsys.readouterr()
    lines = [line for line in (told.out + told.err).splitlines() if "name" in line]
    assert len(lines) == 6
    assert all("odd\\nname" in line or "other\\nname" in line for line in lines)


def test_what_is_no_invite_or_shard_is_a_usage_error(joined, capsys):
    assert joined.renter("join", "http://example.org") == 2
    assert "farmer://" in capsys.readouterr().err
    assert joined.renter("stat", "xyz") == 2
    assert joined.renter("stat", "ffffffff") == 1, "it could be one"
    assert "renter list" in capsys.readouterr().err


def test_space_that_unfinished_stores_take_is_named_beside_what_shards_do(joined, capsys):
    """Or a few shards seem to take far more than they have."""
    joined.fake.usage = Usage(live_bytes=403_000_000, reserved_bytes=134_000_000, shards=13)
    assert joined.renter("contract") == 0
    said = capsys.readouterr().out
    assert "537 MB used by 13 shards, 0 B of it trash, 134 MB kept for unfinished stores" in said
    joined.fake.usage = Usage(live_bytes=403_000_000, shards=13)
    assert joined.renter("contract") == 0
    assert "0 B of it trash\n" in capsys.readouterr().out


def test_contract_ping_and_stat_are_shown_to_people_and_programs(joined, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    capsys.readouterr()
    for words in (("contract",), ("ping",), ("stat", str(shard_of(b"precious"))), ("list",)):
        assert joined.renter(*words) == 0
        assert capsys.readouterr().out
        assert joined.renter(*words, "--json") == 0
        assert json.loads(capsys.readouterr().out)["schema"] == 1


@pytest.mark.parametrize("verb", ["stat", "list"])
def test_a_size_that_the_receipt_contradicts_is_no_answer(joined, tmp_path, capsys, verb):
    """A quarantined shard's size is what its damage is counted by."""
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    shard = shard_of(b"precious")
    lie = Stated(shard, 9, 5, ShardState.QUARANTINED, 0)
    joined.fake.script[Type.STAT] = lambda talk, _: talk.send(lie)
    joined.fake.script[Type.LIST] = lambda talk, _: talk.send(Listed((lie,), False))
    capsys.readouterr()
    assert joined.renter(verb, *([str(shard)] if verb == "stat" else []), "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert f"the farmer says that {shard} has 9 bytes" in error
    assert Type.EXAMINE not in [one.TYPE for one in joined.fake.asked]


def test_a_size_that_the_receipt_contradicts_is_not_shown_after_an_undelete(
    joined, tmp_path, capsys
):
    """It is expected in audits all the same: they tell what the farmer has."""
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    shard = shard_of(b"precious")
    joined.renter("delete", str(shard))
    lie = Stated(shard, 9, 5, ShardState.LIVE, 0)
    joined.fake.script[Type.UNDELETE] = lambda talk, _: talk.send(lie)
    capsys.readouterr()
    assert joined.renter("undelete", str(shard), "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert f"the farmer says that {shard} has 9 bytes" in error
    assert joined.renter("audit", "--json") == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 1


def test_a_full_audit_over_the_api_tells_changed_files(served):
    with served.connect() as farmer:
        receipt = farmer.store(io.BytesIO(b"precious"))
        assert farmer.audit_full(receipt, io.BytesIO(b"precious")).verdict is Verdict.PASSED


def test_a_farmer_is_asked_over_the_api_which_blocks_are_damaged(served):
    bad = BadBlocks(3 * BLOCK_BYTES, (0, 2))
    served.fake.script[Type.EXAMINE] = lambda talk, _: talk.send(BadBlocksNamed(bad))
    shard = shard_of(b"precious")
    with served.connect() as farmer:
        assert farmer.examine(shard, bad.size_bytes) == bad
    assert served.fake.asked[-1].shard == shard


def test_signals_are_left_to_the_main_thread(served):
    """Another thread that took them would not wake the one where Python acts on them."""

    async def blocked(reactor):
        door = ThreadDoor(reactor)
        try:
            return blocked_here() & await door.run(blocked_here)
        finally:
            await door.close()

    def blocked_here():
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])

    assert blocking.run(blocked) >= {signal.SIGINT, signal.SIGTERM}
    assert signal.SIGINT not in blocked_here()


def test_a_repair_from_a_file_that_is_not_there_ends_and_says_so(joined, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    shard, absent = str(shard_of(b"precious")), tmp_path / "absent"
    capsys.readouterr()
    assert joined.renter("repair", shard, "--from", str(absent)) == 1
    assert f"your copy {absent} cannot be read: No such file" in capsys.readouterr().err


def test_work_that_cannot_even_begin_raises_in_the_calling_thread():
    def work(_reactor):
        raise ValueError("no coroutine")

    with pytest.raises(ValueError, match="no coroutine"):
        blocking.run(work)


@pytest.fixture
def heard_interrupts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_interrupts")
def test_a_receipt_that_came_before_ctrl_c_is_kept_and_told(joined, tmp_path, capsys, monkeypatch):
    """The farmer holds the shard: what is not in the ledger is never audited."""
    keep = Ledger.keep

    def keep_slowly(ledger, *receipt):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.3)
        keep(ledger, *receipt)

    monkeypatch.setattr(Ledger, "keep", keep_slowly)
    (tmp_path / "file").write_bytes(b"precious")
    capsys.readouterr()
    assert joined.renter("store", str(tmp_path / "file"), "--json") == 0
    assert [row["stored"] for row in json.loads(capsys.readouterr().out)] == [True]
    assert joined.renter("audit") == 0


def test_work_that_nobody_waits_for_is_left_behind():
    """Its thread hangs for longer than the program: here, than the test."""
    begun, end = threading.Event(), threading.Event()

    def hang():
        begun.set()
        end.wait()

    async def leaving(reactor):
        door = ThreadDoor(reactor)
        hanging = door.run(hang)
        hanging.addErrback(lambda failure: failure.trap(CancelledError))
        assert begun.wait(20)
        hanging.cancel()
        await door.close()
        with pytest.raises(RuntimeError, match="closed"):
            door.run(hang)

    blocking.run(leaving)
    assert all(one.daemon for one in threading.enumerate() if one.name == "renter 1")
    end.set()


def test_an_interruption_is_one_also_where_the_work_does_not_end(monkeypatch):
    monkeypatch.setattr(blocking, "_CANCEL_S", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def stubborn(reactor):
        main = threading.main_thread().ident
        reactor.callLater(0, signal.pthread_kill, main, signal.SIGINT)
        with suppress(CancelledError):
            await Deferred()
        await deferLater(reactor, 0.5)

    try:
        with pytest.raises(KeyboardInterrupt):
            blocking.run(stubborn)
    finally:
        signal.signal(signal.SIGINT, before)
