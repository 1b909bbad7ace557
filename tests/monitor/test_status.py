from __future__ import annotations

import json

from farmer.monitor.status import status_document
from tests.monitor.sample import STATUS, metrics


def test_the_names_that_scripts_rely_on() -> None:
    document = json.loads(json.dumps(status_document(STATUS)))
    assert document["schema"] == 1
    assert document["state"] == "degraded"
    assert document["node_id"] == bytes(range(32)).hex()
    assert document["listen"] == ["0.0.0.0:4646", "[::]:4646"]
    assert document["page"] == "127.0.0.1:4647"
    assert document["promised_bytes"] == 0
    volume = document["volumes"][0]
    expected = {
        "path": "/mnt/attic",
        "state": "healthy",
        "quota_bytes": 2_000_000_000_000,
        "used_bytes": 1_140_000_000_000,
        "reserved_bytes": 3_000_000_000,
        "trash_bytes": 24_000_000_000,
        "free_bytes": 823_000_000_000,
        "shards": 1_214_880,
    }
    assert {name: volume[name] for name in expected} == expected


def test_alerts_say_what_to_type() -> None:
    assert status_document(STATUS)["alerts"][0]["command"] == "mount /mnt/usb"


def test_activity_is_there_when_given() -> None:
    counted = metrics()
    counted.shard_stored(9)
    assert "activity" not in status_document(STATUS)
    counted.audited("missing", 0.1)
    activity = status_document(STATUS, counted.activity)["activity"]
    assert [activity[name] for name in ("stored", "audits_failed", "audits_missing")] == [1, 0, 1]
