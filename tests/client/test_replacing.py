"""Who may read a file that took the place of another: nobody who could not before."""

import errno
import os
import stat
import struct

import pytest

from farmer.client import blocking
from farmer.client.replacing import followed
from tests.needs import as_root, lack

ACL = "system.posix_acl_access"
NOBODY_NAMED = 0xFFFFFFFF
US, NAMED, GROUP, MASK, OTHERS = 1, 2, 4, 16, 32


def acl(group, named):
    """Return an ACL that gives the group and one user by name so much, and others nothing."""
    entries = (
        (US, 6, NOBODY_NAMED),
        (NAMED, named, 1234),
        (GROUP, group, NOBODY_NAMED),
        (MASK, named | group, NOBODY_NAMED),
        (OTHERS, 0, NOBODY_NAMED),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def put(path, name, value):
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        lack(f"ACLs on the filesystem of the test: {error}")


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    return path


def replaced(path):
    """Write the file anew; return its permissions."""
    with blocking._replacing(path) as file:
        file.write(b"later")
    assert path.read_bytes() == b"later"
    return stat.S_IMODE(path.stat().st_mode)


def test_links_are_followed_also_to_what_is_not_there_yet(tmp_path, target):
    for name, leads_to in (("one", "file"), ("two", "one"), ("new", "absent")):
        (tmp_path / name).symlink_to(leads_to)
    assert followed(tmp_path / "two") == target
    assert followed(tmp_path / "new") == tmp_path / "absent"
    assert followed(tmp_path / "absent") == tmp_path / "absent"


def test_links_that_lead_round_in_a_circle_are_an_error_of_the_system(tmp_path):
    (tmp_path / "link").symlink_to("link")
    writing = blocking._to_write(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links") as caught, writing:
        pass
    assert caught.value.filename == str(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_while_it_is_written_it_is_ours_alone(target):
    """Its group is not yet the other's."""
    target.chmod(0o664)
    with blocking._replacing(target) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


@as_root
@pytest.mark.parametrize(
    ("mode", "left"), [(0o640, 0o600), (0o664, 0o644), (0o604, 0o600), (0o755, 0o755)]
)
@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_our_group_gets_nothing_that_was_for_another(target, monkeypatch, mode, left, number):
    """Where we may not give it that group; whoever was in it is one of all others now."""
    os.chown(target, -1, 2000)
    target.chmod(mode)
    monkeypatch.setattr(os, "fchown", refusing(number))
    assert replaced(target) == left


def test_whose_it_is_already_is_not_set(target, monkeypatch):
    """Some file systems refuse it even so."""
    target.chmod(0o640)
    monkeypatch.setattr(os, "fchown", refusing(errno.EPERM))
    assert replaced(target) == 0o640


@as_root
def test_owner_and_group_are_kept(target):
    os.chown(target, 12345, 23456)
    target.chmod(0o640)
    assert replaced(target) == 0o640
    assert (target.stat().st_uid, target.stat().st_gid) == (12345, 23456)


def test_the_mask_of_an_acl_is_no_right_of_the_group(target):
    """It stands where the group's bits are: without the ACL they would be just that."""
    put(target, ACL, acl(group=0, named=4))
    assert replaced(target) == 0o640
    assert os.getxattr(target, ACL) == acl(group=0, named=4)


def test_without_its_acl_the_group_gets_nothing(target, monkeypatch):
    put(target, ACL, acl(group=0, named=4))
    monkeypatch.setattr(os, "setxattr", refusing(errno.ENOSPC))
    assert replaced(target) == 0o600
    assert ACL not in os.listxattr(target)


def test_an_acl_that_cannot_be_read_counts_as_one(target, monkeypatch):
    target.chmod(0o644)
    monkeypatch.setattr(os, "getxattr", refusing(errno.EIO))
    assert replaced(target) == 0o604


def test_what_a_directory_gives_to_new_files_is_not_given(target, tmp_path):
    target.chmod(0o640)
    put(tmp_path, "system.posix_acl_default", acl(group=4, named=6))
    assert replaced(target) == 0o640
    assert ACL not in os.listxattr(target)


def test_what_a_directory_gave_and_does_not_take_back_gives_nothing(target, tmp_path, monkeypatch):
    target.chmod(0o640)
    put(tmp_path, "system.posix_acl_default", acl(group=4, named=6))
    monkeypatch.setattr(os, "removexattr", refusing(errno.EIO))
    assert replaced(target) == 0o600


def test_a_file_system_that_knows_no_acl_has_none(target, monkeypatch):
    target.chmod(0o640)
    for call in ("getxattr", "setxattr", "removexattr"):
        monkeypatch.setattr(os, call, refusing(errno.EOPNOTSUPP))
    assert replaced(target) == 0o640


def test_a_file_system_without_modes_may_have_its_way(target, monkeypatch):
    """As long as nobody gets more than before."""
    target.chmod(0o640)
    monkeypatch.setattr(os, "fchmod", refusing(errno.EPERM))
    assert replaced(target) == 0o600


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_what_fails_leaves_the_earlier_file_and_nothing_else(target, tmp_path, monkeypatch, call):
    """No mode at all is less than what a draft has."""
    target.chmod(0)
    before = list(tmp_path.iterdir())
    monkeypatch.setattr(os, call, refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"), blocking._replacing(target) as file:
        file.write(b"later")
    target.chmod(0o600)
    assert target.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == before


def test_a_name_that_ends_like_a_directory_is_no_file(tmp_path):
    """Nor is one made of that name without its end."""
    with (
        pytest.raises(IsADirectoryError, match="backup/"),
        blocking._to_write(f"{tmp_path}/backup/"),
    ):
        pass
    assert not list(tmp_path.iterdir())
