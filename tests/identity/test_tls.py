"""Real handshakes in memory: who gets in, who does not, and who they are."""

import contextlib
import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from farmer.identity import tls
from farmer.identity.keys import Identity
from farmer.identity.records import RecordTLS
from farmer.identity.tls import (
    PeerCertificateError,
    farmer_side,
    is_tls_failure,
    peer_id,
    refused_peer,
    renter_side,
)


@implementer(IHandshakeListener)
class End(Protocol):
    """One end: remembers whether the handshake was done, what came, and why it ended."""

    def __init__(self):
        self.peer = None
        self.received = b""
        self.lost = None

    def handshakeCompleted(self):
        try:
            self.peer = peer_id(self.transport)
        except PeerCertificateError as error:
            self.peer = error

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.lost = reason


class Stranger:
    """A client or server with any TLS context."""

    def __init__(self, certificate=None, key=None, chain=()):
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        if certificate is not None:
            self.context.use_certificate(certificate)
            self.context.use_privatekey(key)
        for extra in chain:
            self.context.add_extra_chain_cert(extra)


def stranger_connects(context):
    @implementer(IOpenSSLClientConnectionCreator)
    class Creator:
        def clientConnectionForTLS(self, _):
            connection = SSL.Connection(context, None)
            connection.set_connect_state()
            return connection

    return Creator()


def stranger_answers(context):
    @implementer(IOpenSSLServerConnectionCreator)
    class Creator:
        def serverConnectionForTLS(self, _):
            connection = SSL.Connection(context, None)
            connection.set_accept_state()
            return connection

    return Creator()


def named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate_for(key, signer=None, name="stranger", algorithm=None, issuer=None):
    builder = x509.CertificateBuilder().subject_name(named(name))
    builder = builder.issuer_name(named(issuer or name))
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(datetime.datetime(2001, 1, 1))
    builder = builder.not_valid_after(datetime.datetime(2002, 1, 1))
    return builder.sign(signer or key, algorithm)


def linked_chain(length):
    """Return a key, and certificates of which each was signed by the next."""
    keys = [Ed25519PrivateKey.generate() for _ in range(length)]
    return keys[0], [
        certificate_for(key, signer, name=f"n{number}", issuer=f"n{number + 1}")
        for number, (key, signer) in enumerate(zip(keys, [*keys[1:], keys[-1]], strict=True))
    ]


def wide_certificate(key):
    names = [x509.DNSName("x" * 60 + str(number)) for number in range(60)]
    subject = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(datetime.datetime(2001, 1, 1))
    builder = builder.not_valid_after(datetime.datetime(2002, 1, 1))
    return builder.add_extension(x509.SubjectAlternativeName(names), False).sign(key, None)


def rsa_stranger():
    key = rsa.generate_private_key(65537, 2048)
    return Stranger(certificate_for(key, algorithm=SHA256()), key)


class HandshakeTests(SynchronousTestCase):
    """Two ends, joined in memory."""

    def setUp(self):
        self.farmer = Identity.of_key(Ed25519PrivateKey.generate())
        self.renter = Identity.of_key(Ed25519PrivateKey.generate())
        self.clock = Clock()

    def join(self, client=None, server=None) -> tuple[End, End, IOPump]:
        server = server or farmer_side(self.farmer)
        client = client or renter_side(self.renter)
        ends = []
        wires = []
        for creator, is_client in ((server, False), (client, True)):
            end = End()
            factory = Factory.forProtocol(lambda end=end: end)
            wrapped = TLSMemoryBIOFactory(creator, is_client, factory, self.clock)
            wrapped.protocol = RecordTLS
            wires.append(wrapped.buildProtocol(None))
            ends.append(end)
        pump = connect(
            wires[0], FakeTransport(wires[0], True), wires[1], FakeTransport(wires[1], False)
        )
        self.settle(pump)
        return ends[0], ends[1], pump

    def settle(self, pump):
        for _ in range(5):
            pump.flush()
            self.clock.advance(0)

    def test_each_side_learns_the_others_id(self):
        server, client, _ = self.join()
        self.assertEqual(client.peer, self.farmer.node_id)
        self.assertEqual(server.peer, self.renter.node_id)

    def join_meaning(self, farmer, server=None):
        """Have a renter who means *farmer* call; return as `join`, and what it showed."""
        shown, side = [], renter_side(self.renter, farmer)
        self.patch(tls, "_let_through", lambda _, cert, *words: shown.append(cert) or True)
        handles = []

        @implementer(IOpenSSLClientConnectionCreator)
        class Kept:
            def clientConnectionForTLS(self, protocol):
                handles.append(side.clientConnectionForTLS(protocol))
                return handles[0]

        server, client, _ = self.join(client=Kept(), server=server)
        return server, client, shown, refused_peer(handles[0])

    def test_the_farmer_that_is_meant_is_shown_who_calls(self):
        server, client, shown, refused = self.join_meaning(self.farmer.node_id)
        self.assertEqual((client.peer, server.peer), (self.farmer.node_id, self.renter.node_id))
        self.assertEqual((len(shown) > 0, refused), (True, None))

    def test_whoever_else_answers_is_not_shown_who_calls(self):
        other = Identity.of_key(Ed25519PrivateKey.generate())
        server, client, shown, refused = self.join_meaning(other.node_id)
        self.assertEqual((server.peer, client.peer, shown), (None, None, []))
        self.assertEqual(refused, self.farmer.node_id)
        self.assertTrue(is_tls_failure(server.lost.value) and is_tls_failure(client.lost.value))

    def test_who_is_no_farmer_at_all_is_not_shown_who_calls(self):
        rsa_key, key = rsa.generate_private_key(65537, 2048), Ed25519PrivateKey.generate()
        chain_key, (first, *others) = linked_chain(3)
        for stranger, told in (
            (Stranger(certificate_for(rsa_key, algorithm=SHA256()), rsa_key), "not Ed25519"),
            (Stranger(wide_certificate(key), key), "2048 allowed"),
            (Stranger(first, chain_key, chain=others), "more than one"),
        ):
            meant = tls.node_id_of_key(key.public_key().public_bytes_raw())
            server = stranger_answers(stranger.context)
            _, client, _, refused = self.join_meaning(meant, server)
            self.assertIsNone(client.peer)
            self.assertIsNotNone(client.lost)
            self.assertIn(told, str(refused))

    def test_a_chain_is_not_looked_at_signature_by_signature(self):
        """Each takes the reactor's time, before it is known that nobody may show a chain."""
        looked_at = []
        self.patch(tls, "_let_through", lambda *words: looked_at.append(words) or True)
        key, (first, *others) = linked_chain(20)
        stranger = Stranger(first, key, chain=others)
        server, _, _ = self.join(client=stranger_connects(stranger.context))
        self.assertIsInstance(server.peer, PeerCertificateError)
        self.assertGreater(len(looked_at), 0)
        self.assertLess(len(looked_at), 8)

    def test_bytes_go_both_ways_and_the_close_is_clean(self):
        server, client, pump = self.join()
        client.transport.write(b"question")
        server.transport.write(b"answer")
        self.settle(pump)
        self.assertEqual((server.received, client.received), (b"question", b"answer"))
        client.transport.loseConnection()
        self.settle(pump)
        self.assertIsNotNone(client.lost)
        self.assertIsNotNone(server.lost)

    def test_only_tls_1_3_is_spoken_without_compression_and_nothing_is_resumed(self):
        _, client, _ = self.join()
        handle = client.transport.getHandle()
        self.assertEqual(handle.get_protocol_version_name(), "TLSv1.3")
        self.assertEqual(handle.get_context().get_session_cache_mode(), SSL.SESS_CACHE_OFF)

    def test_a_client_of_tls_1_2_is_refused(self):
        stranger = Stranger(self.renter.certificate, self.renter.private_key)
        stranger.context.set_max_proto_version(SSL.TLS1_2_VERSION)
        server, client, _ = self.join(client=stranger_connects(stranger.context))
        self.assert_refused(server, client)

    def test_a_server_of_tls_1_2_is_refused(self):
        stranger = Stranger(self.farmer.certificate, self.farmer.private_key)
        stranger.context.set_max_proto_version(SSL.TLS1_2_VERSION)
        server, client, _ = self.join(server=stranger_answers(stranger.context))
        self.assert_refused(server, client)

    def test_a_client_without_a_certificate_is_refused(self):
        server, _, _ = self.join(client=stranger_connects(Stranger().context))
        self.assertIsNone(server.peer)
        self.assertIsNotNone(server.lost)

    def test_an_rsa_certificate_is_refused_by_either_side(self):
        stranger = rsa_stranger()
        server, client, _ = self.join(client=stranger_connects(stranger.context))
        self.assertEqual((server.received, server.peer), (b"", None))
        self.assertIsNotNone(server.lost)
        self.assertIsNotNone(client.lost)
        _, client, _ = self.join(server=stranger_answers(stranger.context))
        self.assert_peer_error(client, "not Ed25519")

    def test_another_kind_of_key_has_no_id(self):
        """Whatever TLS let through."""
        stranger = rsa_stranger()
        server, client, _ = self.join(
            stranger_connects(stranger.context), stranger_answers(stranger.context)
        )
        self.assert_peer_error(server, "not Ed25519")
        self.assert_peer_error(client, "not Ed25519")

    def test_who_signs_otherwise_although_not_asked_to_is_refused_before_the_arithmetic(self):
        """The peer chooses the key, so the time that it takes is the peer's to choose."""
        asks_for_anything = Stranger(self.farmer.certificate, self.farmer.private_key).context
        ours = farmer_side(self.farmer).serverConnectionForTLS(None).get_context()
        server = self.about_to_judge(rsa_stranger(), asks_for_anything)
        server.do_handshake()
        server = self.about_to_judge(rsa_stranger(), asks_for_anything)
        server.set_context(ours)
        with self.assertRaises(SSL.Error) as caught:
            server.do_handshake()
        self.assertIn("wrong signature type", str(caught.exception))

    def about_to_judge(self, stranger, context):
        """Return a server that has yet to look at what the client signed."""
        server, client = SSL.Connection(context, None), SSL.Connection(stranger.context, None)
        server.set_accept_state()
        client.set_connect_state()
        for speaker, listener in ((client, server), (server, client), (client, server)):
            with contextlib.suppress(SSL.WantReadError):
                speaker.do_handshake()
            listener.bio_write(speaker.bio_read(1 << 16))
        return server

    def test_only_quick_key_exchanges_are_answered(self):
        groups = (b"X25519", b"P-256", b"P-384", b"X448", b"ffdhe2048", b"ffdhe3072")
        self.assertEqual([*map(self.is_answered, groups)], [True, True] + 4 * [False])

    def test_an_openssl_that_does_not_know_the_newest_group_gets_the_others(self):
        self.patch(tls, "_GROUPS", b"X25519MLKEM2048:X25519")
        groups = (b"X25519", b"P-256", b"ffdhe2048")
        self.assertEqual([*map(self.is_answered, groups)], [True, True, False])
        self.join()
        self.assertEqual(lib.ERR_peek_error(), 0)

    def is_answered(self, group):
        """Tell whether a client gets on that offers this key exchange only."""
        if not hasattr(lib, "SSL_CTX_set1_curves_list"):
            self.skipTest("this binding leaves the groups to OpenSSL")
        stranger = Stranger(self.renter.certificate, self.renter.private_key)
        self.assertEqual(lib.SSL_CTX_set1_curves_list(stranger.context._context, group), 1)
        server, client, _ = self.join(client=stranger_connects(stranger.context))
        is_answered = server.peer == self.renter.node_id
        self.assertEqual(client.lost is None, is_answered)
        return is_answered

    def test_a_certificate_above_the_limit_is_refused(self):
        key = Ed25519PrivateKey.generate()
        stranger = Stranger(wide_certificate(key), key)
        server, _, _ = self.join(client=stranger_connects(stranger.context))
        self.assert_peer_error(server, "2048 allowed")

    def test_more_than_one_certificate_is_refused_by_either_side(self):
        key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        extra = certificate_for(other, name="other")
        stranger = Stranger(certificate_for(key), key, chain=[extra])
        _, client, _ = self.join(server=stranger_answers(stranger.context))
        self.assert_peer_error(client, "more than one")
        server, _, _ = self.join(client=stranger_connects(stranger.context))
        self.assert_peer_error(server, "more than one")

    def test_dates_names_and_issuers_do_not_matter(self):
        key = Ed25519PrivateKey.generate()
        signed_by_another = certificate_for(key, signer=Ed25519PrivateKey.generate())
        stranger = Stranger(signed_by_another, key)
        server, _, _ = self.join(client=stranger_connects(stranger.context))
        self.assertEqual(server.peer, Identity.of_key(key).node_id)

    def test_without_a_handshake_there_is_no_peer(self):
        class Bare:
            def getHandle(self):  # noqa: N802 - Twisted's name
                return SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)

        with self.assertRaises(PeerCertificateError):
            peer_id(Bare())

    def assert_refused(self, server, client):
        self.assertEqual((server.peer, client.peer), (None, None))
        self.assertIsNotNone(server.lost)
        self.assertIsNotNone(client.lost)

    def assert_peer_error(self, end, text):
        self.assertIsInstance(end.peer, PeerCertificateError)
        self.assertIn(text, str(end.peer))
