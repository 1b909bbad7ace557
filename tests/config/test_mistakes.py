"""What people get wrong in settings, and the words they read then."""

from __future__ import annotations

from errno import EACCES
from pathlib import Path

import pytest

from farmer.settings.loader import LIST_MAX, SettingsError, load, load_text
from farmer.settings.tree import FILE_BYTES_MAX, NODES_MAX

V = "version: 1\n"

MISTAKES = [
    ("an unknown key", V + "nmae: x", 'f:2:1: unknown key "nmae", did you mean "name"?'),
    ("nothing like it", V + "zzzzzz: x", 'f:2:1: unknown key "zzzzzz"; known are version'),
    (
        "unknown below",
        V + "listen:\n  pgae: a:1",
        'f:3:3: unknown key "pgae", did you mean "page"',
    ),
    (
        "a key with a dot",
        V + "listen.page: 192.168.1.5:4647",
        'f:2:1: unknown key "listen.page": write "listen:", and in the line below, two spaces '
        'further in, "page: 192.168.1.5:4647"',
    ),
    (
        "a list with a dot",
        V + "listen.shards: [a:1, b:2]",
        'two spaces further in, "shards: ..."',
    ),
    (
        "a dot too many",
        V + "volumes.path: /a",
        'unknown key "volumes.path", did you mean "volumes"',
    ),
    ("too far from anything", V + "nosuch: x", 'f:2:1: unknown key "nosuch"; known are version'),
    ("a duplicate", V + "name: a\nname: b", 'f:3:1: duplicate key "name", first given at f:2:1'),
    ("no version", "name: a", 'f:1:1: "version" is missing, like version: 1'),
    ("a newer version", "version: 2", 'f:1:10: "version": version 2 of the settings'),
    ("a version in words", "version: one", "f:1:10:"),
    ("an empty value", V + "name:", 'f:2:6: "name" has no value'),
    ("null", V + "listen:\n  page: ~", 'f:3:9: "listen.page" has no value'),
    ("a group without keys", V + "listen:", 'f:2:8: "listen" is a group of settings'),
    ("a value for a group", V + "log: debug", 'f:2:6: "log" is a group of settings'),
    ("a list for a group", V + "log: [a]", 'f:2:6: "log" is a group of settings'),
    ("a group for a value", V + "name: {a: b}", 'f:2:7: "name" takes one name, not several'),
    ("a list for a value", V + "name: [a, b]", 'f:2:7: "name" takes one name, not several'),
    ("yes for a name", V + "name: yes", 'f:2:7: "name" takes one name: YAML reads yes as bool'),
    ("a number for a name", V + "name: 12", "YAML reads 12 as int"),
    ("a bare port", V + "listen:\n  page: 4647", "f:3:9:"),
    ("a port too large", V + "listen:\n  page: a:70000", "a port is at most 65535"),
    ("bare IPv6", V + "listen:\n  page: ::1:80", "write an IPv6 address in brackets"),
    ("a URL", V + "listen:\n  page: http://a:80", "is not a host name or address"),
    ("one bad in a list", V + "listen:\n  shards: [a:1, b]", 'f:3:17: "listen.shards.1"'),
    ("no address at all", V + "listen:\n  shards: []", 'f:3:11: "listen.shards" needs an address'),
    ("announcing nowhere", V + "announce: 0.0.0.0:1", "is not an address that others can call"),
    (
        "announcing nowhere, spelt otherwise",
        V + 'announce: "[0::0]:1"',
        "is not an address that others can call",
    ),
    (
        "one address in two spellings",
        V + 'listen:\n  shards: ["[::1]:4"]\n  page: "[0:0::1]:4"',
        '"listen.page" and "listen.shards.0" want the same port',
    ),
    ("no text in a host", V + 'listen: {page: "a\\udcff:1"}', "is not a host name or address"),
    ("no text in a path", V + 'volumes: [{path: "/\\uDCFF", quota: 1GB}]', "is not UTF-8"),
    *(
        (f"announcing what no invite can carry: {host}", V + f'announce: "{host}:1"', told)
        for host, told in (
            ("b\u00fccher.example", "an invite can carry: a name of letters, digits"),
            ("host~1.example", "(others as the DNS has them, xn--...)"),
            ("a!b", "is not an address that an invite can carry"),
            ("[zz::1]", "or an IPv6 address in brackets"),
        )
    ),
    (
        "announcing more than an invite can carry",
        V + "announce: [" + "a:1, " * 8 + "a:2]",
        'f:2:52: "announce" has room for 8 addresses',
    ),
    ("announcing port 0", V + "announce: a.example:0", "is not an address that others can call"),
    (
        "a bare size",
        V + "shards:\n  size_max: 64",
        "f:3:13: \"shards.size_max\": '64' has no unit",
    ),
    ("a size too large", V + "shards:\n  size_max: 5GiB", "between 1B and 4GiB"),
    ("a bad unit", V + "shards:\n  size_max: 5XB", "'XB' is not a unit of size"),
    ("a tiny volume", V + "volumes: [{path: /a, quota: 1MB}]", "too small for a volume"),
    ("no share", V + "volumes: [{path: /a, quota: 0%}]", "too small for a volume"),
    ("a quota over all", V + "volumes: [{path: /a, quota: 101%}]", "between 0% and 100%"),
    ("a relative path", V + "volumes: [{path: a, quota: 1GB}]", "not an absolute path"),
    (
        "a volume without quota",
        V + "volumes:\n  - path: /a",
        'f:3:5: "volumes.0.quota" is missing',
    ),
    ("one volume, no list", V + "volumes:\n  path: /a", 'f:3:3: "volumes" is a list'),
    ("text for volumes", V + "volumes: /a", '"volumes" is a list of groups'),
    (
        "a volume inside another",
        V + "volumes:\n  - {path: /a, quota: 1GB}\n  - {path: /a/b, quota: 1GB}",
        'f:4:12: "volumes.1.path" lies inside "volumes.0.path", /a',
    ),
    (
        "a volume around another",
        V + "volumes:\n  - {path: /a/b, quota: 1GB}\n  - {path: /a, quota: 1GB}",
        'f:4:12: "volumes.1.path" lies around "volumes.0.path", /a/b',
    ),
    (
        "the same volume in other words",
        V + "volumes:\n  - {path: /a/b, quota: 1GB}\n  - {path: /a/./c/../b/, quota: 1GB}",
        'f:4:12: "volumes.1.path" is the same as "volumes.0.path", /a/b',
    ),
    ("a bare shard size", V + "shards: {size_max: 64}", "write 64MiB (or MB, GB"),
    ("the same port twice", V + "listen: {shards: '[::]:4647'}", "want the same port"),
    ("a price without currency", V + "price:\n  stored: 2", 'f:3:11: "price.stored" needs'),
    ("a negative price", V + "price: {stored: -1, currency: EUR}", "not an amount"),
    ("a currency in signs", V + "price: {currency: \u20ac}", "ASCII characters: EUR"),
    ("a long currency", V + "price: {currency: ABCDEFGHIJKLMNOPQ}", "at most 16"),
    ("overcommit below 1", V + "contracts: {overcommit: 0.5}", "between 1.0 and 100"),
    ("an unknown level", V + "log: {level: chatty}", "'chatty' is none of debug, info"),
    ("a bare duration", V + "drain: {grace: 30}", "'30' has no unit: write 30s (or m, h"),
    ("a tab", V + "listen:\n\tpage: a:1", "f:3:1: this is not YAML"),
    ("an open bracket", V + "announce: [a:1", "this is not YAML"),
    ("an unknown alias", V + "name: *x", "f:2:7: this is not YAML"),
    ("a list as settings", "- version: 1", "f:1:1: settings are `key: value` lines"),
    ("a word as settings", "hello", "f:1:1: settings are `key: value` lines"),
    ("nothing", "", '"version" is missing'),
    ("a list as a key", V + "[a, b]: c", "f:2:1: a key is one word"),
    ("control characters", V + 'name: "a\\u001bb"', "printable characters"),
    ("two documents", V + "---\nversion: 1", "this is not YAML"),
    ("a python object", V + "name: !!python/object:os.system x", "f:2:7:"),
    ("a raw zero", V + "name: a\0b", "this is not YAML"),
]


@pytest.mark.parametrize(
    ("text", "words"), [row[1:] for row in MISTAKES], ids=[r[0] for r in MISTAKES]
)
def test_a_mistake_is_told_with_its_place(text: str, words: str) -> None:
    """Every fault names file, line and column, and says what to write instead."""
    with pytest.raises(SettingsError) as caught:
        load_text(text, "f", {})
    assert words in str(caught.value)
    assert str(caught.value).startswith(("f:", "default:"))


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody has to run the check once for each mistake."""
    text = V + "nmae: x\nlog: {level: chatty}\nlisten: {page: nowhere}\n"
    with pytest.raises(SettingsError) as caught:
        load_text(text, "f", {})
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("FARMER_LISTEN__PAGE", "nowhere", "environment FARMER_LISTEN__PAGE: "),
        ("FARMER_LISTN__PAGE", "a:1", 'unknown key "listn", did you mean "listen"?'),
        ("FARMER_VOLUMES__1__PATH", "/a", "numbered 0, 1, 2 without gaps"),
        ("FARMER_VOLUMES__0__PATHH", "/a", 'unknown key "pathh", did you mean "path"?'),
        ("FARMER_LISTEN", "a:1", '"listen" is a group of settings'),
        ("FARMER_LISTEN____PAGE", "a:1", "this does not name a setting"),
        ("FARMER_NMAE", "attic", "no setting; did you mean FARMER_NAME?"),
        ("FARMER_LISTEN_PAGE", "a:1", "did you mean FARMER_LISTEN__PAGE?"),
        ("FARMER_VOLUME", "/a", "did you mean FARMER_VOLUMES__0__PATH?"),
    ],
)
def test_mistakes_in_the_environment(variable: str, text: str, words: str) -> None:
    """The variable is named as the place."""
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: text})
    assert words in str(caught.value)
    assert f"environment {variable}" in str(caught.value)


def test_huge_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """A disk image named by mistake is not read into memory."""
    path = tmp_path / "f"
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(SettingsError, match="larger than 1 MiB"):
        load(path, {})
    path.write_bytes(b"version: 1\nname: \xff\xfe\n")
    with pytest.raises(SettingsError, match="f:2:1: this is not UTF-8 text"):
        load(path, {})
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(tmp_path / "missing", {})


def test_a_file_that_may_not_be_read_is_refused_with_what_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be root's, while the farmer is a user of its own."""

    def refused(*_what: object) -> None:
        raise PermissionError(EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(SettingsError, match=r"Permission denied .*: sudo chmod o\+r '.*/my f'"):
        load(tmp_path / "my f", {})


def test_deep_and_circular_texts_are_refused() -> None:
    """Neither a bomb of brackets nor an alias to itself takes us down."""
    for text in (V + "name: " + "[" * 5000 + "]" * 5000, V + "name: &x [*x]"):
        with pytest.raises(SettingsError):
            load_text(text, "f", {})


def test_aliases_are_not_unfolded_without_end() -> None:
    """A few lines can stand for billions of values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(SettingsError) as caught:
        load_text(V + "\n".join(lines), "f", {})
    assert len(caught.value.faults) == 1
    assert f"more than {NODES_MAX} values" in str(caught.value)


def test_as_many_volumes_as_a_list_has_room_for_are_no_bomb() -> None:
    row = "- {path: /v%d, quota: 1GB, keep_free: 1%%}\n"
    text = V + "volumes:\n" + "".join(row % n for n in range(LIST_MAX))
    assert len(load_text(text, "f", {}).settings.volumes) == LIST_MAX
