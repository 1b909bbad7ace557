"""The rules for Prometheus fire when they should, and speak of metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.monitor.sample import metrics

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "farmer.rules.yml"
FIRING = Path(__file__).parent / "farmer.rules.test.yml"


@pytest.mark.tool("promtool")
def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    for file in (RULES, FIRING):
        shutil.copy(file, tmp_path)
    done = subprocess.run(
        ["promtool", "test", "rules", FIRING.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_speak_of_metrics_that_there_are() -> None:
    """A series that nobody exports fires no alert, and nobody notices."""
    described = set(re.findall(r"(?m)^# TYPE (\w+)", metrics().exposition().decode()))
    asked = set(re.findall(r"\bfarmer_\w+", RULES.read_text()))
    assert asked
    assert asked <= described
