"""A real daemon for a load: many contracts made beforehand, its memory and descriptors read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from farmer.identity.keys import Identity
from farmer.identity.signing import contract_digest, make_invite
from farmer.model.contract import ContractStage, Offer
from farmer.model.ids import InviteSerial
from farmer.protocol.documents import invite_bytes
from farmer.storage import book_rows
from farmer.storage.contracts import ContractDatabase
from tests.e2e.daemon import Daemon
from tests.load.lines import identity_of

DAY_MS: Final = 86_400_000


class Farm:
    """`farmer run` on a home of its own, with as many renters as are wanted."""

    def __init__(self, folder: Path, sessions: int, quota: str = "4GB") -> None:
        self.daemon = Daemon(folder / "home", folder / "volume", quota)
        settings = folder / "home" / "farmer.yaml"
        text = settings.read_text()
        # A sixteenth of all places is kept for those who have yet to show their contract.
        sessions += sessions // 15 + 50
        allowed = f"sessions:\n  most: {sessions}\n  most_per_address: {sessions}\n"
        settings.write_text(f"{text}\n{allowed}")
        self._home = folder / "home"

    def admit(self, renters: range, space_bytes: int) -> None:
        """Make a contract for each of these, before the start, as a redeemed invite does."""
        offer = _offer(space_bytes)
        # In one transaction: one by one, each asks again what all the others were promised.
        with self._book() as book, book._book.writing() as rows:
            for number in renters:
                renter = identity_of(number).node_id
                contract = book._contract_for(rows, renter, None, offer)
                book._put(rows, contract, ContractStage.ACTIVE)

    def mint(self, invites: int, space_bytes: int) -> list[bytes]:
        """Make open invites, before the start; return each as it goes over the wire."""
        identity, offer = Identity.load(self._home / "identity"), _offer(space_bytes)
        serials = [InviteSerial(secrets.token_bytes(16)) for _ in range(invites)]
        with self._book() as book, book._changing() as rows:
            for serial in serials:
                book_rows.add_invite(rows, serial, offer)
        return [invite_bytes(make_invite(identity, serial, offer)) for serial in serials]

    @contextmanager
    def _book(self) -> Iterator[ContractDatabase]:
        book = ContractDatabase(
            self._home / "contracts.sqlite",
            farmer_key=Identity.load(self._home / "identity").public_key,
            now_ms=_now_ms,
            digest=contract_digest,
        )
        try:
            yield book
        finally:
            book.close()

    def start(self) -> tuple[str, int]:
        """Start it; return where it listens."""
        self.daemon.start()
        host, _, port = self.daemon.status()["listen"][0].rpartition(":")
        return host, int(port)

    @property
    def pid(self) -> int:
        assert self.daemon.process is not None
        return self.daemon.process.pid

    def memory_bytes(self) -> int:
        """Return the daemon's proportional share of memory (PSS)."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no Pss")

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def complaints(self) -> str:
        """Return the last lines that the farmer logged."""
        return self.daemon.logs.read_text()[-3000:]

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.daemon.__exit__(kind, error, traceback)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _offer(space_bytes: int) -> Offer:
    now_ms = _now_ms()
    return Offer(
        space_bytes=space_bytes,
        duration_ms=90 * DAY_MS,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + DAY_MS,
    )
