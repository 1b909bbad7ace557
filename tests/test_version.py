"""Which build of the program it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import farmer
from farmer.version import build, digest_of, release_words

PACKAGE = Path(farmer.__path__[0])


def test_the_same_program_elsewhere_is_the_same_build(tmp_path: Path) -> None:
    """However it was installed, and whatever lies beside its own files."""
    copy = tmp_path / "site-packages" / "farmer"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "app.pyc").write_bytes(b"compiled")
    assert digest_of(copy) == build()
    assert len(build()) == 8


def test_a_build_that_cannot_be_told_is_not_told_of() -> None:
    assert release_words("0.1.0", "0123abcd") == "0.1.0 build 0123abcd"
    assert release_words("0.1.0", "") == "0.1.0"


@pytest.mark.parametrize("change", ["edit", "rename", "add", "remove", "move a line"])
def test_any_change_of_the_program_is_another_build(tmp_path: Path, change: str) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\n")
    (tmp_path / "b.py").write_text("three\n")
    before = digest_of(tmp_path)
    match change:
        case "edit":
            (tmp_path / "a.py").write_text("one\ntoo\n")
        case "rename":
            (tmp_path / "a.py").rename(tmp_path / "c.py")
        case "add":
            (tmp_path / "c.py").touch()
        case "remove":
            (tmp_path / "b.py").unlink()
        case _:
            (tmp_path / "a.py").write_text("one\n")
            (tmp_path / "b.py").write_text("two\nthree\n")
    assert digest_of(tmp_path) != before


def test_a_program_that_cannot_be_read_has_no_build(tmp_path: Path) -> None:
    """While another one is being put in its place; no command ends by that."""
    (tmp_path / "a.py").symlink_to(tmp_path / "gone.py")
    assert digest_of(tmp_path) == ""
