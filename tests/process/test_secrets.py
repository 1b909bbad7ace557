"""Nothing that a running farmer shows to others says what only it may know."""

from __future__ import annotations

import base64
import re
import urllib.request
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.e2e.daemon import Daemon, Renter


def secrets_of(home: Path) -> list[str]:
    """Return the farmer's private key in every way in which it might be written."""
    texts = []
    for path in home.rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in (pem := path.read_bytes()):
            key = load_pem_private_key(pem[pem.index(b"-----BEGIN") :], None)
            raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            texts += [raw.hex(), base64.b64encode(raw).decode().rstrip("=")]
            texts += [line for line in pem.decode().splitlines() if len(line) > 40]
    assert texts, "where is the key?"
    return texts


@pytest.mark.slow
def test_no_secret_in_process_list_log_metrics_status_or_page(tmp_path: Path) -> None:
    """Key and invites are in none of them, after a farmer has worked for a renter."""
    with Daemon(tmp_path / "home", tmp_path / "volume") as farmer:
        farmer.start()
        invites = [farmer.invite(), farmer.invite("1MB")]
        renter = Renter(tmp_path / "renter")
        renter.join(invites[0])
        (tmp_path / "file").write_bytes(bytes(5000))
        assert renter.store(tmp_path / "file")[0]["stored"]
        page = f"http://{farmer.status()['page']}"
        shown = [farmer.logs.read_text(), str(farmer.status())]
        for path in ("/metrics", "/status.json", "/"):
            with urllib.request.urlopen(page + path, timeout=10) as answer:
                shown.append(answer.read().decode())
        assert farmer.process is not None
        of_process = Path(f"/proc/{farmer.process.pid}")
        shown += [(of_process / name).read_bytes().decode() for name in ("cmdline", "environ")]
        text = "\n".join(shown)
        for secret in secrets_of(tmp_path / "home"):
            assert secret not in text
        for invite in invites:
            assert re.split(r"[/]", invite)[-1] not in text
