"""The units: a farmer serves as its own user from inside what they allow."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.live import free_port
from tests.e2e.daemon import Daemon, Renter, environment
from tests.needs import lack
from tests.process import sandbox
from tests.process.sandbox import OWN_USER


def need_sandbox() -> None:
    if what := sandbox.missing():
        lack(what)


class House:
    """What the unit's installation makes: a home, a volume and a place to run, of its own user."""

    def __init__(self, root: Path, unit: str) -> None:
        self.unit = unit
        self.home, self.volume, self.run = (root / name for name in ("home", "volume", "run"))
        for place in (self.home, self.volume, self.run):
            place.mkdir(mode=0o700)
            os.chown(place, OWN_USER, OWN_USER)
        self.run.chmod(0o755)
        self.ports = [free_port(), free_port()]
        self.daemon = Daemon(self.home, self.volume, with_init=False)
        listen, page = (f"127.0.0.1:{port}" for port in self.ports)
        volume = ("--yes", "--volume", f"{self.volume}=1GB", "--name", "test")
        self.owner("init", *volume, "--listen", listen, "--page", page)

    def inside(self, ports: str) -> list[str]:
        """Return what goes before a command that is to run in the unit's sandbox."""
        places = f"{self.home},{self.volume},{self.run}"
        words = [self.unit, ports, places, str(OWN_USER)]
        return [sys.executable, "-m", "tests.process.sandbox", *words]

    def owner(self, *words: str) -> None:
        """Do one of the owner's commands as the farmer's user."""
        command = [sys.executable, "-m", "farmer.cli.owner", "--home", str(self.home), *words]
        done = subprocess.run(
            [*self.inside("-"), *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it as the unit does."""
        passed = ",".join(map(str, self.ports)) if "socket" in self.unit else "-"
        self.daemon.start(*self.inside(passed))


@pytest.fixture
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    need_sandbox()
    # A short path, which everybody may pass: a UNIX socket's may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="f-") as root:
        Path(root).chmod(0o755)
        house = House(Path(root), request.param)
        with house.daemon:
            yield house


@pytest.mark.slow
@pytest.mark.tool("systemd-analyze")
@pytest.mark.parametrize("house", ["farmer-socket.service", "farmer.service"], indirect=True)
def test_a_farmer_serves_as_its_own_user_from_inside_the_units_sandbox(
    house: House, tmp_path: Path
) -> None:
    """Join, store, audit, retrieve, page and status; nothing of it is for others to see."""
    house.start()
    _check_process(house)
    _serve(house, tmp_path)
    _check_files(house)
    _check_a_neighbour_sees_nothing(house)
    assert house.daemon.stop() == 0


def _check_process(house: House) -> None:
    assert house.daemon.process is not None
    of_process = Path(f"/proc/{house.daemon.process.pid}")
    status = (of_process / "status").read_text()
    nothing = f"{0:016x}"
    for line in (
        *("NoNewPrivs:\t1", "Seccomp:\t2", "Umask:\t0077", f"CapEff:\t{nothing}"),
        *(f"CapPrm:\t{nothing}", f"CapBnd:\t{nothing}", f"CapAmb:\t{nothing}"),
        *(f"{kind}:\t" + "\t".join([str(OWN_USER)] * 4) for kind in ("Uid", "Gid")),
    ):
        assert line in status, status
    assert status.partition("Groups:")[2].partition("\n")[0].strip() == ""
    is_apart = Path("/proc/self/ns/net").readlink() != (of_process / "ns/net").readlink()
    assert is_apart is ("socket" in house.unit)


def _serve(house: House, tmp_path: Path) -> None:
    farmer = house.daemon
    assert farmer.status()["listen"] == [f"127.0.0.1:{house.ports[0]}"]
    renter = Renter(tmp_path / "renter")
    renter.join(farmer.invite())
    files = [tmp_path / "small", tmp_path / "large"]
    for path, size in zip(files, (1000, 2_500_000), strict=True):
        path.write_bytes(os.urandom(size))
    rows = renter.store(*files)
    assert all(row["stored"] for row in rows)
    assert renter.ask("audit", "--all")["failed"] == 0
    for row, path in zip(rows, files, strict=True):
        assert renter.call("retrieve", row["shard"], "-o", str(tmp_path / "b")).returncode == 0
        assert (tmp_path / "b").read_bytes() == path.read_bytes()
    for path, told in (("healthz", "alive\n"), ("metrics", "\nprocess_resident_memory_bytes ")):
        url = f"http://127.0.0.1:{house.ports[1]}/{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert told in answer.read().decode()


def _check_files(house: House) -> None:
    """Each file and directory is its user's alone; the key, the control socket and the shards."""
    kinds = set()
    for place in (house.home, house.volume, house.run):
        for path in place.rglob("*"):
            found = path.lstat()
            assert (found.st_uid, found.st_gid) == (OWN_USER, OWN_USER), path
            assert not found.st_mode & 0o077, (path, oct(found.st_mode))
            kinds.add(stat.S_IFMT(found.st_mode))
    assert kinds == {stat.S_IFREG, stat.S_IFDIR, stat.S_IFSOCK}


def _check_a_neighbour_sees_nothing(house: House) -> None:
    """Another user of the machine; what is tried is what would give him something."""
    run = json.loads((house.home / "run.json").read_text())
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[2:]:\n"
        "    try: os.listdir(path) if os.path.isdir(path) else open(path).close()\n"
        "    except PermissionError: continue\n"
        "    sys.exit(path)\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(0)\n"
        "sys.exit('connected')\n"
    )
    secrets = [house.home, house.volume, house.home / "identity", house.home / "contracts.sqlite"]
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, run["control"], *map(str, secrets)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr


def test_a_socket_of_an_unknown_name_is_refused_in_words(tmp_path: Path) -> None:
    """A mistake in a .socket unit is said, with the line to write."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as farmer, socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update("
            "LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='what');"
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        os.set_inheritable(one.fileno(), True)
        ended = subprocess.run(
            [
                *(sys.executable, "-c", script, str(one.fileno()), sys.executable, "-m"),
                *("farmer.cli.owner", "--home", str(farmer.home), "run"),
            ],
            check=False,
            capture_output=True,
            text=True,
            pass_fds=[one.fileno()],
            timeout=60,
        )
    assert ended.returncode == 1
    assert "FileDescriptorName=shards" in ended.stderr
