"""`renter` as a process of its own: pipes, Ctrl-C, several at a time."""

from __future__ import annotations

import json
import os
import random
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from farmer.client.home import LEDGER_FILE
from farmer.client.ledger import Ledger
from farmer.protocol.transfers import Send, Stored
from farmer.protocol.types import Type
from tests.client.fake_farmer import Talk, shard_of
from tests.e2e.daemon import environment
from tests.e2e.test_client_tls import MIB, Served
from tests.waiting import wait_until

pytestmark = pytest.mark.apart

ENDED_S = 20

SOON_S = 8
"""For a busy machine; a process that waits for a thread waits for ever."""


@pytest.fixture
def joined(tmp_path):
    with Served(tmp_path / "home") as served:
        assert served.renter("join", served.link) == 0
        yield served


@pytest.fixture(autouse=True)
def heard_interrupts():
    """A shell has what it runs in the background ignore them, and all its children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(served, *words, stdin=subprocess.DEVNULL):
    return subprocess.Popen(
        [sys.executable, "-m", "farmer.cli.renter", "--home", str(served.home), *words],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


def stalled(served, kind):
    """Have the farmer begin an answer and never go on; return an event that tells it began."""
    began = threading.Event()

    def answer(talk, message):
        if kind is Type.RETRIEVE:
            talk.send(Send(MIB, 0, MIB))
            talk.data(bytes(100_000))
        began.set()

    served.fake.script[kind] = answer
    return began


@pytest.mark.slow
def test_what_comes_through_a_pipe_is_stored(joined):
    content = random.Random(5).randbytes(3 * MIB)
    process = start(joined, "store", "-", "--json", stdin=subprocess.PIPE)
    out, _ = process.communicate(content, ENDED_S)
    assert process.returncode == 0
    assert json.loads(out) == [
        {
            "file": "-",
            "shard": str(shard_of(content)),
            "size_bytes": len(content),
            "stored": True,
            "error": None,
            "refusal": None,
        }
    ]
    assert joined.fake.shards[shard_of(content)] == content


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/proc/self/fd/0"])
def test_what_came_through_a_pipe_has_no_file_to_look_into(joined, name):
    """A repair would read its copy from standard input."""
    process = start(joined, "store", name, stdin=subprocess.PIPE)
    _, err = process.communicate(b"hello", ENDED_S)
    assert process.returncode == 0, err
    process = start(joined, "repair", str(shard_of(b"hello")))
    _, err = process.communicate(timeout=ENDED_S)
    assert process.returncode == 1
    assert b"Name it with --from FILE" in err


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_a_repair_from_an_open_file_keeps_where_the_shard_was_stored_from(joined, tmp_path, name):
    """That name is another file's tomorrow: no later repair or full audit would find the copy."""
    file, shard = tmp_path / "file", shard_of(b"precious")
    file.write_bytes(b"precious")
    assert joined.renter("store", str(file)) == 0
    whole = joined.fake.receipt(shard, len(b"precious"))
    joined.fake.script[Type.REPAIR] = lambda talk, _: talk.send(Stored(whole))
    with file.open("rb") as copy:
        process = start(joined, "repair", str(shard), "--from", name, stdin=copy)
        _, err = process.communicate(timeout=ENDED_S)
    assert process.returncode == 0, err
    ledger = Ledger.open(joined.home / LEDGER_FILE)
    assert [entry.file for entry in ledger.entries()] == [str(file)]
    ledger.close()


def test_a_pipe_that_is_named_twice_is_stored_whole_and_once(joined):
    """Under two names that say the same: each took a part of it, and both were told as stored."""
    content = random.Random(5).randbytes(3 * MIB)
    process = start(joined, "store", "-", "/dev/stdin", "--json", stdin=subprocess.PIPE)
    out, err = process.communicate(content, ENDED_S)
    assert process.returncode == 1, err
    rows = json.loads(out)
    assert sorted(row["stored"] for row in rows) == [False, True]
    (refused,) = (row for row in rows if not row["stored"])
    assert "can be read only once" in refused["error"]
    assert joined.fake.shards == {shard_of(content): content}


def test_a_pipe_that_does_not_wait_is_read_to_its_end(joined):
    """As some programs leave it: that nothing came yet was taken for the end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    process = start(joined, "store", "-", stdin=reader)
    content = b"a" * 1000 + b"b" * 1000
    try:
        os.write(writer, content[:1000])
        wait_until(lambda: not select.select([reader], [], [], 0)[0])
        time.sleep(0.5)  # it asks for more by now
        os.write(writer, content[1000:])
    finally:
        os.close(reader)
        os.close(writer)
    _, err = process.communicate(timeout=ENDED_S)
    assert process.returncode == 0, err
    assert joined.fake.shards == {shard_of(content): content}


def in_shell(served, redirected, *words):
    """Run it to its end in a shell that opens or closes files for it."""
    line = shlex.join(
        [sys.executable, "-m", "farmer.cli.renter", "--home", str(served.home), *words]
    )
    return subprocess.run(
        ["sh", "-c", f"{line} {redirected}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=ENDED_S,
        env=environment(),
    )


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/proc/self/fd/0", "/dev/fd/5"])
def test_an_input_that_is_closed_is_told(joined, name):
    """What is opened next has its number, and would be read in its place: the ledger."""
    ended = in_shell(joined, "<&- 5<&-", "store", name)
    assert ended.returncode == 1
    what = "it" if name == "/dev/fd/5" else "standard input"
    assert f"{name} was not stored: {what} is closed\n" in ended.stderr
    assert joined.fake.shards == {}


def test_what_was_opened_for_us_is_stored(joined, tmp_path):
    """As a shell has it for `<(command)`."""
    (tmp_path / "file").write_bytes(b"hello")
    ended = in_shell(joined, f"5< {shlex.quote(str(tmp_path / 'file'))}", "store", "/dev/fd/5")
    assert ended.returncode == 0, ended.stderr
    assert joined.fake.shards == {shard_of(b"hello"): b"hello"}


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/5", "link"])
def test_what_is_written_to_an_open_file_leaves_what_is_there(joined, tmp_path, name):
    """A log that others write to as well was replaced by the shard."""
    joined.fake.shards[shard_of(b"hello")] = b"hello"
    log, link = tmp_path / "log", tmp_path / "link"
    log.write_text("precious\n")
    link.symlink_to("/dev/stdout")
    words = ("retrieve", str(shard_of(b"hello")), "-o", str(link) if name == "link" else name)
    ended = in_shell(joined, f"{5 if name.endswith('5') else 1}>> {shlex.quote(str(log))}", *words)
    assert ended.returncode == 0, ended.stderr
    assert log.read_text() == "precious\nhello"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "home", link, log]


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/5"])
def test_an_output_that_is_closed_is_told(joined, name):
    """What is opened next has its number: the ledger was replaced by the shard."""
    joined.fake.shards[shard_of(b"hello")] = b"hello"
    before = kept(joined)
    ended = in_shell(joined, "5>&- >&-", "retrieve", str(shard_of(b"hello")), "-o", name)
    assert ended.returncode == 1
    assert ended.stderr.endswith(" is closed\n")
    assert kept(joined) == before


def on_terminal(served, *words):
    """Return the exit code, what the terminal was given, and what was said beside it."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "farmer.cli.renter", "--home", str(served.home), *words],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    try:
        _, err = process.communicate(timeout=ENDED_S)
        shown = os.read(ours, 100) if select.select([ours], [], [], 0)[0] else b""
    finally:
        os.close(theirs)
        os.close(ours)
    return process.returncode, shown, err


def test_a_terminal_gets_the_bytes_of_a_shard_only_if_it_is_asked_for(joined):
    """They can steer it."""
    joined.fake.shards[shard_of(b"hello")] = b"hello"
    words = ("retrieve", str(shard_of(b"hello")))
    code, shown, err = on_terminal(joined, *words)
    assert (code, shown) == (2, b"")
    assert b"-o FILE" in err
    assert on_terminal(joined, *words, "-o", "-") == (0, b"hello", b"")


@pytest.mark.parametrize("words", [(), ("-o", "-"), ("-o", "/dev/stdout")])
def test_with_json_the_bytes_do_not_take_the_place_of_the_answer(joined, words):
    joined.fake.shards[shard_of(b"hello")] = b"hello"
    process = start(joined, "retrieve", str(shard_of(b"hello")), *words, "--json")
    out, _ = process.communicate(timeout=ENDED_S)
    assert process.returncode == 2
    assert "-o FILE" in json.loads(out)["error"]


def test_a_shard_goes_into_a_pipe_whole(joined):
    content = random.Random(6).randbytes(3 * MIB)
    joined.fake.shards[shard_of(content)] = content
    out, _ = start(joined, "retrieve", str(shard_of(content))).communicate(timeout=ENDED_S)
    assert out == content


def test_ctrl_c_ends_a_retrieve_at_once_and_leaves_nothing_that_cannot_be_gone_on_with(
    joined, tmp_path
):
    began = stalled(joined, Type.RETRIEVE)
    (tmp_path / "to").mkdir()
    process = start(joined, "retrieve", "ab" * 32, "-o", str(tmp_path / "to" / "file"))
    assert began.wait(ENDED_S)
    wait_until(lambda: any(part.stat().st_size for part in (tmp_path / "to").iterdir()))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=ENDED_S)
    assert (process.returncode, out) == (130, b"")
    assert b"is not kept" in err
    assert err.endswith(b"renter: interrupted\n")
    assert list((tmp_path / "to").iterdir()) == []


def test_ctrl_c_keeps_what_came_and_says_how_to_go_on(joined, tmp_path):
    content = random.Random(8).randbytes(2 * MIB)
    (tmp_path / "file").write_bytes(content)
    assert joined.renter("store", str(tmp_path / "file")) == 0
    back, began = tmp_path / "back", threading.Event()

    def half(talk, _):
        talk.send(Send(len(content), 0, len(content)))
        talk.data(content[:MIB])
        began.set()

    joined.fake.script[Type.RETRIEVE] = half
    process = start(joined, "retrieve", str(shard_of(content)), "-o", str(back), "--json")
    assert began.wait(ENDED_S)
    wait_until(lambda: any(part.stat().st_size for part in tmp_path.glob(".*.part")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=ENDED_S)
    assert process.returncode == 130
    assert json.loads(out)["error"] == "interrupted"
    assert b"kept; type the same again to go on" in err
    joined.fake.script.clear()
    assert joined.renter("retrieve", str(shard_of(content)), "-o", str(back)) == 0
    assert joined.fake.asked[-1].offset > 0
    assert back.read_bytes() == content
    assert not list(tmp_path.glob(".*.part"))


def test_ctrl_c_in_a_store_still_gives_a_row_for_every_file(joined, tmp_path):
    began = stalled(joined, Type.STORE)
    files = [tmp_path / str(number) for number in range(6)]
    for file in files:
        file.write_text(file.name)
    process = start(joined, "store", *map(str, files), "--json")
    assert began.wait(ENDED_S)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=ENDED_S)
    rows = json.loads(out)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert b"interrupted; type the same again" in err
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert not any(row["stored"] for row in rows)
    assert all("interrupted" in row["error"] for row in rows)


@pytest.fixture
def pipe(tmp_path):
    """A pipe with a name, whose writer says a little and then nothing."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    os.write(descriptor, b"the beginning")
    yield path
    os.close(descriptor)


def interrupted(process):
    """Interrupt a process that waits for ever; return its end, which comes soon."""
    process.send_signal(signal.SIGINT)
    try:
        # Its standard input stays open: the end of that would be an answer.
        process.wait(SOON_S)
    finally:
        process.kill()
        out, err = process.communicate(timeout=ENDED_S)
    assert b"Traceback" not in err
    assert b"Fatal" not in err
    assert process.returncode == 130
    return out, err


def stored(served, content):
    """Return when the farmer holds it and the receipt is in the ledger."""
    wait_until(lambda: shard_of(content) in kept(served))


def kept(served):
    ledger = Ledger.open(served.home / LEDGER_FILE)
    try:
        return [entry.receipt.shard for entry in ledger.entries()]
    finally:
        ledger.close()


def test_ctrl_c_does_not_wait_for_who_reads_a_slow_file(joined, pipe, tmp_path):
    """What was stored until then is told as stored."""
    (tmp_path / "file").write_bytes(b"precious")
    process = start(joined, "store", str(pipe), str(tmp_path / "file"), "--json")
    stored(joined, b"precious")
    out, _ = interrupted(process)
    rows = json.loads(out)
    assert [row["stored"] for row in rows] == [False, True]
    assert "interrupted" in rows[0]["error"]


def test_ctrl_c_does_not_wait_for_standard_input(joined, tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    words = ("store", "-", str(tmp_path / "file"), "--json")
    process = start(joined, *words, stdin=subprocess.PIPE)
    stored(joined, b"precious")
    out, _ = interrupted(process)
    assert [row["stored"] for row in json.loads(out)] == [False, True]


def test_ctrl_c_does_not_wait_for_a_copy_that_cannot_be_opened(joined, tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    joined.renter("store", str(tmp_path / "file"))
    os.mkfifo(tmp_path / "pipe")
    words = ("repair", str(shard_of(b"precious")), "--from", str(tmp_path / "pipe"))
    process = start(joined, *words)
    tasks = Path(f"/proc/{process.pid}/task")
    # Ours, the reactor's, and one that opens the copy.
    wait_until(lambda: process.poll() is not None or len(list(tasks.iterdir())) >= 3)
    assert process.poll() is None
    interrupted(process)


def test_two_programs_share_a_home(joined, tmp_path):
    processes = []
    for number in range(3):
        file = tmp_path / str(number)
        file.write_text(file.name)
        processes.append(start(joined, "store", str(file)))
    assert [process.wait(ENDED_S) for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    assert joined.renter("audit", "--all") == 0


def test_a_reader_that_leaves_is_no_traceback(joined):
    content = random.Random(7).randbytes(MIB)
    joined.fake.shards[shard_of(content)] = content
    process = start(joined, "retrieve", str(shard_of(content)))
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(ENDED_S) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_farmer_that_dies_in_between_gives_rows_and_not_a_hang(joined, tmp_path, capsys):
    files = [tmp_path / str(number) for number in range(16)]
    for file in files:
        file.write_text(file.name)

    def die(talk, message):
        if len(joined.fake.shards) < 2:
            Talk.answer(talk, message)
            return
        for one in joined.fake.talks:
            one.cut()
        joined.fake.script[Type.HELLO] = lambda talk, _: talk.cut()

    joined.fake.script[Type.STORE] = die
    capsys.readouterr()
    assert joined.renter("store", *map(str, files), "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert 2 <= sum(row["stored"] for row in rows) < 8
    assert "for other files" in rows[-1]["error"]
    assert all(bool(row["error"]) != row["stored"] for row in rows)
    assert joined.renter("store", str(files[-1])) == 1
    assert "type the same again later" in capsys.readouterr().err
