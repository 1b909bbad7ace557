"""What is counted while serving, as Prometheus families in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from farmer.model.moments import Clocks, Moment
from farmer.model.status import NodeStatus
from farmer.monitor.gauges import MomentsCollector, StatusCollector
from farmer.monitor.status import Activity
from farmer.node.ports import Result, Verb

OTHER: Final = "other"
"""The label of whatever is not in a closed set: no peer can make a series."""

AUDIT_RESULTS: Final = ("ok", "missing", "corrupt", "budget", "later", "error")
PURGE_CAUSES: Final = ("deleted", "expired")
"""Out of the trash, or with an ended contract; an erased shard is a finished request."""
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "critical")

ANSWER_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TRANSFER_BUCKETS_S: Final = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
SIZE_BUCKETS_BYTES: Final = tuple(4**power * 1024 for power in range(2, 10))
"""16 KiB to 256 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSets:
    """The closed sets of words that become labels; whoever owns the words passes them."""

    refusals: Collection[str] = ()
    close_reasons: Collection[str] = ()
    handshake_reasons: Collection[str] = ()


class Metrics:
    """
    All figures of one farmer; implements `farmer.node.ports.Meter`.

    What is counted stands here; what merely *is* comes from *status* at each scrape.  Every
    label value is from a closed set; no renter, shard or peer ever becomes one.

    Args:
        status: the farmer as it is now, from memory, in constant time.
        clocks: by which it is told when something was.
        labels: the words of refusals and of reasons.

    """

    def __init__(
        self,
        status: Callable[[], NodeStatus],
        clocks: Clocks,
        labels: LabelSets,
    ) -> None:
        # Else a second series stands beside each counter, of no use to anyone.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped there
        self.registry = CollectorRegistry()
        self._clocks = clocks
        self._labels = labels
        self._activity = Activity(since=Moment(clocks))
        self._make_requests()
        self._make_connections()
        self._make_audits()
        self._make_daemon()
        self.registry.register(StatusCollector(status))
        self.registry.register(MomentsCollector(self._activity))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    @property
    def activity(self) -> Activity:
        """What was moved and proved since the start: the page shows it."""
        return self._activity

    def exposition(self) -> bytes:
        """Return all families in the Prometheus text format."""
        return generate_latest(self.registry)

    # The port of the serving side.

    def connection_opened(self) -> None:
        """See `Meter`."""
        self._connections.inc()
        self._accepted.inc()

    def connection_closed(self, reason: str) -> None:
        """See `Meter`."""
        self._connections.dec()
        self._closed.labels(_closed(reason, self._labels.close_reasons)).inc()

    def handshake_failed(self, reason: str) -> None:
        """See `Meter`."""
        self._handshakes.labels(_closed(reason, self._labels.handshake_reasons)).inc()

    def request_started(self, verb: Verb) -> None:
        """See `Meter`."""
        self._in_progress_of(verb).inc()

    def request_finished(self, verb: Verb, result: Result, seconds: float) -> None:
        """See `Meter`."""
        self._in_progress_of(verb).dec()
        self._requests_of(verb, result).inc()
        self._durations_of(verb).observe(seconds)

    def renter_served(self) -> None:
        """See `Meter`."""
        self._activity.last_contact = Moment(self._clocks)

    def refused(self, refusal_name: str) -> None:
        """See `Meter`."""
        self._rejections.labels(_closed(refusal_name, self._labels.refusals)).inc()

    def first_byte(self, seconds: float) -> None:
        """See `Meter`."""
        self._first_byte.observe(seconds)

    def received(self, verb: Verb, size_bytes: int) -> None:
        """See `Meter`."""
        self._received_of(verb).inc(size_bytes)
        self._activity.received_bytes += size_bytes

    def sent(self, verb: Verb, size_bytes: int) -> None:
        """See `Meter`."""
        self._sent_of(verb).inc(size_bytes)
        self._activity.sent_bytes += size_bytes

    def shard_stored(self, size_bytes: int) -> None:
        """See `Meter`."""
        self._sizes.observe(size_bytes)
        self._activity.stored += 1

    def audited(self, result: str, seconds: float) -> None:
        """See `Meter`."""
        label = _closed(result, AUDIT_RESULTS)
        self._audits_of(label).inc()
        self._audit_durations.observe(seconds)
        if label == "ok":
            self._activity.audits_passed += 1
            self._activity.last_proof = Moment(self._clocks)
        elif label == "missing":
            self._activity.audits_missing += 1
        elif label not in {"budget", "later"}:
            self._activity.audits_failed += 1

    # What the rest of the house reports.

    def reloaded(self, *, good: bool) -> None:
        """The settings were read again; *good*: and are in force."""
        self._reload_good.set(good)
        if good:
            taken = Moment(self._clocks)
            self._reload_time.set_function(lambda: taken.at_ms() / 1000)

    def purged(self, cause: str, shards: int) -> None:
        """Shards were removed for good by a sweep: deleted or expired."""
        self._purged.labels(_closed(cause, PURGE_CAUSES)).inc(shards)

    def lagged(self, seconds: float) -> None:
        """A timer of the reactor ran this late."""
        self._lag.observe(seconds)

    def logged(self, level: str) -> None:
        """A message of this level was logged."""
        self._logged.labels(_closed(level, LOG_LEVELS)).inc()

    # The families.

    def _make_requests(self) -> None:
        requests = self._counter(
            "requests", "Requests finished, by verb and result.", "verb", "result"
        )
        durations = self._histogram(
            "request_duration_seconds",
            "Time from a request to the end of its answer.",
            TRANSFER_BUCKETS_S,
            "verb",
        )
        in_progress = self._gauge("requests_in_progress", "Requests being served now.", "verb")
        self._first_byte = self._histogram(
            "first_byte_duration_seconds",
            "Time from the request of a retrieve to its first payload byte.",
            ANSWER_BUCKETS_S,
        )
        received = self._counter("received_bytes", "Payload bytes received.", "purpose")
        sent = self._counter("sent_bytes", "Payload bytes sent.", "purpose")
        self._sizes = self._histogram(
            "shard_size_bytes", "Size of the shards stored.", SIZE_BUCKETS_BYTES
        )
        self._rejections = self._counter("rejections", "Refusals sent, by name.", "reason")
        # To find a series by its labels takes a lock and some 5 us; of these, a request needs six.
        self._requests_of = cache(lambda verb, result: requests.labels(verb.value, result.value))
        self._durations_of = cache(lambda verb: durations.labels(verb.value))
        self._in_progress_of = cache(lambda verb: in_progress.labels(verb.value))
        self._received_of = cache(lambda verb: received.labels(verb.value))
        self._sent_of = cache(lambda verb: sent.labels(verb.value))
        for verb in Verb:
            self._durations_of(verb)
            self._in_progress_of(verb)
            for result in Result:
                self._requests_of(verb, result)
        self._received_of(Verb.STORE)
        self._sent_of(Verb.RETRIEVE)
        self._sent_of(Verb.AUDIT)
        _begin(self._rejections, self._labels.refusals)

    def _make_connections(self) -> None:
        self._connections = self._gauge("connections", "Open renter connections.")
        self._accepted = self._counter(
            "connections_accepted", "Renter connections accepted since the start."
        )
        self._closed = self._counter(
            "connections_closed", "Renter connections that ended, by reason.", "reason"
        )
        self._handshakes = self._counter(
            "handshake_failures", "TLS or protocol handshakes that failed, by reason.", "reason"
        )
        _begin(self._closed, self._labels.close_reasons)
        _begin(self._handshakes, self._labels.handshake_reasons)

    def _make_audits(self) -> None:
        audits = self._counter("audits", "Shards challenged, by result.", "result")
        self._audits_of = cache(audits.labels)
        self._audit_durations = self._histogram(
            "audit_duration_seconds", "Time to prove one challenged shard.", ANSWER_BUCKETS_S
        )
        _begin(audits, AUDIT_RESULTS)

    def _make_daemon(self) -> None:
        self._reload_good = self._gauge(
            "config_last_reload_successful", "1 when the last reading of the settings was good."
        )
        self._reload_time = self._gauge(
            "config_last_reload_success_timestamp_seconds",
            "Unix time of the last good reading of the settings.",
        )
        self._purged = self._counter(
            "shards_purged", "Shards removed for good by the sweep, by cause.", "cause"
        )
        self._lag = self._histogram(
            "reactor_lag_seconds", "How late a timer of the reactor ran.", ANSWER_BUCKETS_S
        )
        self._logged = self._counter("log_messages", "Log messages, by level.", "level")
        self.reloaded(good=True)
        _begin(self._purged, PURGE_CAUSES)
        _begin(self._logged, LOG_LEVELS)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"farmer_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"farmer_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"farmer_{name}", text, labels, registry=self.registry, buckets=buckets)


def _closed(word: str, words: Collection[str]) -> str:
    return word if word in words else OTHER


def _begin(counter: Counter, words: Collection[str]) -> None:
    """Let every series begin at 0: a rate over a series that appears with 1 misses the one."""
    for word in words:
        counter.labels(word)
