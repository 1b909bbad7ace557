"""What people write: settings, and the lines that come over the control socket."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from farmer.identity.signing import contract_digest
from farmer.model.contract import FREE, Offer
from farmer.node.tasks import Tasks
from farmer.running.control import ControlProtocol
from farmer.running.desk import HouseTerms, OwnerDesk
from farmer.settings.loader import SettingsError, load_text
from farmer.settings.printed import plain
from farmer.storage.contracts import ContractDatabase
from tests.fuzz.mutate import Picker, havoc
from tests.fuzz.target import Target
from tests.vectors.cast import FARMER, RENTER

NOW_MS: Final = 1_790_000_000_000
DAY_MS: Final = 86_400_000

SETTINGS: Final = (
    "version: 1\n",
    'version: 1\nname: "attic"\nlisten:\n  shards: ["[::]:4646"]\n  page: 127.0.0.1:4647\n',
    "version: 1\nvolumes:\n  - path: /srv/a\n    quota: 500GB\n    keep_free: 1%\n",
    "version: 1\nvolumes:\n- {path: /a, quota: max}\n- {path: /b, quota: 80%}\n",
    "version: 1\nshards:\n  size_max: 64MiB\n  fill: first\nsessions:\n  most: 512\n",
    "version: 1\nprice:\n  currency: EUR\n  stored: 1.50\n  served: 5\ndrain:\n  grace: 30s\n",
    "version: 1\nannounce: [farm.example.org:4646]\nlog: {level: info, format: json}\n",
    "version: 1\ncontracts:\n  overcommit: 1.5\n",
)
TOKENS: Final = (
    *(
        "{",
        "}",
        "[",
        "]",
        "- ",
        ": ",
        "&a ",
        "*a",
        "!!int ",
        "!!binary ",
        "|\n",
        ">\n",
        "? ",
        "---\n",
    ),
    *("<<: *a", "%YAML 1.1\n", "'", '"', "#", "\t", "\0", "\u0085", "\ufeff", "\U0001f600", "~"),
    *(
        "null",
        "yes",
        "0x10",
        "1e999",
        "-1",
        "1_000",
        ".inf",
        "2001-02-30",
        "9" * 400,
        "99999999999GB",
    ),
    *("version", "volumes", "quota", "path", "max", "0%", "101%", "1.5MiB", "-5GB", "[" * 40),
    *("::", "[::1]:0", "a:70000", "/", "../x", " ", "\n", "\r\n", "  ", "- - - "),
)


class SettingsFile(Target):
    name = "settings"
    executions = 60_000
    cost = 9
    memory_bytes = 4 << 20

    def seeds(self) -> list[bytes]:
        return [text.encode() for text in SETTINGS]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.2:
            return havoc(pick, seed, other)
        data = seed
        for _ in range(1 + pick.below(3)):
            words = [match.span() for match in re.finditer(rb"[\w./%\[\]:]+|\s+", data)]
            if not words:
                return pick.one(TOKENS).encode()
            start, end = pick.one(words)
            token = pick.one(TOKENS).encode()
            if pick.chance() < 0.3 and (others := re.findall(rb"\S+", other)):
                token = pick.one(others)
            data = data[:start] + token + data[start if pick.chance() < 0.3 else end :]
        return data

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Write a sound file with one value that may be wrong, of whatever type."""
        tree = yaml.safe_load(seed)
        below: Any = tree
        while isinstance(below, (dict, list)) and below:
            keys = list(below) if isinstance(below, dict) else list(range(len(below)))
            key = pick.one(keys)
            if not isinstance(below[key], (dict, list)) or pick.chance() < 0.1:
                below[key] = self._value(pick, below[key])
                break
            below = below[key]
        return yaml.safe_dump(tree, allow_unicode=True).encode()

    def _value(self, pick: Picker, value: object) -> object:
        match pick.below(7):
            case 0:
                return pick.one(TOKENS).strip()
            case 1:
                return pick.one((0, 1, -1, 1.5, True, None, [], {}, "", [1], {"a": 1}))
            case _:
                text = str(value)
                at = pick.below(len(text) + 1)
                return (
                    text if pick.chance() < 0.6 else text[:at] + pick.one("059aG%:. ") + text[at:]
                )

    def run(self, data: bytes) -> bool:
        text = data.decode("utf-8", "replace")
        try:
            loaded = load_text(text, "f.yaml", {})
        except SettingsError as error:
            assert error.faults and str(error)
            return not any("YAML" in fault.message for fault in error.faults)
        again = load_text(json.dumps(plain(loaded.settings), ensure_ascii=False), "again", {})
        assert again.settings == loaded.settings, "what is printed is not what was read"
        return True


class ControlLine(Target):
    """A line to the running farmer's control socket, answered by the real desk."""

    name = "control-request"
    executions = 40_000
    cost = 5
    memory_bytes = 4 << 20

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def _open(self) -> None:
        """Make a book with one contract; each `seeds` begins with a fresh one."""
        self.close()
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self._book = ContractDatabase(
            Path(self._folder.name) / "contracts.sqlite",
            farmer_key=FARMER.public_key,
            now_ms=lambda: NOW_MS,
            digest=contract_digest,
        )
        offer = Offer(
            space_bytes=1 << 30, duration_ms=DAY_MS, created_at_ms=NOW_MS, expires_at_ms=NOW_MS + 1
        )
        self._book.redeem(self._book.mint(offer, 1 << 40), RENTER.node_id)
        # Room for one invite more: most are refused, so that the book stays small.
        terms = HouseTerms(
            price=FREE,
            addresses=lambda: ("192.0.2.7:4646",),
            capacity_bytes=lambda: 2 << 30,
            usable_bytes=lambda: 1 << 40,
        )
        desk = OwnerDesk(self._book, FARMER, lambda: NOW_MS, terms)
        self._verbs = {name: _verb(desk, name) for name in desk.verbs}
        self._contract = str(self._book.contracts()[0][0].contract)

    def seeds(self) -> list[bytes]:
        self._open()
        asked: list[tuple[str, dict[str, Any]]] = [
            ("invites", {}),
            ("contracts", {}),
            ("invite", {"space_bytes": 1 << 20, "duration_ms": DAY_MS, "expires_ms": DAY_MS}),
            (
                "invite",
                {"space_bytes": 1 << 50, "duration_ms": 1, "expires_ms": 1, "currency": "EUR"},
            ),
            ("contract", {"contract": self._contract[:12]}),
            ("contract-extend", {"contract": self._contract, "for_ms": DAY_MS}),
            ("contract-extend", {"contract": self._contract, "for_ms": 1, "space_bytes": 5}),
            ("contract-end", {"contract": self._contract[:4]}),
            ("invite-withdraw", {"serial": "0" * 32}),
            ("clock-confirm", {}),
        ]
        return [json.dumps({"verb": verb, "words": words}).encode() for verb, words in asked]

    def mutate(self, pick: Picker, seed: bytes, other: bytes) -> bytes:
        if pick.chance() < 0.05:
            return pick.one((b"[" * 9000, b'{"verb":' * 2000, b"1e999", b'"\\ud800"', b"\xff\xfe"))
        return havoc(pick, seed, other)

    def mend(self, pick: Picker, data: bytes, seed: bytes) -> bytes:
        """Send sound JSON with another value, another key, or another verb."""
        request = json.loads(seed)
        words = request["words"]
        values = (
            *(
                0,
                -1,
                1,
                1.5,
                1 << 40,
                1 << 62,
                1 << 63,
                1 << 70,
                1e308,
                float("inf"),
                float("nan"),
            ),
            *(None, True, "", "x" * 300, "\ud800", "0" * 32, [], {}, self._contract, "%", "\0"),
        )
        if words and pick.chance() < 0.8:
            words[pick.one(sorted(words))] = pick.one(values)
        elif pick.chance() < 0.5:
            request["verb"] = pick.one(sorted(self._verbs))
        else:
            words[pick.one(("contract", "serial", "stored_micros", "served_micros", "x"))] = (
                pick.one(values)
            )
        return json.dumps(request).encode()

    def run(self, data: bytes) -> bool:
        if self._folder is None:
            self._open()
        tasks, clock, wire = Tasks(), Clock(), StringTransport()
        protocol = ControlProtocol(self._verbs, tasks, clock)
        protocol.makeConnection(wire)
        protocol.dataReceived(data.replace(b"\n", b" ") + b"\n")
        if wire.disconnecting and not wire.value():
            return False
        answer = json.loads(wire.value())
        assert wire.value().count(b"\n") == 1 and wire.disconnecting and not len(tasks)
        assert not clock.getDelayedCalls(), "a deadline was left behind"
        if answer["ok"]:
            return True
        assert "the farmer failed" not in answer["error"], answer["error"]
        return "not a question" not in answer["error"] and "knows no" not in answer["error"]

    def close(self) -> None:
        if self._folder is not None:
            self._book.close()
            self._folder.cleanup()
            self._folder = None


def _verb(desk: OwnerDesk, name: str) -> Any:
    async def verb(words: dict[str, Any]) -> dict[str, Any]:
        return desk.do(name, words)

    return verb


TARGETS: Final = (SettingsFile, ControlLine)
