from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from farmer.model.moments import Clocks
from farmer.model.status import VOLUME_OPERATIONS, NodeStatus, ScrubStatus, VolumeState
from farmer.monitor.metrics import Metrics
from farmer.monitor.status import status_document
from farmer.node.ports import Meter, Result, Verb
from tests.monitor import docs
from tests.monitor.sample import ATTIC, CLOCKS, LABELS, NOW_S, STATUS, metrics

ALERT = re.compile(r'"((?:[A-Z][a-z]+){2,})"')
PACKAGE = Path(__file__).parents[2] / "farmer"


def busy() -> Metrics:
    """Return metrics in which every family has counted something."""
    counted = metrics()
    counted.connection_opened()
    counted.connection_opened()
    counted.connection_closed("idle")
    counted.handshake_failed("tls")
    counted.request_started(Verb.STORE)
    counted.request_finished(Verb.STORE, Result.OK, 0.2)
    counted.renter_served()
    counted.refused("NO_SPACE")
    counted.first_byte(0.01)
    counted.received(Verb.STORE, 1000)
    counted.sent(Verb.AUDIT, 50)
    counted.shard_stored(1000)
    counted.audited("ok", 0.004)
    counted.purged("expired", 3)
    counted.lagged(0.002)
    counted.logged("warn")
    return counted


def value(counted: Metrics, series: str, **labels: str) -> float | None:
    return counted.registry.get_sample_value(series, labels)


def test_it_is_the_meter_of_the_serving_side() -> None:
    meter: Meter = metrics()
    assert meter is not None


@pytest.mark.tool("promtool")
def test_promtool_finds_nothing_to_complain_about() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=busy().exposition(),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_requests_are_counted_by_verb_and_result() -> None:
    counted = busy()
    assert value(counted, "farmer_requests_total", verb="store", result="ok") == 1
    assert value(counted, "farmer_requests_total", verb="list", result="error") == 0
    assert value(counted, "farmer_requests_in_progress", verb="store") == 0
    assert value(counted, "farmer_received_bytes_total", purpose="store") == 1000
    assert value(counted, "farmer_last_renter_contact_timestamp_seconds") == NOW_S


def test_only_a_renter_that_was_served_counts_as_contact() -> None:
    counted = metrics()
    counted.request_started(Verb.PING)
    counted.request_finished(Verb.PING, Result.OK, 0.1)
    assert counted.activity.last_contact_s == 0


def test_what_did_not_come_since_the_start_has_no_time() -> None:
    """A 0 would make every rule that compares it with the time ring after a restart."""
    counted = metrics()
    names = ("farmer_last_renter_contact", "farmer_audit_last_success")
    series = [f"{name}_timestamp_seconds" for name in names]
    assert [value(counted, name) for name in series] == [None, None]
    counted.renter_served()
    counted.audited("ok", 0.1)
    assert [value(counted, name) for name in series] == [NOW_S, NOW_S]


def test_a_volume_that_is_not_open_or_was_never_read_has_no_time_of_its_last_scrub() -> None:
    """A 0, for never, would make the same rules ring at each opening, and for each new volume."""
    never = replace(ATTIC, name="new", scrub=ScrubStatus())
    counted = metrics(replace(STATUS, volumes=(*STATUS.volumes, never)))
    series = "farmer_volume_scrub_last_success_timestamp_seconds"
    known = [value(counted, series, volume=name) for name in ("attic", "usb", "new")]
    assert known == [NOW_S - 86_400, None, None]
    assert value(counted, "farmer_volume_scrub_progress_ratio", volume="new") == 0
    assert value(counted, "farmer_volume_scrub_progress_ratio", volume="usb") is None
    assert value(counted, "farmer_scrub_shards", volume="usb", result="ok") is None
    assert value(counted, "farmer_volume_shards", volume="usb") == 3211


def test_open_connections_are_those_opened_and_not_closed() -> None:
    counted = busy()
    assert value(counted, "farmer_connections") == 1
    assert value(counted, "farmer_connections_accepted_total") == 2
    assert value(counted, "farmer_connections_closed_total", reason="idle") == 1


@pytest.mark.parametrize(
    ("series", "label", "report"),
    [
        ("farmer_connections_closed_total", "reason", Metrics.connection_closed),
        ("farmer_handshake_failures_total", "reason", Metrics.handshake_failed),
        ("farmer_rejections_total", "reason", Metrics.refused),
        ("farmer_audits_total", "result", lambda m, word: m.audited(word, 0.1)),
        ("farmer_shards_purged_total", "cause", lambda m, word: m.purged(word, 1)),
        ("farmer_log_messages_total", "level", Metrics.logged),
    ],
)
def test_words_outside_the_closed_set_make_one_series(series: str, label: str, report) -> None:
    counted = metrics()
    for number in range(100):
        report(counted, f"peer-{number}")
    assert value(counted, series, **{label: "other"}) == 100
    assert b"peer-" not in counted.exposition()


def test_audit_results_feed_activity_and_those_put_off_do_not() -> None:
    counted = metrics()
    for result in ("ok", "ok", "missing", "missing", "corrupt", "budget", "later"):
        counted.audited(result, 0.01)
    done = counted.activity
    assert (done.audits_passed, done.audits_failed, done.audits_missing) == (2, 1, 2)
    assert value(counted, "farmer_audit_last_success_timestamp_seconds") == NOW_S


def test_a_clock_that_is_set_leaves_how_long_ago_it_was() -> None:
    """A machine without a clock of its own starts in 1970, and learns the time later."""
    wall_s, lived_s = [100.0], [0.0]
    clocks = Clocks(lambda: int(wall_s[0] * 1000), lambda: lived_s[0])
    counted = Metrics(lambda: STATUS, clocks, LABELS)
    counted.renter_served()
    counted.audited("ok", 0.01)
    lived_s[0] += 60
    wall_s[0] = NOW_S
    for name in (
        "farmer_last_renter_contact_timestamp_seconds",
        "farmer_audit_last_success_timestamp_seconds",
        "farmer_config_last_reload_success_timestamp_seconds",
    ):
        assert value(counted, name) == NOW_S - 60, name
    activity = status_document(STATUS, counted.activity)["activity"]
    assert activity["since_ms"] == activity["last_contact_ms"] == (NOW_S - 60) * 1000


def test_a_bad_reload_keeps_the_time_of_the_last_good_one() -> None:
    clock = [1.0]
    counted = Metrics(
        lambda: STATUS, Clocks(lambda: int(clock[0] * 1000), lambda: clock[0]), LABELS
    )
    clock[0] = 2.0
    counted.reloaded(good=False)
    assert value(counted, "farmer_config_last_reload_successful") == 0
    assert value(counted, "farmer_config_last_reload_success_timestamp_seconds") == 1.0


def test_gauges_are_the_status_at_the_scrape() -> None:
    now = [STATUS]
    counted = Metrics(lambda: now[0], CLOCKS, LABELS)
    assert value(counted, "farmer_volume_up", volume="attic") == 1
    assert value(counted, "farmer_volume_up", volume="usb") == 0
    assert value(counted, "farmer_state", state="degraded") == 1
    assert value(counted, "farmer_alerts", alert="VolumeGone") == 1
    assert value(counted, "farmer_volume_errors_total", volume="attic", operation="read") == 2
    now[0] = replace(STATUS, volumes=(replace(ATTIC, used_bytes=7),), alerts=())
    assert value(counted, "farmer_volume_used_bytes", volume="attic") == 7
    assert value(counted, "farmer_volume_up", volume="usb") is None
    assert value(counted, "farmer_alerts", alert="VolumeGone") is None


def test_every_failure_of_a_volume_begins_at_none() -> None:
    """The first one is the one to hear of, and a rate misses a series that begins with 1."""
    volume = replace(ATTIC, errors=(("sync", 1),))
    counted = metrics(replace(STATUS, volumes=(volume,)))
    series = {
        operation: value(
            counted, "farmer_volume_errors_total", volume="attic", operation=operation
        )
        for operation in VOLUME_OPERATIONS
    }
    assert series == dict.fromkeys(VOLUME_OPERATIONS, 0) | {"sync": 1}


def test_volumes_count_no_other_failures() -> None:
    """Whoever counts says what by a word that stands there."""
    words = set()
    for path in [*(PACKAGE / "storage").rglob("*.py"), *(PACKAGE / "running").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if _counts_a_failure(node):
                [word] = node.args
                assert isinstance(word, ast.Constant), f"{path}:{node.lineno}"
                words.add(word.value)
    assert sorted(words) == sorted(VOLUME_OPERATIONS)


def _counts_a_failure(node: ast.AST) -> bool:
    """Tell a call like `volume.ground.health.count("sweep")`, or `self.count` of the health."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Attribute(attr=name), attr="count")):
            return name in {"health", "_health"}
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="count")):
            return name in {"health", "self"}
    return False


def test_a_retired_volume_is_nothing_but_retired() -> None:
    """An alert on volumes that are not up must not ring for it."""
    old = replace(ATTIC, name="old", state=VolumeState.RETIRED)
    status = replace(STATUS, volumes=(ATTIC, old))
    counted = metrics(status)
    assert value(counted, "farmer_volume_state", volume="old", state="retired") == 1
    assert value(counted, "farmer_volume_up", volume="old") is None
    assert value(counted, "farmer_volume_quota_bytes", volume="old") is None
    series = {"volume": "old", "operation": "read"}
    assert value(counted, "farmer_volume_errors_total", **series) is None
    assert value(counted, "farmer_volume_up", volume="attic") == 1


def test_registration_asks_for_no_status() -> None:
    def not_yet() -> NodeStatus:
        raise AssertionError("asked too early")

    Metrics(not_yet, CLOCKS, LABELS)


def test_two_farmers_in_one_process_do_not_meet() -> None:
    one, other = metrics(), metrics()
    one.shard_stored(5)
    assert value(other, "farmer_shard_size_bytes_count") == 0


def test_process_and_python_families_are_there() -> None:
    names = set(re.findall(rb"^# TYPE (\S+)", metrics().exposition(), re.MULTILINE))
    assert {b"process_cpu_seconds_total", b"python_info"} <= names
    assert not [name for name in names if name.endswith(b"_created")]


def test_the_page_of_metrics_has_the_table_of_the_registry() -> None:
    page = docs.PAGE.read_text()
    assert page == docs.with_table(page), "run python -m tests.monitor.docs"


def test_every_alert_stands_on_the_page() -> None:
    """No other text of the farmer's has the form of an alert's name."""
    sources = [path.read_text() for path in PACKAGE.rglob("*.py")]
    names = {name for text in sources for name in ALERT.findall(text)}
    section = docs.PAGE.read_text().partition("## Alerts")[2]
    assert sorted(names) == re.findall(r"^\| `(\w+)`", section, re.MULTILINE)
