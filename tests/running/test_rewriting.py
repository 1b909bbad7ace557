"""Settings and register are changed by two processes, and neither undoes what the other did."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final

import pytest
from twisted.internet.defer import ensureDeferred

from farmer.identity.keys import Identity
from farmer.model.shard import ShardState
from farmer.model.status import Alert
from farmer.running import register
from farmer.running import retiring as retiring_module
from farmer.running.errors import OwnerError
from farmer.running.files import read_json, write_json
from farmer.running.home import Home, HomeError
from farmer.running.locks import for_a_moment
from farmer.running.moving import Movings
from farmer.running.pacing import PATIENCE_S, Pacing
from farmer.running.register import REGISTER_FILE, REGISTER_LOCK, RetiredVolume
from farmer.running.retired import Retired
from farmer.running.retiring import Household, Retiring
from farmer.running.rewriting import SETTINGS_LOCK, change_settings, settings_now
from farmer.running.stores import open_stores
from farmer.settings.loader import SettingsError, load_text
from farmer.settings.schema import Settings
from farmer.settings.written import VolumeLine, settings_text, with_volume
from farmer.storage.directory import MARKER_NAME
from farmer.storage.duty import Duty, Leaving
from farmer.storage.engine import Engine
from farmer.storage.errors import VolumeUnavailableError
from farmer.storage.moving import Mover, Step
from farmer.storage.operations import Upkeep
from farmer.storage.volume import Volume
from tests.fakes import InlineDisk
from tests.storage.bench import row
from tests.storage.test_moving import DRAIN

NOW_MS: Final = 1_700_000_000_000

HEAD_START_S: Final = 0.2
"""Enough for what must wait to be done, if it did not wait."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path / "home")
    home.make()
    return home


def line(path: Path) -> VolumeLine:
    return VolumeLine.parse(f"{path}=100MB")


def named(home: Home) -> list[str]:
    """Return the names of the volumes in the settings file."""
    settings = load_text(home.settings.read_text(), "f", {}).settings
    return [Path(volume.path).name for volume in settings.volumes]


@contextmanager
def meanwhile(lock: Path, act: Callable[[], object]) -> Iterator[None]:
    """Hold a lock while somebody else sets out to *act*; afterwards that is done."""
    other = Thread(target=act)
    with for_a_moment(lock):
        other.start()
        other.join(HEAD_START_S)
        yield
    other.join()


def test_changes_of_the_settings_at_one_time_all_stand(home: Home, tmp_path: Path) -> None:
    paths = [tmp_path / f"v{number}" for number in range(8)]

    def add(path: Path) -> None:
        change_settings(home, {}, lambda text: with_volume(text, line(path)))

    with ThreadPoolExecutor(len(paths)) as threads:
        list(threads.map(add, paths))
    assert sorted(named(home)) == [path.name for path in paths]


def test_a_change_that_would_be_bad_is_not_written(home: Home) -> None:
    home.settings.write_text("version: 1\n")
    with pytest.raises(SettingsError):
        change_settings(home, {}, lambda text: f"{text}nmae: x\n")

    def refuse(_settings: Settings) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        change_settings(home, {}, lambda text: f"{text}name: x\n", refuse)
    assert home.settings.read_text() == "version: 1\n"
    assert change_settings(home, {}, lambda text: f"{text}name: x\n").name == "x"


def test_settings_that_cannot_be_read_are_not_changed(home: Home) -> None:
    home.settings.write_bytes(b"\xff")
    with pytest.raises(HomeError, match=r"farmer.yaml cannot be read: .*utf-8"):
        settings_now(home)


def test_settings_that_are_a_link_to_nowhere_are_not_begun_anew(home: Home) -> None:
    home.settings.symlink_to("away.yaml")
    with pytest.raises(HomeError, match=r"farmer.yaml cannot be read: .*No such file"):
        settings_now(home)


def test_letters_and_line_ends_stay_as_they_are(home: Home) -> None:
    """Of a file that an editor elsewhere wrote: with a mark before it, and with other ends."""
    home.settings.write_bytes("\ufeffversion: 1\r\nname: \u00c4pfel\r\n".encode())
    change_settings(home, {}, lambda text: f"{text}log: {{level: debug}}\r\n")
    after = "version: 1\r\nname: \u00c4pfel\r\nlog: {level: debug}\r\n"
    assert home.settings.read_bytes() == after.encode()


def test_settings_are_read_alike_whatever_the_locale_says(home: Home) -> None:
    """A service or a cron job may have one of seven bits."""
    home.settings.write_bytes("version: 1\nname: \u00c4pfel\n".encode())
    code = (
        "import sys; from pathlib import Path\n"
        "from farmer.running.home import Home\n"
        "from farmer.running.rewriting import settings_now\n"
        "print(ascii(settings_now(Home.at(Path(sys.argv[1])))))\n"
    )
    environ = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-c", code, str(home.state)]
    told = subprocess.run(
        words, capture_output=True, text=True, check=True, env=environ, timeout=20
    )
    assert told.stdout == ascii("version: 1\nname: \u00c4pfel\n") + "\n"


def test_a_lock_that_is_not_let_go_is_not_awaited_for_ever(home: Home) -> None:
    """A process may hang in a disk; what it holds, it says, and lets go by an error too."""
    lock = home.state / SETTINGS_LOCK
    with (
        for_a_moment(lock),
        pytest.raises(TimeoutError, match=r"another process holds .*settings\.lock"),
        for_a_moment(lock, 0.0),
    ):
        pass
    with pytest.raises(KeyError), for_a_moment(lock):
        raise KeyError
    with for_a_moment(lock, 0.0):
        pass


@dataclass(frozen=True, slots=True)
class Emptied:
    engine: Engine
    movings: Movings
    retiring: Retiring

    def finish(self) -> None:
        """Retire what can be, and tell what cannot."""
        self.retiring.finish()
        self.retiring.tell()


@contextmanager
def emptied(home: Home, told: list[list[Alert]], *paths: Path) -> Iterator[Emptied]:
    """Run a farmer on the settings until these of its volumes are empty, to be retired."""
    settings = load_text(home.settings.read_text(), "f", {}).settings
    stores = open_stores(home, settings, lambda: NOW_MS, print)
    household = Household(
        home=home,
        environ={},
        identity=Identity.load(home.identity),
        now_ms=lambda: NOW_MS,
        adopted=lambda _path, _settings: None,
        retired=Retired(home),
        report=told.append,
    )
    retiring = Retiring(stores.engine, household)
    movings = Movings(stores.engine, household, retiring, lambda: None)
    try:
        for path in paths:
            movings.do("volume-drain", {"path": str(path), "verb": "retire"})
        while stores.engine.mover.step() is not None:
            pass
        yield Emptied(stores.engine, movings, retiring)
    finally:
        stores.close()


def test_a_volume_that_is_retired_while_another_is_added_does_not_come_back(
    home: Home, tmp_path: Path
) -> None:
    """The running farmer takes it out of what the owner's command has just written."""
    home.settings.write_text(settings_text(volumes=[line(tmp_path / "a"), line(tmp_path / "b")]))
    told: list[list[Alert]] = []
    with emptied(home, told, tmp_path / "a") as house:
        with meanwhile(home.state / SETTINGS_LOCK, house.retiring.finish):
            text = with_volume(settings_text(volumes=[line(tmp_path / "a")]), line(tmp_path / "c"))
            home.settings.write_text(text)
        house.retiring.tell()
    assert told == [[]]
    assert named(home) == ["c"]


def test_each_volume_that_cannot_be_taken_out_of_the_settings_is_told(
    home: Home, tmp_path: Path
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    home.settings.write_text(settings_text(volumes=list(map(line, paths))))
    told: list[list[Alert]] = []
    with emptied(home, told, *paths) as house:
        home.settings.write_text("version: 1\nvolumes: here\n")
        house.finish()
    [alerts] = told
    assert [(alert.name, alert.about) for alert in alerts] == [
        ("VolumeNotRetired", str(path)) for path in paths
    ]


def test_a_volume_that_could_not_be_closed_is_retired_later(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left the settings by then; what is told is what keeps it, as long as it does."""
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    told: list[list[Alert]] = []
    with emptied(home, told, path) as house:
        engine = house.engine
        with monkeypatch.context() as hung:
            hung.setattr(Mover, "is_held_up", True)
            house.finish()
        assert sorted(named(home)) == ["a", "b"]

        def fail(_path: Path) -> None:
            raise VolumeUnavailableError("shards are being moved")

        with monkeypatch.context() as failing:
            failing.setattr(engine, "remove_volume", fail)
            for _ in range(2):
                house.finish()
        assert (named(home), engine.volume_at(path) is None) == (["b"], False)
        house.finish()
        assert engine.volume_at(path) is None
    held, *closing, over = told
    assert "another disk does not answer" in held[0].message
    assert {alert.message for [alert] in closing} == {
        f"{path} is empty, but could not be closed yet: shards are being moved. It is tried again"
        " by itself"
    }
    assert over == []


def test_a_volume_that_has_left_the_settings_is_not_kept(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take stores until the next start, which would not open it."""
    path = tmp_path / "a"
    text = settings_text(volumes=[line(path), line(tmp_path / "b")])
    home.settings.write_text(text)
    with emptied(home, [], path) as house:

        def fail(_path: Path) -> None:
            raise VolumeUnavailableError("shards are being moved")

        monkeypatch.setattr(house.engine, "remove_volume", fail)
        house.retiring.finish()
        with pytest.raises(OwnerError, match="is out of the settings already"):
            house.movings.do("volume-cancel", {"path": str(path)})
        home.settings.write_text(text)
        house.movings.do("volume-cancel", {"path": str(path)})
    assert sorted(named(home)) == ["a", "b"]


def test_what_is_called_off_while_it_is_retired_comes_too_late(home: Home, tmp_path: Path) -> None:
    """Else the volume would take stores, be closed all the same, and its directory be removed."""
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    with emptied(home, [], path) as house, ThreadPoolExecutor(1) as threads:
        with meanwhile(home.state / SETTINGS_LOCK, house.retiring.finish):
            cancel = threads.submit(house.movings.do, "volume-cancel", {"path": str(path)})
            wait([cancel], HEAD_START_S)
        with pytest.raises(OwnerError, match="is no open volume"):
            cancel.result(20)
    assert named(home) == ["b"]


def test_a_volume_is_not_retired_while_something_is_asked_of_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    with emptied(home, [], path) as house:
        cancel = house.engine.mover.cancel

        def cancel_slowly(source: Volume) -> None:
            house.finish()
            cancel(source)

        monkeypatch.setattr(house.engine.mover, "cancel", cancel_slowly)
        house.movings.do("volume-cancel", {"path": str(path)})
        house.finish()
    assert sorted(named(home)) == ["a", "b"]


def test_what_kept_a_volume_from_being_retired_is_over_with_that(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    home.settings.write_text(settings_text(volumes=[*map(line, paths), line(tmp_path / "c")]))
    told: list[list[Alert]] = []
    with emptied(home, told, *paths) as house:
        monkeypatch.setattr(Mover, "is_held_up", True)
        house.finish()
        house.movings.do("volume-cancel", {"path": str(paths[0])})
        house.movings.tell()
    before, after = told
    assert [alert.about for alert in before] == list(map(str, paths))
    assert [alert.about for alert in after] == [str(paths[1])]


def test_a_volume_of_which_nothing_could_be_noted_after_it_was_closed_is_retired_later(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is none of the farmer's any more, and nothing else is to be done."""
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    told: list[list[Alert]] = []
    now_s = [100.0]
    with emptied(home, told, path) as house:
        pacing = Pacing(
            *(house.engine, InlineDisk(), house.retiring, lambda: False), lambda: now_s[0]
        )
        with monkeypatch.context() as failing:
            failing.setattr(retiring_module, "retire_marker", _fail)
            assert ensureDeferred(pacing.turn()).called
            assert ensureDeferred(pacing.turn()).called
        assert house.engine.volume_at(path) is None
        assert house.engine.mover.is_idle
        now_s[0] += PATIENCE_S
        assert ensureDeferred(pacing.turn()).called
        assert "retired" in (path / MARKER_NAME).read_text()
    [failed], over = told
    assert (failed.name, failed.about) == ("VolumeNotRetired", str(path))
    assert over == []


def test_a_volume_that_was_unplugged_before_its_disk_could_be_told_is_retired_all_the_same(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list says already that it may be unplugged; no shard is on it, and nobody opens it."""
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    told: list[list[Alert]] = []
    with emptied(home, told, path) as house:
        with monkeypatch.context() as failing:
            failing.setattr(retiring_module, "retire_marker", _fail)
            house.finish()
        path.rename(tmp_path / "unplugged")
        house.finish()
        assert house.retiring.is_idle
    [failed], over = told
    assert (failed.name, over) == ("VolumeNotRetired", [])
    assert [one.path for one in register.retired(home)] == [path]


def test_a_volume_whose_files_cannot_all_be_removed_is_retired_and_the_rest_goes_later(
    home: Home, tmp_path: Path
) -> None:
    """The directory of drafts, in which its marker was written, may have gone by then."""
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    told: list[list[Alert]] = []
    with emptied(home, told, path) as house:
        volume = house.engine.volume_at(path)
        assert volume is not None
        house.engine.mover.begin(volume, Duty(verb=Leaving.RETIRE, since_ms=1, remove=True))
        odd = path / "odd.new"
        odd.mkdir()
        house.finish()
        house.finish()
        assert [one.path for one in register.retired(home)] == [path]
        assert "retired" in (path / MARKER_NAME).read_text()
        odd.rmdir()
        house.finish()
        assert not path.exists()
        assert house.retiring.is_idle
    *failed, over = told
    assert [(alert.name, str(odd) in alert.message) for [alert] in failed] == [
        ("VolumeNotRetired", True)
    ] * 2
    assert all("its files could not all be removed" in alert.message for [alert] in failed)
    assert over == []


def _fail(*_what: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_closed_volume_that_its_owner_adds_anew_is_not_marked(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    text = settings_text(volumes=[line(path), line(tmp_path / "b")])
    home.settings.write_text(text)
    with emptied(home, [], path) as house:
        with monkeypatch.context() as failing:
            failing.setattr(retiring_module, "retire_marker", _fail)
            house.finish()
        home.settings.write_text(text)
        for verb in ("volume-open", "volume-cancel"):
            house.movings.do(verb, {"path": str(path)})
        house.finish()
        assert house.engine.volume_at(path) is not None
        assert "retired" not in (path / MARKER_NAME).read_text()
        assert house.retiring.is_idle


def test_a_volume_that_was_called_off_since_it_was_found_empty_stays(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    with emptied(home, [], path) as house:
        found = house.engine.mover.leaving
        house.movings.do("volume-cancel", {"path": str(path)})
        monkeypatch.setattr(Mover, "leaving", found)
        house.finish()
    assert sorted(named(home)) == ["a", "b"]


def test_what_is_damaged_is_not_given_up_while_its_owner_calls_that_off(
    home: Home, tmp_path: Path
) -> None:
    """Its renter may mend it yet."""
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    with emptied(home, [], path) as house:
        volume, mover = house.engine.volume_at(path), house.engine.mover
        assert volume is not None
        damaged = row(is_damaged=True, state=ShardState.QUARANTINED)
        volume.writer.submit(Upkeep(lambda transaction: transaction.correct(damaged))).result(20)
        mover.begin(volume, Duty(verb=Leaving.RETIRE, since_ms=NOW_MS, force=True))
        while mover.step() is not None:
            pass
        with house.retiring.held(path):
            # As by a command of the owner's, which holds this.
            house.finish()
            mover.cancel(volume)
        house.finish()
        assert volume.ground.account.total.shards == 1
    assert sorted(named(home)) == ["a", "b"]


def test_a_volume_to_which_a_shard_came_until_it_was_closed_is_opened_again(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    home.settings.write_text(settings_text(volumes=[line(path), line(tmp_path / "b")]))
    told: list[list[Alert]] = []
    with emptied(home, told, path) as house:
        volume = house.engine.volume_at(path)
        assert volume is not None
        close = volume.writer.close

        def store_and_close() -> bool:
            volume.writer.submit(Upkeep(lambda transaction: transaction.correct(row()))).result(20)
            return close()

        monkeypatch.setattr(volume.writer, "close", store_and_close)
        house.finish()
        again = house.engine.volume_at(path)
        assert again is not None
        assert again.ground.account.total.shards == 1
    assert "1 shard had come meanwhile" in told[0][0].message


def test_an_empty_volume_is_retired_while_another_one_is_still_being_emptied(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in "abc"]
    home.settings.write_text(settings_text(volumes=list(map(line, paths))))
    with emptied(home, [], paths[0]) as house:
        monkeypatch.setattr(house.engine.mover, "step", lambda *_: Step(1, DRAIN, bytes(16)))
        pacing = Pacing(house.engine, InlineDisk(), house.retiring, lambda: True)
        turn = ensureDeferred(pacing.turn())
        assert turn.called
    assert sorted(named(home)) == ["b", "c"]


@pytest.mark.parametrize(
    ("act", "left"),
    [
        (partial(register.remember, volumes=[(Path("/new"), 7)]), {"/old": 1, "/new": 7}),
        (partial(register.forget, path=Path("/old")), {}),
        (partial(register.retire, volume=RetiredVolume(Path("/old"), "why", NOW_MS)), {}),
    ],
    ids=["remember", "forget", "retire"],
)
def test_the_register_keeps_what_others_note_at_the_same_time(
    home: Home, act: Callable[[Home], None], left: dict[str, int]
) -> None:
    register.remember(home, [(Path("/old"), 1)])
    path = home.state / REGISTER_FILE
    document = read_json(path)
    assert document is not None
    with meanwhile(home.state / REGISTER_LOCK, partial(act, home)):
        document["made"]["/theirs"] = 3
        write_json(path, document)
    assert register.quotas(home) == {"/theirs": 3} | left
