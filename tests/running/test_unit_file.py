"""The systemd unit: hardened, and naming only commands that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from farmer.cli.owner_grammar import SERVING, parser
from farmer.node.disk import STOP_S
from farmer.node.service import CHECK_S, LAST_WORK_S
from farmer.protocol.limits import CLOSE_S
from farmer.running.winding_down import WIND_DOWN_S
from farmer.settings.schema import DrainSettings
from farmer.storage.watch import HUNG_S

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
EXPOSURE_MAX = {"farmer.service": 1.1, "farmer-socket.service": 0.3}


@pytest.mark.tool("systemd-analyze")
@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_the_unit_is_hardened(unit: str) -> None:
    """systemd's own score, 0 best and 10 worst."""
    command = ["systemd-analyze", "security", "--offline=yes", str(UNITS / unit)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    score = re.search(rf"Overall exposure level for {unit}: ([0-9.]+)", told)
    assert score is not None, told
    assert float(score[1]) <= EXPOSURE_MAX[unit]


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_the_unit_calls_commands_that_exist(unit: str) -> None:
    """A renamed verb would break every installed service at its next upgrade."""
    found = re.findall(r"(?m)^(Exec\w+)=/opt/farmer/bin/farmer (.*)$", (UNITS / unit).read_text())
    called = {key: parser().parse_args(words.split()) for key, words in found}
    assert called.keys() == {"ExecStart", "ExecReload"}
    assert called["ExecStart"].action == SERVING


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_a_reload_of_settings_with_a_mistake_fails(unit: str) -> None:
    """The check comes before the signal, which tells nobody what comes of it."""
    reloads = re.findall(r"(?m)^ExecReload=(.*)$", (UNITS / unit).read_text())
    assert [line.split()[-2:] for line in reloads] == [["config", "check"], ["-HUP", "$MAINPID"]]


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_a_service_is_not_restarted_on_bad_settings(unit: str) -> None:
    """Which holds for what ExecStart= runs alone: nothing may fail with that code before it."""
    text = (UNITS / unit).read_text()
    assert "\nRestartPreventExitStatus=78\n" in text
    assert "\nExecStartPre=" not in text
    assert "\nExecCondition=" not in text


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_a_stop_beside_dead_disks_ends_before_systemd_ends_it(unit: str) -> None:
    """Each wait of a stop has an end, and all of them together are as long as the docs say."""
    after_grace_s = CLOSE_S + CHECK_S + LAST_WORK_S + 2 * WIND_DOWN_S + HUNG_S + STOP_S
    assert after_grace_s <= 50
    (allowed_s,) = _values((UNITS / unit).read_text(), "TimeoutStopSec")
    assert DrainSettings().grace / 1000 + after_grace_s <= int(allowed_s)


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_a_missing_disk_neither_stops_the_service_nor_keeps_it_from_starting(unit: str) -> None:
    """It comes after the mount of each place that it may write to, and depends on none."""
    text = (UNITS / unit).read_text()
    (places,) = re.findall(r"(?m)^ReadWritePaths=(.+)$", text)
    waited_for = {word for line in _values(text, "After") for word in line.split()}
    for place in places.split():
        # "-" in front: without the place it starts all the same.
        assert place.startswith("-/")
        assert place[2:].replace("/", "-") + ".mount" in waited_for
    assert _values(text, "RequiresMountsFor") == _values(text, "BindsTo") == []
    assert _values(text, "Requires") in ([], ["farmer.socket"])


@pytest.mark.parametrize("unit", ["farmer.socket", "farmer-page.socket"])
def test_who_stops_the_service_stops_its_sockets(unit: str) -> None:
    """Else the next who connects would start it again."""
    text = (UNITS / unit).read_text()
    assert _values(text, "PartOf") == _values(text, "Service") == ["farmer-socket.service"]
    assert unit in _values((UNITS / "farmer-socket.service").read_text(), "Sockets")[0].split()


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_the_unit_says_what_to_type_after_a_mistake_in_the_settings(unit: str) -> None:
    """For each unit that may have failed then: systemd remembers how often they were tried."""
    head = (UNITS / unit).read_text().partition("[Unit]")[0]
    page = (UNITS.parents[1] / "docs" / "running-it.md").read_text()
    (failed,) = re.findall(r"systemctl reset-failed ([a-z. -]+?)(?: &&|\n)", head)
    assert f"`systemctl reset-failed {failed}`" in page
    sockets = _values((UNITS / unit).read_text(), "Sockets")
    assert {name.removesuffix(".service") for name in failed.split()} == {
        unit.removesuffix(".service"),
        *" ".join(sockets).split(),
    }


def _values(text: str, key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.+)$", text)


def test_the_two_services_differ_in_nothing_but_the_network() -> None:
    """What is hardened in one and not in the other would be forgotten sooner or later."""
    plain, socket = (
        {
            line
            for line in (UNITS / unit).read_text().split("[Service]")[1].splitlines()
            if line and not line.startswith("#")
        }
        for unit in EXPOSURE_MAX
    )
    assert {line.split("=")[0] for line in plain ^ socket} == {
        *("RestrictAddressFamilies", "PrivateNetwork", "IPAddressDeny", "Sockets")
    }
