from __future__ import annotations

import errno
import socket

import pytest

from farmer.node.listen_errors import why_not
from farmer.running.bindable import why_not_bindable


def test_an_address_of_this_machine_can_be_listened_on() -> None:
    assert why_not_bindable("127.0.0.1:0") == ""
    assert why_not_bindable("localhost:0") == ""


def test_one_that_is_taken_or_not_ours_cannot() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert why_not_bindable(f"127.0.0.1:{port}") == "another program is using it"
    assert why_not_bindable("192.0.2.1:4646") == "this machine has no such address"


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
