"""
TLS proves who holds which key and hides what is said; it decides nothing else.

Both sides show a self-signed Ed25519 certificate.  There is no authority to ask: names and
dates are ignored, and identity is the key.  The farmer's verify callback lets every certificate
through; who cares reads `peer_id` after the handshake.  The renter's compares the key with the one
that it means: in TLS 1.3 the farmer shows its certificate first, so nobody else sees the renter's.

What must not happen is settled here: nothing older than TLS 1.3 (which has no
renegotiation), no compression, no session is kept or resumed.  A farmer listens to no signature
but Ed25519, and does no key exchange that takes it ten times as long as the usual one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL._util import lib
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from zope.interface import implementer

from farmer.identity.keys import Identity
from farmer.identity.signing import node_id_of_key
from farmer.model.ids import NodeId
from farmer.protocol.limits import CERTIFICATE_BYTES_MAX

# Without a session cache there is nothing that a ticket could bring back.  OP_NO_TICKET
# shrinks the two tickets that OpenSSL sends after a handshake to bare ids (158 bytes); not
# sending them at all is out of pyOpenSSL's reach, so clients read on until the close.
_OPTIONS: Final = SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET

_PARTIAL_WRITE: Final = 0x1
"""OpenSSL's `SSL_MODE_ENABLE_PARTIAL_WRITE`, which pyOpenSSL sets and has no name for."""

_SIGNED_WITH: Final = b"ed25519"
"""
All that a farmer listens to: OpenSSL then refuses whatever else a peer signs with, unread.

Else the peer chooses the arithmetic, and 16,000 bits of RSA take a hundred handshakes' time.
A renter looks at the key before the signature, and has more to say about another kind.
"""

_GROUPS: Final = b"?X25519MLKEM768/?X25519:?secp256r1"
"""
The quick key exchanges, in OpenSSL's own order: a finite field's takes ten times as long.

`?` passes over what OpenSSL was built without.
"""

_GROUPS_BEFORE_3_5: Final = b"X25519:P-256"
"""The same for an OpenSSL without ML-KEM, which does not understand the sign either."""

_MORE_THAN_ONE: Final = "the peer showed more than one certificate"

_Verify = Callable[[SSL.Connection, X509, int, int, int], bool]
"""Asked about each certificate; what it refuses ends the handshake."""


class PeerCertificateError(Exception):
    """The peer shows no certificate that can stand for a node id; says why."""


class TlsTransport(Protocol):
    """What `peer_id` asks of a transport: Twisted's TLS transports have it."""

    def getHandle(self) -> object:  # noqa: N802 - Twisted's name
        """Return the `OpenSSL.SSL.Connection`."""


@implementer(IOpenSSLServerConnectionCreator)
class _FarmerSide:
    """Answers handshakes."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N803
        """Return a fresh connection; `tlsProtocol` is what it will serve."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection


class _RenterConnection(SSL.Connection):
    """Remembers whom it found instead of the farmer that it means."""

    refused: NodeId | PeerCertificateError | None = None


@implementer(IOpenSSLClientConnectionCreator)
class _RenterSide:
    """Begins handshakes."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:  # noqa: N803
        """Return a fresh connection; `tlsProtocol` is what it will serve."""
        connection = _RenterConnection(self._context, None)
        connection.set_connect_state()
        return connection


def farmer_side(identity: Identity) -> IOpenSSLServerConnectionCreator:
    """Return what `twisted.protocols.tls.TLSMemoryBIOFactory` needs to answer handshakes."""
    context = _context(identity, _let_through)
    _leave_out_what_costs(context)
    return _FarmerSide(context)


def renter_side(
    identity: Identity, farmer: NodeId | None = None
) -> IOpenSSLClientConnectionCreator:
    """
    Return what `twisted.protocols.tls.TLSMemoryBIOFactory` needs to begin handshakes.

    With *farmer*, one of anybody else ends before our certificate is shown: see `refused_peer`.
    """
    verify = _let_through if farmer is None else _only(farmer)
    return _RenterSide(_context(identity, verify))


def refused_peer(connection: object) -> NodeId | PeerCertificateError | None:
    """
    Return whom the renter's side found instead of the farmer that it means, if it did.

    *connection* is `TlsTransport.getHandle()`, taken before the connection was lost.
    """
    return cast(_RenterConnection, connection).refused


def peer_id(transport: TlsTransport) -> NodeId:
    """
    Return who is at the other end; call it from `handshakeCompleted` on, not before.

    Raises:
        PeerCertificateError: not exactly one certificate of an Ed25519 key, at most 2048
            bytes long; hang up.

    """
    connection = cast(SSL.Connection, transport.getHandle())
    shown = connection.get_peer_certificate()
    if shown is None:
        raise PeerCertificateError("the peer showed no certificate")
    # A client finds the peer's own certificate at the head of the chain, a server does not.
    chain = connection.get_peer_cert_chain() or []
    if len(chain) > 1 or any(other.digest("sha256") != shown.digest("sha256") for other in chain):
        raise PeerCertificateError(_MORE_THAN_ONE)
    return _node_id(shown)


def is_tls_failure(error: BaseException | None) -> bool:
    """Tell whether a connection was lost because TLS failed, not because somebody left."""
    return isinstance(error, SSL.Error)


def _node_id(shown: X509) -> NodeId:
    try:
        certificate = shown.to_cryptography()
        size, key = len(certificate.public_bytes(Encoding.DER)), certificate.public_key()
    except Exception as error:
        # Two parsers read it; whatever the second one stumbles over, it is the peer's doing.
        raise PeerCertificateError(f"the peer's certificate is malformed: {error}") from error
    if size > CERTIFICATE_BYTES_MAX:
        raise PeerCertificateError(
            f"the peer's certificate has {size} bytes, {CERTIFICATE_BYTES_MAX} allowed"
        )
    if not isinstance(key, Ed25519PublicKey):
        raise PeerCertificateError("the peer's key is not Ed25519")
    return node_id_of_key(key.public_bytes_raw())


def _context(identity: Identity, verify: _Verify) -> SSL.Context:
    # Any: the published types describe a pyOpenSSL that did not take cryptography's objects.
    context: Any = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(_OPTIONS)
    # A quiet connection gives its two buffers of 16 KiB back; most are quiet most of the time.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # Else each call writes one record, however many are given; memory takes them all.
    context.clear_mode(_PARTIAL_WRITE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.private_key)
    # Else it would look at one signature after another of a chain that nobody wants.
    context.set_verify_depth(0)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
    return cast(SSL.Context, context)


def _leave_out_what_costs(context: Any) -> None:  # noqa: ANN401  # see `_context`
    """Allow no more than `_SIGNED_WITH` and `_GROUPS`, which pyOpenSSL has no calls for."""
    if lib.SSL_CTX_set1_sigalgs_list(context._context, _SIGNED_WITH) != 1:  # noqa: SLF001
        raise AssertionError("an OpenSSL with TLS 1.3 has Ed25519")
    # Bindings before cryptography 47 lack it: then the groups are OpenSSL's own.
    choose_groups = getattr(lib, "SSL_CTX_set1_curves_list", None)
    if choose_groups is not None and choose_groups(context._context, _GROUPS) != 1:  # noqa: SLF001
        # Or the next call that fails would be explained by this one.
        lib.ERR_clear_error()
        choose_groups(context._context, _GROUPS_BEFORE_3_5)  # noqa: SLF001


def _let_through(
    _connection: SSL.Connection, _certificate: X509, _error: int, _depth: int, _ok: int
) -> bool:
    """Accept: possession of the key is proved anyway, and who it is is asked afterwards."""
    return True


def _only(farmer: NodeId) -> _Verify:
    """Accept the one key that is meant, and keep what else was shown for `refused_peer`."""

    def verify(
        connection: SSL.Connection, certificate: X509, _error: int, depth: int, _ok: int
    ) -> bool:
        found = PeerCertificateError(_MORE_THAN_ONE) if depth else _shown(certificate)
        if found == farmer:
            return True
        cast(_RenterConnection, connection).refused = found
        return False

    return verify


def _shown(certificate: X509) -> NodeId | PeerCertificateError:
    try:
        return _node_id(certificate)
    except PeerCertificateError as error:
        return error
