"""The smaller parts of a running farmer: notifier, addresses, alerts, changes, small files."""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.protocol import ServerFactory
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogEvent, Logger, LogPublisher, formatEvent

from farmer.model.moments import Clocks
from farmer.model.status import Alert
from farmer.running import listening as doors_module
from farmer.running.addresses import NoAddressError, announced, local_addresses
from farmer.running.alerts import AlertBoard
from farmer.running.files import (
    draft_of,
    may_not_write,
    read_json,
    remove_drafts,
    write_json,
    write_whole,
)
from farmer.running.home import Home
from farmer.running.last_ports import remember_ports, with_last_ports
from farmer.running.listening import PAGE_ACCEPTS_PER_TURN, Doors
from farmer.running.notify import ServiceNotifier
from farmer.running.passed import PassedSockets
from farmer.running.process import goes_to_journal, tell_at_once
from farmer.running.winding_down import cut_off
from farmer.settings.changes import changes
from farmer.settings.loader import load_text
from farmer.settings.schema import Settings
from farmer.storage.rights import user_name
from tests.needs import as_root, on_linux

ANOTHER = 12_345
"""A user, and a group, that is not ours."""

NOBODYS = 1 << 22
"""No process of Linux has so high a number."""


def test_systemd_hears_of_each_stage(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        notifier = ServiceNotifier({"NOTIFY_SOCKET": str(tmp_path / "n")})
        notifier.ready("serving\nLIE=1")
        notifier.reloading(5)
        notifier.stopping()
        notifier.alive()
        heard = [manager.recv(200) for _ in range(4)]
    assert heard[0] == b"READY=1\nSTATUS=serving LIE=1"
    assert heard[1] == b"RELOADING=1\nMONOTONIC_USEC=5"
    assert heard[2].startswith(b"STOPPING=1")
    assert heard[3] == b"WATCHDOG=1"


def test_without_systemd_nothing_is_said(tmp_path: Path) -> None:
    """Neither a missing nor a dead manager raises."""
    ServiceNotifier({}).ready("x")
    ServiceNotifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_for_us_only(environ: dict[str, str], every_s: float) -> None:
    assert ServiceNotifier(environ).watchdog_s == every_s


def test_only_the_journal_itself_is_the_journal() -> None:
    """A terminal inherits the variable from a desktop that systemd started."""
    reader, writer = os.pipe()
    found = os.fstat(writer)
    there = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    assert goes_to_journal(there, writer)
    assert not goes_to_journal({"JOURNAL_STREAM": "1:2"}, writer)
    assert not goes_to_journal({}, writer)
    os.close(reader)
    os.close(writer)
    assert not goes_to_journal(there, writer)


def test_last_words_wait_for_nobody() -> None:
    """A reader that has stopped reading would keep who wants to end for ever."""
    reader, writer = os.pipe()
    tell_at_once("the end\n", writer)
    assert os.read(reader, 100) == b"the end\n"
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    tell_at_once("the end\n", writer)
    os.close(reader)
    tell_at_once("the end\n", writer)
    os.close(writer)
    tell_at_once("the end\n", writer)


@pytest.mark.parametrize(
    ("transfers", "what"),
    [
        (0, "no transfer, but the closing of the volumes was cut off"),
        (1, "1 transfer and the closing of the volumes were cut off"),
        (2, "2 transfers and the closing of the volumes were cut off"),
    ],
)
def test_an_end_at_once_says_what_it_cuts_off(transfers: int, what: str) -> None:
    assert cut_off(transfers).startswith(f"stopped at once, as asked: {what}. ")


def test_a_lack_of_rights_comes_with_what_mends_it() -> None:
    told = may_not_write(Path("/mnt/my disk"))
    assert re.search(r"Make it (\S+)'s with: sudo install -d -o \1 '/mnt/my disk'$", told)


def test_nobody_is_told_to_take_what_is_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /srv, whose `install -d -o` would give it to the farmer; a new disk is nobody's yet."""
    (tmp_path / "lost+found").mkdir()
    assert f"install -d -o {user_name(os.geteuid())}" in may_not_write(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert "install -d -o 12345" in may_not_write(tmp_path)
    (tmp_path / "somebody's").touch()
    told = may_not_write(tmp_path)
    assert told == "12345 may not write there. Use a directory of 12345's own"
    assert "install -d -o 12345" in may_not_write(tmp_path / "new")


def no_addresses() -> list[str]:
    return []


def two_addresses() -> list[str]:
    return ["192.168.1.20", "2001:db8::20"]


def test_invites_name_what_the_owner_announces() -> None:
    assert announced(["a.example:1"], ["[::]:4646"], two_addresses) == ("a.example:1",)


def test_invites_never_name_every_address() -> None:
    """0.0.0.0 and :: become this machine's own addresses."""
    assert announced([], ["0.0.0.0:4646"], two_addresses) == ("192.168.1.20:4646",)
    assert announced([], ["[::]:4646"], two_addresses) == (
        "192.168.1.20:4646",
        "[2001:db8::20]:4646",
    )
    assert announced([], ["127.0.0.1:5"], two_addresses) == ("127.0.0.1:5",)


def test_invites_name_no_more_than_they_can_carry() -> None:
    listening = [f"192.168.1.{number}:4646" for number in range(1, 20)]
    assert announced([], listening, two_addresses) == tuple(listening[:8])


def test_invites_never_name_loopback_for_every_address() -> None:
    """A farmer without a network of its own does not see how it is reached: its owner says it."""
    for listening, local in (
        (["[::]:4646"], no_addresses),
        (["0.0.0.0:4646"], lambda: ["2001:db8::20"]),
    ):
        with pytest.raises(NoAddressError, match="set announce: in the settings") as refused:
            announced([], listening, local)
        assert "FARMER_ANNOUNCE=127.0.0.1:4646" in str(refused.value)


@pytest.mark.parametrize(
    ("listening", "local", "named"),
    [
        (["0.0.0.0:4646", "192.168.1.2:99"], [], "192.168.1.2:99"),
        (["0.0.0.0:4646", "[::]:4646"], ["2001:db8::20"], "[2001:db8::20]:4646"),
    ],
)
def test_a_listener_without_an_address_keeps_no_other_out_of_invites(
    listening: list[str], local: list[str], named: str
) -> None:
    assert announced([], listening, lambda: local) == (named,)


def test_invites_never_name_port_0() -> None:
    with pytest.raises(NoAddressError, match="start the farmer, or set announce"):
        announced([], ["127.0.0.1:0"], two_addresses)


def test_own_addresses_are_no_wildcards() -> None:
    assert not {"0.0.0.0", "::"} & set(local_addresses())


class Wire:
    """Is on a network with temporary addresses, on a system that may not let one choose."""

    can_choose = True

    def __init__(self, family: int, _kind: int) -> None:
        self.family = family
        self.chosen: tuple[Any, ...] = ()
        self.host = ""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def setsockopt(self, *option: Any) -> None:
        if not self.can_choose:
            raise OSError("no such option")
        self.chosen = option

    def connect(self, _address: Any) -> None:
        lasting = self.chosen == (socket.IPPROTO_IPV6, 72, 2)
        of_6 = "2001:db8::20" if lasting else "2001:db8::fade"
        self.host = of_6 if self.family == socket.AF_INET6 else "192.168.1.20"

    def getsockname(self) -> tuple[str, int]:
        return self.host, 9


class OldWire(Wire):
    can_choose = False


@on_linux
def test_invites_name_no_address_that_is_gone_in_a_week() -> None:
    for kind, of_6 in ((Wire, "2001:db8::20"), (OldWire, "2001:db8::fade")):
        assert local_addresses(cast(Any, kind)) == ["192.168.1.20", of_6]


FIFTY_YEARS_MS = 50 * 365 * 86_400_000


class Hands:
    """A wall clock that can be set, and one that only runs."""

    def __init__(self, wall_ms: int) -> None:
        self.wall_ms = wall_ms
        self.lived_ms = 0
        self.clocks = Clocks(lambda: self.wall_ms, lambda: self.lived_ms / 1000)

    def pass_ms(self, ms: int) -> None:
        self.wall_ms += ms
        self.lived_ms += ms


def test_alerts_stand_until_they_clear() -> None:
    """The first time is kept, the words may change, sources do not disturb each other."""
    hands = Hands(100)
    board = AlertBoard(hands.clocks)
    board.report("clock", alert("ClockSuspicious", "an hour back"))
    hands.pass_ms(10)
    board.report("volume a", alert("VolumeGone", "a"))
    board.report("volume b", alert("VolumeGone", "b", since_ms=7))
    hands.pass_ms(10)
    board.report("clock", alert("ClockSuspicious", "two hours back"))
    shown = [(one.since_ms, one.message) for one in board.alerts]
    assert shown == [(7, "b"), (100, "two hours back"), (110, "a")]
    board.report("clock")
    assert [one.name for one in board.alerts] == ["VolumeGone", "VolumeGone"]


def test_alerts_of_one_name_about_two_things_both_stand() -> None:
    """Each keeps its own first time, whatever becomes of its words."""
    hands = Hands(100)
    board = AlertBoard(hands.clocks)
    board.report("unmade", alert("VolumeNotMade", "a: full", about="a"))
    hands.pass_ms(10)
    board.report(
        "unmade",
        alert("VolumeNotMade", "a: busy", about="a"),
        alert("VolumeNotMade", "b: full", about="b"),
    )
    shown = [(one.since_ms, one.message) for one in board.alerts]
    assert shown == [(100, "a: busy"), (110, "b: full")]


def test_an_alert_that_stands_is_told_once_whatever_becomes_of_its_words() -> None:
    """Else the log would say that it is over, while it stands."""
    hands = Hands(100)
    logged: list[LogEvent] = []
    board = AlertBoard(hands.clocks)
    board.log = Logger(observer=LogPublisher(logged.append))
    board.report(
        "engine",
        alert("ScrubFoundDamage", "1 shard", since_ms=7, about="attic"),
        alert("ScrubFoundDamage", "9 shards", since_ms=8, about="cellar"),
    )
    board.report("engine", alert("ScrubFoundDamage", "2 shards", since_ms=7, about="attic"))
    assert [one.message for one in board.alerts] == ["2 shards"]
    assert sorted(formatEvent(event) for event in logged) == [
        "alert ScrubFoundDamage is over",
        "alert ScrubFoundDamage: 1 shard",
        "alert ScrubFoundDamage: 9 shards",
    ]


def test_an_alert_is_as_old_as_it_is_when_the_clock_is_set() -> None:
    """By fifty years: a machine without a clock of its own starts in 1970, and learns the time."""
    hands = Hands(100_000)
    board = AlertBoard(hands.clocks)
    board.report("a", alert("ClockSuspicious", "an hour back"))
    board.report("b", alert("VolumeGone", "b", since_ms=99_000))
    board.report("c", alert("VolumeNotInSettings", "c", since_ms=FIFTY_YEARS_MS))
    hands.pass_ms(5000)
    hands.wall_ms += FIFTY_YEARS_MS
    board.report("a", alert("ClockSuspicious", "two hours back"))
    hands.pass_ms(1000)
    ages = {one.name: hands.wall_ms - one.since_ms for one in board.alerts}
    assert ages == {
        "ClockSuspicious": 6000,
        "VolumeGone": 7000,
        # Known by the calendar: it may have begun before this run.
        "VolumeNotInSettings": hands.wall_ms - FIFTY_YEARS_MS,
    }


def test_an_alert_that_came_again_between_two_looks_began_then() -> None:
    hands = Hands(100_000)
    board = AlertBoard(hands.clocks)
    board.report("a", alert("VolumeGone", "a", since_ms=99_000))
    hands.pass_ms(5000)
    board.report("a", alert("VolumeGone", "a", since_ms=103_000))
    assert [one.since_ms for one in board.alerts] == [103_000]


def test_the_command_of_an_alert_names_the_home() -> None:
    """Typed without it, it would mean another farmer."""
    board = AlertBoard(Hands(1).clocks, Home.find("/h", None, {}, 1000).naming)
    told = replace(alert("VolumeGone", "a"), command="farmer volume list")
    board.report("a", told, alert("VolumeSlow", "b"))
    commands = {one.name: one.command for one in board.alerts}
    assert commands == {"VolumeGone": "farmer --home /h volume list", "VolumeSlow": ""}


@pytest.mark.parametrize("command", ["dmesg | tail", "systemctl restart farmer"])
def test_a_command_of_another_program_stays_as_it_is(command: str) -> None:
    board = AlertBoard(Hands(1).clocks, Home.find("/h", None, {}, 1000).naming)
    board.report("a", replace(alert("LogDamaged", "a"), command=command))
    assert [one.command for one in board.alerts] == [command]


def alert(name: str, message: str, since_ms: int = 0, about: str = "") -> Alert:
    return Alert(name=name, since_ms=since_ms, message=message, about=about)


def settings_of(text: str) -> Settings:
    return load_text("version: 1\n" + text, "f", {}).settings


@pytest.mark.parametrize(
    ("before", "after", "live", "restart"),
    [
        ("", "", (), ()),
        ("name: a", "name: b\nlog: {level: debug}", {"name", "log.level"}, ()),
        ("", "announce: a.example:1", {"announce.0"}, ()),
        ("", "listen: {page: '127.0.0.1:1'}", (), {"listen.page"}),
        (
            "volumes: [{path: /a, quota: 1GB}]",
            "volumes: [{path: /a, quota: 2GB}]",
            {"volumes.0.quota"},
            (),
        ),
        (
            "volumes: [{path: /a, quota: 1GB}]",
            "volumes: [{path: /b, quota: 2GB}]",
            (),
            {"volumes.0.path", "volumes.0.quota"},
        ),
    ],
)
def test_a_reload_knows_what_it_can_apply(
    before: str, after: str, live: set[str], restart: set[str]
) -> None:
    found = changes(settings_of(before), settings_of(after))
    assert (set(found.live), set(found.restart)) == (set(live), set(restart))


def test_small_files_are_whole_or_not_there(tmp_path: Path) -> None:
    """A failed write leaves the old content and no draft."""
    path = tmp_path / "f"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_whole(path, "text")  # type: ignore[arg-type]  # the mistake is the point
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert read_json(tmp_path / "missing") is None


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """Not what another process may be writing, nor what is named otherwise."""
    kept = [f".run.json.{os.getppid()}", ".notes.1", "run.json.1", ".run.json.1.2", ".json.x"]
    gone = [f".run.json.{NOBODYS}", f".farmer.yaml.{NOBODYS}", f".ports.json.{os.getpid()}"]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    remove_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_draft_is_known_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda _fd: seen.extend(tmp_path.iterdir()))
    write_whole(tmp_path / "farmer-home.json", b"1")
    assert draft_of(seen[0].name) == "farmer-home.json"
    assert draft_of("farmer-home.json") == ""


def test_a_small_file_is_durable_and_so_is_its_name(tmp_path: Path, synced: list[int]) -> None:
    write_whole(tmp_path / "f", b"1")
    assert synced == [(tmp_path / "f").stat().st_ino, tmp_path.stat().st_ino]


def test_nothing_of_ours_becomes_set_user_id(tmp_path: Path) -> None:
    """Who replaces such a file writes other bytes than those that were made so."""
    path = tmp_path / "f"
    path.write_bytes(b"1")
    path.chmod(0o6755)
    write_whole(path, b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_new_small_file_is_for_nobody_elses_eyes_and_a_replaced_one_as_before(
    tmp_path: Path,
) -> None:
    """Whatever the umask; the owner may have opened it to others."""
    path = tmp_path / "f"
    write_whole(path, b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    write_whole(path, b"2")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"2", 0o644)


@as_root
def test_a_small_file_that_root_replaces_stays_its_owners(tmp_path: Path) -> None:
    """Or the service that has to read it could not any more."""
    path = tmp_path / "f"
    write_whole(path, b"1")
    os.chown(path, ANOTHER, ANOTHER + 1)
    write_whole(path, b"2")
    assert (path.stat().st_uid, path.stat().st_gid) == (ANOTHER, ANOTHER + 1)


@as_root
def test_a_small_file_that_root_makes_is_its_directorys_owners(tmp_path: Path) -> None:
    os.chown(tmp_path, ANOTHER, ANOTHER + 1)
    write_whole(tmp_path / "f", b"1")
    found = (tmp_path / "f").stat()
    assert (found.st_uid, found.st_gid) == (ANOTHER, ANOTHER + 1)


def test_a_link_in_place_of_a_small_file_is_replaced_not_followed(tmp_path: Path) -> None:
    """Neither what it points to is changed, nor is its mode of 0777 taken over."""
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "f").symlink_to(tmp_path / "elsewhere")
    write_whole(tmp_path / "f", b"ours")
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert stat.S_IMODE((tmp_path / "f").lstat().st_mode) == 0o600


class Passed:
    """A socket that listens where it was told to."""

    family = socket.AF_INET

    def __init__(self, *address: object) -> None:
        self._address = address

    def getsockname(self) -> tuple[object, ...]:
        return self._address

    def fileno(self) -> int:
        return 3

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("passed", "hosts"),
    [
        ([], ("nas.example",)),
        ([Passed("192.168.1.5", 4647)], ("nas.example", "192.168.1.5")),
        ([Passed("fd00::5", 4647, 0, 0)], ("nas.example", "fd00::5")),
        ([Passed("::", 4647, 0, 0)], ("nas.example", "*")),
    ],
)
def test_the_page_answers_to_where_the_service_manager_put_it(
    tmp_path: Path, passed: list[Any], hosts: tuple[str, ...]
) -> None:
    doors = Doors(None, Home.at(tmp_path), PassedSockets(None, {"page": passed}))
    assert doors.page_hosts("nas.example:4647") == hosts


def test_the_page_is_served_on_each_socket_that_was_passed_for_it(tmp_path: Path) -> None:
    """Else whoever calls at the second one waits for ever."""
    reactor = MemoryReactor()
    passed: list[Any] = [Passed("127.0.0.1", 4647), Passed("fd00::5", 4647, 0, 0)]
    doors = Doors(reactor, Home.at(tmp_path), PassedSockets(reactor, {"page": passed}))
    ports, shown = doors.for_page(ServerFactory(), "nas.example:4647")
    assert (len(ports), len(reactor.adoptedPorts)) == (2, 2)
    assert shown == "127.0.0.1:4647"
    assert doors.by_settings == {}, "the service manager's, whatever the settings name"


def test_the_page_on_every_address_is_on_every_ipv4_one_without_ipv6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without IPv6 is no reason not to start."""
    monkeypatch.setattr(doors_module, "has_ipv6", lambda: False)
    reactor = MemoryReactor()
    doors = Doors(reactor, Home.at(tmp_path), PassedSockets(reactor, {}))
    _ports, shown = doors.for_page(ServerFactory(), "[::]:4647")
    assert [(host, port) for port, _, _, host in reactor.tcpServers] == [("0.0.0.0", 4647)]
    assert shown == "0.0.0.0:4647"
    assert doors.by_settings == {"listen.page": ["0.0.0.0:4647"]}


def test_every_address_has_many_spellings_and_one_meaning(tmp_path: Path) -> None:
    doors = Doors(None, Home.at(tmp_path), PassedSockets(None, {}))
    for spelt in ("[::]:4647", "[::0]:4647", "[0:0:0:0:0:0:0:0]:4647", "0.0.0.0:4647"):
        assert doors.page_hosts(spelt) == ("*",)


def test_the_page_takes_one_connection_at_a_time(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    home.make()
    took: list[int] = []
    port = SimpleNamespace(numberAccepts=100, getHost=lambda: SimpleNamespace(port=4647))
    port.doRead = lambda: took.append(port.numberAccepts)
    reactor = SimpleNamespace(listenTCP=lambda *_: port)
    doors = Doors(reactor, home, PassedSockets(reactor, {}))

    found, where = doors.for_page(ServerFactory(), "127.0.0.1:0")
    cast(Any, found[0]).doRead()

    assert (took, where) == ([PAGE_ACCEPTS_PER_TURN], "127.0.0.1:4647")


def test_port_0_stays_what_it_became(tmp_path: Path) -> None:
    """For each door apart, and only as long as the settings ask for the same."""
    home = Home.at(tmp_path / "home")
    home.make()
    asked = ["127.0.0.1:0", "[::1]:5"]
    assert with_last_ports(home, "shards", asked) == asked
    remember_ports(home, "shards", asked, ["127.0.0.1:77", "[::1]:5"])
    remember_ports(home, "page", ["127.0.0.1:0"], ["127.0.0.1:88"])
    assert with_last_ports(home, "shards", asked) == ["127.0.0.1:77", "[::1]:5"]
    assert with_last_ports(home, "page", ["127.0.0.1:0"]) == ["127.0.0.1:88"]
    other = ["10.0.0.1:0", "[::1]:5"]
    assert with_last_ports(home, "shards", other) == other
