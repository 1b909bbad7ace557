"""An identity on disk: made once, kept private, and clear about what is wrong with it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from farmer.identity.keys import CERTIFICATE_FILE, KEY_FILE, Identity, IdentityError
from farmer.identity.signing import node_id_of_key


def test_a_new_identity_is_loaded_again_as_the_same_one(tmp_path: Path) -> None:
    made = Identity.create(tmp_path / "home")
    assert Identity.load(tmp_path / "home") == made
    assert made.node_id == node_id_of_key(made.public_key)


def test_both_files_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    Identity.create(tmp_path / "home")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "home").iterdir()}
    assert modes == {KEY_FILE: 0o600, CERTIFICATE_FILE: 0o600}


def test_an_identity_is_durable_when_it_is_made(tmp_path: Path, synced: list[int]) -> None:
    """What it signs may be in a renter's hands before a power cut: each file, then its name."""
    Identity.create(tmp_path)
    paths = (tmp_path, tmp_path / KEY_FILE, tmp_path / CERTIFICATE_FILE)
    home, key, shown = (path.stat().st_ino for path in paths)
    assert synced == [key, home, shown, home]


def test_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    made = Identity.create(tmp_path)
    with pytest.raises(IdentityError, match="never overwritten"):
        Identity.create(tmp_path)
    assert Identity.load(tmp_path) == made


def test_a_key_that_others_may_read_is_not_used_and_the_error_says_what_to_type(
    tmp_path: Path,
) -> None:
    Identity.create(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(IdentityError, match=f"chmod 600 {tmp_path / KEY_FILE}"):
        Identity.load(tmp_path)


def test_a_missing_certificate_is_made_again_from_the_key(tmp_path: Path) -> None:
    made = Identity.create(tmp_path)
    (tmp_path / CERTIFICATE_FILE).unlink()
    assert Identity.load(tmp_path) == made
    assert (tmp_path / CERTIFICATE_FILE).exists()


def test_a_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    Identity.create(tmp_path / "ours")
    Identity.create(tmp_path / "theirs")
    (tmp_path / "theirs" / CERTIFICATE_FILE).replace(tmp_path / "ours" / CERTIFICATE_FILE)
    with pytest.raises(IdentityError, match="does not belong"):
        Identity.load(tmp_path / "ours")


def test_a_damaged_certificate_is_refused(tmp_path: Path) -> None:
    Identity.create(tmp_path)
    (tmp_path / CERTIFICATE_FILE).write_text("nothing")
    with pytest.raises(IdentityError, match="can be removed"):
        Identity.load(tmp_path)


def test_load_or_create_makes_one_and_then_keeps_it(tmp_path: Path) -> None:
    assert Identity.load_or_create(tmp_path) == Identity.load_or_create(tmp_path)


def test_of_two_programs_that_find_no_identity_both_get_the_same(tmp_path: Path) -> None:
    """Whoever is a moment later is told nothing, least of all to move the other's key away."""
    for number in range(100):
        home, begin = tmp_path / str(number), Barrier(2)

        def made(home: Path = home, begin: Barrier = begin) -> Identity:
            begin.wait()
            return Identity.load_or_create(home)

        with ThreadPoolExecutor(2) as threads:
            one, other = [threads.submit(made) for _ in range(2)]
        assert one.result() == other.result() == Identity.load(home)


@pytest.mark.parametrize("late", [CERTIFICATE_FILE, KEY_FILE])
def test_what_another_program_makes_in_between_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """It has made both files by the moment in which we find that one of them is missing."""
    exists = Path.exists

    def just_before(path: Path) -> bool:
        was_there = exists(path)
        if path.name == late and not was_there:
            monkeypatch.undo()
            Identity.create(path.parent)
        return was_there

    monkeypatch.setattr(Path, "exists", just_before)
    made = Identity.load_or_create(tmp_path / "home")
    assert made == Identity.load(tmp_path / "home")


def test_a_certificate_that_appears_in_the_same_moment_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Identity.create(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    assert Identity.load(tmp_path) == made


def test_a_certificate_that_is_there_before_the_key_is_told(tmp_path: Path) -> None:
    Identity.create(tmp_path)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(IdentityError, match="does not belong"):
        Identity.create(tmp_path)


def test_a_lost_key_is_not_silently_replaced_by_a_new_one(tmp_path: Path) -> None:
    Identity.create(tmp_path)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(IdentityError, match="backup"):
        Identity.load_or_create(tmp_path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="is missing"):
        Identity.load(tmp_path)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nonsense",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    ],
)
def test_a_file_that_is_no_ed25519_key_is_refused(tmp_path: Path, pem: bytes) -> None:
    Identity.create(tmp_path)
    (tmp_path / KEY_FILE).write_bytes(pem)
    with pytest.raises(IdentityError, match="backup"):
        Identity.load(tmp_path)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="cannot write"):
        Identity.create(tmp_path / "file" / "home")


def test_the_private_part_is_not_shown(tmp_path: Path) -> None:
    assert "rivate" not in repr(Identity.create(tmp_path))
