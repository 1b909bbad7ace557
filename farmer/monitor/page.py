"""
The owner's HTTP port: status page, metrics, health, status document.

Read only and without a password, so it keeps to itself: it answers only to names it knows
(a stranger's web page cannot point its own name at us and read: DNS rebinding), takes no
bodies, loads nothing from elsewhere, and says in no header which versions run.

Renters are served by the same reactor, so whoever may call it, any user of this machine, can
have little done in one of its turns: a connection carries one request, is read a little at a
time, and what is dear is made a few times a second at most.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Sequence
from io import BytesIO
from typing import Any, Final, cast

from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web import http, resource, server

from farmer.model.status import NodeState, NodeStatus
from farmer.monitor.look import STYLE
from farmer.monitor.metrics import Metrics
from farmer.monitor.status import status_document
from farmer.monitor.view import message, page

IDLE_S: Final = 20.0
"""A connection on which nothing comes is closed: a request is sent at once."""

AGE_S: Final = 300.0
"""Each byte begins the idle time anew, so a connection ends at this age."""

CONNECTIONS_MAX: Final = 64
"""A browser uses six, Prometheus one; when somebody holds all, the oldest makes room."""

READ_BYTES: Final = 1024
"""
Read of a connection in one turn: most requests are shorter.

Tiny lines cost more the more of them come at once: 64 KiB of them 30 ms, and as much on each.
"""

KEPT_S: Final = 0.25
"""To write all metrics takes 5 ms; who asks again within this time is given the same text."""

BODY_BYTES_MAX: Final = 4096
"""Nothing here reads a body; a small one is thrown away, a larger one ends the connection."""

HEADERS: Final = {
    "Server": "farmer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

WRONG_NAME: Final = (
    "The farmer does not answer to the host name in this page's address, so that no other web "
    "page can read this one under a name of its own. Open it by the address in the "
    "setting listen.page; if that is 0.0.0.0 or [::], by any address of this machine. If the name "
    "is yours, it can stand there instead, as in nas.lan:4647, after a restart: the farmer then "
    "listens only where that name leads."
)

HTML: Final = "text/html; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"
EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"

Answer = tuple[int, str, bytes]
"""HTTP status, content type, body."""


class StatusPage(resource.Resource):
    """
    Everything under the page's address.

    Args:
        status: the farmer as it is now.
        metrics: for the exposition and for what was done since the start.
        now_s: wall clock, Unix seconds.
        lived_s: monotonic seconds.
        hosts: names and addresses, beside loopback, under which the owner calls this page;
            `*` for any address (never any name).

    """

    isLeaf = True

    def __init__(
        self,
        status: Callable[[], NodeStatus],
        metrics: Metrics,
        now_s: Callable[[], float],
        lived_s: Callable[[], float],
        hosts: Collection[str] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped there
        self._status = status
        self._metrics = metrics
        self._now_s = now_s
        self._lived_s = lived_s
        self._hosts = frozenset(host.lower().strip("[]") for host in hosts)
        self._routes: dict[bytes, Callable[[], Answer]] = {
            b"/": self._page,
            b"/style.css": lambda: (200, "text/css; charset=utf-8", STYLE.encode()),
            b"/metrics": self._exposition,
            b"/healthz": lambda: (200, TEXT, b"alive\n"),
            b"/readyz": self._ready,
            b"/status.json": self._document,
        }
        self._exposed = b""
        self._exposed_until_s = lived_s()

    def render(self, request: server.Request) -> bytes:
        """Answer one request."""
        code, kind, body = self._answer(request)
        request.setResponseCode(code)
        headers = {**HEADERS, "Content-Type": kind}
        if code == http.NOT_ALLOWED:
            headers["Allow"] = "GET, HEAD"
        if request.method == b"HEAD":
            # Only its length: Twisted sends no body either, but logs that it was given one.
            headers["Content-Length"] = str(len(body))
            body = b""
        for name, value in headers.items():
            request.responseHeaders.setRawHeaders(name, [value])
        return body

    def _answer(self, request: server.Request) -> Answer:
        if not self._knows(request.requestHeaders.getRawHeaders(b"Host", [])):
            return 421, HTML, message("Wrong name", WRONG_NAME, leads_on=False).encode()
        if request.method not in (b"GET", b"HEAD"):
            return _sorry(405, "Only for reading", "This page can be read, nothing else.")
        route = self._routes.get(request.path)
        if route is None:
            return _sorry(404, "Not here", "There is no such page.")
        return route()

    def _knows(self, headers: Sequence[bytes]) -> bool:
        host = _host_of(headers[0]) if len(headers) == 1 else ""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in self._hosts or host == "localhost"
        # Of its many spellings the known one is the usual one.
        return str(address) in self._hosts or address.is_loopback or "*" in self._hosts

    def _page(self) -> Answer:
        return 200, HTML, page(self._status(), self._metrics.activity, self._now_s()).encode()

    def _exposition(self) -> Answer:
        if self._lived_s() >= self._exposed_until_s:
            self._exposed = self._metrics.exposition()
            self._exposed_until_s = self._lived_s() + KEPT_S
        return 200, EXPOSITION, self._exposed

    def _ready(self) -> Answer:
        state = self._status().state
        serving = state in (NodeState.RUNNING, NodeState.DEGRADED)
        return 200 if serving else 503, TEXT, f"{state.value}\n".encode()

    def _document(self) -> Answer:
        document = status_document(self._status(), self._metrics.activity)
        return 200, "application/json", json.dumps(document, indent=2).encode() + b"\n"


class _Request(server.Request):
    """A request whose body is thrown away, and which never reaches a temporary file."""

    _body_bytes = 0

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802 - twisted's name
        """Take a request that is complete; what stands behind its `?` is for nobody here."""
        # To take 16 KiB of that apart lasts 15 ms.  And `*` Twisted would answer by itself,
        # whatever the host, and say its version.
        path = path.partition(b"?")[0]
        super().requestReceived(command, b"/*" if path == b"*" else path, version)  # type: ignore[no-untyped-call]  # untyped there

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - twisted's name
        self.content = BytesIO()
        if length is not None and length > BODY_BYTES_MAX:
            self._hang_up()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - twisted's name
        self._body_bytes += len(data)
        if self._body_bytes > BODY_BYTES_MAX:
            self._hang_up()

    def _hang_up(self) -> None:
        self.channel.loseConnection()  # type: ignore[no-untyped-call]  # untyped there


class _Channel(http.HTTPChannel):
    """
    A connection that carries one request: Twisted would answer all that come with it at once.

    A packet of 64 KiB holds 1,500 of them.  Nor may they come one after another: whoever wants
    the next connects again, and of those who do the port takes one in a turn.
    """

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:  # noqa: N802 - twisted's name
        """Say that no other request may follow."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def lineReceived(self, line: bytes) -> None:
        """Take a line, if it does not go on with the one before (RFC 9112, 5.2)."""
        # Of such lines there may be 16,000, and each copies all that came before it.
        if line[:1] in {b" ", b"\t"}:
            self.loseConnection()  # type: ignore[no-untyped-call]  # untyped there
        else:
            super().lineReceived(line)  # type: ignore[no-untyped-call]  # untyped there

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802 - twisted's name
        """Take a header; false if the connection ends for it."""
        try:
            return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]  # untyped there
        except ValueError:
            # A length of thousands of digits: int() takes none.
            self.loseConnection()  # type: ignore[no-untyped-call]  # untyped there
            return False


class _Site(server.Site):
    """A site without an access log, and so without the clock that serves it."""

    protocol = _Channel  # type: ignore[assignment]  # there it is what may turn to HTTP/2

    def startFactory(self) -> None:  # noqa: N802 - twisted's name
        """Start nothing."""

    def log(self, request: http.Request) -> None:
        """Keep no line per request."""


class _Bounded(WrappingFactory):
    """
    Hangs up on the oldest connections while there are too many.

    Turning the newcomer away instead would let whoever sends one header line now and then on
    each of them lock the owner out.
    """

    def __init__(self, site: server.Site, clock: IReactorTime) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]  # untyped there
        self._clock = clock
        self.protocols: dict[ProtocolWrapper, IDelayedCall] = {}

    def registerProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802 - twisted's name
        """Take a connection in."""
        cast(Any, p.transport).bufferSize = READ_BYTES
        self.protocols[p] = self._clock.callLater(AGE_S, self._hang_up, p)
        if len(self.protocols) > CONNECTIONS_MAX:
            self._hang_up(next(iter(self.protocols)))

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802 - twisted's name
        """Forget one, unless it was hung up on."""
        timer = self.protocols.pop(p, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _hang_up(self, p: ProtocolWrapper) -> None:
        # It is forgotten here and now; its end comes with the reactor's next turn.
        self.unregisterProtocol(p)
        cast(ITCPTransport, p.transport).abortConnection()


def page_site(root: StatusPage, clock: IReactorTime) -> IProtocolFactory:
    """Return the factory to listen with."""
    site = _Site(root, requestFactory=_Request, timeout=IDLE_S, reactor=clock)  # type: ignore[no-untyped-call]  # untyped there
    site.displayTracebacks = False
    bounded = _Bounded(site, clock)
    bounded.noisy = site.noisy = False
    return bounded


def _host_of(header: bytes) -> str:
    """Return the host of a Host header, without port, brackets, capitals; "" if it names none."""
    found = _HOST.fullmatch(header)
    return (found["six"] or found["name"]).decode().lower() if found else ""


_HOST: Final = re.compile(rb"(?:\[(?P<six>[\w.:%]*:[\w.:%]*)\]|(?P<name>[\w.-]+))(?::\d*)?")
"""An IPv6 address in brackets or a name; the port may be missing.  In bytes, all is ASCII."""


def _sorry(code: int, heading: str, text: str) -> Answer:
    return code, HTML, message(heading, text).encode()
