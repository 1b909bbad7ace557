"""What can be done with TLS itself: certificates, old versions, floods of key updates."""

from __future__ import annotations

import ctypes
import ctypes.util
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from farmer.identity.records import SILENT_RECORDS_MAX, RecordTLS
from farmer.node.ports import CloseReason
from farmer.protocol.limits import VERSION_MAX, VERSION_MIN
from farmer.protocol.messages import encode
from farmer.protocol.opening import Hello
from farmer.protocol.types import Type
from tests.e2e.test_node_tls import pem_of, wide_pem
from tests.hostile.base import HostileCase
from tests.identity.test_tls import certificate_for
from tests.needs import lack

pytestmark = pytest.mark.alone

KEY_UPDATE_REQUESTED = 1


def p256_pem() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return pem_of(key, [certificate_for(key, algorithm=SHA256())])


def rsa_pem(bits: int) -> bytes:
    key = rsa.generate_private_key(65537, bits)
    return pem_of(key, [certificate_for(key, algorithm=SHA256())])


def chain_pem(length: int) -> bytes:
    key = Ed25519PrivateKey.generate()
    others = [certificate_for(Ed25519PrivateKey.generate(), name=f"n{n}") for n in range(length)]
    return pem_of(key, [certificate_for(key), *others])


class CertificateTests(HostileCase):
    def show(self, pem: bytes) -> bool:
        """Try a handshake with this certificate; return whether a byte came back."""
        path = self.home / "shown.pem"
        path.write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(path)
        try:
            with self.dial() as raw, context.wrap_socket(raw) as shown:
                return bool(shown.recv(1))
        except (ConnectionError, ssl.SSLError):
            return False

    async def test_only_one_small_ed25519_certificate_is_listened_to(self) -> None:
        """Limits: CERTIFICATE_BYTES_MAX, one certificate, Ed25519; OpenSSL's 100 KiB for all."""
        shown = {
            "P-256": p256_pem(),
            "RSA 2048": rsa_pem(2048),
            "RSA 4096": rsa_pem(4096),
            "wide": wide_pem(),
            "a chain of 2": chain_pem(1),
            "a chain of 100": chain_pem(100),
            "a chain beyond 100 KiB": chain_pem(500),
        }
        for name, pem in shown.items():
            self.assertFalse(await self.in_thread(lambda pem=pem: self.show(pem)), name)
        await self.until(lambda: len(self.meter.closed) == len(shown))
        allowed = {CloseReason.CERTIFICATE.value, CloseReason.TLS.value}
        self.assertLessEqual(set(self.meter.closed), allowed)
        self.assertEqual(sorted(self.meter.closed), sorted(self.meter.handshakes))

    async def test_older_tls_is_no_tls(self) -> None:
        """Nothing before 1.3, so no renegotiation, no compression, no session to resume."""

        def old() -> str:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(
                self.home / "honest" / "identity.crt", self.home / "honest" / "identity.key"
            )
            try:
                with self.dial() as raw, context.wrap_socket(raw):
                    return "let in"
            except (ConnectionError, ssl.SSLError) as error:
                return str(error)

        self.assertNotEqual("let in", await self.in_thread(old))
        await self.until(lambda: self.meter.closed == [CloseReason.TLS.value])

    async def test_no_session_is_resumed(self) -> None:
        """Each connection proves its key anew."""

        def talk() -> list[bool]:
            first = self.call()
            first.hello()
            session = first.socket.session
            first.socket.close()
            context = first.socket.context
            with self.dial() as raw, context.wrap_socket(raw, session=session) as again:
                return [again.session_reused]

        self.assertEqual([False], await self.in_thread(talk))


def libssl() -> ctypes.CDLL:
    """Return the system's OpenSSL, which the standard library does not let us misuse."""
    name = ctypes.util.find_library("ssl")
    if name is None:
        lack("libssl")
    library = ctypes.CDLL(name)
    for function in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(library, function).restype = ctypes.c_void_p
    return library


class KeyUpdater:
    """A TLS client that can ask for new keys as often as it likes."""

    def __init__(self, home: Path, raw: socket.socket) -> None:
        self.lib = libssl()
        pointer = ctypes.c_void_p
        context = pointer(self.lib.SSL_CTX_new(pointer(self.lib.TLS_client_method())))
        pem = 1
        assert self.lib.SSL_CTX_use_certificate_file(
            context, str(home / "identity.crt").encode(), pem
        )
        assert self.lib.SSL_CTX_use_PrivateKey_file(
            context, str(home / "identity.key").encode(), pem
        )
        self.ssl = pointer(self.lib.SSL_new(context))
        raw.settimeout(None)
        assert self.lib.SSL_set_fd(self.ssl, raw.fileno())
        assert self.lib.SSL_connect(self.ssl) == 1

    def flood(self, updates: int) -> int:
        """Send so many key updates that ask for one in return; return how many went out."""
        for sent in range(updates):
            self.lib.SSL_key_update(self.ssl, KEY_UPDATE_REQUESTED)
            if self.lib.SSL_do_handshake(self.ssl) != 1:
                return sent
        return updates

    def say(self, data: bytes) -> None:
        assert self.lib.SSL_write(self.ssl, data, len(data)) == len(data)

    def hear(self) -> bytes:
        """Return what comes next."""
        room = ctypes.create_string_buffer(4096)
        size_bytes = self.lib.SSL_read(self.ssl, room, len(room))
        return room.raw[: max(0, size_bytes)]


class KeyUpdateTests(HostileCase):
    async def test_a_flood_of_key_updates_is_cut_off(self) -> None:
        """Limit: SILENT_RECORDS_MAX: each costs an answer, and has no place among requests."""

        def talk() -> tuple[float, int]:
            began_s, sent = time.monotonic(), 0
            with self.dial() as raw:
                updater = KeyUpdater(self.home / "honest", raw)
                while (some := updater.flood(500)) and time.monotonic() - began_s < 20:
                    sent += some
            return time.monotonic() - began_s, sent

        taken = []
        handle = RecordTLS._count_silent

        def counted(tls: RecordTLS, records: int) -> None:
            taken.append(records)
            handle(tls, records)

        self.patch(RecordTLS, "_count_silent", counted)
        lasted_s, sent = await self.in_thread(talk)
        await self.until(lambda: bool(self.meter.closed))

        self.assertEqual([CloseReason.TLS.value], self.meter.closed)
        self.assertGreater(sent, SILENT_RECORDS_MAX)
        self.assertLessEqual(sum(taken), 3 * SILENT_RECORDS_MAX)
        self.assertLess(lasted_s, 10)
        await self.serve_honest()

    async def test_who_changes_keys_now_and_then_is_served(self) -> None:
        def talk() -> bytes:
            with self.dial() as raw:
                updater = KeyUpdater(self.home / "honest", raw)
                assert updater.flood(SILENT_RECORDS_MAX // 2) == SILENT_RECORDS_MAX // 2
                updater.say(encode(Hello(VERSION_MIN, VERSION_MAX, "a renter")))
                return updater.hear()

        self.assertEqual(Type.WELCOME, (await self.in_thread(talk))[0])


@pytest.mark.tool("openssl")
def test_the_openssl_that_is_asked_for_here_knows_tls_1_3() -> None:
    """Else the tests of this file would prove nothing."""
    assert shutil.which("openssl") and ssl.HAS_TLSv1_3
    shown = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("OpenSSL ")
