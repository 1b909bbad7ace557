"""The systemd unit: hardened, and naming only commands that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from farmer.cli.owner import parser

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "farmer.service"
EXPOSURE_MAX = 1.5


@pytest.mark.tool("systemd-analyze")
def test_the_unit_is_hardened() -> None:
    """systemd's own score, 0 best and 10 worst."""
    command = ["systemd-analyze", "security", "--offline=yes", str(UNIT)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    score = re.search(r"Overall exposure level for farmer.service: ([0-9.]+)", told)
    assert score is not None, told
    assert float(score[1]) <= EXPOSURE_MAX


def test_the_unit_calls_commands_that_exist() -> None:
    """A renamed verb would break every installed service at its next upgrade."""
    found = re.findall(r"(?m)^Exec\w+=/opt/farmer/bin/farmer (.*)$", UNIT.read_text())
    assert len(found) == 2
    for words in found:
        parser().parse_args(words.split())


def test_a_service_is_not_restarted_on_bad_settings() -> None:
    assert "RestartPreventExitStatus=78" in UNIT.read_text()
