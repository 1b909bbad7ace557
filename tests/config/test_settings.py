from __future__ import annotations

import pwd
import re
from pathlib import Path

import pytest

from farmer.model.contract import CURRENCY_BYTES_MAX, Price
from farmer.model.shard import SHARD_BYTES_MAX
from farmer.protocol.limits import SESSIONS_MAX, SESSIONS_PER_ADDRESS_MAX
from farmer.settings import kinds
from farmer.settings.kinds import split_address
from farmer.settings.loader import SettingsError, load, load_text
from farmer.settings.printed import example, flat, json_schema, main, plain, reference
from farmer.settings.schema import DEFAULTS, Settings
from farmer.settings.written import VolumeLine, settings_text, with_volume, without_volume
from farmer.storage import quota
from farmer.units import Space

ROOT = Path(__file__).parents[2]


def test_no_settings_are_the_defaults() -> None:
    assert load(None, {}).settings == DEFAULTS
    assert load_text("version: 1\n", "f", {}).settings == DEFAULTS


def test_everything_can_be_said() -> None:
    """One of each key, as the file writes it."""
    text = """
version: 1
name: "attic"
listen: {shards: ["[::]:4646", "10.0.0.1:80"], page: "127.0.0.1:0"}
announce: farmer.example.org:4646
volumes:
  - {path: /srv/a, quota: 80%, keep_free: 5GB}
  - {path: /srv/b, quota: max}
shards: {size_max: 1MiB}
price: {currency: EUR, stored: 1.5, served: "5"}
contracts: {overcommit: 2}
log: {level: debug, format: json}
drain: {grace: 5s}
"""
    settings = load_text(text, "f", {}).settings
    assert settings.name == "attic"
    assert settings.listen.shards == ("[::]:4646", "10.0.0.1:80")
    assert settings.announce == ("farmer.example.org:4646",)
    assert [volume.quota for volume in settings.volumes] == [Space(percent=80), Space(percent=100)]
    assert settings.volumes[0].keep_free == Space(size_bytes=5 * 10**9)
    assert (settings.price.stored, settings.price.served) == (1_500_000, 5_000_000)
    assert settings.drain.grace == 5000


def test_the_environment_goes_over_the_file() -> None:
    """Single values, list entries by number, whole lists by commas; empty is not set."""
    loaded = load_text(
        "version: 1\nname: file\nvolumes:\n  - {path: /a, quota: 1GB}\n",
        "f",
        {
            "FARMER_NAME": "environment",
            "FARMER_LISTEN__SHARDS": "10.0.0.1:1, [::1]:2",
            "FARMER_VOLUMES__0__QUOTA": "2GB",
            "FARMER_VOLUMES__1__PATH": "/b",
            "FARMER_VOLUMES__1__QUOTA": "80%",
            "FARMER_LOG__LEVEL": "",
            "FARMER_HOME": "/elsewhere",
            "FARMER_PORT": "tcp://10.0.0.1:80",
            "FARMERS": "unrelated",
        },
    )
    assert loaded.settings.name == "environment"
    assert loaded.settings.listen.shards == ("10.0.0.1:1", "[::1]:2")
    assert [volume.path for volume in loaded.settings.volumes] == ["/a", "/b"]
    assert loaded.settings.volumes[0].quota == Space(size_bytes=2 * 10**9)
    assert loaded.origins["name"] == "environment FARMER_NAME"
    assert loaded.origins["volumes.0.path"] == "f:4:12"
    assert loaded.origins["log.level"] == "default"


def test_every_setting_by_environment_alone() -> None:
    """What `flat` names is what the environment can set."""
    text = settings_text(volumes=[VolumeLine.parse("/a=1GB")], announce=["a.example:1"])
    rows = dict(flat(load_text(text, "f", {}).settings))
    environ = {f"FARMER_{name.upper().replace('.', '__')}": text for name, text in rows.items()}
    assert dict(flat(load(None, environ).settings)) == rows


def test_the_shown_settings_read_back() -> None:
    """`config show --json` prints what a settings file may hold."""
    shown = plain(DEFAULTS)
    assert set(shown) == set(plain(Settings(version=1)))
    assert shown["listen"]["page"] == "127.0.0.1:4647"


@pytest.mark.parametrize(
    ("path", "content"), [("conf/farmer.yaml", example()), ("docs/settings.md", reference())]
)
def test_generated_files_are_current(path: str, content: str) -> None:
    """Run `python -m farmer.settings.printed .` after a change."""
    assert (ROOT / path).read_text() == content


def test_all_is_generated_by_one_command(tmp_path: Path) -> None:
    for name in ("conf", "docs"):
        (tmp_path / name).mkdir()
    main(tmp_path)
    schema = "conf/farmer.schema.json"
    assert (tmp_path / schema).read_text() == (ROOT / schema).read_text()


def test_the_example_is_good_as_it_is_and_with_every_line_on() -> None:
    """As shipped it is the defaults; without the first # of each line it sets everything."""
    assert load_text(example(), "f", {}).settings == DEFAULTS
    everything = re.sub(r"(?m)^#(  |[a-z])", r"\1", example())
    loaded = load_text(everything, "f", {})
    assert "default" not in loaded.origins.values()


def test_the_json_schema_knows_every_key() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(plain(DEFAULTS))
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["version"]


def test_an_address_is_known_however_it_is_spelt() -> None:
    """As the system names it, and as a browser asks for it."""
    for spelt, known in (
        ("[FD00:0:0:1:0:0:0:5]:1", ("fd00:0:0:1::5", 1)),
        ("[::0]:2", ("::", 2)),
        ("192.168.1.20:3", ("192.168.1.20", 3)),
        ("NAS.example:4", ("NAS.example", 4)),
    ):
        assert split_address(spelt) == known


def test_a_path_that_is_no_text_is_refused_from_the_environment_too() -> None:
    """It could not be shown: page and metrics would fail."""
    environ = {"FARMER_VOLUMES__0__PATH": "/a\udcff", "FARMER_VOLUMES__0__QUOTA": "1GB"}
    with pytest.raises(SettingsError, match=r"FARMER_VOLUMES__0__PATH: .* is not UTF-8"):
        load(None, environ)
    with pytest.raises(ValueError, match="is not UTF-8"):
        VolumeLine.parse("/a\udcff=1GB")


def test_limits_agree_with_those_below() -> None:
    """The settings may not import the model for a number, but must say the same."""
    assert kinds.SHARD_BYTES_MAX == SHARD_BYTES_MAX
    assert kinds.CURRENCY_BYTES_MAX == CURRENCY_BYTES_MAX
    assert kinds.VOLUME_BYTES_MIN == quota.QUOTA_BYTES_MIN
    Price(currency="E" * kinds.CURRENCY_BYTES_MAX)
    allowed = DEFAULTS.sessions
    assert allowed.most == SESSIONS_MAX
    assert allowed.most_per_address == SESSIONS_PER_ADDRESS_MAX


def test_written_settings_read_back() -> None:
    """Whatever a name or path holds."""
    text = settings_text(
        name='a: "b" # c',
        shards=["127.0.0.1:0"],
        page="127.0.0.1:0",
        announce=["a.example:1"],
        volumes=[VolumeLine.parse("/a b: #c=80%")],
    )
    settings = load_text(text, "f", {}).settings
    assert settings.name == 'a: "b" # c'
    assert settings.volumes[0].path == "/a b: #c"
    assert settings.volumes[0].quota == Space(percent=80)


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\n",
        "version: 1",
        "version: 1\nvolumes:\n- path: /a\n  quota: 1GB\n",
        "version: 1\nvolumes:\n  - path: /a # here\n    quota: 1GB   # so much\nname: last",
        "version: 1\nvolumes:\n  - {path: /a, quota: 1GB}",
        "version: 1\r\nname: attic",
        "version: 1\r\nvolumes:\r\n  - path: /a\r\n    quota: 1GB\r\nname: last\r\n",
    ],
)
def test_a_volume_is_added_and_the_rest_stays(text: str) -> None:
    """Comments and order of a settings file survive."""
    before = load_text(text, "f", {}).settings
    added = with_volume(text, VolumeLine.parse("/b=2GB"))
    after = load_text(added, "f", {}).settings
    assert after.volumes[:-1] == before.volumes
    assert after.volumes[-1].path == "/b"
    assert after.name == before.name
    assert set(text.splitlines()) <= set(added.splitlines())
    assert ("\r\n" in text) == ("\r\n" in added)
    assert added.count("\n") == added.count("\r\n") or "\r\n" not in text


def test_a_list_in_one_line_is_left_alone() -> None:
    with pytest.raises(ValueError, match="not written as lines"):
        with_volume("version: 1\nvolumes: [{path: /a, quota: 1GB}]\n", VolumeLine.parse("/b=2GB"))


@pytest.mark.parametrize("text", ["/a", "=1GB", "/a=", "/a=5"])
def test_other_texts_name_no_volume(text: str) -> None:
    with pytest.raises(ValueError, match=r"like|unit"):
        VolumeLine.parse(text)


def test_a_path_in_nobodys_home_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a service whose user has none."""

    def nobody(_number: int) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(SettingsError, match=r"f:3:11: .*does not know where ~ is"):
        load_text("version: 1\nvolumes:\n  - path: ~/v\n    quota: 1GB\n", "f", {})


def test_a_volume_is_taken_out_and_the_rest_stays_as_it_was() -> None:
    """Comments and order stay; the first, the middle and the last of the list may go."""
    head = "# mine\nversion: 1\nvolumes:\n"
    rows = [f"  - path: /{name}  # {name}\n    quota: 1GB\n" for name in "abc"]
    foot = "# the rest\nname: attic\n"
    for number, name in enumerate("abc"):
        left = "".join(row for row in rows if row is not rows[number])
        assert without_volume(head + "".join(rows) + foot, f"/{name}") == head + left + foot
    assert without_volume(head + "".join(rows[:2])[:-1], "/b") == head + rows[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nvolumes:\n  - path: /b\n    quota: 1GB\n", "not in the list"),
        ("version: 1\n", "not in the list"),
        ("version: 1\nvolumes:\n  - path: /a\n    quota: 1GB\n", "only volume"),
        ("version: 1\nvolumes: [{path: /a, quota: 1GB}]\n", "lines that begin with"),
        ("[]", "not `key: value` lines"),
        (
            "volumes:\n  -\n    path: /a\n    quota: 1GB\n  - path: /b\n    quota: 1GB\n",
            "lines that begin with",
        ),
    ],
)
def test_what_is_written_otherwise_is_not_touched(text: str, words: str) -> None:
    """A list in one line, or an entry that begins oddly, is left to its owner."""
    with pytest.raises(ValueError, match=words):
        without_volume(text, "/a")
