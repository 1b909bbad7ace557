"""An identity is a key: one Ed25519 key on disk, and the certificate that shows it to peers."""

from __future__ import annotations

import datetime
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from farmer.identity.signing import node_id_of_key
from farmer.model.ids import NodeId

KEY_FILE: Final = "identity.key"
CERTIFICATE_FILE: Final = "identity.crt"

_KEY_FILE_BYTES_MAX: Final = 4096
"""Ours has 119 bytes; something larger is not ours and is not read whole."""

# Nobody looks at names or dates (farmer.identity.tls): fixed ones make the certificate a
# function of the key and keep a wrong clock out of it.
_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "farmer")])
_FROM: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


class IdentityError(Exception):
    """The identity on disk cannot be used or made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are.  Signs documents (`farmer.identity.signing.Signer`) and TLS handshakes."""

    private_key: Ed25519PrivateKey = field(repr=False, compare=False)
    certificate: x509.Certificate = field(repr=False)
    public_key: bytes = field(repr=False)
    """The raw Ed25519 public key, 32 bytes."""
    node_id: NodeId

    @classmethod
    def of_key(cls, private_key: Ed25519PrivateKey) -> Self:
        """Return the identity of a key, with a certificate for it; nothing is written."""
        return cls._with_certificate(private_key, _certificate_of(private_key))

    @classmethod
    def create(cls, directory: Path) -> Self:
        """
        Make a new identity, durably, in *directory* (made with 0700 if it is missing).

        Raises:
            IdentityError: one is there already, or the directory cannot be written.

        """
        if not _made_key(directory):
            raise IdentityError(
                f"{directory / KEY_FILE} exists already and is never overwritten; "
                "move it away to begin a new identity"
            )
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """
        Read the identity in *directory*; a missing certificate is made again from the key.

        Raises:
            IdentityError: missing, damaged, or readable by others.

        """
        key_file, certificate_file = directory / KEY_FILE, directory / CERTIFICATE_FILE
        private_key = _read_key(key_file)
        try:
            if not certificate_file.exists():
                # Who makes one in the same moment makes the same.
                with suppress(FileExistsError):
                    _write_new(certificate_file, _certificate_pem(_certificate_of(private_key)))
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        except (OSError, ValueError) as error:
            raise IdentityError(
                f"cannot use {certificate_file}: {error}; it can be removed, "
                f"a new one is made from {KEY_FILE}"
            ) from error
        if certificate.public_key() != private_key.public_key():
            raise IdentityError(
                f"{certificate_file} does not belong to {KEY_FILE}; remove it, "
                "a new one is made from the key"
            )
        return cls._with_certificate(private_key, certificate)

    @classmethod
    def load_or_create(cls, directory: Path) -> Self:
        """
        Read the identity in *directory*, or make one if there is none; see both.

        Of several programs that find none at the same time one makes it, and all have the same.
        """
        # In this order: whoever is just making one writes the certificate after the key.
        is_shown = (directory / CERTIFICATE_FILE).exists()
        if (directory / KEY_FILE).exists():
            return cls.load(directory)
        if is_shown:
            raise IdentityError(
                f"{directory} holds {CERTIFICATE_FILE} but no {KEY_FILE}: bring the key back "
                "from a backup, or remove the certificate to begin a new identity"
            )
        _made_key(directory)
        return cls.load(directory)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of *message*."""
        return self.private_key.sign(message)

    @classmethod
    def _with_certificate(cls, private_key: Ed25519PrivateKey, shown: x509.Certificate) -> Self:
        raw = private_key.public_key().public_bytes_raw()
        return cls(private_key, shown, raw, node_id_of_key(raw))


def _certificate_of(private_key: Ed25519PrivateKey) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(private_key.public_key())
        .serial_number(1)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
    )
    return builder.sign(private_key, None)


def _key_pem(private_key: Ed25519PrivateKey) -> bytes:
    return private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _made_key(directory: Path) -> bool:
    """Make a key in *directory*, durably, unless one is there; return whether it was made."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = _key_pem(Ed25519PrivateKey.generate())
        try:
            _write_new(directory / KEY_FILE, pem)
        except FileExistsError:
            return False
    except OSError as error:
        raise IdentityError(f"cannot write the identity into {directory}: {error}") from error
    return True


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(_KEY_FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise IdentityError(f"there is no identity: {path} is missing") from error
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise IdentityError(
            f"{path} is the private key and others may read it; type: chmod 600 {path}"
        )
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError(
            f"{path} is damaged or not a key of ours: bring it back from a backup"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path} is not an Ed25519 key: bring ours back from a backup")
    return key


def _write_new(path: Path, content: bytes) -> None:
    """Make *path* appear whole and durable, readable by us only; never over another file."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A rename would replace what another process has just made; a link refuses to.
        os.link(draft, path)
    finally:
        Path(draft).unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
