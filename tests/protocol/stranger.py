"""
A second client, written from docs/protocol.md alone: plain sockets, no code of farmer's.

It needs the standard library and `cryptography`.  It is a check of the page, and an example of
what the page asks of a client; it is blocking, holds shards in memory and never retries.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import socket
import ssl
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

HELLO, WELCOME, REFUSE, DATA, END = 1, 2, 3, 4, 5
REDEEM, SHOW_CONTRACT, CONTRACT = 0x10, 0x11, 0x12
STORE, ACCEPT, STORED = 0x20, 0x21, 0x22
RETRIEVE, SEND, AUDIT = 0x30, 0x31, 0x40
STAT, STATED, LIST, LISTED, DELETE, DELETED, UNDELETE = range(0x50, 0x57)
PING, PONG = 0x60, 0x61
LEAF = 4096
TO_THE_END = (1 << 63) - 1


class WrongError(Exception):
    """The farmer did not keep to the page, or proved nothing."""


class RefusedError(Exception):
    """The farmer said no."""

    def __init__(self, code: int, first: int, second: int, final: bool) -> None:
        super().__init__(f"refusal {code} ({first}, {second})")
        self.code, self.first, self.second, self.final = code, first, second, final


class Pipe(Protocol):
    """What is asked of a socket."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def check(good: bool, why: str) -> None:
    if not good:
        raise WrongError(why)


# Identities and links

PREFIX = bytes.fromhex("302a300506032b6570032100")


def node_id(public_key: bytes) -> bytes:
    return sha(PREFIX, public_key)


def raw_key(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def signed_by(public_key: bytes, signature: bytes, *signed: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, b"".join(signed))
    except (InvalidSignature, ValueError):
        return False
    return True


def parse_link(link: str) -> tuple[bytes, list[tuple[str, int]], bytes]:
    """Return the farmer's node id, its addresses, and the bytes for REDEEM."""
    scheme, _, rest = link.partition("farmer://")
    farmer, at, rest = rest.partition("@")
    hosts, slash, code = rest.partition("/")
    check(not scheme and bool(at and slash) and len(farmer) == 64, "not a link")
    try:
        invite = base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))
        pairs = [host.rpartition(":") for host in hosts.split(",")]
        addresses = [(host.strip("[]"), int(port)) for host, _, port in pairs]
        name = bytes.fromhex(farmer)
    except ValueError as error:
        raise WrongError("not a link") from error
    canonical = base64.urlsafe_b64encode(invite).rstrip(b"=").decode() == code
    check(canonical and all(h and 0 < p < 65536 for h, p in addresses), "not a link")
    return name, addresses, invite


def connect(address: tuple[str, int], farmer: bytes, key: Ed25519PrivateKey) -> ssl.SSLSocket:
    """Return a TLS connection to exactly this farmer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the node id is compared instead, below
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "both.pem")
        path.write_bytes(_own_pem(key))
        context.load_cert_chain(path)
    wire = context.wrap_socket(socket.create_connection(address, timeout=30))
    shown = wire.getpeercert(binary_form=True)
    check(shown is not None, "no certificate")
    assert shown is not None
    peer = x509.load_der_x509_certificate(shown).public_key()
    spki = peer.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if not isinstance(peer, Ed25519PublicKey) or sha(spki) != farmer:
        wire.close()
        raise WrongError("another farmer answers here")
    return wire


def _own_pem(key: Ed25519PrivateKey) -> bytes:
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    shown = builder.sign(key, None).public_bytes(serialization.Encoding.PEM)
    return shown + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def hang_up(wire: ssl.SSLSocket) -> None:
    """Close in order: say so, then read up to the farmer's own close."""
    with wire.unwrap() as plain:
        while plain.recv(65536):
            pass


# Hash trees and proofs


def split(count: int) -> int:
    """Return the largest power of two below count."""
    return 1 << (count - 1).bit_length() - 1


def leaf_count(size: int) -> int:
    return max(1, -(-size // LEAF))


def leaves_of(data: bytes) -> list[bytes]:
    return [data[at : at + LEAF] for at in range(0, max(1, len(data)), LEAF)]


def root(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    half = split(len(hashes))
    return sha(b"\1", root(hashes[:half]), root(hashes[half:]))


def id_of_root(size: int, top: bytes) -> bytes:
    return sha(b"farmer/shard/1", struct.pack(">QI", size, LEAF), top)


def shard_id(data: bytes) -> bytes:
    return id_of_root(len(data), root([sha(b"\0", leaf) for leaf in leaves_of(data)]))


def sample(nonce: bytes, shard: bytes, size: int, k: int) -> list[int]:
    """Return the leaves that a challenge asks for."""
    count = leaf_count(size)
    if k >= count:
        return list(range(count))
    taken: set[int] = set()
    draw = 0
    while True:
        digest = sha(b"farmer/audit/1", nonce, shard, struct.pack(">I", draw))
        for number in struct.unpack(">4Q", digest):
            if number < (1 << 64) - (1 << 64) % count:
                taken.add(number % count)
            if len(taken) == k:
                return sorted(taken)
        draw += 1


def prove(
    shard: bytes, size: int, asked: Sequence[int], leaves: Sequence[bytes], nodes: Sequence[bytes]
) -> None:
    """Return if the leaves and nodes prove the asked leaves of the shard; else raise."""
    count = leaf_count(size)
    check(len(leaves) == len(asked), "not the leaves that were asked for")
    for number, leaf in zip(asked, leaves, strict=True):
        right = LEAF if number < count - 1 else size - LEAF * (count - 1)
        check(len(leaf) == right, "a leaf has the wrong length")
    next_leaf, next_node, wanted = iter(leaves), iter(nodes), set(asked)

    def walk(low: int, high: int) -> bytes:
        if not any(number in wanted for number in range(low, high)):
            node = next(next_node, None)
            check(node is not None, "a node is missing")
            assert node is not None
            return node
        if high - low == 1:
            return sha(b"\0", next(next_leaf))
        middle = low + split(high - low)
        left = walk(low, middle)
        return sha(b"\1", left, walk(middle, high))

    top = walk(0, count)
    check(next(next_node, None) is None, "a node too many")
    check(id_of_root(size, top) == shard, "this proves another shard, or nothing")


# The connection


@dataclass
class Contract:
    """What CONTRACT said."""

    stage: int
    live: int
    trash: int
    reserved: int
    shards: int
    contract: bytes
    revision: int
    space: int
    until: int


@dataclass
class Receipt:
    """What STORED said."""

    shard: bytes
    size: int
    charge: int
    stored_at: int
    until: int


@dataclass
class Stated:
    """What STATED, or a row of LISTED, said."""

    shard: bytes
    size: int
    stored_at: int
    state: int
    gone_at: int

    @classmethod
    def read(cls, raw: bytes) -> Stated:
        return cls(raw[:32], *struct.unpack(">QQBQ", raw[32:57]))


class Stranger:
    """One connection, after TLS."""

    def __init__(self, pipe: Pipe, farmer: bytes, renter: bytes) -> None:
        self.pipe, self.farmer, self.renter = pipe, farmer, renter
        self.buffer = b""
        self.clock = 0
        self.shard_max = 0

    def send(self, kind: int, body: bytes = b"") -> None:
        self.pipe.sendall(struct.pack(">I", kind << 24 | len(body)) + body)

    def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            more = self.pipe.recv(65536)
            check(bool(more), "the farmer hung up")
            self.buffer += more
        part, self.buffer = self.buffer[:size], self.buffer[size:]
        return part

    def frame(self) -> tuple[int, bytes]:
        """Return the next frame; a refusal is raised."""
        head = struct.unpack(">I", self.take(4))[0]
        kind, length = head >> 24, head & 0xFFFFFF
        check(length <= (1 << 20 if kind == DATA else 1 << 16), "a frame is too large")
        body = self.take(length)
        if kind == REFUSE:
            check(length == 19, "malformed")
            code, first, second, final = struct.unpack(">HQQB", body)
            raise RefusedError(code, first, second, bool(final))
        return kind, body

    def expect(self, kind: int) -> bytes:
        got, body = self.frame()
        check(got == kind, f"{got} instead of {kind}")
        return body

    def data(self) -> Iterator[bytes]:
        """Return the DATA up to END."""
        while True:
            kind, body = self.frame()
            if kind == END:
                check(not body, "malformed")
                return
            check(kind == DATA, f"{kind} among the data")
            yield body

    def hello(self) -> None:
        name = b"stranger"
        self.send(HELLO, b"FARM" + struct.pack(">HHB", 1, 1, len(name)) + name)
        version, self.clock, self.shard_max = struct.unpack(">HQQ", self.expect(WELCOME)[:18])
        check(version == 1, "another version")

    def redeem(self, invite: bytes) -> Contract:
        self.send(REDEEM, invite)
        return self._contract(self.expect(CONTRACT))

    def show_contract(self) -> Contract:
        self.send(SHOW_CONTRACT)
        return self._contract(self.expect(CONTRACT))

    def _contract(self, raw: bytes) -> Contract:
        head, body, signature = raw[:33], raw[33:-64], raw[-64:]
        key = body[17:49]
        check(body[0] == 1 and node_id(key) == self.farmer, "a contract of somebody else")
        check(body[49:81] == self.renter, "a contract with somebody else")
        check(signed_by(key, signature, b"farmer/contract/1\0", body), "a forged contract")
        revision, space, _from, until = struct.unpack(">IQQQ", body[81:109])
        return Contract(*struct.unpack(">BQQQQ", head), body[1:17], revision, space, until)

    def store(self, data: bytes, piece: int = 100_000) -> Receipt:
        """Store a shard, or go on with storing it."""
        shard = shard_id(data)
        self.send(STORE, shard + struct.pack(">Q", len(data)))
        kind, body = self.frame()
        if kind == ACCEPT:
            (at,) = struct.unpack(">Q", body)
            check(at <= len(data), "an offset beyond the end")
            for start in range(at, len(data), piece):
                self.send(DATA, data[start : start + piece])
            self.send(END)
            kind, body = self.frame()
        check(kind == STORED and len(body) == 249, "no receipt")
        receipt = self._receipt(body)
        check((receipt.shard, receipt.size) == (shard, len(data)), "a receipt of another shard")
        return receipt

    def _receipt(self, raw: bytes) -> Receipt:
        body, signature = raw[:185], raw[185:]
        key = body[1:33]
        check(body[0] == 1 and node_id(key) == self.farmer, "a receipt of somebody else")
        check(body[33:65] == self.renter, "a receipt for somebody else")
        check(signed_by(key, signature, b"farmer/receipt/1\0", body), "a forged receipt")
        size, charge, stored_at, _issued, until = struct.unpack(">5Q", body[113:153])
        return Receipt(body[81:113], size, charge, stored_at, until)

    def retrieve(self, shard: bytes, offset: int = 0, length: int = TO_THE_END) -> bytes:
        """Return a range, unproved; a whole shard is checked against its id."""
        self.send(RETRIEVE, shard + struct.pack(">QQB", offset, length, 0))
        size, start, sent, _ = struct.unpack(">QQQH", self.expect(SEND))
        data = b"".join(self.data())
        check(start == offset and sent == len(data), "another range")
        if offset == 0 and length >= size:
            check(shard_id(data) == shard, "other bytes")
        return data

    def retrieve_proved(self, shard: bytes, offset: int, length: int) -> bytes:
        """Return a range, proved."""
        self.send(RETRIEVE, shard + struct.pack(">QQB", offset, length, 1))
        raw = self.expect(SEND)
        size, start, sent, count = struct.unpack(">QQQH", raw[:26])
        nodes = [raw[at : at + 32] for at in range(26, len(raw), 32)]
        data = b"".join(self.data())
        check(len(nodes) == count and sent == len(data), "malformed")
        check(start <= offset and offset + length <= start + sent <= size, "another range")
        first = start // LEAF
        asked = range(first, first + leaf_count(sent))
        check(start % LEAF == 0, "not whole leaves")
        prove(shard, size, asked, leaves_of(data), nodes)
        return data[offset - start : offset - start + length]

    def audit(
        self, nonce: bytes, entries: Sequence[tuple[bytes, int, int]]
    ) -> list[RefusedError | WrongError | None]:
        """Sample (shard, size, k) each; None where the proof holds."""
        rows = b"".join(shard + struct.pack(">QH", size, k) for shard, size, k in entries)
        self.send(AUDIT, b"\1" + nonce + struct.pack(">H", len(entries)) + rows)
        items = Items(b"".join(self.data()))
        verdicts: list[RefusedError | WrongError | None] = []
        for shard, size, k in entries:
            try:
                asked = sample(nonce, shard, size, k)
                prove(shard, size, asked, *items.proof(len(asked)))
            except (RefusedError, WrongError) as error:
                verdicts.append(error)
            else:
                verdicts.append(None)
        check(not items.raw, "bytes after the last item")
        return verdicts

    def audit_full(self, nonce: bytes, data: bytes) -> bool:
        """Tell whether the farmer has these bytes."""
        shard = shard_id(data)
        row = shard + struct.pack(">QH", len(data), 0)
        self.send(AUDIT, b"\2" + nonce + struct.pack(">H", 1) + row)
        items = Items(b"".join(self.data()))
        leaves, nodes = items.proof(0)
        check(not leaves and len(nodes) == 1 and not items.raw, "malformed")
        return nodes[0] == sha(b"farmer/full-audit/1", nonce, shard, data)

    def stat(self, shard: bytes) -> Stated:
        self.send(STAT, shard)
        return Stated.read(self.expect(STATED))

    def list(self, page: int = 1000) -> list[Stated]:
        """Return all shards."""
        rows: list[Stated] = []
        while True:
            self.send(LIST, (rows[-1].shard if rows else bytes(32)) + struct.pack(">H", page))
            raw = self.expect(LISTED)
            rows += [Stated.read(raw[at : at + 57]) for at in range(3, len(raw), 57)]
            if not raw[0]:
                return rows

    def delete(self, shard: bytes, erase: bool = False) -> tuple[int, int]:
        """Return how far it got, and when the trash is emptied."""
        self.send(DELETE, shard + bytes((erase,)))
        outcome, gone_at = struct.unpack(">BQ", self.expect(DELETED))
        return outcome, gone_at

    def undelete(self, shard: bytes) -> Stated:
        self.send(UNDELETE, shard)
        return Stated.read(self.expect(STATED))

    def ping(self, token: int) -> int:
        """Return the free space."""
        self.send(PING, struct.pack(">Q", token))
        echoed, self.clock, free = struct.unpack(">3Q", self.expect(PONG)[:24])
        check(echoed == token, "another ping")
        return int(free)


class Items:
    """The items of an audit."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def _cut(self, size: int) -> bytes:
        check(len(self.raw) >= size, "an item is cut")
        part, self.raw = self.raw[:size], self.raw[size:]
        return part

    def proof(self, leaves_asked: int) -> tuple[list[bytes], list[bytes]]:
        """Return leaves and nodes of the next item."""
        code, leaves, last, nodes, first, second = struct.unpack(">4H2Q", self._cut(24))
        if code:
            check(not (leaves or last or nodes), "malformed")
            raise RefusedError(code, first, second, final=False)
        check(not (first or second) and leaves == leaves_asked, "malformed")
        lengths = [LEAF] * (leaves - 1) + [last] if leaves else []
        return [self._cut(size) for size in lengths], [self._cut(32) for _ in range(nodes)]
