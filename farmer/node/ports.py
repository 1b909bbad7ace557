"""What the serving side asks of the rest of the house.  Each port is owned here, by its user."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

from farmer.model.audit import AuditEntry, SampleProof
from farmer.model.contract import Contract, ContractStage
from farmer.model.ids import InviteSerial, NodeId, ShardId
from farmer.model.shard import BadBlocks, Deletion, StoredShard, Usage
from farmer.protocol.frames import Chunk, Piece

P = ParamSpec("P")
R = TypeVar("R")


class Disk(Protocol):
    """The one door from the reactor to blocking work."""

    @property
    def is_idle(self) -> bool:
        """Whether no thread is at work, or about to be."""

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """
        Return a Deferred of the work's result; the work runs in a thread of the door's.

        Where the work waits for a disk that hangs, the Deferred fails with
        `VolumeUnavailableError`; the work may still be done some day, its result is dropped.
        """

    def follow(
        self, work: Callable[P, Future[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]:
        """Run work that gives something to a writer thread; return a Deferred of its outcome."""

    def settle(self, future: Future[R]) -> Deferred[R]:
        """Return a Deferred, fired on the reactor, of what another thread will settle."""


class Upload(Protocol):
    """One shard being stored.  Blocking calls; one at a time, from any thread."""

    @property
    def offset(self) -> int:
        """Where the next byte belongs: above 0 when an unfinished store goes on."""

    def write(self, data: Piece) -> None:
        """
        Take the next bytes; they may be kept as they are until the upload ends.

        Raises:
            WrongSizeError: more than was declared; nothing is kept.
            NoSpaceError, VolumeUnavailableError: the disk failed us.

        """

    def commit(self) -> Future[StoredShard]:
        """
        Check the bytes against the shard id, then make them durable.

        The future is settled after the sync, by the writer thread; it may fail like `write`.

        Raises:
            WrongSizeError: fewer bytes than declared; nothing is kept.
            WrongHashError: not the bytes that the id names; nothing is kept.

        """

    def abandon(self) -> None:
        """
        Stop: forget it, but for a large one that has a byte.

        That becomes a lease, which can be resumed.  Safe to call at any time, also after
        `commit` and twice.
        """


class Mending(Protocol):
    """One damaged shard being made whole.  Blocking calls; one at a time, from any thread."""

    @property
    def bad(self) -> BadBlocks:
        """The blocks whose bytes are wanted."""

    @property
    def wanted_bytes(self) -> int:
        """How many bytes those are."""

    def write(self, data: Piece) -> None:
        """
        Take the next bytes of the bad blocks, one block after the other.

        Raises:
            WrongHashError: not the bytes of that block; nothing is kept.
            WrongSizeError: more than the bad blocks have; nothing is kept.
            CorruptShardError: more has rotted meanwhile; the renter asks again.
            ShardWentError: the shard was erased meanwhile.
            NoSpaceError, VolumeUnavailableError: the disk failed us.

        """

    def commit(self) -> Future[StoredShard]:
        """Check the whole shard, then make it durable; see `Upload.commit`."""

    def abandon(self) -> None:
        """Leave all as it was; safe at any time, also after `commit` and twice."""


class ShardReader(Protocol):
    """
    One stored shard, open for reading; never moved or reclaimed until closed, or erased.

    A renter who takes it slowly does not keep by that what it has given up.
    """

    @property
    def stored(self) -> StoredShard:
        """What is known of it."""

    def read(self, offset: int, length: int) -> bytes:
        """
        Return exactly these bytes, just verified against their checksums.

        Raises:
            CorruptShardError: they are damaged; the shard is quarantined.
            ShardWentError: its renter has erased it since, and its space was given back.
            BadRangeError: beyond the end.

        """

    def prepare(self) -> None:
        """
        Read what blocks are compared with, so that `read_cached` can be asked; keep no more.

        Raises:
            CorruptShardError: none of it can be told right from wrong.

        """

    @property
    def kept_bytes(self) -> int:
        """How much it keeps in memory to compare blocks with; from memory."""

    def read_cached(self, offset: int, length: int) -> Chunk | None:
        """
        Return what `read` would if memory holds all of it, else None, and wait for no disk.

        For whole blocks; None as well where something is wrong with them, which `read` tells.
        """

    def prove_range(self, offset: int, length: int) -> tuple[bytes, ...]:
        """Return the tree nodes that lead from these whole leaves to the root."""

    def prove_sample(self, nonce: bytes, samples: int) -> SampleProof:
        """Return the proof of the sampled leaves; raises as `read`."""

    def close(self) -> None:
        """Let it go, without waiting for a disk; safe twice."""


class ShardStore(Protocol):
    """The engine.  Every call may block: go through `Disk`.  Raises `StorageError` kinds."""

    def begin(
        self,
        contract: Contract,
        shard: ShardId,
        size_bytes: int,
        again_bytes_max: int | None = None,
    ) -> Upload | StoredShard:
        """
        Reserve space and begin, or go on with, a store.

        A shard that the renter already holds live is returned as it is; one in the trash is
        taken out of it first (durably).  Of a damaged one the bytes are wanted again, and of one
        whose record cannot be read.

        Raises:
            WrongHashError: the id is held with another size; it has no other.
            BusyError: another stores it, or has just left more than *again_bytes_max* of it,
                see `begun_bytes`.
            ShardTooLargeError, NoSpaceError, ContractFullError, TooManyError,
            VolumeUnavailableError.

        """

    def open(self, renter: NodeId, shard: ShardId) -> ShardReader:
        """
        Open a shard that is not in the trash; of a damaged one all is served that is not.

        Raises:
            ShardNotFoundError, CorruptShardError (nothing of it can be told right from wrong),
            VolumeUnavailableError.

        """

    def prove_sample(self, renter: NodeId, nonce: bytes, entry: AuditEntry) -> SampleProof:
        """
        Return the proof of the sampled leaves; raises as `open` and `ShardReader.read`.

        A shard in quarantine is never proved: CorruptShardError.
        """

    def prove_full(self, renter: NodeId, nonce: bytes, entry: AuditEntry) -> bytes:
        """Return the 32-byte digest over nonce and whole shard; raises as `prove_sample`."""

    def examine(self, renter: NodeId, shard: ShardId) -> BadBlocks:
        """
        Read a whole shard and return its damaged blocks; it goes into quarantine if there are.

        Raises:
            ShardNotFoundError (also in the trash; `ShardWentError` once it has been read),
            VolumeUnavailableError.

        """

    def repair(self, contract: Contract, shard: ShardId) -> Mending | StoredShard:
        """
        Read a whole shard and reserve what it takes to mend it; if nothing is wrong, return it.

        The damaged record does not count against the contract meanwhile.

        Raises:
            ShardNotFoundError (also in the trash; `ShardWentError` once it has been read),
            BusyError, NoSpaceError, ContractFullError, TooManyError, VolumeUnavailableError.

        """

    def stat(self, renter: NodeId, shard: ShardId) -> StoredShard:
        """Return what is known, in whatever state; raises `ShardNotFoundError`."""

    def page(self, renter: NodeId, after: ShardId, limit: int) -> list[StoredShard]:
        """Return up to *limit* shards with ids above *after*, ascending, in all states."""

    def delete(self, renter: NodeId, shard: ShardId, *, erase: bool) -> Future[Deletion]:
        """
        Give a shard up; the future is settled once that is durable.

        A lease of it goes, too; if there is only that, the outcome is `ERASED`.  A lease that
        could not be removed keeps the shard itself from being called so.
        """

    def undelete(self, renter: NodeId, shard: ShardId) -> Future[StoredShard]:
        """
        Take a shard out of the trash, durably; one that is not in it is returned as it is.

        A damaged shard comes out of it into quarantine.  Raises `ShardNotFoundError`.
        """

    def usage(self, renter: NodeId) -> Usage:
        """Return what a renter uses now; in memory, never blocks."""

    def begun_bytes(self, renter: NodeId, shard: ShardId) -> int:
        """
        Return what `begin` reads again to go on with an unfinished store; never blocks.

        Of a shard of at most 1 MiB there is none: it always begins at its first byte.
        """

    def free_bytes(self) -> int:
        """Return the space that can still be rented, over all volumes; never blocks."""


class ContractBook(Protocol):
    """Contracts and spent invites, durable.  Blocking: go through `Disk`."""

    def redeem(self, serial: InviteSerial, renter: NodeId) -> Contract:
        """
        Spend an invite and make or renew the renter's contract, in one durable transaction.

        The same renter redeeming the same invite again gets the same contract.

        Raises:
            InviteUnknownError, InviteExpiredError, InviteSpentError.
            BusyError: shards of a contract that is gone are still being removed.

        """

    def find(self, renter: NodeId) -> tuple[Contract, ContractStage]:
        """Return the renter's contract and its stage now; raises `NoContractError`."""


class Verb(Enum):
    """What a request was about: the closed label set of the request metrics."""

    __hash__ = object.__hash__
    """There is one of each; Enum's own hash runs in Python, several times in each request."""

    REDEEM = "redeem"
    CONTRACT = "contract"
    STORE = "store"
    RETRIEVE = "retrieve"
    AUDIT = "audit"
    STAT = "stat"
    LIST = "list"
    DELETE = "delete"
    UNDELETE = "undelete"
    EXAMINE = "examine"
    REPAIR = "repair"
    PING = "ping"


class Result(Enum):
    """How a request ended: `refused` is our no, `error` our fault, `left` the renter's."""

    __hash__ = object.__hash__
    """There is one of each; Enum's own hash runs in Python, several times in each request."""

    OK = "ok"
    REFUSED = "refused"
    ERROR = "error"
    LEFT = "left"


class CloseReason(Enum):
    """Why a connection ended: the closed label set of the connection metrics."""

    LEFT = "left"
    """The renter closed it."""
    TLS = "tls"
    CERTIFICATE = "certificate"
    VERSION = "version"
    HANDSHAKE = "handshake"
    """No HELLO in time."""
    IDLE = "idle"
    STRANGER = "stranger"
    """It stayed long and has no contract."""
    SLOW = "slow"
    PROTOCOL = "protocol"
    SHED = "shed"
    """Room was needed for another, and this one was a stranger's or idle."""
    CROWD = "crowd"
    """Too many of one renter."""
    DRAINED = "drained"
    ERROR = "error"


class Meter(Protocol):
    """Where the serving side counts.  Never blocks, never raises."""

    def connection_opened(self) -> None:
        """A connection was accepted."""

    def connection_closed(self, reason: str) -> None:
        """It ended; *reason* is the value of a `CloseReason`."""

    def handshake_failed(self, reason: str) -> None:
        """TLS or HELLO failed; *reason* is the value of a `CloseReason`."""

    def request_started(self, verb: Verb) -> None:
        """A request is being served."""

    def request_finished(self, verb: Verb, result: Result, seconds: float) -> None:
        """It was answered or broken off."""

    def renter_served(self) -> None:
        """It was answered in full, to a renter who has a contract."""

    def refused(self, refusal_name: str) -> None:
        """A refusal was sent."""

    def first_byte(self, seconds: float) -> None:
        """Time from a retrieve's request to its first payload byte."""

    def received(self, verb: Verb, size_bytes: int) -> None:
        """Payload bytes came in."""

    def sent(self, verb: Verb, size_bytes: int) -> None:
        """Payload bytes went out."""

    def shard_stored(self, size_bytes: int) -> None:
        """A new shard became durable."""

    def audited(self, result: str, seconds: float) -> None:
        """
        One shard of a challenge was answered: ok, missing, corrupt or error.

        Or put off: budget (the renter's) or later (we could not look now).
        """
