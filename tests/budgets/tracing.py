"""A real daemon under strace, and one renter who asks it one thing after the other."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from farmer.model.audit import NONCE_BYTES, AuditEntry, AuditKind, Challenge
from farmer.protocol.connection import DataReceived, Event
from farmer.protocol.opening import End
from farmer.protocol.transfers import TO_THE_END, Accept, Audit, Retrieve, Send, Store, Stored
from tests.budgets.budgets import KIB, Calls
from tests.fakes import shard_of
from tests.load.farm import Farm
from tests.load.lines import EVENT, Crowd, Line, Script, greeting, identity_of
from tests.storage.bench import noise

SIZE_BYTES: Final = 64 * KIB
WARMING: Final = 20
"""Operations before those that are counted: the first of each make files, and learn."""

PHASE_S: Final = 120.0
KINDS: Final = {
    "send": ("sendto", "sendmsg"),
    "receive": ("recvfrom", "recvmsg"),
    "write": ("pwrite64", "pwritev", "pwritev2"),
    "sync": ("fdatasync", "fsync"),
    "read": ("pread64", "preadv", "preadv2"),
    "futex": ("futex",),
    "epoll": ("epoll_wait", "epoll_pwait", "epoll_pwait2"),
}
_KIND_OF: Final = {call: kind for kind, calls in KINDS.items() for call in calls}
_BEGUN: Final = re.compile(r"\d+ +(\d+\.\d+) (\w+)\(")
"""A call that goes on in another line ("resumed") is counted where it begins."""

Asked = Generator[float, Event | None, Any]


class Traced:
    """A farmer whose system calls are written down, and its one renter."""

    def __init__(self, folder: Path) -> None:
        self._trace = folder / "trace"
        self._farm = Farm(folder, sessions=8)
        self._spans: dict[str, tuple[float, float, int]] = {}
        self._done = False

    def run(self, operations: int) -> None:
        """Store, retrieve and audit so often each; stop the farmer."""
        self._farm.admit(range(1), 1 << 30)
        with self._farm:
            crowd = Crowd(self._start())
            line = crowd.call(identity_of(0))
            line.script = self._script(line, operations)
            deadline = time.monotonic() + 3 * PHASE_S
            while not self._done:
                crowd.run(0.2)
                assert not crowd.losses, crowd.losses
                assert time.monotonic() < deadline, self._farm.complaints()
            line.close()
            assert self._farm.daemon.stop() == 0
        self._wait_for_the_end()

    def calls(self) -> dict[str, Calls]:
        """Return what one operation of each kind took."""
        found = {what: Counter[str]() for what in self._spans}
        for moment, kind in self._traced():
            for what, (begins, ends, _) in self._spans.items():
                found[what][kind] += begins <= moment < ends
        return {
            what: Calls(**{kind: counts[kind] / self._spans[what][2] for kind in KINDS})
            for what, counts in found.items()
        }

    def _start(self) -> tuple[str, int]:
        # -D: strace stands aside, so that the process we stop is the daemon itself.
        words = ("strace", "-D", "-f", "--seccomp-bpf", "-ttt", "-s", "0", "-o", str(self._trace))
        self._farm.daemon.start(*words, "-e", f"trace={','.join(_KIND_OF)}")
        # A new volume is read at once, and that would count as the price of what is asked.
        assert self._farm.daemon.call("scrub", "pause").returncode == 0
        host, _, port = self._farm.daemon.status()["listen"][0].rpartition(":")
        return host, int(port)

    def _wait_for_the_end(self) -> None:
        deadline = time.monotonic() + PHASE_S
        while "+++ exited" not in self._trace.read_text()[-4000:]:
            assert time.monotonic() < deadline, "strace does not end"
            time.sleep(0.1)

    def _traced(self) -> Iterator[tuple[float, str]]:
        with self._trace.open() as lines:
            for found in filter(None, map(_BEGUN.match, lines)):
                if found[2] in _KIND_OF:
                    yield float(found[1]), _KIND_OF[found[2]]

    @contextmanager
    def _counting(self, what: str, operations: int) -> Iterator[None]:
        begins = time.time()
        yield
        self._spans[what] = (begins, time.time(), operations)

    def _script(self, line: Line, operations: int) -> Script:
        yield from greeting(line)
        shards = [noise(SIZE_BYTES, number) for number in range(WARMING + operations)]
        for what, ask in (("store", _store), ("retrieve", _retrieve), ("audit", _audit)):
            for data in shards[:WARMING]:
                yield from ask(line, data)
            with self._counting(what, operations):
                for data in shards[WARMING:]:
                    yield from ask(line, data)
        self._done = True


def _store(line: Line, data: bytes) -> Asked:
    line.say(Store(shard_of(data), len(data)))
    assert isinstance((yield EVENT), Accept)
    line.raw(line.connection.send_data(data) + line.connection.send(End()))
    assert isinstance((yield EVENT), Stored)


def _retrieve(line: Line, data: bytes) -> Asked:
    line.say(Retrieve(shard_of(data), 0, TO_THE_END, proved=False))
    assert isinstance((yield EVENT), Send)
    assert (yield from _received()) == len(data)


def _audit(line: Line, data: bytes) -> Asked:
    entries = (AuditEntry(shard_of(data), len(data), 1),)
    line.say(Audit(Challenge(bytes(NONCE_BYTES), AuditKind.SAMPLE, entries)))
    assert (yield from _received()) > KIB, "a refusal is shorter"


def _received() -> Asked:
    """Take bytes up to END; return how many."""
    got, event = 0, (yield EVENT)
    while isinstance(event, DataReceived):
        got += len(event.data)
        event = yield EVENT
    assert isinstance(event, End), event
    return got


def over(found: Calls, budget: Calls, slack: float) -> dict[str, tuple[float, float]]:
    """Return what is over its budget by more than *slack*: how much there was, and may be."""
    pairs = {kind: (was, asdict(budget)[kind]) for kind, was in asdict(found).items()}
    return {kind: (was, may) for kind, (was, may) in pairs.items() if was > may + slack}
