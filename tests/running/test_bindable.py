from __future__ import annotations

import errno
import socket

import pytest

from farmer.node.listen_errors import why_not
from farmer.running.bindable import doubt_about
from farmer.running.every_address import bound_early
from tests.needs import on_linux


def test_an_address_of_this_machine_can_be_listened_on() -> None:
    assert doubt_about("127.0.0.1:0") == ""
    assert doubt_about("localhost:0") == ""


def test_one_that_is_taken_cannot() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = doubt_about(f"127.0.0.1:{port}")
    assert told == (
        f"the farmer could not listen on 127.0.0.1:{port} now: another program is using it"
    )


@on_linux
@pytest.mark.parametrize(
    ("address", "host"), [("192.0.2.1:0", "192.0.2.1"), ("[2001:db8::1]:0", "2001:db8::1")]
)
def test_one_that_is_not_there_is_served_when_it_comes_if_its_port_is_free(
    address: str, host: str
) -> None:
    told = doubt_about(address)
    assert told == f"{host} is no address of this machine now; it is served when it comes"
    with bound_early(host, 0, 5) as taken:
        port = taken.getsockname()[1]
        assert doubt_about(f"{address[:-1]}{port}").endswith(": another program is using it")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "another program is using it"),
        (OSError(errno.EACCES, "denied"), "this user may not: ports below 1024 are for root"),
        (socket.gaierror(-2, "not known"), "that name has no address here (not known)"),
        (OSError(errno.EINVAL, "Invalid argument"), "Invalid argument"),
        ("something else", "something else"),
    ],
)
def test_each_cause_has_its_words(error: object, words: str) -> None:
    """Another program is to blame for one of them only."""
    assert why_not(error).startswith(words)
