"""Names of what is open already."""

import os

import pytest

from farmer.client import blocking
from farmer.client.descriptors import descriptor_of, is_inherited


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("/dev/stdin", 0),
        ("/dev/stdout", 1),
        ("/dev/fd/63", 63),
        ("/proc/self/fd/1", 1),
        ("/proc/thread-self/fd/1", 1),
        ("/proc/999999999/fd/1", None),
        ("/dev/null", None),
        ("/dev/fd/x", None),
        ("/dev/fd/" + "9" * 30, None),
        ("/dev/fd", None),
        ("1", None),
        ("..", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_a_number_stands_for_what_is_open_and_for_nothing_else(name, number):
    assert descriptor_of(name) == number


def test_of_our_own_number_too():
    assert descriptor_of(f"/proc/{os.getpid()}/fd/7") == 7


def test_a_link_to_such_a_name_is_one(tmp_path):
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("/dev/stdout")
    assert descriptor_of(tmp_path / "first") == 1


def test_links_in_a_ring_stand_for_nothing(tmp_path):
    (tmp_path / "ring").symlink_to("ring")
    assert descriptor_of(tmp_path / "ring") is None


def test_what_we_opened_ourselves_is_not_what_we_were_started_with(tmp_path):
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    assert not is_inherited(descriptor)
    os.set_inheritable(descriptor, True)
    assert is_inherited(descriptor)
    os.close(descriptor)
    assert not is_inherited(descriptor)


def test_an_open_file_is_written_to_from_where_it_stands(tmp_path):
    """To rename over it would leave its other writers with a file that has no name."""
    with (tmp_path / "log").open("wb") as log:
        log.write(b"precious\n")
        log.flush()
        with blocking._to_write(f"/dev/fd/{log.fileno()}") as file:
            file.write(b"hello")
        log.write(b"\nmore")
    assert (tmp_path / "log").read_bytes() == b"precious\nhello\nmore"
