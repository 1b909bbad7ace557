"""The grammar of `renter`, and that looking at it costs little."""

import argparse
import json
import os
import shlex
import subprocess
import sys

import pytest

from farmer.cli.renter import main, parser
from farmer.client.home import Home
from tests.cli import commands_page


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["store"],
        ["retrieve"],
        ["audit", "--samples", "0"],
        ["audit", "--samples", "1025"],
        ["audit", "--samples", "0010241"],
        ["retrieve", "ab" * 32, "--offset", "-1"],
        ["delete"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_every_verb_has_json():
    verbs = [verb for _, verb in commands_page.verbs(parser())]
    assert "renter repair" in [verb.prog for verb in verbs]
    assert not [verb.prog for verb in verbs if "--json" not in verb._option_string_actions]


def test_version_makes_no_home_and_imports_no_reactor(tmp_path):
    probe = (
        "import sys; from farmer.cli.renter import main\n"
        "assert main(['--home', sys.argv[1], 'version', '--json']) == 0\n"
        "assert not [name for name in sys.modules if name.startswith('twisted')]\n"
    )
    home = tmp_path / "home"
    ran = subprocess.run(
        [sys.executable, "-c", probe, str(home)], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert not home.exists()


AS_USUAL = {**os.environ, "PYTHONUNBUFFERED": ""}
"""What is printed is kept until there is much of it, or the end."""


def ran_in_a_shell(words):
    """Run it with what a shell does to its descriptors."""
    line = f"{shlex.quote(sys.executable)} -m farmer.cli.renter {words}"
    return subprocess.run(
        ["sh", "-c", line], check=False, capture_output=True, text=True, env=AS_USUAL
    )


@pytest.mark.parametrize("verb", ["version", "version --json", "--home /dev/null ping --json"])
def test_an_answer_that_cannot_be_written_is_no_success(verb):
    ran = ran_in_a_shell(f"{verb} >/dev/full")
    assert ran.returncode == 1
    told = ran.stderr.splitlines()
    assert told[-1] == "renter: the answer could not be written: No space left on device"
    assert "Exception" not in ran.stderr


def test_a_reader_that_has_gone_is_no_failure_of_what_was_done():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as gone:  # noqa: PTH123 - a number
        ran = subprocess.run(
            [sys.executable, "-m", "farmer.cli.renter", "version"],
            check=False,
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            env=AS_USUAL,
        )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_with_standard_error_closed_the_answer_is_json_alone():
    ran = ran_in_a_shell("--home /dev/null ping --json 2>&-")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["error"]


def test_with_standard_output_closed_there_is_no_traceback():
    ran = ran_in_a_shell("version >&-")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_home_that_cannot_be_made_is_an_error_not_a_traceback(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--home", str(tmp_path / "file" / "home"), "list"]) == 1
    assert "renter: cannot write the identity" in capsys.readouterr().err


def test_a_file_is_no_home_and_stays_as_it_is(tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    assert main(["--home", str(tmp_path / "file"), "list"]) == 1
    assert "is not a directory, as a home is" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_home_may_begin_with_a_tilde(tmp_path, monkeypatch, capsys):
    """No shell takes it away from behind an equals sign."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "ours"))
    assert main(["--home=~/r", "list"]) == 1
    assert "renter join INVITE" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]
    assert (tmp_path / "ours" / "r" / "identity.key").exists()


def test_an_empty_home_is_none(tmp_path, monkeypatch, capsys):
    """As of a variable that is not set; not the directory in which we happen to be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RENTER_HOME", str(tmp_path / "home"))
    assert main(["--home", "", "list"]) == 1
    assert "renter join INVITE" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_home_of_nobody_is_a_usage_error(capsys):
    assert main(["--home", "~no-such-user/r", "list"]) == 2
    assert "does not know where ~no-such-user is" in capsys.readouterr().err


def test_before_joining_every_verb_says_what_to_type(tmp_path, capsys):
    assert main(["--home", str(tmp_path / "home"), "list"]) == 1
    assert "renter join INVITE" in capsys.readouterr().err


def parsers(grammar):
    yield grammar
    for action in grammar._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from parsers(verb)


def test_all_that_can_be_typed_has_a_help_text():
    for grammar in parsers(parser()):
        assert grammar.description
        for action in grammar._actions:
            verbs = isinstance(action, argparse._SubParsersAction)
            assert verbs or action.help, (grammar.prog, action)


def test_the_help_of_an_audit_says_what_is_audited(capsys):
    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "its id; default: all that hold something" in told
    assert "pieces of 4 KiB to have proved of each shard" in told
    assert "a loss of 1 % with 99 %" in told


def test_the_help_of_join_says_where_the_home_is(capsys):
    with pytest.raises(SystemExit):
        main(["join", "--help"])
    told = capsys.readouterr().out
    assert "RENTER_HOME" in told
    assert "--home DIR" in " ".join(told.split())


def test_what_is_said_once_is_not_used_up_by_a_store_without_a_farmer(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"1")
    assert main(["--home", str(tmp_path / "home"), "store", str(tmp_path / "file")]) == 1
    assert "as they are" not in capsys.readouterr().err
    home = Home.open(tmp_path / "home")
    assert home.ledger.tell_once("stored as they are")
    home.ledger.close()
