from __future__ import annotations

import errno
import io
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from farmer.cli import exits, owner_ask, owner_settings, owner_status, owner_volumes
from farmer.cli.owner import main
from farmer.cli.owner_grammar import parser
from farmer.cli.owner_status import exit_code, lines_of, volume_table
from farmer.cli.owner_words import said
from farmer.cli.tables import table, visible
from farmer.model.status import VolumeState, VolumeStatus, VolumeWork
from farmer.monitor.status import volume_document
from farmer.running import making, register, volumes
from farmer.running.caller import FarmerRefusedError, _answer, call
from farmer.running.home import Home
from farmer.running.making import make_volumes
from farmer.settings.loader import load_text
from farmer.settings.written import VolumeLine, settings_text, with_volume, without_volume
from farmer.units import exact_size
from farmer.version import VERSION, build
from tests.needs import as_root, on_linux

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FARMER_HOME", "FARMER_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def run(home: Path, *words: str) -> int:
    return main(["--home", str(home), *words])


def ended(home: Path, *words: str) -> object:
    """Run a command of which even the words may be wrong; return its exit code."""
    try:
        return run(home, *words)
    except SystemExit as end:
        return end.code


def test_status_of_a_farmer_that_does_not_run(home: Path, capsys: Any) -> None:
    """Exit code 3, a document a script can read, and a hint for a person."""
    assert run(home, "status", "--json") == exits.NOT_RUNNING
    told = capsys.readouterr()
    assert json.loads(told.out)["state"] == "stopped"
    assert f"start it with: farmer --home {home} run" in told.err
    assert not home.exists()


def test_a_run_file_of_a_dead_farmer_is_not_believed(home: Path) -> None:
    """After kill -9 the file is still there, but nobody answers."""
    Home.at(home).make()
    (home / "run.json").write_text(json.dumps({"control": str(home / "gone"), "pid": 1}))
    assert run(home, "status") == exits.NOT_RUNNING


def test_that_no_farmer_runs_is_said_only_where_that_is_known(home: Path, capsys: Any) -> None:
    """Whatever else the system says of the place where it would tell is passed on."""
    Home.at(home).make()
    (home / "run.json").mkdir()
    for verb in (["status"], ["volume", "list"], ["invite", "list"]):
        assert run(home, *verb) == exits.FAILED
        told = capsys.readouterr().err
        assert f"whether a farmer runs on {home} cannot be seen: Is a directory" in told
        assert "start it" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("contract show ffffffff", "there is no farmer in"),
        ("invite --space 200TB --for 1d", "there is no farmer in"),
        ("volume check /nosuch", "/nosuch is not a volume of this farmer"),
        ("--config /nope.yaml contract list", "/nope.yaml: No such file"),
    ],
)
def test_a_failure_is_told_to_programs_too(home: Path, capsys: Any, words: str, told: str) -> None:
    """On standard output, where they read; a person reads the other."""
    assert run(home, *words.split(), "--json") != exits.OK
    heard = capsys.readouterr()
    assert told in json.loads(heard.out)["error"]
    assert heard.err == f"farmer: {json.loads(heard.out)['error']}\n"


def test_mistakes_in_the_settings_are_told_to_programs_one_by_one(home: Path, capsys: Any) -> None:
    Home.at(home).make()
    (home / "farmer.yaml").write_text("version: 1\nnmae: x\nlog: {level: loud}\n")
    assert run(home, "config", "show", "--json") == exits.BAD_SETTINGS
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == "2 mistakes in the settings"
    assert ["farmer.yaml:2:1" in fault for fault in document["faults"]] == [True, False]


@as_root
@pytest.mark.parametrize("is_open", [False, True])
def test_who_may_not_look_is_told_who_may(is_open: bool) -> None:
    """Not that no farmer runs: one does, and another start would be in vain."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Home.at(Path(folder) / "home")
        home.make()
        path = Path(folder) / "control"
        with socket.socket(socket.AF_UNIX) as farmer:
            farmer.bind(str(path))
            farmer.listen()
            path.chmod(0o600)
            home.run.write_text(json.dumps({"control": str(path)}))
            home.run.chmod(0o644)
            os.chown(home.state, 12_346, 12_346)
            home.state.chmod(0o755 if is_open else 0o700)
            os.seteuid(12_345)
            try:
                with pytest.raises(FarmerRefusedError, match="Permission denied") as refused:
                    call(home, "status")
            finally:
                os.seteuid(0)
    assert f"sudo -u '#12346' farmer --home {home.state} ..." in str(refused.value)


@pytest.mark.parametrize("verb", ["status --json", "version", "--help"])
def test_fast_verbs_import_neither_reactor_nor_tls_nor_yaml(home: Path, verb: str) -> None:
    """They are asked every few seconds, on small machines."""
    code = (
        "import sys\n"
        "from farmer.cli.owner import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'twisted', 'zope', 'cryptography', 'OpenSSL', 'yaml', 'prometheus_client'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    words = [sys.executable, "-c", code, "--home", str(home), *verb.split()]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    assert told.stderr.splitlines()[-1] == "[]"


def test_bad_settings_end_with_78_and_all_mistakes(home: Path, capsys: Any) -> None:
    Home.at(home).make()
    (home / "farmer.yaml").write_text("version: 1\nnmae: x\nlog: {level: loud}\n")
    for verb in (["config", "check"], ["config", "show"], ["run"], ["invite", "list"]):
        assert run(home, *verb) == exits.BAD_SETTINGS, verb
        told = capsys.readouterr().err
        assert 'did you mean "name"?' in told
        assert told.endswith("farmer: 2 mistakes in the settings\n")


def test_a_named_settings_file_must_be_there(home: Path, tmp_path: Path, capsys: Any) -> None:
    """A slip in --config does not silently mean the defaults."""
    missing = str(tmp_path / "missing.yaml")
    assert run(home, "--config", missing, "config", "show") == exits.BAD_SETTINGS
    assert run(home, "config", "check", missing) == exits.BAD_SETTINGS
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "volume list", "invite list", "run"])
def test_a_settings_file_that_is_named_and_missing_is_told(
    home: Path, capsys: Any, verb: str
) -> None:
    """Also by verbs that would not read it."""
    assert run(home, "--config", "/nope.yaml", *verb.split()) == exits.BAD_SETTINGS
    assert capsys.readouterr().err == "farmer: /nope.yaml: No such file\n"


def test_no_settings_are_good_settings(home: Path, capsys: Any) -> None:
    assert run(home, "config", "check") == exits.OK
    assert run(home, "config", "check", str(ROOT / "conf" / "farmer.yaml")) == exits.OK
    assert "good" in capsys.readouterr().out


def test_a_share_of_a_disk_that_is_not_mounted_is_checked_as_the_farmer_would(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    """The disk below says nothing of it; a share of the disk itself may be too small."""
    Home.at(home).make()
    path = tmp_path / "disk"
    path.mkdir()
    text = f"version: 1\nvolumes: [{{path: {path}, quota: 0.00001%}}]\n"
    (home / "farmer.yaml").write_text(text)
    assert run(home, "config", "check") == exits.BAD_SETTINGS
    told = capsys.readouterr().err
    assert "write a size, or a larger share" in told
    assert '"volumes.0.quota"' in told
    register.remember(Home.at(home), [(path, 10**9)])
    assert run(home, "config", "check") == exits.OK


def test_settings_tell_where_they_come_from(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARMER_NAME", "attic")
    assert run(home, "config", "show", "--origin", "--json") == exits.OK
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["settings"]["name"] == "attic"
    assert document["origins"]["name"] == "environment FARMER_NAME"
    assert run(home, "config", "show", "--origin") == exits.OK
    rows = capsys.readouterr().out.splitlines()
    assert any(row.endswith("  # environment FARMER_NAME") for row in rows)
    assert len({row.index("  # ") for row in rows}) == 1, "they stand below each other"


def test_schema_and_example_are_printed(home: Path, capsys: Any) -> None:
    assert run(home, "config", "schema") == exits.OK
    assert json.loads(capsys.readouterr().out)["properties"]["listen"]
    assert run(home, "config", "example") == exits.OK
    assert capsys.readouterr().out == (ROOT / "conf" / "farmer.yaml").read_text()


def test_version(home: Path, capsys: Any) -> None:
    assert run(home, "version", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "version": VERSION,
        "build": build(),
    }
    assert run(home, "version") == exits.OK
    assert capsys.readouterr().out == f"farmer {VERSION} build {build()}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fly"],
        ["invite", "--space", "5", "--for", "90d"],
        ["invite", "--space", "5GB", "--for", "soon"],
        ["contract"],
        ["contract", "extend"],
        ["status", "--loud"],
        ["bench", "--seconds", "0"],
        ["bench", "--seconds", "-1"],
        ["bench", "--seconds", "nan"],
        ["bench", "--seconds", "inf"],
        ["bench", "--seconds", "three"],
    ],
)
def test_misused_commands_end_with_2(home: Path, words: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        run(home, *words)
    assert caught.value.code == exits.USAGE
    assert "farmer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--space", "-5GB", "--for", "90d"], "argument --space: '-5GB' is not a size"),
        (["--space", "5GB", "--for", "-9d"], "argument --for: '-9d' is not a duration"),
    ],
)
def test_negative_sizes_are_no_options(
    home: Path, words: list[str], told: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        run(home, "invite", *words)
    assert told in capsys.readouterr().err


def test_json_may_stand_before_or_behind_a_word_below() -> None:
    for words in (["invite", "--json", "list"], ["invite", "list", "--json"]):
        assert parser().parse_args(words).json
    for words in (["invite", "list"], ["invite"], ["config", "check"]):
        assert not parser().parse_args(words).json


def test_an_invite_needs_space_and_time(home: Path, capsys: Any) -> None:
    assert run(home, "invite", "--space", "5GB") == exits.USAGE
    assert "--for 90d" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["invite", "--space", "5GB", "--for", "90d"],
        ["contract", "list"],
        ["identity", "show"],
        ["clock", "confirm"],
        ["volume", "add", "/x=1GB"],
    ],
)
def test_without_a_farmer_nothing_is_made(home: Path, words: list[str], capsys: Any) -> None:
    """A slip in --home does not make a second farmer."""
    assert run(home, *words) == exits.FAILED
    assert not home.exists()
    assert "farmer: there is no farmer in" in capsys.readouterr().err


def test_where_there_is_no_farmer_the_list_of_volumes_says_how_to_get_one(
    home: Path, capsys: Any
) -> None:
    assert run(home, "volume", "list") == exits.FAILED
    assert f"or make one with: farmer --home {home} init" in capsys.readouterr().err


def test_somebody_elses_directory_is_refused(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    for words in (["run"], ["init", "--yes"], ["invite", "list"], ["volume", "add", "/x=1GB"]):
        assert run(tmp_path, *words) == exits.FAILED, words
        assert "is not a farmer's home" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "words",
    [
        "volume add ~no-such-user/v=1GB",
        "volume check ~no-such-user/v",
        "volume rebuild ~no-such-user/v",
        "volume forget ~no-such-user/v",
        "volume drain ~no-such-user/v",
        "volume move /v ~no-such-user/v",
        "bench --dir ~no-such-user/v",
        "init --yes --volume ~no-such-user/v=1GB",
        "--home ~no-such-user/farmer status",
        "--config ~no-such-user/farmer.yaml config check",
    ],
)
def test_a_directory_of_nobody_is_told_in_one_line(home: Path, capsys: Any, words: str) -> None:
    """And nothing is made: a slip in a name is none of a directory `~nobody` here."""
    assert ended(home, *words.split()) != exits.OK
    told = capsys.readouterr().err.splitlines()
    assert "this machine does not know where ~no-such-user is" in told[-1]
    assert not home.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("init --volume /x=500", "argument --volume: '500'"),
        ("init --listen 4646", "argument --listen: '4646' is not an address like"),
        ("init --announce 0.0.0.0:1", "is not an address that others can call"),
        ("volume add /x=10MB", "argument PATH=SIZE: '10MB' is too small for a volume"),
        ("bench --space 1MB", "argument --space: at least 300 MB are needed, not 1MB"),
        ("invite --space 1 --for 1d", "argument --space: '1'"),
    ],
)
def test_a_slip_in_what_is_typed_is_one_of_usage(
    home: Path, capsys: Any, words: str, told: str
) -> None:
    """Whichever command it is: exit code 2, with the usage, and nothing is made."""
    assert ended(home, *words.split()) == exits.USAGE
    assert told in capsys.readouterr().err
    assert not home.exists()


@on_linux
def test_an_address_that_cannot_be_listened_on_is_told_when_it_is_written(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    """The settings are written all the same: the address may come yet."""
    volume = f"--volume={tmp_path / 'v'}=100MB"
    here = ["--listen", "127.0.0.1:0", "--page", "192.0.2.1:4647"]
    assert run(home, "init", "--yes", volume, *here) == exits.OK
    told = capsys.readouterr().err
    assert "192.0.2.1 is no address of this machine now; it is served when it comes" in told
    assert "127.0.0.1:0" not in told


def test_what_stands_before_the_command_is_said_to(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["volume", "list", "--home", "/h", "--json"])
    assert caught.value.code == exits.USAGE
    told = capsys.readouterr().err
    assert told.startswith("usage: farmer volume list")
    assert "--home stands before the command: farmer --home /h volume list --json" in told


@pytest.mark.parametrize("words", ["--version", "--help"])
def test_the_release_and_help_that_are_lost_are_a_failure(words: str) -> None:
    """Of a full disk, say; else they end well."""
    program = [sys.executable, "-m", "farmer.cli.owner", words]
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        program, check=False, capture_output=True, text=True, timeout=60, env=environ
    )
    assert (done.returncode, done.stderr) == (exits.OK, "")
    assert done.stdout.startswith(("farmer ", "usage: farmer"))
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run(
            program, check=False, stdout=full, stderr=subprocess.PIPE, text=True, env=environ
        )
    assert lost.returncode == exits.FAILED
    assert lost.stderr == "farmer: the answer could not be written: No space left on device\n"


def test_names_that_the_terminal_has_no_letters_for_are_escaped(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "farmer.cli.owner", "--home", str(tmp_path / "grün")]
    environ = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*words, "config", "check"], check=False, capture_output=True, text=True, env=environ
    )
    assert (done.returncode, done.stderr) == (exits.OK, "")
    assert "gr\\xfcn/farmer.yaml does not exist, the defaults hold: good" in done.stdout


def test_an_error_of_no_file_names_none() -> None:
    assert said(OSError(errno.EMFILE, "Too many open files")) == "Too many open files"
    assert said(OSError(errno.EIO, "I/O error", "/f")) == "I/O error: /f"


def test_a_full_disk_is_told_with_what_mends_it() -> None:
    full = errno.ENOSPC, "No space left"
    assert said(OSError(*full, "/h/f")) == "No space left: /h/f; free space on that disk"
    assert said(OSError(*full)) == "No space left; free space on the disk"


def test_every_action_exists() -> None:
    """The grammar names functions by text, so that fast verbs import little."""
    from importlib import import_module

    found = []
    pending = [parser()]
    while pending:
        one = pending.pop()
        action = one.get_default("action")
        if action:
            module, _, name = action.partition(":")
            assert callable(getattr(import_module(f"farmer.cli.{module}"), name))
            found.append(action)
        for group in one._actions:
            choices = group.choices
            if isinstance(choices, dict):
                pending += choices.values()
    assert len(found) >= 20


def test_every_option_has_a_help_text() -> None:
    pending = [parser()]
    while pending:
        for action in pending.pop()._actions:
            if isinstance(action.choices, dict):
                pending += action.choices.values()
            else:
                assert action.help, action.dest


VOLUME = {
    "path": "/srv/farmer",
    "state": "healthy",
    "quota_bytes": 500 * 10**9,
    "used_bytes": 0,
    "reserved_bytes": 0,
    "trash_bytes": 0,
    "free_bytes": 10**9,
    "shards": 3,
}
DOCUMENT = {
    "state": "running",
    "name": "attic",
    "version": "1",
    "node_id": "ab" * 32,
    "pid": 4711,
    "started_at_ms": 0,
    "listen": ["127.0.0.1:1"],
    "announce": ["127.0.0.1:1"],
    "page": "127.0.0.1:2",
    "contracts": {"active": 2},
    "open_invites": 1,
    "sessions": 0,
    "volumes": [VOLUME],
    "alerts": [],
}
ALERT = {"name": "VolumeGone", "message": "it is gone", "command": "mount it"}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"volumes": [VOLUME | {"state": "full"}]}, 0),
        ({"volumes": [VOLUME, VOLUME | {"state": "retired"}]}, 0),
        ({"volumes": [VOLUME | {"state": "gone"}, VOLUME | {"state": "retired"}]}, 5),
        ({"volumes": [VOLUME | {"state": "slow"}]}, 4),
        ({"volumes": [VOLUME, VOLUME | {"state": "gone"}]}, 4),
        ({"volumes": [VOLUME | {"state": "read-only"}]}, 4),
        ({"volumes": [VOLUME | {"state": "gone"}]}, 5),
        ({"volumes": [VOLUME | {"state": "failing"}, VOLUME | {"state": "gone"}]}, 5),
        ({"alerts": [ALERT]}, 4),
        ({"state": "degraded"}, 4),
    ],
)
def test_the_exit_code_tells_how_the_farmer_is(changed: dict[str, Any], code: int) -> None:
    assert exit_code(DOCUMENT | changed) == code


def test_the_status_for_people() -> None:
    """Every alert comes with what to type."""
    told = "\n".join(lines_of(DOCUMENT | {"alerts": [ALERT]}, now_ms=3_600_000))
    assert "farmer attic is running, for 1 h" in told
    assert "500 GB" in told
    assert "! VolumeGone: it is gone\n  type: mount it" in told
    assert "  process    4711\n" in told, "for who sends it a signal"


def test_the_status_names_settings_that_wait_for_a_restart() -> None:
    """No line if there are none, as with a farmer of an earlier release."""
    told = lines_of(DOCUMENT | {"waiting": ["listen.page", "log.format"]}, now_ms=0)
    assert "  settings   were changed and wait for a restart: listen.page, log.format" in told
    assert not [line for line in lines_of(DOCUMENT, now_ms=0) if "for a restart" in line]


def test_the_status_names_a_running_farmer_of_another_build_than_the_command() -> None:
    """As after an upgrade without a restart; those of before there were builds name none."""
    own = lines_of(DOCUMENT | {"build": build()}, now_ms=3_600_000)
    assert own[0].endswith(f" build {build()})")
    assert not [line for line in own if "restart" in line]
    advice = (
        f"  program    this command is build {build()}: if you have upgraded, restart the farmer"
    )
    other = lines_of(DOCUMENT | {"build": "0123abcd"}, now_ms=3_600_000)
    assert other[0].endswith(" build 0123abcd)")
    assert advice in other
    assert advice in lines_of(DOCUMENT, now_ms=3_600_000)


def test_the_status_counts_in_singular_too() -> None:
    told = "\n".join(lines_of(DOCUMENT | {"sessions": 1}, now_ms=0))
    assert "1 open invite, 1 session\n" in told
    damaged = volume_table([VOLUME | {"quarantined": 7}])
    assert damaged[0].split()[-2:] == ["SHARDS", "DAMAGED"]
    assert damaged[1].split()[-2:] == ["3", "7"]


@pytest.mark.parametrize(
    ("verb", "left", "said"),
    [
        ("drain", 2, "2 damaged shards cannot move until renters have repaired or deleted"),
        ("retire", 2, "what is theirs; retire it with --give-up-damaged to give them up"),
        ("retire", 3, "to go; 2 damaged shards cannot move"),
    ],
)
def test_where_only_damaged_shards_are_left_no_end_is_promised_but_what_brings_it(
    verb: str, left: int, said: str
) -> None:
    work = VolumeWork(verb=verb, left_shards=left, damaged=2, left_bytes=100, bytes_per_s=10.0)
    volume = VolumeStatus(
        name="v", path="/v", state=VolumeState.HEALTHY, quota_bytes=1000, work=work
    )
    line = volume_table([volume_document(volume)])[-1]
    assert said in line
    assert ("to go" in line) is (left > 2)
    assert ("theirs" in line) is (left == 2)


def test_letters_that_take_two_places_shift_no_column() -> None:
    """As those of East Asia; and accents that stand over a letter take none."""
    lines = table(("VOLUME", "USED"), [("/日本", "1 B"), ("/e\u0301e", "1 B"), ("/abcd", "1 B")])
    assert [line.index("1 B") for line in lines[1:]] == [7, 10, 9]


def test_columns_of_numbers_lean_right_whatever_is_in_them() -> None:
    for used in ("-", "5 B"):
        assert table(("USED", "A"), [(used, "x")])[0] == "USED  A"
    assert table(("USED", "A"), []) == ["USED  A"]
    assert table(("A", "USED"), [("123456", "-")]) == ["A       USED", "123456     -"]


def test_tables_align() -> None:
    assert table(("A", "SIZE"), [("long", "1 B"), ("x", "10 B")]) == [
        "A     SIZE",
        "long   1 B",
        "x     10 B",
    ]
    assert visible("a\x1b[31mb") == "a\\x1b[31mb"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "hung up"),
        (b"[]", "hung up"),
        (b'{"ok": true}', "hung up"),
        (b'{"ok": false, "error": "no space"}', "no space"),
    ],
)
def test_answers_that_are_none(line: bytes, words: str) -> None:
    with pytest.raises(FarmerRefusedError, match=words):
        _answer(line)


@pytest.mark.parametrize(
    "verb",
    ["status", "volume list", "volume add /v=1GB", "volume move /v /w", "invite list", "metrics"],
)
def test_a_farmer_that_hangs_is_told_in_one_line(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Or that ends between hearing and answering."""
    Home.at(home).make()

    def hang(*_words: object) -> None:
        raise FarmerRefusedError("the running farmer does not answer: timed out")

    for module in (owner_status, owner_volumes, owner_ask):
        monkeypatch.setattr(module, "call", hang)
    assert run(home, *verb.split()) == exits.FAILED
    told = capsys.readouterr().err
    assert told == "farmer: the running farmer does not answer: timed out\n"


def test_questions_of_init_repeat_until_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """At most five, each with a default, and a wrong answer is asked again."""
    options = parser().parse_args(["init"])
    asked = []
    wrong = ["nowhere", "0.0.0.0:4646", "a.example:0"]
    answers = iter(
        ["~no-such-user/shards", "/srv/shards", "5", "80%", "attic", "", *wrong, "a.example:4646"]
    )

    def ask(question: str) -> str:
        asked.append(question)
        return next(answers)

    owner_settings._ask(Home.at(tmp_path), options, ask)
    assert options.volume == ["/srv/shards=80%"]
    assert (options.name, options.listen, options.announce) == (
        "attic",
        ["[::]:4646"],
        ["a.example:4646"],
    )
    assert len(set(asked)) == 5
    told = capsys.readouterr().out
    assert "has no unit" in told
    assert "does not know where ~no-such-user is" in told
    assert "'0.0.0.0:4646' is not an address that others can call" in told


def test_the_size_that_is_offered_fits_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 10 GB, half of what is free, and no less than a volume needs."""
    for free, offered in (
        (10**12, "10GB"),
        (7 * 10**9, "3GB"),
        (300 * 10**6, "150MB"),
        (50 * 10**6, "64MiB"),
    ):
        monkeypatch.setattr(volumes, "free_bytes", lambda _path, free=free: free)
        assert exact_size(volumes.offered_quota_bytes(tmp_path)) == offered


def test_who_is_asked_hears_of_a_disk_too_small_before_anything_is_made(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And may say no."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answers = f"{tmp_path / 'v'}\n900PB\nattic\n127.0.0.1:0\n\n"
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answers}perhaps\nno\n"))
    assert run(home, "init") == exits.FAILED
    told = capsys.readouterr()
    assert "the quota of" in told.err
    assert "stores beyond that are refused" in told.err
    assert "nothing was made. Init again" in told.err
    assert "'perhaps' is neither yes nor no" in told.out
    assert not home.exists()
    assert not (tmp_path / "v").exists()


def test_who_ends_the_questions_of_init_has_made_nothing(
    home: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-D at a terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("/srv/shards\n"))
    assert run(home, "init") == exits.FAILED
    assert "the input ended before the last answer" in capsys.readouterr().err
    assert not home.exists()


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_good_as_none(home: Path, tmp_path: Path, closed: str) -> None:
    """As some programs begin others; what is a warning does not come among the answers."""
    words = [sys.executable, "-m", "farmer.cli.owner", "--home", str(home), "init"]
    words += [f"--volume={tmp_path / name}=100MB" for name in "ab"]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *words]
    told = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, "Traceback" in told.stderr) == (exits.OK, False), told.stderr
    assert "lie on one filesystem" not in told.stdout
    assert (home / "farmer.yaml").exists()


def test_a_stopped_farmers_volumes_are_listed(home: Path, tmp_path: Path, capsys: Any) -> None:
    """From what can be seen without opening them."""
    assert run(home, "init", "--yes", "--volume", f"{tmp_path / 'a'}=100MB") == exits.OK
    capsys.readouterr()
    assert run(home, "volume", "list", "--json") == exits.OK
    told = capsys.readouterr()
    [volume] = json.loads(told.out)["volumes"]
    assert set(VOLUME) <= set(volume)
    assert (volume["state"], volume["quota_bytes"], volume["shards"]) == ("stopped", 10**8, 0)
    assert 0 < volume["free_bytes"] < 10**8
    assert "no farmer runs" in told.err
    (tmp_path / "a").rename(tmp_path / "b")
    assert run(home, "volume", "list", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["volumes"][0]["state"] == "gone"


def test_a_volume_on_a_file_is_refused_and_init_goes_on_after(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    """What the failed attempt made is used by the next."""
    (tmp_path / "file").write_text("x")
    words = ["--volume", f"{tmp_path / 'a'}=100MB", "--volume", f"{tmp_path / 'file'}=100MB"]
    assert run(home, "init", "--yes", *words) == exits.FAILED
    told = capsys.readouterr().err
    assert "file is a file; a volume is a directory" in told
    assert "No settings were written; mend this and init again" in told
    (tmp_path / "file").unlink()
    assert run(home, "init", "--yes", *words) == exits.OK
    assert str(tmp_path / "file") in (home / "farmer.yaml").read_text()


def test_volumes_are_added_once_and_with_their_whole_path(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(home, "init", "--yes", "--volume", f"{tmp_path / 'a'}=100MB") == exits.OK
    monkeypatch.chdir(tmp_path)
    assert run(home, "volume", "add", "b=100MB") == exits.OK
    told = capsys.readouterr()
    assert f"this is taken for {tmp_path / 'b'}" in told.err
    assert f"{tmp_path / 'a'} and {tmp_path / 'b'} lie on one filesystem" in told.err
    assert run(home, "volume", "add", f"{tmp_path / 'a'}=200MB") == exits.FAILED
    told = capsys.readouterr()
    assert "is a volume of this farmer already. To change its quota, edit it in" in told.err
    assert run(home, "volume", "add", f"{tmp_path / 'c'}=900PB", "--json") == exits.OK
    assert "stores beyond that are refused" in json.loads(capsys.readouterr().out)["warnings"][0]


@pytest.mark.parametrize(("path", "how"), [("a/inner", "lies inside"), (".", "lies around")])
def test_a_volume_is_not_added_inside_another_and_both_are_named(
    home: Path, tmp_path: Path, capsys: Any, path: str, how: str
) -> None:
    """Not the line of a settings file that does not have it."""
    assert run(home, "init", "--yes", "--volume", f"{tmp_path / 'a'}=100MB") == exits.OK
    text = (home / "farmer.yaml").read_text()
    capsys.readouterr()
    assert run(home, "volume", "add", f"{tmp_path / path}=100MB") == exits.FAILED
    said = f"{tmp_path / path} {how} the volume {tmp_path / 'a'}: name a directory beside it"
    assert said in capsys.readouterr().err
    assert (home / "farmer.yaml").read_text() == text
    assert not (tmp_path / path / "farmer-volume.json").exists()


def test_nor_inside_the_volume_that_the_settings_do_not_name(home: Path, capsys: Any) -> None:
    Home.at(home).make()
    (home / "volume").mkdir()
    assert run(home, "volume", "add", f"{home / 'volume' / 'inner'}=100MB") == exits.FAILED
    assert f"inner lies inside the volume {home / 'volume'}: name" in capsys.readouterr().err
    assert not (home / "farmer.yaml").exists()


@pytest.mark.parametrize("more", [{}, {"more": 7}])
def test_a_check_says_how_much_more_it_found_than_it_tells(
    home: Path,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, int],
) -> None:
    """Also of a running farmer of an earlier release, which does not say."""
    assert run(home, "init", "--yes", "--volume", f"{tmp_path / 'a'}=100MB") == exits.OK
    row = {"segments": 1, "shards": 2, "findings": ["one", "two"]} | more
    monkeypatch.setattr(owner_volumes, "_looked_over", lambda *_what: row)
    capsys.readouterr()
    assert run(home, "volume", "check") == exits.DEGRADED
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(f"files: {9 if more else 2} wrong")
    assert said[1:] == ["  one", "  two", *(["  and 7 more"] if more else [])]


@pytest.mark.parametrize("state", ["healthy", "read-only"])
def test_a_new_volume_that_the_farmer_cannot_write_to_is_told(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A service may write below a few directories only, and the command runs outside of it."""
    path = str(tmp_path / "new")
    row = {"path": path, "state": state, "reason": "Read-only file system"}
    monkeypatch.setattr(owner_volumes, "call", lambda *_words: {"volumes": [row]})
    told = str(owner_volumes._use_now(Home.at(home), path))
    if state == "healthy":
        assert told == "The running farmer uses it now."
    else:
        assert "cannot use it yet (read-only: Read-only file system)" in told
        assert "ReadWritePaths=" in told


def test_where_the_environment_names_the_volumes_none_is_added(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes over the file, which would name one that nobody uses."""
    monkeypatch.setenv("FARMER_VOLUMES__0__PATH", str(tmp_path / "a"))
    monkeypatch.setenv("FARMER_VOLUMES__0__QUOTA", "100MB")
    Home.at(home).make()
    assert run(home, "volume", "add", f"{tmp_path / 'b'}=100MB") == exits.BAD_SETTINGS
    assert f"add {tmp_path / 'b'} there; nothing was made" in capsys.readouterr().err
    assert not (home / "farmer.yaml").exists()
    assert not (tmp_path / "b").exists()


def test_what_others_write_while_a_volume_is_made_stays_written(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk takes seconds: meanwhile one volume is added, and another one retired."""
    wanted = [word for name in "ab" for word in ("--volume", f"{tmp_path / name}=100MB")]
    assert run(home, "init", "--yes", *wanted) == exits.OK
    settings = home / "farmer.yaml"

    def make_slowly(*words: Any) -> None:
        text = without_volume(settings.read_text(), str(tmp_path / "a"))
        settings.write_text(with_volume(text, VolumeLine.parse(f"{tmp_path / 'c'}=100MB")))
        make_volumes(*words)

    monkeypatch.setattr(making, "make_volumes", make_slowly)
    assert run(home, "volume", "add", f"{tmp_path / 'd'}=100MB") == exits.OK
    volumes = load_text(settings.read_text(), "f", {}).settings.volumes
    assert [Path(one.path).name for one in volumes] == ["b", "c", "d"]
    capsys.readouterr()


def test_a_volume_that_others_add_meanwhile_is_not_added_twice(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the one that a farmer without settings has, which both would name."""
    Home.at(home).make()
    assert run(home, "volume", "add", f"{home / 'volume'}=100MB") == exits.OK
    (home / "farmer.yaml").unlink()
    lines = [VolumeLine.parse(f"{path}=100MB") for path in (home / "volume", tmp_path / "b")]

    def make_slowly(*words: Any) -> None:
        (home / "farmer.yaml").write_text(settings_text(volumes=lines))
        make_volumes(*words)

    monkeypatch.setattr(making, "make_volumes", make_slowly)
    assert run(home, "volume", "add", f"{tmp_path / 'b'}=100MB") == exits.FAILED
    assert "is a volume of this farmer already" in capsys.readouterr().err
    (home / "farmer.yaml").unlink()
    assert run(home, "volume", "add", f"{tmp_path / 'c'}=100MB") == exits.OK
    assert (home / "farmer.yaml").read_text() == settings_text(
        volumes=[*lines, VolumeLine.parse(f"{tmp_path / 'c'}=100MB")]
    )


def test_settings_that_are_a_link_to_nowhere_are_not_none(home: Path, capsys: Any) -> None:
    """The disk that they lie on may be away: the defaults are not what the owner has set."""
    Home.at(home).make()
    (home / "farmer.yaml").symlink_to("../away/farmer.yaml")
    before = list(home.iterdir())
    adding = ["volume", "add", f"{home / 'b'}=100MB"]
    for verb in (["config", "check"], ["config", "show"], ["run"], ["invite", "list"], adding):
        assert run(home, *verb) == exits.BAD_SETTINGS, verb
        assert "farmer.yaml: cannot be read: No such file" in capsys.readouterr().err
    assert run(home, "init", "--yes") == exits.FAILED
    assert "never overwritten" in capsys.readouterr().err
    assert {one.name for one in set(home.iterdir()) - set(before)} <= {"lock"}


def test_a_volume_is_added_to_the_settings_where_they_lie(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    """A link stays one, and others may read them as before: the service runs as somebody else."""
    assert run(home, "init", "--yes", "--volume", f"{tmp_path / 'a'}=100MB") == exits.OK
    kept = (home / "farmer.yaml").rename(tmp_path / "kept.yaml")
    kept.chmod(0o644)
    (home / "farmer.yaml").symlink_to("../kept.yaml")
    assert run(home, "volume", "add", f"{tmp_path / 'b'}=100MB") == exits.OK
    assert (home / "farmer.yaml").is_symlink()
    assert str(tmp_path / "b") in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644
    capsys.readouterr()


@as_root
def test_root_changes_nothing_in_the_home_of_a_service(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    """The farmer, which runs as another user, could not read it; to look is no change."""
    gone = tmp_path / "gone"
    assert run(home, "init", "--yes", "--volume", f"{gone}=100MB") == exits.OK
    settings = home / "farmer.yaml"
    settings.write_text(settings.read_text().replace(str(gone), str(tmp_path / "a")))
    os.chown(home, 12_345, 12_345)
    before = sorted(path for path in tmp_path.rglob("*"))
    capsys.readouterr()
    for words in (
        ("volume", "add", f"{tmp_path / 'b'}=100MB"),
        ("volume", "forget", str(gone)),
        ("volume", "rebuild", str(tmp_path / "a")),
        ("invite", "--space", "1GB", "--for", "9d"),
        ("contract", "list"),
        ("run",),
        ("--config", str(tmp_path / "new.yaml"), "init", "--yes"),
    ):
        assert run(home, *words) == exits.FAILED, words
        told = capsys.readouterr().err
        assert f"sudo -u '#12345' farmer --home {home}" in told, words
    assert run(home, "status") == exits.NOT_RUNNING
    assert run(home, "volume", "list") == exits.OK
    assert run(home, "volume", "check") == exits.DEGRADED
    assert run(home, "config", "show") == exits.OK
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_disk_that_answers_with_an_error_keeps_no_other_from_being_checked(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"{tmp_path / name}=100MB" for name in "ab"]
    assert run(home, "init", "--yes", "--volume", words[0], "--volume", words[1]) == exits.OK
    capsys.readouterr()

    def broken(path: Path) -> bool:
        if path.name == "a":
            raise OSError(errno.EIO, "Input/output error")
        return True

    monkeypatch.setattr(volumes, "answers", broken)
    assert run(home, "volume", "check") == exits.DEGRADED
    told = capsys.readouterr().out
    assert "Input/output error" in told
    assert str(tmp_path / "b") in told


def test_a_volume_is_checked_and_rebuilt_by_its_path_or_its_short_name(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word that may be either is not guessed; one that is neither is told what there is."""
    first, second = tmp_path / "old" / "a", tmp_path / "new" / "a"
    assert run(home, "init", "--yes", "--volume", f"{first}=100MB") == exits.OK
    assert run(home, "volume", "add", f"{second}=100MB") == exits.OK
    capsys.readouterr()
    for verb in ("check", "rebuild"):
        for word in ("a", str(first)):
            assert run(home, "volume", verb, word) == exits.OK
            assert capsys.readouterr().out.startswith(f"{first}: ")
        assert run(home, "volume", verb, "b") == exits.FAILED
        told = capsys.readouterr().err
        assert f"b is not a volume of this farmer. Its volumes are: a ({first}), {second}" in told
    monkeypatch.chdir(second.parent)
    for verb in ("check", "rebuild"):
        assert run(home, "volume", verb, "a") == exits.FAILED
        assert f"a may be {first} or {second}: type the whole path" in capsys.readouterr().err
        assert run(home, "volume", verb, "./a") == exits.OK
        assert capsys.readouterr().out.startswith(f"{second}: ")


def test_only_a_volume_that_is_named_no_more_can_be_forgotten(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    assert run(home, "init", "--yes", "--volume", f"{tmp_path / 'a'}=100MB") == exits.OK
    assert run(home, "volume", "forget", str(tmp_path / "a")) == exits.FAILED
    assert "is in use" in capsys.readouterr().err
    assert run(home, "volume", "forget", str(tmp_path / "b")) == exits.FAILED
    assert "knows no volume" in capsys.readouterr().err
    text = (home / "farmer.yaml").read_text()
    (home / "farmer.yaml").write_text(text.replace(f"{tmp_path / 'a'}", f"{tmp_path / 'b'}"))
    assert run(home, "volume", "forget", str(tmp_path / "a")) == exits.OK
    assert "Its files are still there" in capsys.readouterr().out
    assert (tmp_path / "a" / "farmer-volume.json").exists()


def test_of_files_that_are_not_there_nothing_is_said_when_a_volume_is_forgotten(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    """Of one that was retired and removed, or whose disk is away."""
    assert run(home, "init", "--yes", "--volume", f"{tmp_path / 'a'}=100MB") == exits.OK
    text = (home / "farmer.yaml").read_text()
    (home / "farmer.yaml").write_text(text.replace(f"{tmp_path / 'a'}", f"{tmp_path / 'b'}"))
    (tmp_path / "a").rename(tmp_path / "away")
    capsys.readouterr()
    assert run(home, "volume", "forget", str(tmp_path / "a")) == exits.OK
    assert capsys.readouterr().out == f"{tmp_path / 'a'} is forgotten; its shards count as lost.\n"


def test_the_default_volume_is_among_the_settings_shown(home: Path, capsys: Any) -> None:
    assert run(home, "config", "show") == exits.OK
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["volumes.0.path", str(home / "volume")] in shown
    assert not home.exists()
