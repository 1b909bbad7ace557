"""A farmer as its renter sees it: one method for each thing that can be asked of it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from farmer.client import auditing, repairing
from farmer.client.auditing import Audited, AuditReport
from farmer.client.checks import Checks
from farmer.client.dial import Dialer, FarmerAddress, TlsDialer
from farmer.client.door import Door, ThreadDoor
from farmer.client.errors import ClientError, SourceChangedError
from farmer.client.listing import Listing
from farmer.client.repairing import Repaired
from farmer.client.retries import BusyWait, Retries
from farmer.client.retrieving import Retrieval, Wanted
from farmer.client.session import Session
from farmer.client.sessions import Sessions
from farmer.client.storing import Progress, Source, no_progress, store
from farmer.identity.keys import Identity
from farmer.model.audit import NONCE_BYTES, AuditEntry, AuditKind, Challenge
from farmer.model.contract import Invite, InviteLink, Receipt
from farmer.model.ids import NodeId, ShardId
from farmer.model.shard import BadBlocks
from farmer.protocol.documents import invite_bytes
from farmer.protocol.limits import LIST_ENTRIES_MAX
from farmer.protocol.messages import Message
from farmer.protocol.proofs import ProofItem
from farmer.protocol.questions import (
    ContractShown,
    Delete,
    Deleted,
    List,
    Listed,
    Ping,
    Pong,
    Redeem,
    ShowContract,
    Stat,
    Stated,
    Undelete,
)
from farmer.protocol.refusals import Refusal, Refused

A = TypeVar("A", bound=Message)
R = TypeVar("R")

OnRetry = Callable[[ClientError], None]
"""Told, on the reactor, why something is tried again, before the wait for that."""

_FIRST = ShardId(bytes(ShardId.SIZE_BYTES))


def nobody_told(_error: ClientError) -> None:
    """Nobody wants to know."""


class Farmer:
    """
    One farmer, for one renter, over a few connections that come and go by themselves.

    All methods may be used at the same time.  Each raises `RefusedError` (a subclass for
    each refusal), `ConnectionFailedError`, `ConnectionLostError` when trying again did not
    help, `FarmerBrokeProtocolError`; what else, it says.
    """

    def __init__(
        self,
        dialer: Dialer,
        checks: Checks,
        clock: IReactorTime,
        door: Door,
        on_retry: OnRetry = nobody_told,
    ) -> None:
        self._on_retry = on_retry
        self._sessions = Sessions(dialer)
        self._checks = checks
        self._clock = clock
        self.door = door
        """Where blocking work of this farmer's user may go as well."""

    @property
    def node_id(self) -> NodeId:
        """Which farmer this is."""
        return self._checks.farmer

    async def redeem(self, invite: Invite, *, anyway: bool = False) -> ContractShown:
        """
        Spend an invite and return the contract; again, by the same renter, the same one.

        One that has less than the invite offers is an error, or is returned too, with *anyway*.
        """
        shown = await self._ask(Redeem(invite_bytes(invite)), ContractShown)
        if anyway:
            return self._checks.contract(shown)
        return self._checks.redeemed(shown, invite.offer)

    async def contract(self) -> ContractShown:
        """Return the contract, its stage and what it uses."""
        return self._checks.contract(await self._ask(ShowContract(), ContractShown))

    async def store(self, source: BinaryIO, progress: Progress = no_progress) -> Receipt:
        """
        Store what a seekable file holds from where it stands, and return the signed receipt.

        The shard is durable at the farmer when this returns.  The file is read twice: to
        make the shard id, then to send.

        Raises:
            SourceChangedError: the file changed in between; nothing was stored.

        """
        return await self.store_hashed(await self.hash(source), progress)

    async def hash(self, source: BinaryIO) -> Source:
        """Return a file's shard id and size, without storing it."""
        return await self.door.run(Source.hashed, source)

    async def store_hashed(self, source: Source, progress: Progress = no_progress) -> Receipt:
        """Store what `hash` has read; see `store`."""
        retries = Retries()

        def watch(done_bytes: int, total_bytes: int) -> None:
            retries.progressed(done_bytes)
            progress(done_bytes, total_bytes)

        async def attempt(session: Session) -> Receipt:
            return await store(session, source, self.door, watch)

        receipt = await self._trying(attempt, retries)
        return self._checks.receipt(receipt, source.shard, source.size_bytes)

    async def examine(self, shard: ShardId, size_bytes: int) -> BadBlocks:
        """
        Have the farmer read a whole shard and return which blocks are damaged.

        Counts as a full audit against the renter's budget for a day.  A farmer that is older than
        this question refuses it: `UnknownMessageError`.
        """
        return await self._trying(lambda session: repairing.examine(session, shard, size_bytes))

    async def repair(
        self, shard: ShardId, source: BinaryIO, progress: Progress = no_progress
    ) -> Repaired:
        """
        Make a damaged shard whole: send its damaged blocks again, and return a new receipt.

        *source* is a seekable file with our own copy, from where it stands.  The repaired shard
        is durable at the farmer when this returns.

        Raises:
            SourceChangedError: *source* is not that shard; nothing was sent.

        """
        hashed = await self.hash(source)
        if hashed.shard != shard:
            raise SourceChangedError("this file is not what was stored; it changed since")

        async def attempt(session: Session) -> Repaired:
            return Repaired(*await repairing.repair(session, hashed, self.door, progress))

        repaired = await self._trying(attempt)
        self._checks.receipt(repaired.receipt, shard, hashed.size_bytes)
        return repaired

    async def retrieve(
        self,
        shard: ShardId,
        target: BinaryIO,
        offset: int = 0,
        length: int | None = None,
        *,
        proved: bool = False,
        progress: Progress = no_progress,
    ) -> None:
        """
        Write a shard, or a part of it, to a file.

        A whole shard, or a part with *proved*, is checked while it streams; it is known to
        be right only when this returns.

        Raises:
            WrongBytesError: what was written must not be used.

        """
        wanted = Wanted(shard, offset, length, proved)
        await self.carry_out(Retrieval(wanted, target), progress)

    async def carry_out(
        self,
        retrieval: Retrieval,
        progress: Progress = no_progress,
        busy: BusyWait | None = None,
    ) -> None:
        """Retrieve what was prepared; see `retrieve`, and for *busy* `audit_full`."""
        retries = Retries(busy)

        def watch(done_bytes: int, total_bytes: int) -> None:
            retries.progressed(done_bytes)
            progress(done_bytes, total_bytes)

        async def attempt(session: Session) -> None:
            await retrieval.attempt(session, self.door, watch)

        await self._trying(attempt, retries)

    async def audit(self, receipts: Iterable[Receipt], samples: int | None = None) -> AuditReport:
        """
        Have the farmer prove by samples that it holds what these receipts say it holds.

        *samples* leaves of each shard; without a number, enough to find a loss of 1 % of
        everything with a probability of 99 %, or 20 of each.
        """
        return AuditReport(tuple([one async for one in self.verdicts(receipts, samples)]))

    async def verdicts(
        self, receipts: Iterable[Receipt], samples: int | None = None
    ) -> AsyncIterator[Audited]:
        """
        Audit like `audit`, and return each verdict, in the order asked, as soon as it is known.

        What was returned before an error is as true as without it.
        """
        held = tuple(receipts)
        each = auditing.samples_for(len(held)) if samples is None else samples
        entries = [auditing.sample_entry(one.shard, one.size_bytes, each) for one in held]
        for batch in auditing.batches(entries):
            for one in await self._audit_batch(batch):
                yield one

    async def audit_full(
        self, receipt: Receipt, source: BinaryIO, busy: BusyWait | None = None
    ) -> Audited:
        """
        Have the farmer hash a whole shard under a fresh nonce, and compare with our own bytes.

        Who audits many gives all the same *busy*: what is left to wait for a farmer that is.

        Raises:
            SourceChangedError: *source*, from where it stands, is not that shard.

        """
        entry = AuditEntry(receipt.shard, receipt.size_bytes, 0)
        start, busy = await self.door.run(source.tell), busy or BusyWait()

        async def asked(session: Session) -> tuple[bytes, ProofItem]:
            challenge = _challenge(AuditKind.FULL, (entry,))
            await self.door.run(source.seek, start)
            digest, same = await self.door.run(
                auditing.full_digest, entry.shard, challenge.nonce, source
            )
            if not same:
                raise SourceChangedError("this file is not what was stored; it changed since")
            asked_s = self._clock.seconds()
            (item,) = await auditing.answers(session, challenge)
            if isinstance(item, Refused) and item.refusal is Refusal.BUSY:
                busy.left_s -= self._clock.seconds() - asked_s
            return digest, item

        try:
            digest, item = await self._trying(asked, Retries(busy))
        except auditing.NOT_YET as error:
            return auditing.postponed((entry,), error)[0]
        return auditing.judge_full(entry, item, digest)

    async def stat(self, shard: ShardId) -> Stated:
        """Return what the farmer knows of one shard."""
        return self._checks.stated(await self._ask(Stat(shard), Stated), shard)

    async def list(self, page: int = LIST_ENTRIES_MAX) -> AsyncIterator[Stated]:
        """
        Return all shards of this renter that the farmer says it has, ascending by id.

        A list that cannot be expected to end raises as `Listing.took`.
        """
        after, more, listing = _FIRST, True, Listing(page)
        while more:
            asked_s = self._clock.seconds()
            listed = await self._ask(List(after, page), Listed)
            self._checks.page(listed, after, page)
            listing.took(listed, self._clock.seconds() - asked_s)
            for entry in listed.entries:
                yield entry
                after = entry.shard
            more = listed.more

    async def delete(self, shard: ShardId, *, erase: bool = False) -> Deleted:
        """
        Move a shard to the trash, or erase it; durable when this returns.

        To erase again raises `NotFoundError`: also where the answer to the first time was lost.
        """
        return await self._ask(Delete(shard, erase), Deleted)

    async def undelete(self, shard: ShardId) -> Stated:
        """Take a shard out of the trash; durable when this returns."""
        return self._checks.stated(await self._ask(Undelete(shard), Stated), shard)

    async def ping(self) -> Pong:
        """Return the farmer's time, free space, prices and version."""
        token = secrets.randbits(63)
        return self._checks.pong(await self._ask(Ping(token), Pong), token)

    async def close(self) -> None:
        """Hang up, in order."""
        await self._sessions.close()

    async def _ask(self, question: Message, answer: type[A]) -> A:
        return await self._trying(lambda session: session.ask(question, answer))

    async def _audit_batch(self, batch: tuple[AuditEntry, ...]) -> tuple[Audited, ...]:
        # The same for all attempts: another nonce asks for other leaves, and who has lost some
        # would hang up, or say that it is busy, until it is asked for those that it has.
        challenge = _challenge(AuditKind.SAMPLE, batch)
        not_busy = Retries(BusyWait(0.0))
        try:
            items = await self._trying(
                lambda session: auditing.answers(session, challenge), not_busy
            )
        except auditing.NOT_YET as error:
            return auditing.postponed(batch, error)
        return await self.door.run(auditing.judge_samples, challenge, items)

    async def _trying(
        self, work: Callable[[Session], Coroutine[Any, Any, R]], retries: Retries | None = None
    ) -> R:
        """Do some work with a session, again with another one if it is worth it."""
        retries = retries or Retries()
        while True:
            try:
                async with self._sessions.one() as session:
                    return await work(session)
            except ClientError as error:
                now_s, was_reached = self._clock.seconds(), self._sessions.was_reached
                delay_s = retries.delay_s(error, now_s, was_reached=was_reached)
                if delay_s is None:
                    raise
                self._on_retry(error)
            await deferLater(self._clock, delay_s)


@asynccontextmanager
async def connect(
    target: FarmerAddress | InviteLink | str,
    identity: Identity,
    reactor: Any,  # noqa: ANN401 - a reactor is many interfaces at once
    on_retry: OnRetry = nobody_told,
) -> AsyncIterator[Farmer]:
    """
    Connect to the farmer named by an invite, or by `NODEID@HOST:PORT`; hang up at the end.

    Connections are made when they are first used.  An invite is not redeemed by this.
    *on_retry* is told when one is lost and made again, or a busy farmer is waited for.

    Raises:
        ValueError: *target* names no farmer.

    """
    address = FarmerAddress.of(target)
    door = ThreadDoor(reactor)
    checks = Checks(address.farmer, identity.node_id)
    farmer = Farmer(TlsDialer(reactor, identity, address), checks, reactor, door, on_retry)
    try:
        yield farmer
    finally:
        await farmer.close()
        await door.close()


def _challenge(kind: AuditKind, entries: tuple[AuditEntry, ...]) -> Challenge:
    return Challenge(secrets.token_bytes(NONCE_BYTES), kind, entries)
