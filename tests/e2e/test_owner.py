"""The owner's commands on a real farmer: reload, contracts, stop and start."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import stat
from pathlib import Path
from typing import Any

from farmer.identity.signing import parse_link
from farmer.model.contract import Price
from tests.e2e.daemon import Daemon, Renter
from tests.waiting import wait_until

PATIENCE_S = 10.0


def ask(daemon: Daemon, *words: str) -> Any:
    outcome = daemon.call(*words, "--json")
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


def hang_up(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)


def test_a_reload_applies_what_it_can(daemon: Daemon) -> None:
    """Name, quota and addresses change at once; the port is named as waiting for a restart."""
    text = (daemon.home / "farmer.yaml").read_text()
    changed = text.replace('"test"', '"attic"').replace("1GB", "2GB")
    changed = changed.replace("listen:", "announce: farmer.example:4646\nlisten:")
    changed = changed.replace('page: "127.0.0.1:0"', 'page: "127.0.0.1:1"')
    changed += "contracts: {overcommit: 2}\n"
    (daemon.home / "farmer.yaml").write_text(changed)

    hang_up(daemon)

    wait_until(lambda: daemon.status()["name"] == "attic")
    status = daemon.status()
    assert status["volumes"][0]["quota_bytes"] == 2 * 10**9
    assert status["announce"] == ["farmer.example:4646"]
    assert "@farmer.example:4646/" in daemon.invite("3GB"), "twice what there is may be promised"
    wait_until(lambda: 'wait for a restart: listen.page"' in daemon.logs.read_text())
    wait_until(lambda: daemon.status()["waiting"] == ["listen.page"])


def test_each_volume_gets_its_own_quota_whatever_it_is_called(
    daemon: Daemon, tmp_path: Path
) -> None:
    """Short names change while a farmer runs: a second one of the same name makes both longer."""
    second = tmp_path / "second" / daemon.volume.name
    assert daemon.call("volume", "add", f"{second}=100MB").returncode == 0
    settings = daemon.home / "farmer.yaml"
    settings.write_text(settings.read_text().replace("1GB", "2GB").replace("100MB", "200MB"))

    hang_up(daemon)

    def quotas() -> dict[str, int]:
        return {one["path"]: one["quota_bytes"] for one in daemon.status()["volumes"]}

    wait_until(lambda: quotas() == {str(daemon.volume): 2 * 10**9, str(second): 2 * 10**8})


def test_a_bad_reload_changes_nothing_and_is_shown(daemon: Daemon) -> None:
    """The old settings go on, an alert says which line is wrong, and it clears."""
    settings = daemon.home / "farmer.yaml"
    text = settings.read_text()
    settings.write_text(text + "nmae: x\n")
    hang_up(daemon)
    wait_until(lambda: bool(daemon.status()["alerts"]))

    status = daemon.status()

    assert status["state"] == "degraded"
    [alert] = status["alerts"]
    assert 'unknown key "nmae", did you mean "name"?' in alert["message"]
    assert daemon.call("status").returncode == 4
    assert alert["command"] == f"farmer --home {daemon.home} config check"
    assert daemon.call(*alert["command"].split()[1:]).returncode == 78
    settings.write_text(text)
    hang_up(daemon)
    wait_until(lambda: daemon.call("status").returncode == 0)


def test_settings_that_are_gone_are_not_replaced_by_the_defaults(daemon: Daemon) -> None:
    """At the next start they are none; while it serves, a volume would be closed by that."""
    settings = daemon.home / "farmer.yaml"
    away = settings.rename(daemon.home / "away.yaml")
    hang_up(daemon)
    wait_until(lambda: bool(daemon.status()["alerts"]))

    status = daemon.status()

    [alert] = status["alerts"]
    assert "farmer.yaml: cannot be read: No such file" in alert["message"]
    assert (status["name"], len(status["volumes"])) == ("test", 1)
    checked = daemon.call("config", "check")
    assert checked.returncode == 78
    assert "the running farmer was started with it" in checked.stderr
    away.rename(settings)
    hang_up(daemon)
    wait_until(lambda: daemon.call("status").returncode == 0)


def test_a_reload_that_cannot_be_done_whole_changes_nothing_and_is_shown(
    daemon: Daemon,
) -> None:
    """Name and quota stay as they were, and both follow when it can be done."""
    known = daemon.home / "volumes.json"
    before = known.read_bytes()
    known.write_bytes(b"")
    settings = daemon.home / "farmer.yaml"
    settings.write_text(settings.read_text().replace('"test"', '"attic"').replace("1GB", "2GB"))
    hang_up(daemon)
    wait_until(lambda: bool(daemon.status()["alerts"]))

    status = daemon.status()

    [alert] = status["alerts"]
    assert alert["name"] == "SettingsNotApplied"
    assert "volumes.json says which volumes were made, and cannot be used" in alert["message"]
    assert (status["name"], status["volumes"][0]["quota_bytes"]) == ("test", 10**9)
    known.write_bytes(before)
    hang_up(daemon)
    wait_until(lambda: daemon.status()["name"] == "attic")
    wait_until(lambda: daemon.status()["volumes"][0]["quota_bytes"] == 2 * 10**9)
    wait_until(lambda: not daemon.status()["alerts"])


def test_nothing_of_a_reload_is_in_force_if_a_quota_cannot_be_had(daemon: Daemon) -> None:
    """Neither name nor price, nor the other volume's quota; all of it when that is mended."""
    second = daemon.volume.with_name("second")
    assert daemon.call("volume", "add", f"{second}=100MB").returncode == 0
    settings = daemon.home / "farmer.yaml"
    before = settings.read_text()
    text = before.replace('"test"', '"attic"').replace("1GB", "2GB")
    text += "price: {currency: EUR, stored: 99}\n"
    settings.write_text(text.replace("100MB", "0.000001%"))
    hang_up(daemon)
    wait_until(lambda: bool(daemon.status()["alerts"]))

    def in_force() -> tuple[str, list[int], int]:
        status = daemon.status()
        made = ask(daemon, "invite", "--space", "1MB", "--for", "1d")
        quotas = [one["quota_bytes"] for one in status["volumes"]]
        return status["name"], quotas, made["price"]["stored_micros"]

    [alert] = daemon.status()["alerts"]
    assert alert["name"] == "SettingsNotApplied"
    assert f"the quota of {second} is" in alert["message"]
    assert in_force() == ("test", [10**9, 10**8], 0)
    checked = daemon.call("config", "check")
    assert checked.returncode == 78
    assert '"volumes.1.quota": the quota of' in checked.stderr
    settings.write_text(text)
    hang_up(daemon)
    wait_until(lambda: in_force() == ("attic", [2 * 10**9, 10**8], 99_000_000))
    assert not daemon.status()["alerts"]


def test_contracts_and_invites_go_through_the_running_farmer(
    daemon: Daemon, renter: Renter
) -> None:
    """List, extend, end; list and withdraw."""
    [row] = ask(daemon, "contract", "list")["contracts"]
    assert row["stage"] == "active"
    assert ask(daemon, "contract", "show", row["contract"][:8])["contract"] == row
    longer = ask(daemon, "contract", "extend", row["contract"][:8], "--for", "30d")["contract"]
    assert longer["until_ms"] == row["until_ms"] + 30 * 86_400_000
    assert ask(daemon, "contract", "end", row["contract"])["contract"]["stage"] == "grace"
    assert "CONTRACT_ENDED" in renter.call("store", str(daemon.logs)).stderr
    ended = renter.call("contract")
    assert ended.returncode == 0
    assert "takes back what it signed: an earlier end" in ended.stderr
    assert renter.call("contract").stderr == ""

    asking = ("--price", "1.5", "--price-served", "5", "--currency", "EUR")
    made = ask(daemon, "invite", "--space", "10MB", "--for", "1d", *asking)
    assert parse_link(made["invite"]).invite.offer.price == Price(
        currency="EUR", stored_micros=1_500_000, served_micros=5_000_000
    )
    assert ask(daemon, "invite", "list")["invites"][0]["invite"] == made["invite"]
    assert daemon.status()["open_invites"] == 1
    assert daemon.call("invite", "withdraw", made["serial"]).returncode == 0
    assert daemon.status()["open_invites"] == 0
    assert "INVITE_INVALID" in renter.call("join", made["invite"]).stderr
    too_much = daemon.call("invite", "--space", "5GB", "--for", "1d")
    assert too_much.returncode == 1
    assert "not yet promised" in too_much.stderr
    assert daemon.call("clock", "confirm").stdout.startswith("the clock is right: it is 20")


def test_an_invite_made_while_the_farmer_is_stopped(daemon: Daemon) -> None:
    """Without a daemon the command takes the lock and does it itself."""
    daemon.stop()
    made = ask(daemon, "invite", "--space", "10MB", "--for", "1d")
    daemon.start()
    assert ask(daemon, "invite", "list")["invites"][0] == {
        name: value for name, value in made.items() if name != "schema"
    }
    daemon.stop()
    (daemon.home / "ports.json").unlink()
    no_address = daemon.call("invite", "--space", "10MB", "--for", "1d")
    assert "start the farmer, or set announce" in no_address.stderr


def test_port_0_is_the_same_port_after_a_restart(daemon: Daemon) -> None:
    """Renters keep the address of their invite, also over kill -9."""
    before = daemon.status()
    daemon.kill()
    daemon.start()
    after = daemon.status()
    assert (after["listen"], after["page"]) == (before["listen"], before["page"])


def test_a_taken_port_is_changed_if_any_would_do(daemon: Daemon) -> None:
    """The last run's port is a wish, not a condition."""
    before = daemon.status()["listen"][0]
    daemon.stop()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", int(before.rpartition(":")[2])))
        squatter.listen()
        daemon.start()
        assert daemon.status()["listen"][0] != before


def test_an_orderly_stop_leaves_a_clean_mark(daemon: Daemon) -> None:
    """And kill -9 does not."""
    assert daemon.status()["clean_start"]
    daemon.stop()
    daemon.start()
    assert daemon.status()["clean_start"]
    daemon.kill()
    daemon.start()
    assert not daemon.status()["clean_start"]


def test_the_log_has_no_line_per_request(daemon: Daemon, renter: Renter, tmp_path: Path) -> None:
    """A busy farmer writes no gigabytes of log; nobody learns there what was stored."""
    before = len(daemon.logs.read_text().splitlines())
    files = []
    for number in range(10):
        files.append(tmp_path / f"file{number}")
        files[-1].write_bytes(bytes([number]) * 5000)
    rows = renter.store(*files)
    assert renter.call("audit", "--all").returncode == 0
    log = daemon.logs.read_text()
    assert len(log.splitlines()) == before
    assert not [row for row in rows if row["shard"][:8] in log]


def test_the_service_manager_is_kept_informed(daemon: Daemon, tmp_path: Path) -> None:
    """READY only when serving, RELOADING around a reload, STOPPING, and the watchdog is fed."""
    daemon.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)

        def hear(word: str) -> None:
            while not manager.recv(4096).decode().startswith(word):
                pass

        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        daemon.start("env", *(f"{name}={text}" for name, text in told.items()))
        hear("READY=1")
        hear("WATCHDOG=1")
        hang_up(daemon)
        hear("RELOADING=1")
        hear("READY=1")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert daemon.process.wait(PATIENCE_S) == 0


def test_the_control_socket_is_the_owners_alone(daemon: Daemon) -> None:
    path = Path(json.loads((daemon.home / "run.json").read_text())["control"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_metrics_and_volumes_from_the_command_line(daemon: Daemon) -> None:
    assert "farmer_volume_quota_bytes" in daemon.call("metrics").stdout
    [volume] = ask(daemon, "volume", "list")["volumes"]
    assert volume["path"] == str(daemon.volume)
    assert str(daemon.volume) in daemon.call("volume", "list").stdout
    shown = ask(daemon, "identity", "show")
    assert shown["node_id"] == daemon.status()["node_id"]


def test_another_volume_after_a_restart(daemon: Daemon, tmp_path: Path) -> None:
    added = daemon.call("volume", "add", f"{tmp_path / 'second'}=100MB")
    assert added.returncode == 0, added.stderr
    again = daemon.call("volume", "add", f"{tmp_path / 'second'}=100MB")
    assert again.returncode == 1
    assert "is a volume of this farmer already" in again.stderr
    daemon.stop()
    daemon.start()
    paths = [volume["path"] for volume in daemon.status()["volumes"]]
    assert paths == [str(daemon.volume), str(tmp_path / "second")]
    rebuilt = daemon.call("volume", "rebuild", paths[1])
    assert "stop the farmer first" in rebuilt.stderr


def test_a_farmer_that_cannot_tell_which_volumes_were_made_makes_none(daemon: Daemon) -> None:
    """Where a disk is not mounted, shards would go to the wrong one; no command shows a trace."""
    daemon.stop()
    daemon.volume.rename(daemon.volume.with_name("unmounted"))
    daemon.volume.mkdir()
    (daemon.home / "volumes.json").write_bytes(b"\0" * 100)
    another = f"{daemon.volume.with_name('another')}=100MB"
    for words in ("run", "volume list", f"volume add {another}", "invite --space 1MB --for 1d"):
        ended = daemon.call(*words.split())
        assert ended.returncode == 1
        assert "volumes.json says which volumes were made, and cannot be used" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert list(daemon.volume.iterdir()) == []


def test_init_never_overwrites(daemon: Daemon, tmp_path: Path) -> None:
    before = (daemon.home / "farmer.yaml").read_bytes()
    again = daemon.call("init", "--yes", "--volume", f"{tmp_path / 'other'}=100MB")
    assert again.returncode == 1
    assert "never overwritten" in again.stderr
    assert (daemon.home / "farmer.yaml").read_bytes() == before
    assert not (tmp_path / "other").exists()


def test_from_trying_it_to_real_space_no_shard_is_forgotten(tmp_path: Path) -> None:
    """
    A first run, a store, then `init` with a disk: the first volume stays.

    And if its lines are taken out of the settings, its shards are unavailable, not unknown.
    """
    home, first = tmp_path / "tried", tmp_path / "tried" / "volume"
    ports = ("--listen", "127.0.0.1:0", "--page", "127.0.0.1:0")
    with Daemon(home, first, with_init=False) as daemon:
        daemon.start("env", *(f"FARMER_LISTEN__{name}=127.0.0.1:0" for name in ("SHARDS", "PAGE")))
        visitor = Renter(tmp_path / "visitor")
        visitor.join(ask(daemon, "invite", "list")["invites"][0]["invite"])
        path = tmp_path / "photo"
        path.write_bytes(b"photo" * 5000)
        [row] = visitor.store(path)
        daemon.stop()

        made = daemon.call("init", "--yes", "--volume", f"{tmp_path / 'disk'}=100MB", *ports)
        assert made.returncode == 0, made.stderr
        told = f"This farmer already has a volume with 1 shard: {first}. It is kept"
        assert told in made.stdout
        daemon.start()
        assert len(daemon.status()["volumes"]) == 2
        assert visitor.ask("audit", "--all")["passed"] == 1
        daemon.stop()

        settings = home / "farmer.yaml"
        lines = settings.read_text().splitlines(keepends=True)
        at = next(number for number, line in enumerate(lines) if str(first) in line)
        settings.write_text("".join(lines[:at] + lines[at + 2 :]))
        daemon.start()
        refused = visitor.call("retrieve", row["shard"], "-o", str(tmp_path / "back"))
        assert "UNAVAILABLE" in refused.stderr
        assert "NOT_FOUND" not in refused.stderr
        [alert] = daemon.status()["alerts"]
        assert alert["name"] == "VolumeNotInSettings"
        assert daemon.call("status").returncode == 4
        again = daemon.call(*shlex.split(alert["command"])[3:])
        assert again.returncode == 0, again.stderr
        daemon.stop()
        daemon.start()
        assert daemon.status()["alerts"] == []
        assert visitor.ask("audit", "--all")["passed"] == 1


def test_a_first_start_says_where_things_are_and_the_next_ones_that_they_serve(
    tmp_path: Path,
) -> None:
    with Daemon(tmp_path / "home", tmp_path / "volume", "200MB") as daemon:
        daemon.start()
        renters = daemon.status()["announce"][0]
        assert daemon.said == [
            f"home      {daemon.home}",
            f"volume    {daemon.volume} (200 MB)",
            f"settings  {daemon.home}/farmer.yaml",
            f"address   {renters} (as invites name it)",
            f"invite a renter with: farmer --home {daemon.home} invite --space 100MB --for 90d",
            daemon.ready_line.strip(),
        ]
        assert daemon.stop() == 0
        daemon.start()
        assert daemon.said == [daemon.ready_line.strip()]


def test_a_first_start_in_a_journal_says_no_more_than_others(tmp_path: Path) -> None:
    journal = 'export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1); exec "$@"'
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start("sh", "-c", journal, "sh")
        assert daemon.said == [daemon.ready_line.strip()]


def test_a_log_in_a_file_is_for_programs_whatever_was_inherited(tmp_path: Path) -> None:
    """A terminal, or a timer, of a desktop that systemd started has the journal's variable."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as daemon:
        daemon.start("env", "JOURNAL_STREAM=1:2")
        assert daemon.stop() == 0
        lines = daemon.logs.read_text().splitlines()
        assert [json.loads(line)["level"] for line in lines] == ["info"] * len(lines)


def test_damage_is_still_told_after_a_restart(
    daemon: Daemon, renter: Renter, tmp_path: Path
) -> None:
    """The state follows from the shards that are set aside, not from having found them."""
    path = tmp_path / "file"
    path.write_bytes(b"not again" * 500_000)
    [row] = renter.store(path)
    files = [path for path in daemon.volume.rglob("*") if path.suffix in {".seg", ".part"}]
    stored = max(files, key=lambda path: path.stat().st_size)
    with stored.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"rot")
    assert "CORRUPT" in renter.call("retrieve", row["shard"], "-o", str(tmp_path / "b")).stderr
    daemon.stop()
    daemon.start()
    status = daemon.status()
    assert (status["state"], status["volumes"][0]["quarantined"]) == ("degraded", 1)
    assert [alert["name"] for alert in status["alerts"]] == ["ShardsQuarantined"]
    assert daemon.call("volume", "list").stdout.splitlines()[0].split()[-1] == "DAMAGED"


def test_a_port_in_use_is_told_with_where_to_change_it(daemon: Daemon) -> None:
    daemon.stop()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = f"127.0.0.1:{squatter.getsockname()[1]}"
        for variable in ("FARMER_LISTEN__SHARDS", "FARMER_LISTEN__PAGE"):
            refused = daemon.call("run", **{variable: taken})
            assert refused.returncode == 1
            assert f"{taken}: another program is using it. Choose another" in refused.stderr
            where = f"in {daemon.home / 'farmer.yaml'}, or by {variable}=HOST:PORT"
            assert where in refused.stderr
