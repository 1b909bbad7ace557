"""The systemd unit: hardened, and naming only commands that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from farmer.cli.owner import SERVING, parser

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
    found = re.findall(r"(?m)^Exec\w+=/opt/farmer/bin/farmer (.*)$", (UNITS / unit).read_text())
    assert len(found) == 1
    for words in found:
        assert parser().parse_args(words.split()).action == SERVING


@pytest.mark.parametrize("unit", EXPOSURE_MAX)
def test_a_service_is_not_restarted_on_bad_settings(unit: str) -> None:
    """Which holds for what ExecStart= runs alone: nothing may fail with that code before it."""
    text = (UNITS / unit).read_text()
    assert "\nRestartPreventExitStatus=78\n" in text
    assert "\nExecStartPre=" not in text
    assert "\nExecCondition=" not in text


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
