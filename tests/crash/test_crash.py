"""The campaigns in small; `python -m tests.crash` runs them at length."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import chain, repeat
from pathlib import Path

import pytest

from farmer.model.status import Alert
from farmer.storage.files import OsFiles
from tests.crash import killing, states, tracing
from tests.crash.belief import Belief, Held, Item
from tests.crash.checking import is_of_lost_index
from tests.crash.disks import need


def test_an_engine_killed_at_random_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """Twelve kills in sequence: nothing acknowledged is lost, nothing given up comes back."""
    line, wrong = killing.campaign(tmp_path, 12, seed=3)
    assert not wrong, "\n".join([line, *wrong])


def test_belief_is_what_was_acknowledged_and_what_was_begun() -> None:
    """An operation of which nothing was heard leaves two states possible."""
    item = Item(1, 2, 3)
    belief = Belief()
    belief.hear_all([f"begin store {item}", f"done store {item}", f"begin delete {item}"])
    assert belief.possible[item] == {Held.LIVE, Held.TRASH}
    belief.hear(f"done delete {item}")
    assert belief.possible[item] == {Held.TRASH}


def test_what_was_done_unasked_counts_among_the_kinds_of_work() -> None:
    """But not among what was acknowledged."""
    belief, item = Belief(), Item(1, 2, 3)
    belief.hear_all([f"begin store {item}", f"done store {item}", "did move 3", "did move 2"])
    assert belief.kinds == {"store": 1, "move": 5}
    assert belief.acknowledged == {"store": 1}
    assert not belief.said


def test_a_campaign_without_some_kind_of_work_says_so() -> None:
    outcome = states.Outcome("ext4", kinds=Counter(store=1, delete=1, redeem=1, move=1))
    assert "compact 0" in outcome.line
    assert outcome.lacks == []
    outcome.states = states.JUDGED_STATES
    assert outcome.lacks == ["ext4: no compact before any cut"]


def test_files_that_only_pretend_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that acknowledges what it never wrote is found out by the campaign."""
    real = OsFiles.pwritev
    dropped = chain([False] * 3, repeat(True))

    def forgetful(self, fd, buffers, offset):  # type: ignore[no-untyped-def]
        if not next(dropped):
            real(self, fd, buffers, offset)

    monkeypatch.setattr(OsFiles, "pwritev", forgetful)
    line, wrong = killing.campaign(tmp_path, 4, seed=3)
    assert wrong, line


def test_a_rebuild_may_tell_of_a_torn_end_of_a_log_and_of_no_other_damage(tmp_path: Path) -> None:
    """Whether such an end was acknowledged is compared with the belief, not told by an alert."""
    for volume, last in (("volume", 12), ("volume-second", 3)):
        (tmp_path / volume / "log").mkdir(parents=True)
        for number in range(1, last + 1):
            (tmp_path / volume / "log" / f"{number:08d}.seg").touch()

    def is_expected(name: str, places: str = "") -> bool:
        message = f"2 damaged places were passed over ({places}); shards"
        alert = Alert(name=name, since_ms=0, message=message)
        return is_of_lost_index(alert, tmp_path / "volume")

    assert is_expected("IndexRebuilt")
    assert is_expected("LogDamaged", "00000012.seg at 4096, 00000012.seg at 8192")
    assert is_expected("LogDamaged", "00000003.seg at 4096")
    assert not is_expected("LogDamaged", "00000011.seg at 4096")
    assert not is_expected("LogDamaged", "00000011.seg at 4096, 00000012.seg at 4096")
    assert not is_expected("QuotaBelowUse", "00000012.seg at 4096")


def _not_killed(killed: int, escaped: int) -> list[str]:
    belief, calls = Belief(), Counter(tracing.CALLS)
    belief.hear_all(["did move 1", "did compact 1"])
    ended = [tracing.Ended(True, False, belief, [])] * killed
    ended += [tracing.Ended(False, True, belief, [])] * escaped
    return tracing.report(calls, ended)[1]


def test_a_few_that_end_before_the_call_that_kills_them_are_no_violation() -> None:
    """The threads share the calls anew each time; in a small campaign that says nothing."""
    assert _not_killed(4, 3) == []
    assert _not_killed(90, 15) == []
    assert _not_killed(4, 4) == ["4 were not killed, 4 were"]
    assert _not_killed(0, 1) == ["1 were not killed, 0 were"]


@pytest.mark.slow
@pytest.mark.parametrize("system", ["ext4", "xfs", "btrfs"])
def test_no_state_of_a_crashed_disk_lacks_what_was_acknowledged(
    tmp_path: Path, system: str
) -> None:
    """Unflushed writes may be lost, torn and reordered: what was acknowledged is there."""
    need(system)
    lines, wrong, outcomes = states.campaign(tmp_path, {system: 12}, 5, mutant=False, processes=1)
    assert not wrong, "\n".join([*lines, *wrong])
    assert outcomes[system].acks >= outcomes[system].states


@pytest.mark.slow
def test_without_syncs_the_crashed_disk_lacks_it(tmp_path: Path) -> None:
    """The same run with every sync left out fails in nine of ten states at least."""
    need("ext4")
    _lines, _wrong, outcomes = states.campaign(tmp_path, {"ext4": 12}, 5, mutant=True, processes=1)
    assert outcomes["ext4"].failed >= 0.9 * outcomes["ext4"].states > 0


def campaign_of(*words: str) -> None:
    """Run a campaign in a process of its own: the client's reactor runs once per process."""
    command = [sys.executable, "-m", "tests.crash", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_a_farmer_killed_under_load_keeps_what_it_acknowledged() -> None:
    """Three kills of a running farmer: renters over TLS find what they were answered."""
    campaign_of("daemon", "--kills", "3")


@pytest.mark.slow
def test_a_farmer_whose_power_was_cut_keeps_what_it_acknowledged() -> None:
    """One cut on ext4 and one on xfs, with home and volume on that filesystem."""
    need("ext4", "xfs")
    campaign_of("power", "--cuts", "2")


@pytest.mark.slow
@pytest.mark.alone
def test_a_farmer_killed_while_a_volume_is_emptied_goes_on_with_it() -> None:
    """All bytes are there, audits passed, nothing came back, and nobody waited for long."""
    campaign_of("moving", "--kills", "1")


@pytest.mark.slow
@pytest.mark.tool("strace")
def test_a_system_call_that_fails_or_is_the_last_loses_nothing() -> None:
    """Some calls of each kind fail with EIO, ENOSPC, write nothing, or end the process."""
    campaign_of("strace", "--every", "300")
