"""What names a farmer, and what does not."""

import errno
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError as Late
from twisted.internet.error import getConnectError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from farmer.client.dial import AddressError, FarmerAddress, TlsDialer, split_address
from farmer.client.errors import ConnectionFailedError, FarmerTooSlowError
from farmer.client.limits import DIAL_S
from farmer.client.unreached import why_no_connection, why_no_session
from farmer.identity.keys import Identity
from farmer.identity.signing import InviteLinkError, format_link, make_invite
from farmer.model.addresses import ADDRESSES_MAX, is_address
from farmer.model.contract import InviteLink, Offer
from farmer.model.ids import InviteSerial, NodeId

ID = NodeId(bytes(range(32)))


def invite_line():
    identity = Identity.of_key(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    offer = Offer(space_bytes=1, duration_ms=1, created_at_ms=1, expires_at_ms=2)
    invite = make_invite(identity, InviteSerial(bytes(16)), offer)
    return format_link(InviteLink(farmer=ID, addresses=("a:1", "[::1]:2"), invite=invite))


@pytest.mark.parametrize(
    "target", [f"{ID}@a:1,[::1]:2", f"farmer://{ID}@a:1,[::1]:2", f"  {invite_line()}\n"]
)
def test_a_farmer_is_named_by_id_and_addresses_or_an_invite(target):
    assert FarmerAddress.of(target) == FarmerAddress(ID, ("a:1", "[::1]:2"))


@pytest.mark.parametrize(
    "target",
    ["", "a:1", f"{ID}", f"{ID}@", "ab@a:1", f"{ID}@a", f"{ID}@a:0", f"{ID}@a:65536", f"{ID}@:1"],
)
def test_everything_else_is_refused(target):
    with pytest.raises(ValueError, match=r"not a|no port"):
        FarmerAddress.of(target)


def test_a_damaged_invite_is_called_damaged():
    with pytest.raises(InviteLinkError, match="damaged"):
        FarmerAddress.of(invite_line()[:-3])


@pytest.mark.parametrize(
    ("address", "split"),
    [("a.example:7", ("a.example", 7)), ("[fe80::1]:65535", ("fe80::1", 65535))],
)
def test_an_address_is_host_and_port(address, split):
    assert split_address(address) == split


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            ":7",
            "[]:7",
            "a",
            "a:",
            "a:b",
            "a:+1",
            "a:0",
            "a:65536",
            "a:1\u0661",
            " :7",
            "a b:7",
        ),
        *("::1:7", "[a]:7", "[::1]", "[::1:7", "::1]:7", "[[::1]]:7", "[fe80::1%eth0]:7"),
        *(" :7", "a b:7", "user@a:7", "http://a:7", "b\u00fccher.example:7"),
    ],
)
def test_an_address_that_no_invite_can_carry_is_refused(address):
    """And who typed it is told what one looks like."""
    assert not is_address(address)
    with pytest.raises(AddressError, match="is not an address: write host:port"):
        split_address(address)


def test_a_farmer_has_no_more_addresses_than_are_tried():
    """Limit: ADDRESSES_MAX."""
    several = tuple(f"a:{number}" for number in range(1, ADDRESSES_MAX + 1))
    assert FarmerAddress.of(f"{ID}@{','.join(several)}").addresses == several
    with pytest.raises(AddressError, match="9 addresses are more than the 8"):
        FarmerAddress.of(f"{ID}@{','.join(several)},b:1")


def dialing(reactor, *addresses):
    """Return a dial of hosts that never answer, and where its failure will be."""
    identity = Identity.of_key(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    dialer = TlsDialer(reactor, identity, FarmerAddress(ID, addresses))
    failures = []
    return Deferred.fromCoroutine(dialer.dial()).addErrback(failures.append), failures


def ports_asked(reactor):
    return [port for _, port, *_ in reactor.tcpClients]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (errno.ECONNREFUSED, "nothing listens there"),
        (errno.EHOSTUNREACH, "no way leads there from here"),
        (errno.ENETUNREACH, "no way leads there from here"),
        (errno.ETIMEDOUT, "no answer"),
    ],
)
def test_why_an_address_took_no_connection_is_told_in_words(number, why):
    assert why_no_connection(getConnectError((number, os.strerror(number)))) == why


def test_every_address_is_named_with_what_is_wrong_there_and_what_to_do():
    reactor = MemoryReactorClock()
    _, failures = dialing(reactor, "127.0.0.1:1", "127.0.0.1:2")
    for number in (errno.ECONNREFUSED, errno.EHOSTUNREACH):
        error = getConnectError((number, os.strerror(number)))
        reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(error))
        reactor.advance(1)
    assert str(failures[0].value).startswith(
        "cannot reach the farmer at 127.0.0.1:1 (nothing listens there), "
        "127.0.0.1:2 (no way leads there from here): is this machine on line"
    )


def test_who_answers_and_says_nothing_may_be_another_program():
    """The farmer's own page waits for the rest of a request."""
    silent = FarmerTooSlowError("the farmer did not answer in time")
    assert "is it the port for shards?" in why_no_session(silent, is_secured=False)
    assert why_no_session(silent, is_secured=True) == str(silent)


def test_all_addresses_together_have_a_deadline():
    """Limit: DIAL_S."""
    reactor = MemoryReactorClock()
    hosts = [f"127.0.0.1:{number}" for number in range(1, ADDRESSES_MAX + 1)]
    _, failures = dialing(reactor, *hosts)
    asked = 0
    while not failures:
        for _, _, factory, timeout_s, _ in reactor.tcpClients[asked:]:
            reactor.callLater(timeout_s, factory.clientConnectionFailed, None, Failure(Late()))
            asked += 1
        reactor.advance(1)
    assert reactor.seconds() <= DIAL_S + 1
    assert ports_asked(reactor) == [1, 2, 3, 4]
    assert failures[0].check(ConnectionFailedError)
    assert ", 127.0.0.1:5 (not tried, there was no time left), " in str(failures[0].value)


def test_a_name_that_stands_for_many_hosts_has_no_more_time():
    class Names:
        def resolveHostName(self, receiver, name, port=0, *words, **named):  # noqa: N802
            receiver.resolutionBegan(None)
            for number in range(1000):
                receiver.addressResolved(IPv4Address("TCP", f"10.0.{number // 250}.1", port))
            receiver.resolutionComplete()

    reactor = MemoryReactorClock()
    reactor.nameResolver = Names()
    _, failures = dialing(reactor, "many.example:7")
    while not failures:
        reactor.advance(0.5)
    assert reactor.seconds() <= DIAL_S + 1
    assert failures[0].check(ConnectionFailedError)
    assert "many.example:7 (no answer in 60 s)" in str(failures[0].value)


def test_who_cancels_a_connection_that_hangs_gets_no_other_address():
    reactor = MemoryReactorClock()
    dialed, failures = dialing(reactor, "127.0.0.1:1", "127.0.0.1:2")
    reactor.advance(1)

    dialed.cancel()

    reactor.advance(1)
    assert ports_asked(reactor) == [1]
    assert failures[0].check(CancelledError)
