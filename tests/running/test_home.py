from __future__ import annotations

import errno
import json
import os
import pwd
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from farmer.running.home import FORMAT, MARK_FILE, Home, HomeError
from farmer.running.locks import HomeLock, HomeLockedError, lock_to_change
from tests.needs import as_root
from tests.odd_name import named_oddly

BLOCK_BYTES = 4096


def test_a_new_home_is_marked_and_private(tmp_path: Path) -> None:
    """0700 directories and 0600 files, whatever the umask."""
    home = Home.at(tmp_path / "a" / "b")
    home.make()
    home.make()
    assert home.exists
    assert stat.S_IMODE(home.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.mark.stat().st_mode) == 0o600


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    """A directory with other things in it and without our mark is refused, untouched."""
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    home = Home.at(tmp_path)
    with pytest.raises(HomeError, match=r"not a farmer's home: it holds 'thesis.txt'"):
        home.make()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_first_start_that_was_killed_can_be_made_again(tmp_path: Path) -> None:
    """It had begun to write the mark; what it left goes as soon as the home is locked."""
    home = Home.at(tmp_path)
    (tmp_path / f".{MARK_FILE}.{1 << 22}").write_text("{")
    home.make()
    with HomeLock(home.lock):
        home.tidy()
    assert {path.name for path in tmp_path.iterdir()} == {MARK_FILE, "lock"}


@pytest.mark.parametrize("name", [".thesis.json.7", f".{MARK_FILE}", f".{MARK_FILE}.bak"])
def test_somebody_elses_hidden_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("irreplaceable")
    with pytest.raises(HomeError, match="not a farmer's home"):
        Home.at(tmp_path).make()


def test_settings_may_be_there_before_the_farmer(tmp_path: Path) -> None:
    (tmp_path / "farmer.yaml").write_text("version: 1\n")
    Home.at(tmp_path).make()
    assert Home.at(tmp_path).exists


def test_what_comes_from_a_backup_may_be_there_before_the_farmer(tmp_path: Path) -> None:
    """The machine is lost, its disks are not: who the farmer is was kept elsewhere."""
    for name in ("identity", "annexes"):
        (tmp_path / name).mkdir()
    for name in ("contracts.sqlite", "volumes.json"):
        (tmp_path / name).write_text("{}")
    Home.at(tmp_path).make()
    assert Home.at(tmp_path).exists


def test_settings_that_were_there_must_be_there_from_then_on(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    assert home.keeping_settings().settings_to_read is None
    home.settings.write_text("version: 1\n")
    kept = home.keeping_settings()
    home.settings.unlink()
    assert (home.settings_to_read, kept.settings_to_read) == (None, home.settings)


def test_an_open_home_is_closed(tmp_path: Path) -> None:
    """A home that others could read is made private."""
    home = Home.at(tmp_path / "home")
    home.make()
    home.state.chmod(0o755)
    home.make()
    assert stat.S_IMODE(home.state.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        (json.dumps({"format": FORMAT + 1}), "newer release"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
    ],
)
def test_other_marks_are_refused(tmp_path: Path, mark: str, words: str) -> None:
    (tmp_path / MARK_FILE).write_text(mark)
    with pytest.raises(HomeError, match=words):
        Home.at(tmp_path).make()


def test_a_home_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    """Its volume could not be shown: page and metrics would fail."""
    home = Home.at(tmp_path / "a\udcff")
    with pytest.raises(HomeError, match="is not UTF-8"):
        home.make()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_home(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(HomeError, match="cannot be used"):
        Home.at(path).make()


def test_where_homes_are(tmp_path: Path) -> None:
    """Command line, then FARMER_HOME, then the system's or the user's usual places."""
    environ = {"HOME": "/h", "FARMER_HOME": "/from/environment"}
    assert Home.find("/given", None, environ, 1000).state == Path("/given")
    assert Home.find(None, None, environ, 1000).state == Path("/from/environment")
    root = Home.find(None, None, {"HOME": "/root"}, 0)
    assert (root.state, root.settings) == (
        Path("/var/lib/farmer"),
        Path("/etc/farmer/farmer.yaml"),
    )
    user = Home.find(None, None, {"HOME": "/h", "XDG_DATA_HOME": "relative"}, 1000)
    assert user.state == Path("/h/.local/share/farmer")
    assert user.settings == Path("/h/.config/farmer/farmer.yaml")
    xdg = Home.find(None, None, {"XDG_DATA_HOME": "/d", "XDG_CONFIG_HOME": "/c"}, 1000)
    assert (xdg.state, xdg.settings) == (Path("/d/farmer"), Path("/c/farmer/farmer.yaml"))
    assert Home.find("/given", "/x.yaml", environ, 0).settings == Path("/x.yaml")


def test_a_user_without_a_directory_must_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_number: int) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(HomeError, match="name a directory for the farmer with --home"):
        Home.find(None, None, {}, 1000)
    assert Home.find("/given", None, {}, 1000).state == Path("/given")


@as_root
def test_another_users_home_is_left_alone(tmp_path: Path) -> None:
    """What root made there its farmer could not read; whoever reads only may go on."""
    home = Home.at(tmp_path / "my home", tmp_path / "f.yaml")
    home.make()
    os.chown(home.state, 12_345, 12_345)
    words = (
        "belongs to the user #12345, whose farmer could not read what root makes. Nothing was "
        f"touched; type it as that user: sudo -u '#12345' farmer --home '{home.state}' "
        f"--config {tmp_path}/f.yaml ..."
    )
    for change in (home.make, lambda: lock_to_change(home)):
        with pytest.raises(HomeError, match=re.escape(words)):
            change()
    assert [entry.name for entry in home.state.iterdir()] == [MARK_FILE]
    home.check()


ANOTHER, THIRD, ROOT = 12_345, 12_346, 0


@pytest.fixture
def of_root() -> Iterator[Home]:
    """A home with all that a farmer has, root's; the test acts as another user."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Home.at(Path(folder) / "home")
        home.make()
        home.identity.mkdir()
        home.annexes.mkdir()
        (home.identity / "identity.key").touch()
        for path in (home.state, *home.state.rglob("*")):
            path.chmod(0o755)
        os.seteuid(ANOTHER)
        yield home
        os.seteuid(ROOT)


def given(path: Path, user: int) -> None:
    os.seteuid(ROOT)
    os.chown(path, user, user)
    os.seteuid(ANOTHER)


@as_root
def test_a_home_that_root_put_back_is_taken_over_if_what_is_in_it_is_ours(of_root: Home) -> None:
    """Of any other the farmer of its owner would stop."""
    as_root_types = f"it as that user: sudo -u root farmer --home {of_root.state} ..."
    with pytest.raises(HomeError, match=re.escape(f"type {as_root_types}")):
        of_root.check_owner()
    os.seteuid(ROOT)
    of_root.state.chmod(0o700)
    os.seteuid(ANOTHER)
    for look in (of_root.check_owner, of_root.check):
        with pytest.raises(HomeError, match=re.escape(f"type {as_root_types}")):
            look()
    os.seteuid(ROOT)
    of_root.state.chmod(0o755)
    given(of_root.identity / "identity.key", ANOTHER)
    words = f"type this, if root has put back a backup of yours: sudo chown -R {ANOTHER} "
    with pytest.raises(HomeError, match=re.escape(f"{words}{of_root.state}")):
        of_root.check_owner()
    given(of_root.state, THIRD)
    with pytest.raises(HomeError, match=f"type it as that user: sudo -u '#{THIRD}'"):
        of_root.check_owner()


@as_root
def test_of_another_users_files_a_start_wants_no_more_than_it_does_with_them(
    of_root: Home,
) -> None:
    given(of_root.state, ANOTHER)
    given(of_root.annexes, ANOTHER)
    of_root.check_rights()


@as_root
@pytest.mark.parametrize(
    ("name", "mode"), [("annexes", 0o766), ("identity", 0o764), (MARK_FILE, 0o640)]
)
def test_what_a_start_could_not_use_is_told_before_it(of_root: Home, name: str, mode: int) -> None:
    given(of_root.state, ANOTHER)
    given(of_root.annexes, ANOTHER)
    given(of_root.state / name, THIRD)
    os.seteuid(ROOT)
    (of_root.state / name).chmod(mode)
    os.seteuid(ANOTHER)
    words = f"{of_root.state / name} belongs to the user #{THIRD}"
    with pytest.raises(HomeError, match=re.escape(words)):
        of_root.check_rights()


def test_one_holder_at_a_time_and_the_second_learns_its_pid(tmp_path: Path) -> None:
    """The lock is the kernel's: it goes with the process, a stale file means nothing."""
    path = tmp_path / "lock"
    first, second = HomeLock(path), HomeLock(path)
    first.take()
    with pytest.raises(HomeLockedError, match=f"process {os.getpid()}") as caught:
        second.take()
    assert caught.value.pid == os.getpid()
    first.give_back()
    first.give_back()
    with second:
        assert int(path.read_text()) == os.getpid()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can become longer than the blocks that it has."""
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        size = os.fstat(fd).st_size
        if offset + len(data) > size + -size % BLOCK_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("before", ["1\n", f"{1 << 22}\n"], ids=["shorter", "longer"])
def test_on_a_full_disk_the_next_holder_is_told_where_the_last_one_was(
    tmp_path: Path, before: str
) -> None:
    """It takes no room, and nothing of an older number is left behind ours."""
    path = tmp_path / "lock"
    path.write_text(before)
    with HomeLock(path), pytest.raises(HomeLockedError, match=f"process {os.getpid()},"):
        HomeLock(path).take()


@pytest.mark.usefixtures("full")
def test_where_a_holder_has_no_room_to_say_who_it_is_it_holds_all_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    with HomeLock(path), pytest.raises(HomeLockedError, match="another process"):
        HomeLock(path).take()


def test_a_holder_that_may_not_say_who_it_is_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails is told, and the home is left to the next one."""

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "lock"
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", fails)
        with pytest.raises(OSError, match="Input/output"):
            HomeLock(path).take()
    HomeLock(path).take()


def test_who_holds_a_home_is_looked_at_there(tmp_path: Path) -> None:
    """The command is one for this home, not for the usual one."""
    home = Home.find(str(tmp_path / "attic"), None, {"HOME": "/h"}, os.getuid())
    home.make()
    with HomeLock(home.lock), pytest.raises(HomeLockedError) as caught:
        lock_to_change(home).take()
    assert str(caught.value).endswith(f"look at it with: farmer --home {home.state} status")


@pytest.mark.needs(Path("/proc/self/comm").exists(), "/proc")
def test_a_holder_whose_name_is_no_text_is_told_as_any_other(tmp_path: Path) -> None:
    """The name stands among what the kernel says of it."""
    with (
        named_oddly(),
        HomeLock(tmp_path / "lock"),
        pytest.raises(HomeLockedError, match="a farmer that runs"),
    ):
        HomeLock(tmp_path / "lock").take()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        HomeLock(tmp_path / "lock").take()
    assert not (tmp_path / "elsewhere").exists()


def test_a_command_line_means_the_same_home_wherever_it_is_typed(tmp_path: Path) -> None:
    """Also where the home came from the environment, or from a path that was not absolute."""
    environ = {"HOME": "/h", "FARMER_HOME": "/from/environment"}
    found = Home.find(None, "/etc/farmer.yaml", environ, 1000)
    told = "farmer --home /from/environment --config /etc/farmer.yaml volume list"
    assert found.command("volume list") == found.naming("farmer volume list") == told
    assert Home.find("/a b", None, environ, 0).command("run") == "farmer --home '/a b' run"
    here = Path.cwd()
    assert Home.find("x", "y", {}, 0).options == f" --home {here / 'x'} --config {here / 'y'}"
    assert Home.find(None, None, {"HOME": "/h"}, 1000).naming("farmer run") == "farmer run"
