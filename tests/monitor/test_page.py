from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from farmer.model.contract import ContractStage
from farmer.model.status import Alert, NodeState, ScrubStatus, VolumeState, VolumeWork
from farmer.monitor import page, view
from farmer.monitor.page import StatusPage, page_site
from farmer.monitor.view import message
from tests.monitor.sample import ATTIC, NOW_S, STATUS, USB, metrics

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PEER = IPv4Address("TCP", "127.0.0.1", 40000)


def rendered(*what: Any) -> str:
    """Return the page, with plain spaces."""
    return view.page(*what).replace("\u00a0", " ")


class Visit:
    """One HTTP connection in memory."""

    def __init__(self, factory, clock: Clock) -> None:
        self.clock = clock
        self.transport = StringTransport(peerAddress=PEER)
        self.channel = factory.buildProtocol(PEER)
        self.channel.makeConnection(self.transport)

    def send(self, raw: bytes) -> bytes:
        self.channel.dataReceived(raw)
        return self.transport.value()

    def lose(self) -> None:
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self.channel.connectionLost(Failure(ConnectionDone()))


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.status = STATUS
        self.metrics = metrics()
        self.clock = Clock()
        self.site = self.make_site(hosts=("nas.lan",))

    def make_site(self, hosts=()):
        clocks = (lambda: NOW_S, self.clock.seconds)
        root = StatusPage(lambda: self.status, self.metrics, *clocks, hosts)
        return page_site(root, self.clock)

    def visit(self) -> Visit:
        visit = Visit(self.site, self.clock)
        self.addCleanup(visit.lose)
        return visit

    def get(self, path: str, host: str | None = "localhost:4647", method: str = "GET"):
        line = f"Host: {host}\r\n" if host is not None else ""
        raw = f"{method} {path} HTTP/1.1\r\n{line}Connection: close\r\n\r\n".encode()
        head, _, body = self.visit().send(raw).partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in rest)}
        return int(first.split()[1]), headers, body

    @contextmanager
    def logged(self) -> Iterator[list[LogEvent]]:
        """Collect what is logged meanwhile."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        try:
            yield events
        finally:
            globalLogPublisher.removeObserver(events.append)

    def test_the_page_shows_the_status(self) -> None:
        code, headers, body = self.get("/")
        assert code == 200
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert "VolumeGone" in body.decode()
        assert "1.14\u00a0TB" in body.decode()

    def test_every_answer_has_the_headers_that_keep_it_to_itself(self) -> None:
        for path in ("/", "/metrics", "/nothing", "*"):
            _, headers, _ = self.get(path)
            assert headers["server"] == "farmer"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"

    def test_metrics_are_the_exposition(self) -> None:
        code, headers, body = self.get("/metrics")
        assert (code, headers["content-type"]) == (200, page.EXPOSITION)
        assert b"farmer_build_info{" in body

    def test_metrics_are_made_a_few_times_a_second(self) -> None:
        """Limit: KEPT_S; whoever asks without end is given the same text."""

        def lines_logged() -> bytes:
            return self.get("/metrics")[2].partition(b'_total{level="info"} ')[2].split()[0]

        seen = [lines_logged()]
        for passed_s in (0, page.KEPT_S / 2, page.KEPT_S / 2, page.KEPT_S):
            self.metrics.logged("info")
            self.clock.advance(passed_s)
            seen.append(lines_logged())
        assert seen == [b"0.0", b"0.0", b"0.0", b"3.0", b"4.0"]

    def test_the_status_document_is_json(self) -> None:
        code, headers, body = self.get("/status.json")
        assert (code, headers["content-type"]) == (200, "application/json")
        assert json.loads(body)["node_id"] == str(STATUS.node_id)

    def test_the_style_sheet_is_served_from_here(self) -> None:
        code, headers, body = self.get("/style.css")
        assert (code, headers["content-type"]) == (200, "text/css; charset=utf-8")
        assert b"prefers-color-scheme" in body

    def test_alive_in_every_state_and_ready_only_while_serving(self) -> None:
        ready = {}
        for state in NodeState:
            self.status = replace(STATUS, state=state)
            assert self.get("/healthz")[0] == 200
            ready[state.value] = self.get("/readyz")[0]
        assert ready == {"starting": 503, "running": 200, "degraded": 200, "draining": 503}

    def test_unknown_paths_are_not_found(self) -> None:
        for path in ("/nothing", "//", "/metrics/", "/../etc/passwd", "/%2e%2e/"):
            assert self.get(path)[0] == 404, path

    def test_only_reading_is_allowed(self) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"):
            code, headers, _ = self.get("/", method=method)
            assert (code, headers["allow"]) == (405, "GET, HEAD"), method

    def test_the_whole_server_is_no_page(self) -> None:
        """Twisted answers to `OPTIONS *` by itself, whoever asks."""
        assert self.get("*", method="OPTIONS")[0] == 405
        assert self.get("*", method="OPTIONS", host="evil.example")[0] == 421

    def test_what_follows_a_question_mark_costs_nothing(self) -> None:
        def shortest_s(query: str) -> float:
            took_s = []
            for _ in range(5):
                began_s = time.process_time()
                assert self.get(f"/healthz?{query}")[0] == 200
                took_s.append(time.process_time() - began_s)
            return min(took_s)

        assert shortest_s("&" * 16_000) < 10 * shortest_s("x" * 16_000)

    def test_head_has_the_length_and_no_body(self) -> None:
        code, headers, body = self.get("/healthz", method="HEAD")
        assert (code, headers["content-length"], body) == (200, "6", b"")

    def test_head_is_no_line_in_the_log(self) -> None:
        """Whoever looks each minute whether the page is there would fill it."""
        with self.logged() as events:
            for path in ("/", "/metrics", "/nothing"):
                self.get(path, method="HEAD")
        assert events == []

    def test_a_wrong_name_is_told_what_to_do(self) -> None:
        _, _, body = self.get("/", "nas.local")
        assert b"by the address in the setting listen.page" in body
        assert b"listens only where that name leads" in body
        assert b'href="/"' not in body, "leads to the same words"

    def test_it_answers_to_loopback_and_its_own_name(self) -> None:
        for host in (
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:4",
            "nas.lan",
        ):
            assert self.get("/", host)[0] == 200, host

    def test_it_answers_to_its_own_address_however_it_is_spelt(self) -> None:
        self.site = self.make_site(hosts=("fd00:0:0:1::5",))
        for host in ("[fd00:0:0:1::5]:4647", "[FD00:0:0:1:0:0:0:5]:4647", "[0::1]"):
            assert self.get("/", host)[0] == 200, host
        assert self.get("/", "[fd00:0:0:1::6]")[0] == 421

    def test_it_answers_to_no_other_name(self) -> None:
        for host in (
            "evil.example",
            "localhost.evil.example",
            "192.168.1.4",
            "",
            "[::2]",
            "a:b:c",
            "[127.0.0.1]evil.example",
            "[::1]evil.example",
            "[::1",
            "[127.0.0.1]",
            "[localhost]",
            "localhost:evil.example",
            "localhost:80@evil.example",
            "localhost\r\nHost: localhost",
        ):
            assert self.get("/metrics", host)[0] == 421, host

    def test_a_name_that_is_no_text_is_another_name(self) -> None:
        """It was a line in the log of 2 kB, as often as anybody liked."""
        with self.logged() as events:
            said = self.visit().send(b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 421")
        assert events == []

    def test_any_address_but_no_name_where_it_listens_on_all(self) -> None:
        self.site = self.make_site(hosts=("*",))
        assert self.get("/", "192.168.1.4:4647")[0] == 200
        assert self.get("/", "[fd00::4]:4647")[0] == 200
        assert self.get("/", "evil.example")[0] == 421

    def test_a_request_without_a_host_is_turned_away(self) -> None:
        assert self.visit().send(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 421")

    def test_an_idle_connection_is_closed(self) -> None:
        visit = self.visit()
        visit.send(b"GET / HTTP/1.1\r\n")
        self.clock.advance(page.IDLE_S + 1)
        assert visit.transport.disconnecting

    def test_a_connection_carries_one_request(self) -> None:
        """However many came with it: all in one turn of the reactor would stop everybody."""
        visit = self.visit()
        said = visit.send(GET * 1400)
        assert said.count(b"HTTP/1.1 200 OK") == 1
        assert b"\r\nConnection: close\r\n" in said
        assert visit.transport.disconnecting

    def test_with_a_body_too(self) -> None:
        head = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
        assert self.visit().send((head + b"abc") * 1400).count(b"HTTP/1.1 405") == 1

    def test_a_line_that_goes_on_with_another_ends_the_connection(self) -> None:
        """Each would copy all before it: 30 ms for 16,000 of them."""
        visit = self.visit()
        visit.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n \r\n")
        assert visit.transport.disconnecting

    def test_a_length_of_thousands_of_digits_ends_the_connection(self) -> None:
        """And is no line in the log."""
        visit = self.visit()
        with self.logged() as events:
            visit.send(b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
        assert visit.transport.disconnecting
        assert events == []

    def test_endless_headers_end_the_connection(self) -> None:
        visit = self.visit()
        visit.send(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 70_000)
        assert visit.transport.disconnecting

    def test_a_large_body_ends_the_connection(self) -> None:
        declared, streamed = self.visit(), self.visit()
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
        declared.send(head + b"Content-Length: 10000000\r\n\r\n")
        streamed.send(head + b"Transfer-Encoding: chunked\r\n\r\n2000\r\n" + b"x" * 0x2000)
        assert declared.transport.disconnecting
        assert streamed.transport.disconnecting

    def test_a_small_body_is_thrown_away(self) -> None:
        raw = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
        assert self.visit().send(raw).startswith(b"HTTP/1.1 405")

    def test_of_too_many_connections_the_oldest_make_room(self) -> None:
        visits = [self.visit() for _ in range(page.CONNECTIONS_MAX + 3)]
        gone = [visit.transport.disconnecting for visit in visits]
        assert gone == [True] * 3 + [False] * page.CONNECTIONS_MAX
        assert visits[-1].send(GET).startswith(b"HTTP/1.1 200")

    def test_a_closed_connection_makes_room(self) -> None:
        visits = [self.visit() for _ in range(page.CONNECTIONS_MAX - 1)]
        Visit(self.site, self.clock).lose()
        assert self.visit() not in visits


def test_nothing_in_the_status_becomes_markup() -> None:
    html = rendered(STATUS, metrics().activity, NOW_S)
    assert "<script" not in html
    assert "<b>&</b>" not in html
    assert "/mnt/usb &lt;b&gt;&amp;&lt;/b&gt;" in html
    assert "<i>" not in message("<i>", "<i>")


def test_the_page_asks_nobody_else_for_anything() -> None:
    html = rendered(STATUS, metrics().activity, NOW_S)
    for word in ("http://", "https://", " style=", " onload", "javascript:"):
        assert word not in html


@pytest.mark.parametrize(
    ("allocated_bytes", "drift_bytes", "words"),
    [
        *((0, 0, "not been compared"), (9, 0, "disk agree")),
        *((9, 4096, "disk agree"), (9, -4096 * 40, "differ by 164 kB")),
    ],
)
def test_it_says_whether_ledger_and_disk_agree(allocated_bytes, drift_bytes, words) -> None:
    """A few blocks are maps of extents, which no owner need look into."""
    volume = replace(ATTIC, allocated_bytes=allocated_bytes, drift_bytes=drift_bytes)
    assert words in rendered(replace(STATUS, volumes=(volume,)), metrics().activity, NOW_S)


@pytest.mark.parametrize(
    ("scrub", "words"),
    [
        (None, "not known"),
        (ScrubStatus(), "not yet"),
        (ScrubStatus(ended_at_ms=1_000_000_000_000, checked=1), "2001-09-"),
        (ScrubStatus(ended_at_ms=1_000_000_000_000), "not yet"),
        (ScrubStatus(state="paused"), "paused 0"),
    ],
)
def test_it_says_when_all_was_read_again_if_that_is_known(
    scrub: ScrubStatus | None, words: str
) -> None:
    volume = replace(ATTIC, scrub=scrub)
    html = rendered(replace(STATUS, volumes=(volume,)), metrics().activity, NOW_S)
    assert re.search(f'data-name="Read through">{words}', html)


def test_it_tells_stored_promised_and_free_apart() -> None:
    """A contract of 4 TB that is nearly empty is no free space, and not stored either."""
    html = rendered(replace(STATUS, promised_bytes=4 * 10**12), metrics().activity, NOW_S)
    assert "1.54 TB <small>stored of 4 TB</small>" in html
    assert "4 TB promised · 823 GB free" in html
    assert "<dt>Promised by contracts and open invites</dt><dd>4 TB</dd>" in html


def test_who_has_no_renter_yet_is_told_how_to_get_one() -> None:
    """A page of zeros leads nowhere; the one of a farmer with renters needs no such line."""
    empty = replace(STATUS, contracts=((ContractStage.ACTIVE, 0),), open_invites=0)
    hint = "<code>farmer invite --space SIZE --for 90d</code>"
    assert rendered(empty, metrics().activity, NOW_S).count(hint) == 1
    invited, not_counted_yet = replace(empty, open_invites=1), replace(empty, contracts=())
    for status in (STATUS, invited, not_counted_yet):
        assert hint not in rendered(status, metrics().activity, NOW_S)


def test_on_a_phone_no_line_ends_within_a_fact() -> None:
    """Else "free" stands alone below its number."""
    html = view.page(replace(STATUS, promised_bytes=4 * 10**12), metrics().activity, NOW_S)
    assert "4\u00a0TB\u00a0promised · 823\u00a0GB\u00a0free" in html


def test_what_to_type_stands_below_what_an_alert_says() -> None:
    """They may end without a full stop: a command behind them would run into them."""
    alert = Alert(
        name="VolumeGone", since_ms=0, message="not mounted", command="farmer volume list"
    )
    html = rendered(replace(STATUS, alerts=(alert,)), metrics().activity, NOW_S)
    assert "<div>Type: <code>farmer volume list</code></div></div></section>" in html


def test_it_claims_no_end_in_order_at_the_first_start() -> None:
    ends = [
        rendered(replace(STATUS, **how), metrics().activity, NOW_S)
        for how in ({"first_start": True}, {"clean_start": True}, {"clean_start": False})
    ]
    assert ["none: this is the first run" in html for html in ends] == [True, False, False]
    assert ["<dd>in order" in html for html in ends] == [False, True, False]


def test_it_names_settings_that_wait_for_a_restart() -> None:
    html = rendered(replace(STATUS, waiting=("listen.page",)), metrics().activity, NOW_S)
    assert "<dt>Settings that wait for a restart</dt><dd><code>listen.page</code></dd>" in html
    assert "wait for a restart" not in rendered(STATUS, metrics().activity, NOW_S)


def test_it_does_not_say_what_nobody_checked() -> None:
    """Whether renters outside reach it is not known here."""
    html = rendered(replace(STATUS, state=NodeState.RUNNING), metrics().activity, NOW_S)
    assert "Running, everything in order" in html
    assert "Online" not in html


@pytest.mark.parametrize("state", list(NodeState))
def test_every_state_has_words(state: NodeState) -> None:
    bare = replace(STATUS, state=state, volumes=(), alerts=(), contracts=(), name="", listen=())
    assert "<h1>00010203</h1>" in rendered(bare, metrics().activity, NOW_S)


def test_a_farmer_without_an_address_says_what_to_set() -> None:
    """Where it listens, `[::]` for one, is no place where renters could call."""
    nowhere = replace(STATUS, announce=(), listen=("[::]:4646",))
    html = rendered(nowhere, metrics().activity, NOW_S)
    assert "<dt>Renters reach it at</dt><dd>no address is known: set announce</dd>" in html


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"state": VolumeState.HEALTHY}, "not there on the disks now"),
        ({"state": VolumeState.FULL}, "not there on the disks now"),
        ({"state": VolumeState.GONE}, "on volumes that take nothing now"),
        ({"state": VolumeState.READ_ONLY}, "on volumes that take nothing now"),
        ({"state": VolumeState.FAILING}, "on volumes that take nothing now"),
        ({"state": VolumeState.HEALTHY, "draining": True}, "on volumes that are being emptied"),
        ({"state": VolumeState.READ_ONLY, "draining": True}, "on volumes that are being emptied"),
        ({"state": VolumeState.GONE, "draining": True}, "on volumes that take nothing now"),
    ],
)
def test_what_is_offered_and_not_free_has_its_cause(how, words: str) -> None:
    """A volume that has more than its quota takes nothing of it away."""
    over = replace(ATTIC, quota_bytes=1, free_bytes=0)
    volume = replace(ATTIC, free_bytes=0, **how)
    html = rendered(replace(STATUS, volumes=(over, volume)), metrics().activity, NOW_S)
    causes = re.findall(r"<span>Offered,? (?:but )?([^<]+)</span><b>([^<]+)</b>", html)
    assert causes == [(words, "823 GB")]


def test_what_is_stored_beyond_a_quota_that_was_lowered_is_named() -> None:
    """Or the parts come to more than the whole, and nobody knows why."""
    over = replace(ATTIC, quota_bytes=10**12, free_bytes=0)
    html = rendered(replace(STATUS, volumes=(over, ATTIC)), metrics().activity, NOW_S)
    assert "177 GB of this are more than the quotas allow." in html
    assert "the quotas allow" not in rendered(STATUS, metrics().activity, NOW_S)


def test_a_volume_that_is_leaving_says_so_beside_its_state() -> None:
    volume = replace(ATTIC, draining=True)
    html = rendered(replace(STATUS, volumes=(volume,)), metrics().activity, NOW_S)
    assert ">healthy, leaving</span>" in html


def test_no_line_ends_inside_a_size() -> None:
    html = view.page(STATUS, metrics().activity, NOW_S)
    assert re.findall(r"\d (?:[kMGT]?B)\b", html) == []


def test_nothing_is_missing_from_a_volume_that_is_well() -> None:
    html = rendered(replace(STATUS, volumes=(ATTIC,)), metrics().activity, NOW_S)
    assert "Offered" not in html


def test_the_reason_of_a_volume_stands_in_a_row_of_its_own() -> None:
    """Beside the figures it would push them out of the window, as long as it is."""
    work = VolumeWork(verb="drain", left_shards=3, left_bytes=10**9, problem="no room")
    html = rendered(
        replace(STATUS, volumes=(replace(USB, work=work), ATTIC)), metrics().activity, NOW_S
    )
    [reason] = re.findall(r'<tr class="why"><td colspan="8">(.*?)</td></tr>', html)
    assert reason.startswith("its marker is missing: is the disk mounted?; drain: 3 shards")
    assert len(re.findall('<th scope="col"', html)) == 8


@pytest.mark.parametrize(("left", "words"), [(3, "left, about"), (2, "damaged: they")])
def test_no_end_is_promised_where_only_damaged_shards_are_left(left: int, words: str) -> None:
    work = VolumeWork(
        verb="drain", left_shards=left, damaged=2, left_bytes=10**9, bytes_per_s=10.0**6
    )
    html = rendered(replace(STATUS, volumes=(replace(USB, work=work),)), metrics().activity, NOW_S)
    assert words in html
    assert ("left, about" in html) is (left == 3)


def test_an_emptying_that_does_not_go_on_promises_no_end_and_says_what_helps() -> None:
    work = VolumeWork(
        verb="drain",
        left_shards=3,
        left_bytes=10**9,
        bytes_per_s=10.0**6,
        problem="67158400 bytes wanted, 48773668 available",
        wanted_bytes=67_158_400,
        available_bytes=48_773_668,
    )
    html = rendered(replace(STATUS, volumes=(replace(USB, work=work),)), metrics().activity, NOW_S)
    assert "3 shards, 1 GB left (67.2 MB are wanted, no other volume has more than 48.8 MB" in html
    assert "left, about" not in html


def test_audits_of_what_is_not_held_are_no_failures() -> None:
    """A renter may erase a shard, and ask for it as often as it likes."""
    counted = metrics()
    assert "not held" not in rendered(STATUS, counted.activity, NOW_S)
    for result in ("ok", "ok", *["missing"] * 13):
        counted.audited(result, 0.01)
    html = rendered(STATUS, counted.activity, NOW_S)
    assert "100\u202f%" in html
    assert "2 passed · 0 failed · 13 of shards not held" in html


def test_what_reloads_by_itself_interrupts_nobody() -> None:
    """A screen reader would say every alert again each time."""
    html = rendered(STATUS, metrics().activity, NOW_S)
    assert 'role="alert"' not in html
    assert '<div class="wide" tabindex="0" role="region" aria-label="Volumes">' in html
