"""What two well-known scanners say of a running farmer's port, and which key exchange is ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from OpenSSL import SSL

from farmer.identity.keys import Identity
from farmer.identity.tls import farmer_side, renter_side
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.alone

CIPHERS = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

ALLOWED = {
    # Of the scanner itself: its own OpenSSL cannot speak TLS 1.3, so it leaves some tests out.
    "scanProblem": "Client problem: We need openssl supporting TLS 1.3",
}
"""Findings of testssl worse than INFO, and how they begin.  The certificate is not looked at
by it for the same reason; what it would say is what follows from pinning: self-signed, no
name, no revocation, no end.  Nothing else may be added without a reason beside it."""

X25519MLKEM768 = 0x11EC
"""The hybrid group of draft-ietf-tls-ecdhe-mlkem."""


@pytest.fixture
def address(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Daemon(tmp_path / "home", tmp_path / "volume") as farmer:
        farmer.start()
        yield farmer.status()["listen"][0]


@pytest.mark.slow
@pytest.mark.tool("sslscan")
def test_sslscan_sees_tls_1_3_and_a_certificate_that_is_pinned(address: str) -> None:
    """No older protocol, no weak cipher, no compression, no renegotiation, Ed25519."""
    told = subprocess.run(
        ["sslscan", "--no-colour", address], check=True, capture_output=True, text=True, timeout=90
    ).stdout
    protocols = dict(re.findall(r"(?m)^((?:SSL|TLS)v\S+) +(enabled|disabled)$", told))
    assert {name for name, state in protocols.items() if state == "enabled"} == {"TLSv1.3"}
    assert set(protocols) >= {"SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2"}
    assert set(re.findall(r"(?:Preferred|Accepted) +TLSv1.3 +\d+ bits +(\S+)", told)) == CIPHERS
    assert "Session renegotiation not supported" in told
    assert "Signature Algorithm: ED25519" in told
    assert "vulnerable to heartbleed" in told
    assert not re.search(r"(?m)^TLSv\S+ vulnerable", told)


@pytest.mark.slow
@pytest.mark.tool("testssl")
def test_testssl_finds_nothing_worse_than_is_allowed(address: str, tmp_path: Path) -> None:
    """Every finding is OK or INFO, but for what stands in the list with its reason.

    What testssl calls WARN is no finding: it could not make one of its own tests.  Such a scan
    says nothing of the port and is made again.
    """
    for attempt in range(3):
        findings = scan(address, tmp_path / f"report-{attempt}.json")
        if not any(one["severity"] == "WARN" for one in worse_than_allowed(findings)):
            break
    assert len(findings) > 35, findings
    bad = [
        f"{one['severity']} {one['id']}: {one['finding']}" for one in worse_than_allowed(findings)
    ]
    assert not bad, "\n".join(bad)
    assert {"id": "TLS1_3", "severity": "OK"}.items() <= next(
        one for one in findings if one["id"] == "TLS1_3"
    ).items()


def scan(address: str, report: Path) -> list[dict[str, str]]:
    """Return testssl's findings of the port at ``address``."""
    subprocess.run(
        [
            *("testssl", "--quiet", "--color", "0", "--warnings", "off"),
            *("-p", "-S", "-f", "-U", "-s", "--jsonfile", str(report), address),
        ],
        check=False,
        capture_output=True,
        timeout=400,
        stdin=subprocess.DEVNULL,
        # It looks for an engine with Russian ciphers in the machine's openssl, and else warns.
        env={**os.environ, "NO_ENGINE": "true"},
    )
    findings: list[dict[str, str]] = json.loads(report.read_text())
    return findings


def worse_than_allowed(findings: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the findings that are neither harmless nor in the list of `ALLOWED`."""
    return [
        one
        for one in findings
        if one["severity"] not in {"OK", "INFO", "DEBUG"}
        and not one["finding"].startswith(ALLOWED.get(one["id"], "\0"))
    ]


def test_our_two_ends_agree_on_a_post_quantum_key_exchange(tmp_path: Path) -> None:
    """Client and farmer negotiate X25519MLKEM768, by OpenSSL's word and by the bytes."""
    farmer = farmer_side(Identity.create(tmp_path / "farmer")).serverConnectionForTLS(None)
    renter = renter_side(Identity.create(tmp_path / "renter")).clientConnectionForTLS(None)
    hello = b""
    for _ in range(6):
        for mine, other in ((renter, farmer), (farmer, renter)):
            with contextlib.suppress(SSL.WantReadError):
                mine.do_handshake()
            try:
                sent = mine.bio_read(1 << 16)
            except SSL.WantReadError:
                continue
            if mine is farmer and not hello:
                hello = sent
            other.bio_write(sent)
    assert renter.get_group_name() == "X25519MLKEM768"
    assert server_group(hello) == X25519MLKEM768


def server_group(flight: bytes) -> int:
    """Return the group of the key share in a ServerHello (RFC 8446, 4.1.3 and 4.2.8)."""
    assert flight[0] == 22 and flight[5] == 2, "not a ServerHello"
    at = 5 + 4 + 2 + 32
    at += 1 + flight[at] + 2 + 1
    end = at + 2 + int.from_bytes(flight[at : at + 2], "big")
    at += 2
    while at < end:
        kind, length = struct.unpack_from(">HH", flight, at)
        if kind == 51:
            group: int = struct.unpack_from(">H", flight, at + 4)[0]
            return group
        at += 4 + length
    raise AssertionError("no key share")
