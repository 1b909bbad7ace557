"""The README's promises, tried on a real farmer with real files, by its command line alone."""

from __future__ import annotations

import json
import random
import re
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon, Renter, allocated_bytes, call, environment
from tests.waiting import wait_until

SIZES = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1024 * 1024 + 5, 3_000_000)


def make_files(directory: Path, sizes: tuple[int, ...], seed: float = 7) -> list[Path]:
    directory.mkdir(exist_ok=True)
    generator = random.Random(seed)
    files = []
    for number, size in enumerate(sizes):
        path = directory / f"file-{number}-{size}"
        path.write_bytes(generator.randbytes(size))
        files.append(path)
    return files


def bytes_of(renter: Renter, shard: str, target: Path) -> bytes:
    outcome = renter.call("retrieve", shard, "-o", str(target))
    assert outcome.returncode == 0, outcome.stderr
    return target.read_bytes()


def test_the_two_minutes_of_the_readme(daemon: Daemon, renter: Renter, tmp_path: Path) -> None:
    """Join, store, audit, retrieve: the same bytes, for every awkward size."""
    files = make_files(tmp_path / "files", SIZES)

    rows = renter.store(*files)

    assert [row["stored"] for row in rows] == [True] * len(SIZES)
    assert [row["size_bytes"] for row in rows] == list(SIZES)
    audit = renter.ask("audit", "--all")
    assert (audit["audited"], audit["passed"], audit["failed"]) == (len(SIZES), len(SIZES), 0)
    for row, path in zip(rows, files, strict=True):
        assert bytes_of(renter, row["shard"], tmp_path / "back") == path.read_bytes()
    full = renter.ask("audit", "--all", "--full")
    assert full["failed"] == 0


def test_a_ready_line_and_real_addresses(daemon: Daemon) -> None:
    """Port 0 is allowed, and the status tells the ports that were found."""
    status = daemon.status()

    assert daemon.ready_line.startswith("ready")
    assert status["schema"] == 1
    assert status["state"] == "running"
    assert re.fullmatch("[0-9a-f]{64}", status["node_id"])
    for address in (*status["listen"], status["page"]):
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            pass


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing_acknowledged(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """Whatever `renter store` called stored is there after kill -9, byte for byte."""
    stored: dict[str, bytes] = {}
    generator = random.Random(11)
    for comes_back in (True, False, True, True):
        sizes = tuple(generator.choice((1000, 70_000, 900_000, 2_500_000)) for _ in range(12))
        files = make_files(tmp_path / "files", sizes, seed=generator.random())
        killer = threading.Thread(
            target=kill_amid,
            args=(daemon, written_bytes(daemon), generator.uniform(0.0, 0.1)),
            kwargs={"comes_back": comes_back},
        )
        killer.start()
        rows = renter.store(*files)
        killer.join()
        if not comes_back:
            daemon.start()
        assert [row["file"] for row in rows] == [str(path) for path in files]
        for path, row in zip(files, rows, strict=True):
            assert row["stored"] or row["error"]
            if row["stored"]:
                stored[row["shard"]] = path.read_bytes()

    assert stored, "nothing was confirmed, so nothing could be lost"
    listed = {row["shard"] for row in renter.ask("list")["shards"]}
    assert set(stored) <= listed
    for shard, content in stored.items():
        assert bytes_of(renter, shard, tmp_path / "back") == content
    assert renter.ask("audit", "--all")["failed"] == 0


def written_bytes(daemon: Daemon) -> int:
    """Return how large the files with shards are, those that end meanwhile left out."""
    size = 0
    for path in daemon.volume.rglob("*"):
        with suppress(OSError):
            size += path.lstat().st_size * (path.suffix in {".seg", ".part"})
    return size


def kill_amid(daemon: Daemon, before: int, after_s: float, *, comes_back: bool) -> None:
    """
    Kill -9, so long after something was written.

    Started again at once, the client's retries find it before they give up.
    """
    wait_until(lambda: written_bytes(daemon) != before)
    time.sleep(after_s)
    daemon.kill()
    if comes_back:
        daemon.start()


def test_the_quota_bounds_the_disk(tmp_path: Path) -> None:
    """Parallel stores fill a small volume up to its quota and not a byte over."""
    quota = 80_000_000
    with Daemon(tmp_path / "home", tmp_path / "volume", "80MB") as farmer:
        # All files have room in the contract: whatever is refused, the volume had no room for.
        with (farmer.home / "farmer.yaml").open("a") as settings:
            settings.write("contracts: {overcommit: 2}\n")
        farmer.start()
        renter = Renter(tmp_path / "renter")
        renter.join(farmer.invite(space="120MB"))
        files = make_files(tmp_path / "files", (3_000_000,) * 24 + (400_000,) * 60 + (100,) * 40)

        rows = renter.store(*files)

        refused = [row for row in rows if not row["stored"]]
        assert refused, "the volume was meant to be too small for all files"
        assert all("NO_SPACE" in row["error"] for row in refused), refused
        assert allocated_bytes(tmp_path / "volume") <= quota
        volume = farmer.status()["volumes"][0]
        assert volume["quota_bytes"] == quota
        assert volume["reserved_bytes"] == 0
        assert volume["used_bytes"] + volume["trash_bytes"] + volume["free_bytes"] <= quota
        kept = [row for row in rows if row["stored"]]
        assert renter.call("delete", kept[0]["shard"], "--erase").returncode == 0


def test_erased_space_returns_to_the_filesystem(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """
    Erasing gives the disk its blocks back at once; trash can be taken back, erased not.

    Of the small one only where holes are made: `tests/storage` looks at that.
    """
    files = make_files(tmp_path / "files", (5_000_000, 500_000))
    rows = renter.store(*files)
    before = allocated_bytes(tmp_path / "volume")

    renter.call("delete", rows[0]["shard"])
    assert renter.call("retrieve", rows[0]["shard"], "-o", str(tmp_path / "x")).returncode == 1
    assert renter.call("undelete", rows[0]["shard"]).returncode == 0
    assert bytes_of(renter, rows[0]["shard"], tmp_path / "back") == files[0].read_bytes()
    for row in rows:
        assert renter.call("delete", row["shard"], "--erase").returncode == 0

    assert allocated_bytes(tmp_path / "volume") < before - 4_500_000
    gone = renter.call("retrieve", rows[1]["shard"], "-o", str(tmp_path / "x"))
    assert gone.returncode == 1
    assert "NOT_FOUND" in gone.stderr


def test_damage_is_refused_not_served(daemon: Daemon, renter: Renter, tmp_path: Path) -> None:
    """A flipped byte on the disk gives CORRUPT and a failed audit, and the owner sees it."""
    [path] = make_files(tmp_path / "files", (900_000,))
    [row] = renter.store(path)
    daemon.stop()
    needle = path.read_bytes()[500_000:500_064]
    for file in (tmp_path / "volume").rglob("*.seg"):
        content = bytearray(file.read_bytes())
        at = content.find(needle)
        if at >= 0:
            content[at] ^= 1
            file.write_bytes(content)
    daemon.start()

    outcome = renter.call("retrieve", row["shard"], "-o", str(tmp_path / "back"))

    assert outcome.returncode == 1
    assert "CORRUPT" in outcome.stderr
    assert not (tmp_path / "back").exists()
    assert renter.ask("audit", "--all")["failed"] == 1
    assert daemon.status()["volumes"][0]["quarantined"] == 1


def test_strangers_and_neighbours_see_nothing(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """An invite works once, and another renter's shard looks like none at all."""
    [path] = make_files(tmp_path / "files", (10_000,))
    [row] = renter.store(path)
    invite = daemon.invite(space="10MB")
    neighbour, third = Renter(tmp_path / "neighbour"), Renter(tmp_path / "third")
    neighbour.join(invite)

    spent = third.call("join", invite)
    assert spent.returncode == 1
    assert "INVITE_SPENT" in spent.stderr
    assert neighbour.call("join", invite).returncode == 0, "the same renter may retry"
    foreign = neighbour.call("retrieve", row["shard"], "-o", str(tmp_path / "x"))
    absent = neighbour.call("retrieve", "ab" * 32, "-o", str(tmp_path / "x"))
    assert "NOT_FOUND" in foreign.stderr
    assert foreign.stderr.replace(row["shard"], "ID") == absent.stderr.replace("ab" * 32, "ID")


def test_spent_invites_stay_spent_over_a_crash(daemon: Daemon, tmp_path: Path) -> None:
    """Redeem, kill -9, start: the invite is still spent and the contract still there."""
    invite = daemon.invite(space="10MB")
    first, second = Renter(tmp_path / "first"), Renter(tmp_path / "second")
    first.join(invite)
    daemon.kill()
    daemon.start()

    assert "INVITE_SPENT" in second.call("join", invite).stderr
    assert first.call("contract").returncode == 0


def test_one_home_one_daemon(daemon: Daemon) -> None:
    """A second run on the same home is refused and names the first one's pid."""
    assert daemon.process is not None
    second = daemon.call("run")

    assert second.returncode == 1
    assert str(daemon.process.pid) in second.stderr


def test_a_port_in_use_is_said_plainly(daemon: Daemon, tmp_path: Path) -> None:
    """The address that is taken stands in the error, and the exit code is 1."""
    taken = daemon.status()["listen"][0]
    other = tmp_path / "other"
    words = ("init", "--yes", "--volume", f"{tmp_path / 'v2'}=100MB", "--listen", taken)
    assert call("farmer", other, *words, "--page", "127.0.0.1:0").returncode == 0

    outcome = call("farmer", other, "run")

    assert outcome.returncode == 1
    assert taken in outcome.stderr


def test_stopping_in_order(daemon: Daemon) -> None:
    """SIGTERM ends with code 0, `status` then says not running with code 3."""
    assert daemon.stop() == 0
    assert daemon.call("status", "--json").returncode == 3


def test_a_volume_without_its_marker_is_never_written(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """An empty mount point in place of the volume stays empty, and the farmer says so."""
    daemon.stop()
    volume = tmp_path / "volume"
    volume.rename(tmp_path / "unmounted")
    volume.mkdir()
    daemon.start()

    [row] = renter.store(*make_files(tmp_path / "files", (1000,)))

    assert not row["stored"]
    assert list(volume.iterdir()) == []
    assert daemon.status()["volumes"][0]["state"] == "gone"
    assert daemon.call("status").returncode in {4, 5}


def test_a_lost_index_loses_no_shard(daemon: Daemon, renter: Renter, tmp_path: Path) -> None:
    """The index is a cache: without it everything stored is served, everything erased is gone."""
    files = make_files(tmp_path / "files", (1000, 70_000, 2_000_000, 5000))
    rows = renter.store(*files)
    assert renter.call("delete", rows[3]["shard"], "--erase").returncode == 0
    daemon.stop()
    for path in (tmp_path / "volume").glob("index.sqlite*"):
        path.unlink()
    rebuilt = daemon.call("volume", "rebuild", str(tmp_path / "volume"))
    assert rebuilt.returncode == 0, rebuilt.stderr
    daemon.start()

    for row, path in zip(rows[:3], files[:3], strict=True):
        assert bytes_of(renter, row["shard"], tmp_path / "back") == path.read_bytes()
    assert renter.call("stat", rows[3]["shard"]).returncode == 1
    assert len(renter.ask("list")["shards"]) == 3


def test_secrets_are_for_the_owner_only(daemon: Daemon, tmp_path: Path) -> None:
    """No file under home and volume can be read by anybody else."""
    for root in (daemon.home, tmp_path / "volume"):
        for path in (root, *root.rglob("*")):
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path


def test_the_owners_socket_is_for_the_owner_only(daemon: Daemon) -> None:
    """Whoever may write to it commands the farmer: its directory keeps others out, and it does."""
    control = Path(json.loads((daemon.home / "run.json").read_text())["control"])
    assert control.is_socket()
    assert control.stat().st_mode & 0o777 == 0o600
    assert control.parent.stat().st_mode & 0o777 == 0o700


def fetch(url: str, host: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_numbers_agree(daemon: Daemon, renter: Renter, tmp_path: Path) -> None:
    """Command line, page document, metrics and the disk tell the same used space."""
    renter.store(*make_files(tmp_path / "files", (1000, 70_000, 2_000_000)))
    volume = daemon.status()["volumes"][0]
    page = f"http://{daemon.status()['page']}"

    document: dict[str, Any] = json.loads(fetch(f"{page}/status.json")[1])
    metrics = fetch(f"{page}/metrics")[1]

    assert document["volumes"][0]["used_bytes"] == volume["used_bytes"]
    shown = re.search(r"^farmer_volume_used_bytes\{[^}]*\} (\S+)$", metrics, re.MULTILINE)
    assert shown is not None
    assert float(shown[1]) == volume["used_bytes"]
    on_disk = (
        allocated_bytes(tmp_path / "volume" / "shards")
        + allocated_bytes(tmp_path / "volume" / "log")
        + allocated_bytes(tmp_path / "volume" / "staging")
    )
    assert abs(on_disk - volume["used_bytes"]) <= 64 * 1024
    assert fetch(f"{page}/healthz")[0] == 200
    assert fetch(f"{page}/readyz")[0] == 200
    assert fetch(f"{page}/", host="evil.example")[0] in {400, 403, 421}


@pytest.mark.tool("promtool")
def test_metrics_are_clean(daemon: Daemon, renter: Renter, tmp_path: Path) -> None:
    """Prometheus' own linter has nothing to say about a farmer that has worked."""
    renter.store(*make_files(tmp_path / "files", (1000, 2_000_000)))
    renter.ask("audit", "--all")
    metrics = fetch(f"http://{daemon.status()['page']}/metrics")[1]

    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        check=False,
        input=metrics,
        capture_output=True,
        text=True,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_no_settings_at_all(tmp_path: Path) -> None:
    """A first run without any settings serves, prints an invite, and prints it again later."""
    home = tmp_path / "home"
    ports = {"FARMER_LISTEN__SHARDS": "127.0.0.1:0", "FARMER_LISTEN__PAGE": "127.0.0.1:0"}
    invites = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "farmer.cli.owner", "--home", str(home), "run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(**ports),
        )
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("ready"):
                    break
            invites += [word for line in lines for word in line.split() if "farmer://" in word]
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
    assert len(invites) == 2
    assert invites[0].split("/")[-1] == invites[1].split("/")[-1]


def test_status_needs_no_reactor(daemon: Daemon) -> None:
    """It is asked every few seconds, also of a farmer that answers: it never imports Twisted."""
    # Given its words, it does not fork: what it imports is seen here.
    probe = (
        "import sys\n"
        "from farmer.cli.owner import main\n"
        "code = main(['--home', sys.argv[1], 'status', '--json'])\n"
        "loaded = sorted(name for name in sys.modules if name.split('.')[0] == 'twisted')\n"
        "assert not loaded, loaded\n"
        "sys.exit(code)\n"
    )
    assert '"state": "running"' in ran(probe, str(daemon.home))


@pytest.mark.alone
def test_status_is_fast(daemon: Daemon) -> None:
    """Watching costs little, beside a start of Python."""
    program = "import sys; from farmer.cli.owner import main; sys.exit(main())"
    words = ("--home", str(daemon.home), "status", "--json")
    took_s = [(run_s("pass"), run_s(program, *words)) for _ in range(5)]
    bare_s, asked_s = map(min, zip(*took_s, strict=True))
    assert asked_s < 10 * bare_s


def run_s(program: str, *words: str) -> float:
    """Return how long Python takes for a program."""
    began_s = time.monotonic()
    ran(program, *words)
    return time.monotonic() - began_s


def ran(program: str, *words: str) -> str:
    """Run a program with Python; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
